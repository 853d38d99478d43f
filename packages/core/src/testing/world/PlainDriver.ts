/**
 * A program that takes listeners and knows no protocol: it starts, accepts, answers, and ends when it is asked to.
 */
import { type Draft, EXITED, endProcess, FAILED, setProcess } from "./Draft.ts"
import { answerWrite, hearStop } from "./SealedDriver.ts"
import type { Process } from "./State.ts"

type Offer = (kind: "fair" | "hook", party: string, event: string, run: (draft: Draft) => void) => void

export const moves = (process: Process, signalled: boolean, offer: Offer): void => {
  const { pid } = process
  const party = `v${process.version} ${pid}`
  if (process.hooks[0] === "start" && !process.stopping) {
    offer("fair", party, "accepts", (draft) => setProcess(draft, pid, { hooks: [], accepting: true }))
    offer("hook", party, "fails at its start", (draft) => endProcess(draft, pid, FAILED))
  }
  const [request] = process.requests
  if (request !== undefined) {
    offer("fair", party, `answers write ${request.write}`, (draft) => answerWrite(draft, pid, request.write, true))
  }
  if (signalled) {
    offer("fair", party, "hears SIGTERM", (draft) => {
      hearStop(draft, pid)
      setProcess(draft, pid, { accepting: false })
    })
  }
  if (process.stopping && process.requests.length === 0) {
    offer("fair", party, "ends", (draft) => endProcess(draft, pid, EXITED))
  }
}

/**
 * A program that takes listeners and knows no protocol: it starts, accepts, answers, and ends when it is asked to.
 */
import { type Draft, endProcess, setProcess, setWrite } from "./Draft.ts"
import type { Process } from "./State.ts"

type Offer = (kind: "fair" | "hook", party: string, event: string, run: (draft: Draft) => void) => void

export const moves = (process: Process, offer: Offer): void => {
  const { pid } = process
  const party = `v${process.version} ${pid}`
  if (process.hooks[0] === "start" && !process.stopping) {
    offer("fair", party, "accepts", (draft) => setProcess(draft, pid, { hooks: [], accepting: true }))
    offer("hook", party, "fails at its start", (draft) => endProcess(draft, pid))
  }
  const [write] = process.requests
  if (write !== undefined) {
    offer("fair", party, `answers write ${write}`, (draft) => {
      setProcess(draft, pid, { requests: process.requests.slice(1) })
      setWrite(draft, write, "acknowledged")
    })
  }
  if (process.signalled) {
    offer("fair", party, "hears SIGTERM", (draft) =>
      setProcess(draft, pid, { signalled: false, stopping: true, accepting: false })
    )
  }
  if (process.stopping && process.requests.length === 0) {
    offer("fair", party, "ends", (draft) => endProcess(draft, pid))
  }
}

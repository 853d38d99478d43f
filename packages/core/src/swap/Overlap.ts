/**
 * One overlap swap: the new generation starts beside the old one on the same listeners; when it is ready the old one is
 * drained. Nobody stops accepting before somebody else does, so there is no gap.
 *
 *   phase         event                    next
 *   (none)        requested                waiting, or running when there is room
 *   waiting       a generation is gone     running when there is room
 *   waiting       abort, stop              ended: rolled back, nothing was started
 *   running       new one ready            ended: committed; the old one drains
 *   running       new one failed, timed    rolling-back: the new one is asked to stop, and killed after its grace
 *                 out, abort, stop
 *   running       old one exits            stays: connections wait in the queue for the new one
 *   rolling-back  new one's group empty    ended: rolled back; without an old one the old command is started again
 *
 * A swap waits for whoever is still starting (a first start or a restart), and, with the limit of generations reached,
 * for the oldest one that drains. The verdict of a swap rolled back comes only when the new generation is gone for
 * certain, with what it still held (`cut`).
 */
import * as Draft from "../internal/SupervisionDraft.ts"
import type { Evidence } from "./Readiness.ts"
import type { Command, Failure, Generation, Swap, SwapRecord } from "./Supervision.ts"

/** Begins a swap, or leaves it waiting. The caller has made sure that no other runs. */
export const request = (
  draft: Draft.Draft,
  wish: { readonly kind: Swap["kind"]; readonly request: number; readonly command: Command }
): void => {
  const id = draft.state.nextSwap
  const swap: Swap = {
    ...wish,
    id,
    from: draft.state.serving,
    to: undefined,
    requestedAt: draft.at,
    phase: "waiting",
    waitingFor: undefined
  }
  Draft.set(draft, { swap, nextSwap: id + 1 })
  Draft.tell(draft, { _tag: "SwapRequested", swap: id, kind: wish.kind, command: wish.command })
  proceed(draft)
}

const blocker = (draft: Draft.Draft): Swap["waitingFor"] => {
  const { generations, options } = draft.state
  const starting = generations.find((one) => one.phase === "launching" || one.phase === "starting")
  if (starting !== undefined) return { generation: starting.id, why: "starting" }
  if (generations.length < options.generationLimit) return undefined
  const ending = generations.find((one) => one.phase !== "serving")
  return ending === undefined ? undefined : { generation: ending.id, why: "draining" }
}

/** Launches the new generation of a waiting swap if there is room now. */
export const proceed = (draft: Draft.Draft): void => {
  const { swap } = draft.state
  if (swap === undefined || swap.phase !== "waiting") return
  const waitingFor = blocker(draft)
  if (waitingFor !== undefined) {
    if (swap.waitingFor?.generation === waitingFor.generation) return
    Draft.set(draft, { swap: { ...swap, waitingFor } })
    Draft.tell(draft, { _tag: "SwapWaiting", swap: swap.id, ...waitingFor })
    return
  }
  if (draft.state.restarts.nextAt !== undefined) {
    Draft.clearTimer(draft, "restart")
    Draft.set(draft, { restarts: { ...draft.state.restarts, nextAt: undefined } })
  }
  const mustNotify = swap.kind === "rollback" ? draft.state.previous?.notified === true : draft.state.mustNotify
  const to = Draft.launch(draft, swap.command, mustNotify)
  Draft.set(draft, {
    swap: { ...swap, from: draft.state.serving, to, phase: "running", waitingFor: undefined }
  })
}

const end = (
  draft: Draft.Draft,
  swap: Swap,
  verdict: Pick<SwapRecord, "outcome" | "evidence" | "failure" | "cut" | "killed">
): void => {
  const record: SwapRecord = {
    id: swap.id,
    kind: swap.kind,
    from: swap.from,
    to: swap.to,
    command: swap.command,
    requestedAt: swap.requestedAt,
    durationMs: draft.at - swap.requestedAt,
    serving: draft.state.serving,
    ...verdict
  }
  const history = [...draft.state.history, record].slice(-draft.state.options.historyLimit)
  Draft.set(draft, { swap: undefined, history })
  Draft.tell(draft, { _tag: "SwapEnded", record })
  Draft.answer(draft, swap.request, { _tag: "SwapEnded", record })
}

/** The new generation is ready: it serves, the old one drains. */
export const commit = (draft: Draft.Draft, swap: Swap, generation: Generation, evidence: Evidence): void => {
  const old = Draft.find(draft, draft.state.serving)
  const previous = { command: draft.state.command, notified: draft.state.mustNotify }
  Draft.serve(draft, generation, evidence)
  Draft.set(draft, {
    command: swap.command,
    previous,
    restarts: { ...draft.state.restarts, failures: 0 }
  })
  end(draft, swap, { outcome: "committed", evidence, failure: undefined, cut: 0, killed: false })
  if (old !== undefined) Draft.drain(draft, old)
}

/** The new generation failed; the verdict waits for its end. */
export const fail = (draft: Draft.Draft, swap: Swap, failure: Failure): void => {
  const generation = Draft.find(draft, swap.to)
  if (generation === undefined) {
    return end(draft, swap, { outcome: "rolled-back", evidence: undefined, failure, cut: 0, killed: false })
  }
  Draft.set(draft, { swap: { ...swap, phase: "rolling-back" } })
  Draft.reject(draft, generation, failure)
  if (draft.state.serving === undefined && draft.state.phase === "recovering") Draft.scheduleRestart(draft)
}

/** The rejected generation of a swap is gone. */
export const rolledBack = (draft: Draft.Draft, swap: Swap, generation: Generation): void => {
  // What a generation still held when it died by itself or was killed was cut; one that drained to its end held nothing.
  const died = generation.killed || generation.failure?._tag === "Exited"
  end(draft, swap, {
    outcome: "rolled-back",
    evidence: undefined,
    failure: generation.failure,
    cut: died ? generation.connections : 0,
    killed: generation.killed
  })
}

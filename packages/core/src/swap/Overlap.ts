/**
 * One overlap swap: the new generation starts beside the old one on the same listeners; when it is ready the old one is
 * drained. Nobody stops accepting before somebody else does, so there is no gap.
 *
 *   phase         event                    next
 *   running       new one ready            ended: committed; the old one drains
 *   running       new one failed, timed    rolling-back: the new one is asked to stop, and killed after its grace
 *                 out, abort, stop
 *   running       launch failed            ended: rolled back
 *   running       old one exits            stays: connections wait in the queue for the new one
 *   rolling-back  new one's group empty    ended: rolled back; without an old one the old command is started again
 *
 * The verdict of a swap rolled back comes only when the new generation is gone for certain, with what it still held
 * (`cut`).
 */
import * as Draft from "../internal/SupervisionDraft.ts"
import * as SwapDraft from "../internal/SwapDraft.ts"
import type { Evidence } from "./Readiness.ts"
import type { Failure, Generation, Swap } from "./Supervision.ts"

/** Starts the new generation. */
export const begin = (draft: Draft.Draft, swap: Swap): void => {
  const to = Draft.launch(draft, swap.command, SwapDraft.mustNotify(draft, swap))
  Draft.set(draft, { swap: { ...swap, to } })
}

/** The new generation is ready: it serves, the old one drains. */
export const commit = (draft: Draft.Draft, swap: Swap, generation: Generation, evidence: Evidence): void => {
  const old = Draft.find(draft, draft.state.serving)
  SwapDraft.commit(draft, swap, generation, evidence)
  if (old !== undefined) Draft.drain(draft, old)
}

/** The swap is given up, or its new generation failed; the verdict waits for the end of that. */
export const fail = (draft: Draft.Draft, swap: Swap, failure: Failure): void => {
  const generation = Draft.find(draft, swap.to)
  if (generation === undefined) return SwapDraft.rollBack(draft, swap, failure)
  Draft.set(draft, { swap: { ...swap, phase: "rolling-back" } })
  Draft.reject(draft, generation, failure)
  // A program that must not run twice is started again when the rejected one is gone.
  if (swap.wish === "exclusive") return
  if (draft.state.serving === undefined && draft.state.phase === "recovering") Draft.scheduleRestart(draft)
}

/** The rejected generation of a swap is gone. */
export const rolledBack = (draft: Draft.Draft, swap: Swap, generation: Generation): void =>
  SwapDraft.rollBack(draft, swap, generation.failure, SwapDraft.losses(generation))

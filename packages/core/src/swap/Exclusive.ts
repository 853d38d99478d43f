/**
 * One exclusive swap, for a program that must not run twice: the old generation is stopped, then the new one started. In
 * between connections wait in the listeners' queues. Generations that still drain from earlier swaps are waited for
 * first, while the old one serves.
 *
 *   phase         event                     next
 *   clearing      every group empty         running: the new one is started; restoring if it was given up meanwhile
 *   clearing      abort                     stays: the old one was told to stop, its command is started again
 *   running       new one ready             ended: committed
 *   running       new one failed, timed     rolling-back: the new one is asked to stop, and killed after its grace
 *                 out, abort
 *   running       launch failed             restoring
 *   rolling-back  new one's group empty     restoring: the old command is started again
 *   restoring     it is ready               ended: rolled back, the old command serves
 *   restoring     it failed                 ended: rolled back, nobody serves; restarts follow with growing delays
 *   any           stop                      ended: rolled back; rolling-back first where a new one runs
 */
import * as Draft from "../internal/SupervisionDraft.ts"
import * as SwapDraft from "../internal/SwapDraft.ts"
import type { Evidence } from "./Readiness.ts"
import type { Failure, Generation, Swap } from "./Supervision.ts"

/** Asks the old generation to stop. */
export const begin = (draft: Draft.Draft, swap: Swap): void => {
  const old = Draft.find(draft, draft.state.serving)
  Draft.clearTimer(draft, "stable")
  Draft.set(draft, { swap: { ...swap, phase: "clearing" }, serving: undefined, phase: "recovering" })
  if (old !== undefined) Draft.drain(draft, old)
}

const rollBack = (draft: Draft.Draft, swap: Swap): void =>
  SwapDraft.rollBack(draft, swap, swap.failed?.failure, swap.failed)

const restore = (draft: Draft.Draft, swap: Swap): void => {
  if (draft.state.phase === "stopping") return rollBack(draft, swap)
  const restored = Draft.launch(draft, draft.state.command, draft.state.mustNotify)
  Draft.set(draft, { swap: { ...swap, phase: "restoring", restored } })
}

/** A generation is gone. */
export const gone = (draft: Draft.Draft, swap: Swap, generation: Generation): void => {
  if (swap.phase === "clearing") {
    if (draft.state.generations.length > 0) return
    if (swap.failed !== undefined) return restore(draft, swap)
    const to = Draft.launch(draft, swap.command, SwapDraft.mustNotify(draft, swap))
    return Draft.set(draft, { swap: { ...swap, phase: "running", to } })
  }
  if (generation.id === swap.to && swap.phase === "rolling-back") {
    restore(draft, { ...swap, failed: { failure: generation.failure, ...SwapDraft.losses(generation) } })
  } else if (generation.id === swap.restored) rollBack(draft, swap)
}

/** One of its generations is ready: the new one, or the old command again. */
export const ready = (draft: Draft.Draft, swap: Swap, generation: Generation, evidence: Evidence): void => {
  if (generation.id === swap.restored) {
    Draft.serve(draft, generation, evidence)
    return rollBack(draft, swap)
  }
  SwapDraft.commit(draft, swap, generation, evidence)
}

/** The swap is given up, or one of its generations failed. */
export const fail = (draft: Draft.Draft, swap: Swap, failure: Failure): void => {
  if (swap.phase === "restoring") {
    const restored = Draft.find(draft, swap.restored)
    if (failure._tag === "Stopping") return rollBack(draft, swap)
    if (restored !== undefined && failure._tag !== "Aborted") Draft.reject(draft, restored, failure)
    return
  }
  if (swap.phase === "clearing") {
    const given: Swap = { ...swap, failed: { failure, ...SwapDraft.NOTHING_LOST } }
    return failure._tag === "Stopping" ? rollBack(draft, given) : Draft.set(draft, { swap: given })
  }
  const generation = Draft.find(draft, swap.to)
  Draft.set(draft, { swap: { ...swap, phase: "rolling-back" } })
  if (generation !== undefined) Draft.reject(draft, generation, failure)
}

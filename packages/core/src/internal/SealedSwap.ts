/**
 * A sealed swap within the supervision: what happens to its generations is told to the machine of swap/Sealed.ts, and
 * what that decides is done to them.
 */
import * as Sealed from "../swap/Sealed.ts"
import type { Failure, HandoffEvent, Swap } from "../swap/Supervision.ts"
import * as Draft from "./SupervisionDraft.ts"
import * as SwapDraft from "./SwapDraft.ts"

export const begin = (draft: Draft.Draft, swap: Swap): void => {
  const handoff = Sealed.initial(draft.state.options.handoff, swap.handoffId, draft.at)
  Draft.set(draft, { swap: { ...swap, handoff } })
  feed(draft, { _tag: "Started" })
}

/** Tells the machine of the running sealed swap, if there is one. */
export const feed = (draft: Draft.Draft, event: HandoffEvent): void => {
  const { swap } = draft.state
  if (swap?.handoff === undefined) return
  const { state, commands } = Sealed.step(swap.handoff, { ...event, at: draft.at })
  const phase = state.phase === "reverting" || state.phase === "resuming" ? "rolling-back" : swap.phase
  const next: Swap = { ...swap, handoff: state, phase }
  const failure = state.failure === swap.handoff.failure ? undefined : failureOf(draft, next)
  const failed = failure === undefined ? swap.failed : { failure, ...SwapDraft.NOTHING_LOST }
  Draft.set(draft, { swap: { ...next, failed } })
  if (state.phase !== swap.handoff.phase) Draft.tell(draft, { _tag: "HandoffPhase", swap: swap.id, phase: state.phase })
  for (const command of commands) carryOut(draft, swap, command)
}

const carryOut = (draft: Draft.Draft, begun: Swap, command: Sealed.Command): void => {
  switch (command._tag) {
    case "Launch": {
      const to = Draft.launch(draft, begun.command, false, true)
      const { swap } = draft.state
      return swap === undefined ? undefined : Draft.set(draft, { swap: { ...swap, to } })
    }
    case "Kill":
      return kill(draft)
    case "KillIncumbent": {
      const incumbent = Draft.find(draft, begun.from)
      return incumbent === undefined ? undefined : Draft.kill(draft, incumbent)
    }
    case "Commit":
      return commit(draft)
    case "RollBack":
      return rollBack(draft)
    case "SetTimer":
      return Draft.setTimer(draft, `handoff:${command.timer}`, command.delayMs)
    case "ClearTimer":
      return Draft.clearTimer(draft, `handoff:${command.timer}`)
    default:
      return Draft.emit(draft, { _tag: "Handoff", swap: begun.id, incumbent: begun.from, command })
  }
}

/** The machine's failure in the terms of the supervision. */
const failureOf = (draft: Draft.Draft, swap: Swap): Failure | undefined => {
  const { failure: reason, failedIn = "connecting" } = swap.handoff ?? {}
  if (reason === undefined) return undefined
  const launchedAt = Draft.find(draft, swap.to)?.launchedAt ?? swap.requestedAt
  const afterMs = draft.at - swap.requestedAt
  switch (reason._tag) {
    case "LaunchFailed":
    case "Stopping":
      return reason
    case "Aborted":
      return { _tag: "Aborted", afterMs }
    case "Exited":
      return { _tag: "Exited", status: reason.status, afterMs: draft.at - launchedAt }
    default:
      return { _tag: "HandoffFailed", phase: failedIn, reason, afterMs }
  }
}

const kill = (draft: Draft.Draft): void => {
  const { swap } = draft.state
  const generation = Draft.find(draft, swap?.to)
  if (generation === undefined) return
  if (generation.phase !== "rejected") {
    Draft.dismiss(draft, generation, swap?.failed?.failure ?? { _tag: "Stopping" })
  }
  Draft.kill(draft, generation)
}

const rollBack = (draft: Draft.Draft): void => {
  const { swap } = draft.state
  if (swap !== undefined) SwapDraft.rollBack(draft, swap, swap.failed?.failure)
}

const commit = (draft: Draft.Draft): void => {
  const { swap } = draft.state
  const generation = Draft.find(draft, swap?.to)
  if (swap === undefined || generation === undefined) return
  const old = Draft.find(draft, draft.state.serving)
  SwapDraft.commit(draft, swap, generation, "handoff")
  if (old !== undefined) Draft.retire(draft, old)
}

/**
 * What all swaps have in common, whatever their mode: they are asked for, wait for their turn, are given a mode, and end
 * with a record. One swap at a time.
 *
 * A swap waits for whoever is still starting (a first start or a restart), and, with the limit of generations reached,
 * for the oldest one that drains; so it does for one that an earlier supervisor left and that must be gone. `auto` is
 * decided then, by what the serving generation declared: it served a handoff socket, or not. Once it was seen to serve
 * one, that stays: a sealed daemon that has gone silent is an error of the swap, never a reason to start a second writer
 * beside it.
 */
import * as Exclusive from "../swap/Exclusive.ts"
import type * as Mode from "../swap/Mode.ts"
import * as Overlap from "../swap/Overlap.ts"
import type { Evidence } from "../swap/Readiness.ts"
import type { Command, Failure, Generation, Swap, SwapRecord } from "../swap/Supervision.ts"
import * as SealedSwap from "./SealedSwap.ts"
import * as Draft from "./SupervisionDraft.ts"

export interface Wish {
  readonly kind: Swap["kind"]
  readonly request: number
  readonly command: Command
  readonly mode: Mode.Wish
  readonly handoffId: string
}

/**
 * Begins a swap, or leaves it waiting. The caller has made sure that no other runs. One that could not be written down
 * (`unsaved`) ends at once: its generations would be found by nobody, should the supervisor die.
 */
export const request = (draft: Draft.Draft, { mode, ...wish }: Wish, unsaved: string | undefined): void => {
  const id = draft.state.nextSwap
  const swap: Swap = {
    ...wish,
    id,
    wish: mode,
    mode: undefined,
    from: draft.state.serving,
    to: undefined,
    requestedAt: draft.at,
    phase: "waiting",
    waitingFor: undefined,
    handoff: undefined,
    failed: undefined
  }
  Draft.set(draft, { swap, nextSwap: id + 1 })
  Draft.tell(draft, { _tag: "SwapRequested", swap: id, kind: wish.kind, command: wish.command })
  if (unsaved === undefined) return proceed(draft)
  rollBack(draft, swap, { _tag: "LaunchFailed", detail: `its start could not be written down: ${unsaved}` })
}

/**
 * How many generations may live before this swap begins. A sealed daemon that has given its data away and has not ended
 * yet would take the lock again in the gap of the next swap: nobody but the serving one may be left. So it is before an
 * exclusive swap: the old one would be stopped, and nobody would serve until the last of the others has drained.
 */
const limit = (draft: Draft.Draft, swap: Swap): number => {
  const serving = Draft.find(draft, draft.state.serving)
  const isSealed = swap.wish === "sealed" || (swap.wish === "auto" && serving?.handoffSocket === "served")
  return isSealed || swap.wish === "exclusive" ? 2 : draft.state.options.generationLimit
}

const blocker = (draft: Draft.Draft, swap: Swap): Swap["waitingFor"] => {
  const { generations, waitFor } = draft.state
  const starting = generations.find((one) => one.phase === "launching" || one.phase === "starting")
  if (starting !== undefined) return { generation: starting.id, why: "starting" }
  if (waitFor[0] !== undefined) return { generation: waitFor[0], why: "draining" }
  if (generations.length < limit(draft, swap)) return undefined
  const ending = generations.find((one) => one.phase !== "serving")
  return ending === undefined ? undefined : { generation: ending.id, why: "draining" }
}

/** Goes on with a waiting swap if it is its turn now. */
export const proceed = (draft: Draft.Draft): void => {
  const { swap } = draft.state
  if (swap === undefined || swap.phase !== "waiting") return
  const waitingFor = blocker(draft, swap)
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
  const turn: Swap = { ...swap, from: draft.state.serving, waitingFor: undefined }
  const serving = Draft.find(draft, draft.state.serving)
  // Nobody serves, so nobody has to make room, unless the program must not run beside the rest of the last one.
  if (serving === undefined) {
    return begin(draft, turn, swap.wish === "exclusive" && draft.state.generations.length > 0 ? "exclusive" : "overlap")
  }
  if (swap.wish !== "auto") return begin(draft, turn, swap.wish)
  if (serving.handoffSocket === "served") return begin(draft, turn, "sealed")
  Draft.set(draft, { swap: { ...turn, phase: "deciding" } })
  Draft.emit(draft, { _tag: "LookForHandoffSocket", generation: serving.id })
}

/** It was found out whether the serving generation serves a handoff socket. */
export const decide = (draft: Draft.Draft, generation: number): void => {
  const { swap, serving } = draft.state
  if (swap?.phase !== "deciding" || generation !== serving) return
  begin(draft, swap, Draft.find(draft, serving)?.handoffSocket === "served" ? "sealed" : "overlap")
}

/** The generation whose answer was waited for is gone. */
export const undecided = (draft: Draft.Draft): void => {
  const { swap } = draft.state
  if (swap?.phase !== "deciding") return
  Draft.set(draft, { swap: { ...swap, phase: "waiting" } })
  proceed(draft)
}

const begin = (draft: Draft.Draft, swap: Swap, mode: Mode.Mode): void => {
  const decided: Swap = { ...swap, mode, phase: "running" }
  switch (mode) {
    case "overlap":
      return Overlap.begin(draft, decided)
    case "sealed":
      return SealedSwap.begin(draft, decided)
    case "exclusive":
      return Exclusive.begin(draft, decided)
  }
}

/** Whether the new generation must send READY=1: as the one did that ran this command before. */
export const mustNotify = (draft: Draft.Draft, swap: Swap): boolean =>
  swap.kind === "rollback" ? draft.state.previous?.notified === true : draft.state.mustNotify

type Verdict = Pick<SwapRecord, "outcome" | "evidence" | "failure" | "cut" | "killed">

const end = (draft: Draft.Draft, swap: Swap, verdict: Verdict): void => {
  const record: SwapRecord = {
    id: swap.id,
    kind: swap.kind,
    mode: swap.mode,
    ...(swap.mode === "sealed" ? { handoffId: swap.handoffId } : {}),
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

/**
 * The new generation serves. It is the one a restart starts from now on, and the old one the one a rollback goes back to.
 */
export const commit = (draft: Draft.Draft, swap: Swap, generation: Generation, evidence: Evidence): void => {
  const previous = { command: draft.state.command, notified: draft.state.mustNotify }
  Draft.set(draft, { command: swap.command, previous, restarts: { ...draft.state.restarts, failures: 0 } })
  // A stop that came after the word to serve ends it with everything else: the data is the new version's all the same.
  if (draft.state.phase !== "stopping") Draft.serve(draft, generation, evidence)
  end(draft, swap, { outcome: "committed", evidence, failure: undefined, ...NOTHING_LOST })
}

export type Losses = Pick<SwapRecord, "cut" | "killed">

export const NOTHING_LOST: Losses = { cut: 0, killed: false }

/** It did not come to be; whoever is said to serve now does. */
export const rollBack = (
  draft: Draft.Draft,
  swap: Swap,
  failure: Failure | undefined,
  { cut, killed }: Losses = NOTHING_LOST
): void => end(draft, swap, { outcome: "rolled-back", evidence: undefined, failure, cut, killed })

/** What a generation that failed still held when it died by itself or was killed was cut; one that drained held nothing. */
export const losses = (generation: {
  readonly killed: boolean
  readonly connections: number
  readonly failure: { readonly _tag: string } | undefined
}): Losses => {
  const died = generation.killed || generation.failure?._tag === "Exited"
  return { cut: died ? generation.connections : 0, killed: generation.killed }
}

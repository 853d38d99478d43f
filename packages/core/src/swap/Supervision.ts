/**
 * The supervisor's machine: which generation serves, when one is started, replaced, restarted, stopped and ended.
 *
 * Theory of operation. A supervisor owns listeners and runs generations of one program. Exactly one generation serves;
 * others are starting, draining or being ended. `step` takes one event and gives the next state and the commands that
 * make it true; it reads no clock (every event carries `at`, in milliseconds) and does nothing itself. Whoever drives it
 * gathers facts as events and carries the commands out in order. Replaying recorded events gives the same commands.
 *
 *   phase of a generation    leaves it by
 *   launching                Launched -> starting; LaunchFailed -> gone
 *   starting                 ready -> serving; exit, timeout, abort -> rejected
 *   serving                  replaced -> draining; exit -> gone, and a restart is scheduled
 *   draining                 group empty -> gone; grace over -> SIGKILL to its group (`killed`), then gone
 *   rejected                 as draining, but asked to stop because it failed
 *
 *   phase of the supervision: idle -> starting -> serving <-> recovering; any -> stopping -> stopped; starting -> failed
 *
 * A process that leads a group is gone only when its group is empty: a wrapper killed alone would leave its child holding
 * the listener. So the end has two facts: Exited (the leader's status) and Gone (nobody of the group is left).
 *
 * A swap runs in one of three modes (Mode.ts), each with its own file and table: Overlap.ts, Exclusive.ts, and for a
 * daemon that owns data Sealed.ts, whose successor says Ready through its channel and is not looked at.
 *
 * A supervisor that follows one that died starts with what it found (`recovered`, made by Recovery.ts): generations that
 * live on are taken over where they are, and only what is missing is started.
 *
 * Timers are named after what they wait for and the generation: ready:N, settle:N, grace:N, handoff:*, and restart,
 * stable. A timer that fires for a generation that has moved on changes nothing.
 */
import type { ExitStatus } from "../backend/Launcher.ts"
import type { ProcessIdentity } from "../backend/Processes.ts"
import * as SealedSwap from "../internal/SealedSwap.ts"
import * as Draft from "../internal/SupervisionDraft.ts"
import * as SwapDraft from "../internal/SwapDraft.ts"
import type { SignalName } from "../Signal.ts"
import * as Exclusive from "./Exclusive.ts"
import type { Mode, Wish } from "./Mode.ts"
import * as Overlap from "./Overlap.ts"
import * as Readiness from "./Readiness.ts"
import * as Sealed from "./Sealed.ts"

/** What a generation runs. PATH, program and working directory are resolved afresh at each launch. */
export interface Command {
  readonly argv: ReadonlyArray<string>
  readonly environment?: Readonly<Record<string, string>>
  readonly workingDirectory?: string
  /** How this program says that it is ready. Absent: as the supervisor's options say. */
  readonly readiness?: Readiness.Policy
}

export interface Options {
  readonly readiness: Readiness.Options
  /** How long a draining generation may take before its group is killed, in milliseconds. */
  readonly graceMs: number
  /** The same for a rejected generation that was never seen to accept: it has nothing to finish. */
  readonly rejectGraceMs: number
  readonly stopSignal: SignalName
  /** How many generations may exist at once; a swap that would exceed it waits. At least 2. */
  readonly generationLimit: number
  readonly backoff: {
    readonly initialMs: number
    readonly factor: number
    readonly maxMs: number
    /** A generation that served this long starts the count again. */
    readonly resetAfterMs: number
  }
  /** How many listeners each generation gets. */
  readonly listeners: number
  /** How many ended swaps are remembered. */
  readonly historyLimit: number
  /** How swaps are made that do not say so themselves. */
  readonly mode: Wish
  /** Times of a sealed swap. */
  readonly handoff: Sealed.Options
  /** A text no other supervisor has: tokens of generations begin with it. */
  readonly instance: string
}

/** Everything but how many listeners there are and who this is. */
export const defaults: Omit<Options, "listeners" | "instance"> = {
  readiness: { policy: "auto", timeoutMs: 30_000, settleMs: 250 },
  graceMs: 25_000,
  rejectGraceMs: 2_000,
  stopSignal: "SIGTERM",
  generationLimit: 3,
  backoff: { initialMs: 100, factor: 2, maxMs: 30_000, resetAfterMs: 60_000 },
  historyLimit: 20,
  mode: "auto",
  handoff: Sealed.defaults
}

/** Why a generation did not come to serve. */
export type Failure =
  | { readonly _tag: "LaunchFailed"; readonly detail: string }
  | { readonly _tag: "Exited"; readonly status: ExitStatus; readonly afterMs: number }
  | { readonly _tag: "NotReady"; readonly afterMs: number; readonly expected: string; readonly accepting: boolean }
  | { readonly _tag: "Aborted"; readonly afterMs: number }
  | { readonly _tag: "Stopping" }
  /** A sealed swap's own reasons, with the phase it had come to. */
  | {
      readonly _tag: "HandoffFailed"
      readonly phase: Sealed.Phase
      readonly reason: Sealed.Failure
      readonly afterMs: number
    }
  /** The supervisor that made the swap died in the middle of it. */
  | { readonly _tag: "SupervisorDied" }

/** Why a request was not even begun. */
export type Refusal =
  | { readonly _tag: "AlreadySwapping"; readonly swap: number; readonly sinceMs: number }
  | { readonly _tag: "NotRunning" }
  /** The first generation does not serve yet. */
  | { readonly _tag: "Starting" }
  | { readonly _tag: "AlreadyStarted" }
  | { readonly _tag: "Stopping" }
  | { readonly _tag: "NoPrevious" }
  | { readonly _tag: "NoSwap" }
  /** The new version was told to serve: nobody could take back what it has acknowledged. */
  | { readonly _tag: "TooLate"; readonly swap: number }
  /** The program is not there: found before an exclusive swap stops the one that serves. */
  | { readonly _tag: "NoProgram"; readonly detail: string }

export interface Generation {
  readonly id: number
  readonly command: Command
  readonly phase: "launching" | "starting" | "serving" | "draining" | "rejected"
  readonly pid: number | undefined
  /** In its environment (HANDOFF_TOKEN), so that it is found though its start was never written down. */
  readonly token: string
  readonly identity: ProcessIdentity | undefined
  /** Started as the successor of a sealed swap. */
  readonly successor: boolean
  /** Whether it was seen to serve a handoff socket. Once seen, that stays. */
  readonly handoffSocket: "unknown" | "none" | "served"
  readonly launchedAt: number
  readonly readyAt: number | undefined
  readonly stoppingAt: number | undefined
  /** It has got its stop signal. Not again, should another supervisor take it over: a second one ends many programs at once. */
  readonly asked: boolean
  readonly readiness: Readiness.State
  /** Whether it ever sent READY=1. */
  readonly notified: boolean
  /** Whether it was ever seen waiting on a listener or holding a connection. */
  readonly accepted: boolean
  /** Established connections at the last look. */
  readonly connections: number
  readonly exit: ExitStatus | undefined
  readonly failure: Failure | undefined
  readonly killed: boolean
}

/** An ended swap, as it is kept and told. */
export interface SwapRecord {
  readonly id: number
  readonly outcome: "committed" | "rolled-back"
  readonly kind: "swap" | "rollback"
  /** Undefined when it ended before it was decided. */
  readonly mode: Mode | undefined
  /** Of a sealed swap: its name on the wire. */
  readonly handoffId?: string
  readonly from: number | undefined
  readonly to: number | undefined
  readonly command: Command
  readonly requestedAt: number
  readonly durationMs: number
  readonly evidence: Readiness.Evidence | undefined
  readonly failure: Failure | undefined
  /** Connections the rejected generation still held when it was killed or died. */
  readonly cut: number
  /** The rejected generation had to be killed. */
  readonly killed: boolean
  /** The generation that serves after it, if any. */
  readonly serving: number | undefined
}

export interface Swap {
  readonly id: number
  readonly kind: "swap" | "rollback"
  readonly request: number
  readonly command: Command
  readonly from: number | undefined
  readonly to: number | undefined
  readonly requestedAt: number
  readonly phase: "waiting" | "deciding" | "clearing" | "running" | "rolling-back" | "restoring"
  /** For whom it waits. */
  readonly waitingFor: { readonly generation: number; readonly why: "starting" | "draining" } | undefined
  /** The mode asked for, and the one decided. */
  readonly wish: Wish
  readonly mode: Mode | undefined
  readonly handoffId: string
  /** The sealed swap's own machine. */
  readonly handoff: Sealed.State | undefined
  /** Exclusive: the generation that runs the old command again. */
  readonly restored?: number
  readonly failed: { readonly failure: Failure | undefined; readonly cut: number; readonly killed: boolean } | undefined
}

export interface State {
  readonly options: Options
  readonly phase: "idle" | "starting" | "serving" | "recovering" | "stopping" | "stopped" | "failed"
  /** The command a restart runs. */
  readonly command: Command
  /** The command before the last commit, for `rollback`, and whether its generation sent READY=1. */
  readonly previous: { readonly command: Command; readonly notified: boolean } | undefined
  readonly generations: ReadonlyArray<Generation>
  readonly serving: number | undefined
  readonly nextGeneration: number
  readonly nextSwap: number
  readonly swap: Swap | undefined
  readonly history: ReadonlyArray<SwapRecord>
  /** Consecutive failures of the serving program since it last was stable, and restarts in all. */
  readonly restarts: { readonly failures: number; readonly total: number; readonly nextAt: number | undefined }
  /** The serving generation sent READY=1, so its successors must. */
  readonly mustNotify: boolean
  readonly startRequest: number | undefined
  /** The generation whose failure is the failure of the start. */
  readonly startGeneration: number | undefined
  readonly stopRequests: ReadonlyArray<number>
  /** Generations of an earlier supervisor that must be gone before anything is started beside them. */
  readonly waitFor: ReadonlyArray<number>
}

/** What a supervisor found of the one before it: the state to go on from. Made by Recovery.ts. */
export type Recovered = Pick<
  State,
  | "command"
  | "previous"
  | "generations"
  | "serving"
  | "nextGeneration"
  | "nextSwap"
  | "history"
  | "mustNotify"
  | "waitFor"
> & {
  /** The swap that was cut short, as it is told. */
  readonly interrupted: SwapRecord | undefined
}

export type HandoffEvent = Sealed.Event extends infer E ? (E extends unknown ? Omit<E, "at"> : never) : never

/** Those commands of the sealed machine that are not about generations or time. */
export type HandoffCommand = Extract<Sealed.Command, { readonly _tag: "Connect" | "Send" | "Close" | "Probe" }>

export type Event = { readonly at: number } & (
  | { readonly _tag: "StartRequested"; readonly request: number; readonly recovered?: Recovered }
  | {
      readonly _tag: "SwapRequested"
      readonly request: number
      readonly command?: Command
      readonly mode?: Wish
      /** For a sealed swap. */
      readonly handoffId: string
      /** Why nothing can be written down now, if that was found out before. */
      readonly unsaved?: string
    }
  | {
      readonly _tag: "RollbackRequested"
      readonly request: number
      readonly mode?: Wish
      readonly handoffId: string
      readonly unsaved?: string
    }
  | { readonly _tag: "AbortRequested"; readonly request: number }
  | { readonly _tag: "StopRequested"; readonly request: number }
  | {
      readonly _tag: "Launched"
      readonly generation: number
      readonly pid: number
      readonly identity?: ProcessIdentity
    }
  | { readonly _tag: "LaunchFailed"; readonly generation: number; readonly detail: string }
  | { readonly _tag: "Notified"; readonly generation: number }
  | {
      readonly _tag: "Observed"
      readonly generation: number
      /** It waits on every listener. */
      readonly accepting: boolean
      /** It waits on at least one. */
      readonly waiting: boolean
      readonly connections: number
    }
  | { readonly _tag: "HandoffSocketSeen"; readonly generation: number; readonly served: boolean }
  /** The stop signal was sent to its process. */
  | { readonly _tag: "Asked"; readonly generation: number }
  | { readonly _tag: "Exited"; readonly generation: number; readonly status: ExitStatus }
  | { readonly _tag: "Gone"; readonly generation: number }
  /** Something happened on the channels of a sealed swap. */
  | { readonly _tag: "Handoff"; readonly swap: number; readonly event: HandoffEvent }
  | { readonly _tag: "TimerFired"; readonly timer: string }
)

/** The answer to a request. */
export type Answer =
  | { readonly _tag: "Started"; readonly generation: number; readonly durationMs: number }
  | { readonly _tag: "StartFailed"; readonly generation: number; readonly failure: Failure }
  | { readonly _tag: "SwapEnded"; readonly record: SwapRecord }
  | { readonly _tag: "Refused"; readonly refusal: Refusal }
  | { readonly _tag: "Aborting"; readonly swap: number }
  | { readonly _tag: "Stopped" }

/** What is told to whoever watches. */
export type Notice =
  | { readonly _tag: "GenerationStarting"; readonly generation: number; readonly command: Command }
  | { readonly _tag: "GenerationLaunched"; readonly generation: number; readonly pid: number }
  | {
      readonly _tag: "GenerationAdopted"
      readonly generation: number
      readonly phase: Generation["phase"]
      readonly pid: number
      readonly command: Command
    }
  | {
      readonly _tag: "GenerationReady"
      readonly generation: number
      readonly evidence: Readiness.Evidence
      readonly afterMs: number
    }
  | { readonly _tag: "GenerationDraining"; readonly generation: number; readonly graceMs: number }
  | { readonly _tag: "GenerationRejected"; readonly generation: number; readonly failure: Failure }
  /** `connections`: how many it still held when last looked at. */
  | { readonly _tag: "GenerationKilled"; readonly generation: number; readonly connections: number }
  | { readonly _tag: "GenerationExited"; readonly generation: number; readonly status: ExitStatus }
  | { readonly _tag: "GenerationGone"; readonly generation: number }
  | {
      readonly _tag: "SwapRequested"
      readonly swap: number
      readonly kind: "swap" | "rollback"
      readonly command: Command
    }
  | {
      readonly _tag: "SwapWaiting"
      readonly swap: number
      readonly generation: number
      readonly why: "starting" | "draining"
    }
  /** A sealed swap has come to its next phase. */
  | { readonly _tag: "HandoffPhase"; readonly swap: number; readonly phase: Sealed.Phase }
  | { readonly _tag: "SwapEnded"; readonly record: SwapRecord }
  | { readonly _tag: "RestartScheduled"; readonly delayMs: number; readonly failures: number }
  /** The supervisor's document can't be written: what it does from now on, the next one will not know. */
  | { readonly _tag: "StateNotSaved"; readonly detail: string }
  | { readonly _tag: "Stopping" }
  | { readonly _tag: "Stopped" }

export type Action =
  | { readonly _tag: "Launch"; readonly generation: number; readonly command: Command; readonly successor: boolean }
  /** Find out whether the generation serves a handoff socket (HandoffSocketSeen). */
  | { readonly _tag: "LookForHandoffSocket"; readonly generation: number }
  /** Carry out on the channels of a sealed swap. `incumbent`: the generation that must answer. */
  | {
      readonly _tag: "Handoff"
      readonly swap: number
      readonly incumbent: number | undefined
      readonly command: HandoffCommand
    }
  /** Look at the generation every so many milliseconds (Observed) until Unwatch; replaces an earlier Watch. */
  | { readonly _tag: "Watch"; readonly generation: number; readonly everyMs: number }
  | { readonly _tag: "Unwatch"; readonly generation: number }
  | {
      readonly _tag: "Signal"
      readonly generation: number
      readonly signal: SignalName
      readonly to: "process" | "group"
    }
  | { readonly _tag: "SetTimer"; readonly timer: string; readonly delayMs: number }
  | { readonly _tag: "ClearTimer"; readonly timer: string }
  | { readonly _tag: "Answer"; readonly request: number; readonly answer: Answer }
  | { readonly _tag: "Tell"; readonly notice: Notice }
  /** Nothing is left to run: release the listeners and end. */
  | { readonly _tag: "Finish" }

export interface Step {
  readonly state: State
  readonly commands: ReadonlyArray<Action>
}

export const initial = (options: Options, command: Command): State => ({
  options,
  phase: "idle",
  command,
  previous: undefined,
  generations: [],
  serving: undefined,
  nextGeneration: 1,
  nextSwap: 1,
  swap: undefined,
  history: [],
  restarts: { failures: 0, total: 0, nextAt: undefined },
  mustNotify: false,
  startRequest: undefined,
  startGeneration: undefined,
  stopRequests: [],
  waitFor: []
})

/** Takes one event in. Total: an event that the state has no use for changes nothing. */
export const step = (state: State, event: Event): Step => {
  const draft: Draft.Draft = { state, at: event.at, commands: [] }
  take(draft, event)
  return { state: draft.state, commands: draft.commands }
}

/** Runs recorded events from the start; gives the commands of each. */
export const replay = (state: State, events: ReadonlyArray<Event>): ReadonlyArray<ReadonlyArray<Action>> => {
  let current = state
  return events.map((event) => {
    const next = step(current, event)
    current = next.state
    return next.commands
  })
}

const take = (draft: Draft.Draft, event: Event): void => {
  switch (event._tag) {
    case "StartRequested":
      return startRequested(draft, event.request, event.recovered)
    case "SwapRequested":
      return swapRequested(draft, event, "swap", event.command ?? draft.state.command)
    case "RollbackRequested":
      return swapRequested(draft, event, "rollback", draft.state.previous?.command)
    case "AbortRequested":
      return abortRequested(draft, event.request)
    case "StopRequested":
      return stopRequested(draft, event.request)
    case "TimerFired":
      return timerFired(draft, event.timer)
    case "Handoff":
      return draft.state.swap?.id === event.swap ? SealedSwap.feed(draft, event.event) : undefined
    default: {
      const generation = Draft.find(draft, event.generation)
      if (generation !== undefined) happened(draft, generation, event)
    }
  }
}

const happened = (
  draft: Draft.Draft,
  generation: Generation,
  event: Extract<Event, { readonly generation: number }>
): void => {
  switch (event._tag) {
    case "Launched":
      return launched(draft, generation, event.pid, event.identity)
    case "LaunchFailed":
      return launchFailed(draft, generation, event.detail)
    case "Notified":
      Draft.patch(draft, generation.id, { notified: true })
      if (generation.phase === "serving") return Draft.set(draft, { mustNotify: true })
      return learned(draft, generation.id, { _tag: "Notified" })
    case "Observed": {
      const accepted = generation.accepted || event.waiting || event.connections > 0
      Draft.patch(draft, generation.id, { accepted, connections: event.connections })
      return learned(draft, generation.id, { _tag: "Observed", accepting: event.accepting })
    }
    case "HandoffSocketSeen":
      if (generation.handoffSocket !== "served") {
        Draft.patch(draft, generation.id, { handoffSocket: event.served ? "served" : "none" })
      }
      if (event.served) learned(draft, generation.id, { _tag: "HandoffSocketServed" })
      return SwapDraft.decide(draft, generation.id)
    case "Asked":
      return Draft.patch(draft, generation.id, { asked: true })
    case "Exited":
      return exited(draft, generation, event.status)
    case "Gone":
      return gone(draft, generation)
  }
}

const startRequested = (draft: Draft.Draft, request: number, recovered: Recovered | undefined): void => {
  if (draft.state.phase !== "idle") {
    const refusal: Refusal =
      draft.state.phase === "stopping" || draft.state.phase === "stopped"
        ? { _tag: "Stopping" }
        : { _tag: "AlreadyStarted" }
    return Draft.answer(draft, request, { _tag: "Refused", refusal })
  }
  Draft.set(draft, { phase: "starting", startRequest: request })
  if (recovered !== undefined) adopt(draft, recovered)
  const { serving, generations } = draft.state
  if (serving !== undefined) return startAnswered(draft, serving)
  if (generations.some((one) => one.phase === "starting")) return
  // The end of the last of them schedules the restart.
  if (draft.state.waitFor.length > 0) return Draft.set(draft, { phase: "recovering" })
  const startGeneration = Draft.launch(draft, draft.state.command, draft.state.mustNotify)
  Draft.set(draft, { startGeneration })
}

/** Takes over what lives: each generation goes on from its phase, with times that begin anew. */
const adopt = (draft: Draft.Draft, { interrupted, ...found }: Recovered): void => {
  Draft.set(draft, found)
  if (interrupted !== undefined) Draft.tell(draft, { _tag: "SwapEnded", record: interrupted })
  for (const { id, phase, pid, command } of found.generations) {
    if (pid !== undefined) Draft.tell(draft, { _tag: "GenerationAdopted", generation: id, phase, pid, command })
  }
  for (const generation of found.generations) {
    switch (generation.phase) {
      case "serving":
        Draft.set(draft, { phase: "serving" })
        Draft.setTimer(draft, "stable", draft.state.options.backoff.resetAfterMs)
        Draft.lookForHandoffSocket(draft, generation.id)
        break
      case "draining":
        Draft.drain(draft, generation)
        break
      case "rejected":
        Draft.reject(draft, generation, generation.failure ?? { _tag: "SupervisorDied" })
        break
      default:
        Draft.expectReady(draft, generation)
    }
  }
}

const startAnswered = (draft: Draft.Draft, generation: number): void => {
  const { startRequest } = draft.state
  if (startRequest === undefined) return
  Draft.set(draft, { startRequest: undefined })
  const launchedAt = Draft.find(draft, generation)?.launchedAt ?? draft.at
  Draft.answer(draft, startRequest, { _tag: "Started", generation, durationMs: draft.at - launchedAt })
}

const swapRequested = (
  draft: Draft.Draft,
  wish: Extract<Event, { readonly _tag: "SwapRequested" | "RollbackRequested" }>,
  kind: "swap" | "rollback",
  command: Command | undefined
): void => {
  const { phase, swap, options } = draft.state
  const { request, handoffId, mode = options.mode, unsaved } = wish
  const refuse = (refusal: Refusal) => Draft.answer(draft, request, { _tag: "Refused", refusal })
  if (phase === "stopping") return refuse({ _tag: "Stopping" })
  if (phase === "starting") return refuse({ _tag: "Starting" })
  if (phase === "idle" || phase === "stopped" || phase === "failed") return refuse({ _tag: "NotRunning" })
  if (swap !== undefined) {
    return refuse({ _tag: "AlreadySwapping", swap: swap.id, sinceMs: draft.at - swap.requestedAt })
  }
  if (command === undefined) return refuse({ _tag: "NoPrevious" })
  SwapDraft.request(draft, { kind, request, command, mode, handoffId }, unsaved)
}

/** Gives the running swap up. */
const giveUp = (
  draft: Draft.Draft,
  swap: Swap,
  failure: Extract<Failure, { readonly _tag: "Aborted" | "Stopping" }>
) => {
  if (swap.mode === "sealed") return SealedSwap.feed(draft, { _tag: "AbortRequested", why: failure._tag })
  if (swap.mode === "exclusive") return Exclusive.fail(draft, swap, failure)
  return Overlap.fail(draft, swap, failure)
}

const abortRequested = (draft: Draft.Draft, request: number): void => {
  const { swap } = draft.state
  if (swap === undefined) return Draft.answer(draft, request, { _tag: "Refused", refusal: { _tag: "NoSwap" } })
  if (swap.handoff !== undefined && Sealed.isDecided(swap.handoff)) {
    return Draft.answer(draft, request, { _tag: "Refused", refusal: { _tag: "TooLate", swap: swap.id } })
  }
  Draft.answer(draft, request, { _tag: "Aborting", swap: swap.id })
  if (swap.phase !== "rolling-back") giveUp(draft, swap, { _tag: "Aborted", afterMs: draft.at - swap.requestedAt })
}

const stopRequested = (draft: Draft.Draft, request: number): void => {
  if (draft.state.phase === "stopped") return Draft.answer(draft, request, { _tag: "Stopped" })
  const again = draft.state.stopRequests.length > 0
  Draft.set(draft, { stopRequests: [...draft.state.stopRequests, request] })
  if (again) {
    for (const generation of draft.state.generations) if (!generation.killed) Draft.kill(draft, generation)
    return
  }
  if (draft.state.serving !== undefined) Draft.clearTimer(draft, "stable")
  // A swap that ends now must not say that somebody goes on serving.
  Draft.set(draft, { phase: "stopping", serving: undefined })
  Draft.tell(draft, { _tag: "Stopping" })
  if (draft.state.restarts.nextAt !== undefined) {
    Draft.clearTimer(draft, "restart")
    Draft.set(draft, { restarts: { ...draft.state.restarts, nextAt: undefined } })
  }
  const { swap } = draft.state
  if (swap !== undefined && swap.phase !== "rolling-back") giveUp(draft, swap, { _tag: "Stopping" })
  for (const generation of draft.state.generations) {
    if (generation.phase === "serving") Draft.drain(draft, generation)
    else if (generation.phase === "launching" || generation.phase === "starting") {
      Draft.reject(draft, generation, { _tag: "Stopping" })
    }
  }
  finishIfEmpty(draft)
}

const launched = (
  draft: Draft.Draft,
  generation: Generation,
  pid: number,
  identity: ProcessIdentity | undefined
): void => {
  Draft.patch(draft, generation.id, { pid, identity })
  Draft.tell(draft, { _tag: "GenerationLaunched", generation: generation.id, pid })
  if (generation.phase === "rejected") {
    // It was given up while it was being launched: nobody can have reached it yet.
    Draft.kill(draft, { ...generation, pid })
    return
  }
  Draft.patch(draft, generation.id, { phase: "starting" })
  if (generation.successor) return SealedSwap.feed(draft, { _tag: "Launched", pid })
  // Only now: a short settle time must not be over before there is a process that could have settled.
  if (generation.readiness.settling) {
    Draft.setTimer(draft, `settle:${generation.id}`, draft.state.options.readiness.settleMs)
  }
  Draft.emit(draft, { _tag: "Watch", generation: generation.id, everyMs: Draft.WATCH_STARTING_MS })
  // A program may be quicker than the news of its start.
  if (generation.notified) learned(draft, generation.id, { _tag: "Notified" })
}

const launchFailed = (draft: Draft.Draft, generation: Generation, detail: string): void => {
  if (generation.successor) SealedSwap.feed(draft, { _tag: "LaunchFailed", detail })
  else if (generation.phase !== "rejected") failed(draft, generation, { _tag: "LaunchFailed", detail })
  const rejected = Draft.find(draft, generation.id)
  if (rejected !== undefined) gone(draft, rejected)
}

/** A fact about readiness came in. */
const learned = (draft: Draft.Draft, id: number, fact: Readiness.Fact): void => {
  const generation = Draft.find(draft, id)
  if (generation === undefined || generation.phase !== "starting" || generation.successor) return
  const next = Readiness.step(generation.readiness, fact)
  if (next.settle === "start") Draft.setTimer(draft, `settle:${id}`, draft.state.options.readiness.settleMs)
  if (next.settle === "stop") Draft.clearTimer(draft, `settle:${id}`)
  Draft.patch(draft, id, { readiness: next.state })
  const current = Draft.find(draft, id)
  if (next.state.evidence !== undefined && current !== undefined) becameReady(draft, current, next.state.evidence)
}

const becameReady = (draft: Draft.Draft, generation: Generation, evidence: Readiness.Evidence): void => {
  const { swap } = draft.state
  startAnswered(draft, generation.id)
  if (swap !== undefined && belongsTo(swap, generation)) {
    if (swap.mode === "exclusive") return Exclusive.ready(draft, swap, generation, evidence)
    return Overlap.commit(draft, swap, generation, evidence)
  }
  Draft.serve(draft, generation, evidence)
  SwapDraft.proceed(draft)
}

const belongsTo = (swap: Swap, generation: Generation): boolean =>
  swap.to === generation.id || swap.restored === generation.id

/** A generation that was to serve will not. */
const failed = (draft: Draft.Draft, generation: Generation, failure: Failure): void => {
  const { swap } = draft.state
  if (swap !== undefined && belongsTo(swap, generation)) {
    return swap.mode === "exclusive" ? Exclusive.fail(draft, swap, failure) : Overlap.fail(draft, swap, failure)
  }
  Draft.reject(draft, generation, failure)
}

const exited = (draft: Draft.Draft, generation: Generation, status: ExitStatus): void => {
  Draft.patch(draft, generation.id, { exit: status })
  Draft.tell(draft, { _tag: "GenerationExited", generation: generation.id, status })
  const { id, phase, launchedAt } = generation
  if (phase !== "starting" && phase !== "serving") {
    const { swap } = draft.state
    if (swap?.from === id) SealedSwap.feed(draft, { _tag: "IncumbentExited" })
    if (swap?.to === id) SealedSwap.feed(draft, { _tag: "SuccessorExited", status })
    return
  }
  const current: Generation = { ...generation, exit: status }
  if (phase === "starting" && generation.successor) {
    SealedSwap.feed(draft, { _tag: "SuccessorExited", status })
  } else if (phase === "starting") {
    failed(draft, current, { _tag: "Exited", status, afterMs: draft.at - launchedAt })
  } else {
    Draft.patch(draft, id, { phase: "draining", stoppingAt: draft.at })
    Draft.clearTimer(draft, "stable")
    Draft.set(draft, { serving: undefined, phase: "recovering" })
    SealedSwap.feed(draft, { _tag: "IncumbentExited" })
    SwapDraft.undecided(draft)
    const { swap } = draft.state
    // A sealed swap may still give the data to its successor, or is about to end: nobody may open it beside that.
    if (swap?.phase !== "running" && swap?.mode !== "sealed") Draft.scheduleRestart(draft)
  }
  // Whoever of the group outlived its leader still holds the listeners and would answer for a version that is gone.
  Draft.emit(draft, { _tag: "Signal", generation: id, signal: "SIGKILL", to: "group" })
}

const gone = (draft: Draft.Draft, generation: Generation): void => {
  const { swap, startRequest, startGeneration, phase } = draft.state
  Draft.remove(draft, generation)
  if (swap?.mode === "exclusive") Exclusive.gone(draft, swap, generation)
  else if (swap?.to === generation.id && swap.mode === "sealed") SealedSwap.feed(draft, { _tag: "SuccessorGone" })
  else if (swap?.to === generation.id) Overlap.rolledBack(draft, swap, generation)
  else if (generation.id === startGeneration && startRequest !== undefined) {
    const failure = generation.failure ?? { _tag: "Stopping" }
    // What an earlier supervisor left may still be draining: it is waited for.
    const others = draft.state.generations.length > 0
    Draft.set(draft, { startRequest: undefined, phase: phase === "stopping" || others ? "stopping" : "failed" })
    Draft.answer(draft, startRequest, { _tag: "StartFailed", generation: generation.id, failure })
    return draft.state.phase === "failed" ? Draft.emit(draft, { _tag: "Finish" }) : finishIfEmpty(draft)
  }
  if (draft.state.phase === "stopping") return finishIfEmpty(draft)
  SwapDraft.proceed(draft)
  restartIfNobody(draft)
}

/** After a failed restart, or a swap that failed when the old generation had died meanwhile. */
const restartIfNobody = (draft: Draft.Draft): void => {
  const { generations, serving, swap, restarts, waitFor } = draft.state
  if (waitFor.length > 0) return
  const busy = generations.some((one) => one.phase === "launching" || one.phase === "starting")
  if (serving !== undefined || swap !== undefined || busy || restarts.nextAt !== undefined) return
  Draft.scheduleRestart(draft)
}

const finishIfEmpty = (draft: Draft.Draft): void => {
  if (draft.state.generations.length > 0) return
  const { startRequest } = draft.state
  Draft.tell(draft, { _tag: "Stopped" })
  if (startRequest !== undefined) {
    Draft.answer(draft, startRequest, { _tag: "Refused", refusal: { _tag: "Stopping" } })
    Draft.set(draft, { startRequest: undefined })
  }
  for (const request of draft.state.stopRequests) Draft.answer(draft, request, { _tag: "Stopped" })
  Draft.set(draft, { phase: "stopped", stopRequests: [] })
  Draft.emit(draft, { _tag: "Finish" })
}

const timerFired = (draft: Draft.Draft, timer: string): void => {
  if (timer === "stable") return Draft.set(draft, { restarts: { ...draft.state.restarts, failures: 0 } })
  if (timer === "restart") return restart(draft)
  if (timer.startsWith("handoff:")) {
    return SealedSwap.feed(draft, { _tag: "TimerFired", timer: timer.slice("handoff:".length) as Sealed.Timer })
  }
  const [kind, id] = timer.split(":")
  const generation = Draft.find(draft, Number(id))
  if (generation === undefined) return
  const starting = generation.phase === "starting" || generation.phase === "launching"
  if (kind === "ready" && starting) {
    const afterMs = draft.at - generation.launchedAt
    const expected = Readiness.expectation(generation.readiness)
    failed(draft, generation, { _tag: "NotReady", afterMs, expected, accepting: generation.accepted })
  } else if (kind === "settle") learned(draft, generation.id, { _tag: "Settled" })
  else if (kind === "grace" && !generation.killed) Draft.kill(draft, generation)
}

const restart = (draft: Draft.Draft): void => {
  const { phase, restarts } = draft.state
  if (phase !== "recovering" || restarts.nextAt === undefined) return
  Draft.set(draft, { restarts: { ...restarts, nextAt: undefined } })
  // Its last member's end schedules the restart anew.
  if (draft.state.options.mode === "exclusive" && draft.state.generations.length > 0) return
  Draft.launch(draft, draft.state.command, draft.state.mustNotify)
}

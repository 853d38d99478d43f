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
 * Timers are named after what they wait for and the generation: ready:N, settle:N, grace:N, and restart, stable. A timer
 * that fires for a generation that has moved on changes nothing.
 */
import type { ExitStatus } from "../backend/Launcher.ts"
import type { SignalName } from "../Signal.ts"
import * as Overlap from "./Overlap.ts"
import * as Readiness from "./Readiness.ts"

/** What a generation runs. PATH, program and working directory are resolved afresh at each launch. */
export interface Command {
  readonly argv: ReadonlyArray<string>
  readonly environment?: Readonly<Record<string, string>>
  readonly workingDirectory?: string
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
}

/** Why a generation did not come to serve. */
export type Failure =
  | { readonly _tag: "LaunchFailed"; readonly detail: string }
  | { readonly _tag: "Exited"; readonly status: ExitStatus; readonly afterMs: number }
  | { readonly _tag: "NotReady"; readonly afterMs: number; readonly expected: string; readonly accepting: boolean }
  | { readonly _tag: "Aborted"; readonly afterMs: number }
  | { readonly _tag: "Stopping" }

/** Why a request was not even begun. */
export type Refusal =
  | { readonly _tag: "AlreadySwapping"; readonly swap: number; readonly sinceMs: number }
  | { readonly _tag: "NotRunning" }
  | { readonly _tag: "Stopping" }
  | { readonly _tag: "NoPrevious" }
  | { readonly _tag: "NoSwap" }

export interface Generation {
  readonly id: number
  readonly command: Command
  readonly phase: "launching" | "starting" | "serving" | "draining" | "rejected"
  readonly pid: number | undefined
  readonly launchedAt: number
  readonly readyAt: number | undefined
  readonly stoppingAt: number | undefined
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
  readonly phase: "waiting" | "running" | "rolling-back"
  /** For whom it waits. */
  readonly waitingFor: { readonly generation: number; readonly why: "starting" | "draining" } | undefined
}

export interface State {
  readonly options: Options
  readonly phase: "idle" | "starting" | "serving" | "recovering" | "stopping" | "stopped" | "failed"
  /** The command a restart runs. */
  readonly command: Command
  /** The command before the last commit, for `rollback`. */
  readonly previous: Command | undefined
  readonly generations: ReadonlyArray<Generation>
  readonly serving: number | undefined
  readonly nextGeneration: number
  readonly nextSwap: number
  readonly swap: Swap | undefined
  readonly history: ReadonlyArray<SwapRecord>
  /** Consecutive failures of the serving program since it last was stable, and restarts in all. */
  readonly restarts: { readonly failures: number; readonly total: number; readonly nextAt: number | undefined }
  readonly mustNotify: boolean
  readonly startRequest: number | undefined
  readonly stopRequests: ReadonlyArray<number>
}

export type Event = { readonly at: number } & (
  | { readonly _tag: "StartRequested"; readonly request: number }
  | { readonly _tag: "SwapRequested"; readonly request: number; readonly command?: Command }
  | { readonly _tag: "RollbackRequested"; readonly request: number }
  | { readonly _tag: "AbortRequested"; readonly request: number }
  | { readonly _tag: "StopRequested"; readonly request: number }
  | { readonly _tag: "Launched"; readonly generation: number; readonly pid: number }
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
  | { readonly _tag: "Exited"; readonly generation: number; readonly status: ExitStatus }
  | { readonly _tag: "Gone"; readonly generation: number }
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
  | { readonly _tag: "GenerationReady"; readonly generation: number; readonly evidence: Readiness.Evidence; readonly afterMs: number }
  | { readonly _tag: "GenerationDraining"; readonly generation: number; readonly graceMs: number }
  | { readonly _tag: "GenerationRejected"; readonly generation: number; readonly failure: Failure }
  | { readonly _tag: "GenerationKilled"; readonly generation: number }
  | { readonly _tag: "GenerationExited"; readonly generation: number; readonly status: ExitStatus }
  | { readonly _tag: "GenerationGone"; readonly generation: number }
  | { readonly _tag: "SwapRequested"; readonly swap: number; readonly kind: "swap" | "rollback"; readonly command: Command }
  | { readonly _tag: "SwapWaiting"; readonly swap: number; readonly generation: number; readonly why: "starting" | "draining" }
  | { readonly _tag: "SwapEnded"; readonly record: SwapRecord }
  | { readonly _tag: "RestartScheduled"; readonly delayMs: number; readonly failures: number }
  | { readonly _tag: "Stopping" }
  | { readonly _tag: "Stopped" }

export type Action =
  | { readonly _tag: "Launch"; readonly generation: number; readonly command: Command }
  /** Look at the generation again and again (Observed) until Unwatch or its end. */
  | { readonly _tag: "Watch"; readonly generation: number }
  | { readonly _tag: "Unwatch"; readonly generation: number }
  | { readonly _tag: "Signal"; readonly generation: number; readonly signal: SignalName; readonly to: "process" | "group" }
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
  stopRequests: []
})

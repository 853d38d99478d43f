/**
 * The supervisor as a service: owns listeners, runs generations, replaces them.
 */
import type { Address } from "@handoff/core/Address"
import type { SignalName } from "@handoff/core/Signal"
import type * as Readiness from "@handoff/core/swap/Readiness"
import type * as Supervision from "@handoff/core/swap/Supervision"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Stream from "effect/Stream"
import type { StartError, SwapError } from "./SupervisorError.ts"

export interface ListenerOptions {
  readonly address: Address | string
  readonly backlog?: number
  readonly nonBlocking?: boolean
  readonly mode?: number
}

/** Everything is in milliseconds; defaults are in brackets. */
export interface Options {
  /** Name of this supervisor, for status and files ("default"). */
  readonly name?: string
  readonly command: ReadonlyArray<string>
  readonly environment?: Readonly<Record<string, string>>
  readonly workingDirectory?: string
  /** By name, in descriptor order: `{ http: "127.0.0.1:8080" }`. */
  readonly listeners: Readonly<Record<string, string | ListenerOptions>>
  /** Directory of notify sockets and output files; created 0700. Default: a directory under XDG_RUNTIME_DIR, /run or the temporary directory, made for the scope. */
  readonly stateDirectory?: string
  /** ["auto"] */
  readonly readiness?: Readiness.Policy
  /** [30000] */
  readonly readyTimeoutMs?: number
  /** [250] */
  readonly settleMs?: number
  /** [25000] */
  readonly graceMs?: number
  /** ["SIGTERM"] */
  readonly stopSignal?: SignalName
  /** [3] */
  readonly generationLimit?: number
  /** ["log"] */
  readonly output?: "log" | "inherit" | "null"
  readonly umask?: number
  readonly identity?: { readonly uid?: number; readonly gid?: number; readonly groups?: ReadonlyArray<number> }
  /** Called with each event and the commands it led to; a replay of the events gives the same commands. */
  readonly record?: (event: Supervision.Event, commands: ReadonlyArray<Supervision.Action>) => void
}

/** A swap's record and the last lines that the new generation wrote. */
export interface SwapReport {
  readonly record: Supervision.SwapRecord
  readonly lastLines: ReadonlyArray<string>
}

export interface GenerationStatus {
  readonly id: number
  readonly phase: Supervision.Generation["phase"]
  readonly pid: number | undefined
  readonly command: ReadonlyArray<string>
  readonly launchedAt: number
  readonly readyAt: number | undefined
  readonly evidence: Readiness.Evidence | undefined
  /** Established connections through the listeners, now. */
  readonly connections: number
  readonly lastLines: ReadonlyArray<string>
}

/** What `handoff status --json` and `GET /status` give. Times are milliseconds since 1970. */
export interface Status {
  readonly name: string
  readonly pid: number
  readonly version: string
  readonly phase: Supervision.State["phase"]
  readonly startedAt: number
  readonly serving: number | undefined
  readonly listeners: ReadonlyArray<{ readonly name: string; readonly address: string; readonly backlog: number }>
  readonly generations: ReadonlyArray<GenerationStatus>
  readonly swap: Supervision.Swap | undefined
  readonly swaps: ReadonlyArray<Supervision.SwapRecord>
  readonly restarts: Supervision.State["restarts"]
  readonly canRollBack: boolean
}

/** A notice with the time it was given (milliseconds since 1970). */
export type SupervisorEvent = Supervision.Notice & { readonly at: number }

export class Supervisor extends Context.Service<
  Supervisor,
  {
    /** Starts the first generation and waits until it serves. */
    readonly start: Effect.Effect<{ readonly generation: number; readonly durationMs: number }, StartError>
    /** Replaces the serving generation; without a command by a new process of the same one. An interrupt leaves the swap running. */
    readonly swap: (command?: Supervision.Command) => Effect.Effect<SwapReport, SwapError>
    /** Swaps to the command before the last committed swap. */
    readonly rollback: Effect.Effect<SwapReport, SwapError>
    /** Asks the running swap to end; its own caller gets the verdict. Gives the swap's number. */
    readonly abort: Effect.Effect<number, SwapError>
    /** Stops every generation, waits for their end. A second call kills at once. */
    readonly stop: Effect.Effect<void>
    /** Waits until the supervision has ended, however that came. */
    readonly finished: Effect.Effect<void>
    readonly status: Effect.Effect<Status>
    /** Everything that happens from now on. */
    readonly events: Stream.Stream<SupervisorEvent>
  }
>()("@handoff/supervisor/Supervisor") {}

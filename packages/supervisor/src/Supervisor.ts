/**
 * The supervisor as a service: owns listeners, runs generations of a program, replaces them without a gap.
 *
 * It composes three things: the pure machine of `@handoff/core/swap/Supervision`, which decides; a backend, whose services
 * do what was decided; and the files that outlive us (output of generations). Swapping the backend's layer swaps the
 * operating system: the same service runs on a simulated kernel with a test clock.
 *
 * When the scope of the layer closes, every generation is asked to stop and waited for.
 *
 * @example
 * const program = Effect.gen(function* () {
 *   const supervisor = yield* Supervisor
 *   yield* supervisor.start
 *   yield* supervisor.swap({ argv: ["node", "server-v2.js"] })
 * })
 * program.pipe(
 *   Effect.provide(Supervisor.layer({ listeners: { http: "127.0.0.1:8080" }, command: ["node", "server.js"] })),
 *   Effect.provide([FfiBackend.layer, NodeFileSystem.layer])
 * )
 */

import type { Address } from "@handoff/core/Address"
import * as AddressText from "@handoff/core/Address"
import type { Files } from "@handoff/core/backend/Files"
import { Processes } from "@handoff/core/backend/Processes"
import type { Sockets } from "@handoff/core/backend/Sockets"
import type { SignalName } from "@handoff/core/Signal"
import type * as Readiness from "@handoff/core/swap/Readiness"
import * as Supervision from "@handoff/core/swap/Supervision"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Engine from "./internal/Engine.ts"
import type * as GenerationLauncher from "./internal/GenerationLauncher.ts"
import * as Listeners from "./Listeners.ts"
import * as OutputLog from "./OutputLog.ts"
import { SetupError, StartError, SwapError } from "./SupervisorError.ts"
import { VERSION } from "./Version.ts"

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
  /** Called for each line of a generation's output. Default: writes `[gen N] line` to stdout. */
  readonly onOutput?: (generation: number, line: string) => void
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
>()("@handoff/supervisor/Supervisor") {
  /** Binds the listeners at once; nothing is started before `start`. */
  static readonly layer = (options: Options): Layer.Layer<Supervisor, SetupError, Requirements> =>
    Layer.effect(Supervisor, make(options))
}

/** What a supervisor needs: a backend's services, and files. */
export type Requirements = GenerationLauncher.Requirements | Sockets | Files | FileSystem.FileSystem

const machineOptions = (options: Options, listeners: number): Supervision.Options => ({
  readiness: {
    policy: options.readiness ?? "auto",
    timeoutMs: options.readyTimeoutMs ?? 30_000,
    settleMs: options.settleMs ?? 250
  },
  graceMs: options.graceMs ?? 25_000,
  rejectGraceMs: 2_000,
  stopSignal: options.stopSignal ?? "SIGTERM",
  generationLimit: options.generationLimit ?? 3,
  backoff: { initialMs: 100, factor: 2, maxMs: 30_000, resetAfterMs: 60_000 },
  listeners,
  historyLimit: 20
})

const check = (options: Options): Effect.Effect<void, SetupError> => {
  const refuse = (subject: string, detail: string) => Effect.fail(new SetupError({ subject, detail }))
  if (options.command.length === 0) return refuse("command", "names no program")
  if (options.generationLimit !== undefined && !(options.generationLimit >= 2)) {
    return refuse("generationLimit", `must be at least 2, a swap needs two generations; got ${options.generationLimit}`)
  }
  for (const key of ["readyTimeoutMs", "settleMs", "graceMs"] as const) {
    const value = options[key]
    if (value !== undefined && !(Number.isFinite(value) && value >= 0)) {
      return refuse(key, `must be a number of milliseconds of at least 0; got ${value}`)
    }
  }
  return Effect.void
}

/** A supervisor that was killed leaves its notify sockets behind, and nobody can bind over them. */
const removeStaleNotifySockets = (files: FileSystem.FileSystem, directory: string) =>
  Effect.flatMap(files.readDirectory(directory), (names) =>
    Effect.forEach(
      names.filter((name) => /^notify-\d+\.sock$/.test(name)),
      (name) => files.remove(`${directory}/${name}`, { force: true })
    )
  )

const prepareDirectory = Effect.fnUntraced(function* (wanted: string | undefined) {
  const files = yield* FileSystem.FileSystem
  const directory =
    wanted === undefined
      ? files.makeTempDirectoryScoped({ prefix: "handoff-" })
      : Effect.as(files.makeDirectory(wanted, { recursive: true, mode: 0o700 }), wanted)
  return yield* directory.pipe(
    // What could not be removed is told by the bind that it is in the way of.
    Effect.tap((path) => Effect.ignore(removeStaleNotifySockets(files, path))),
    Effect.mapError((error) => new SetupError({ subject: `state directory ${wanted ?? ""}`, detail: error.message }))
  )
})

const make = Effect.fnUntraced(function* (options: Options) {
  yield* check(options)
  const directory = yield* prepareDirectory(options.stateDirectory)
  const listeners = yield* Listeners.bindAll(options.listeners)
  const output = yield* OutputLog.make({
    how: options.output ?? "log",
    directory,
    onLine: options.onOutput ?? ((generation, line) => process.stdout.write(`[gen ${generation}] ${line}\n`))
  })
  // Not the layer's scope: fibers forked into that later than our finalizer would be interrupted before it runs, and the
  // engine must still turn while its generations drain.
  const engineScope = yield* Scope.make()
  const engine = yield* Engine.make({
    settings: {
      options,
      directory,
      listeners,
      output,
      environment: process.env,
      workingDirectory: options.workingDirectory ?? process.cwd()
    },
    machine: Supervision.initial(machineOptions(options, listeners.length), { argv: options.command }),
    record: options.record
  }).pipe(Scope.provide(engineScope))
  const processes = yield* Processes

  const report = (record: Supervision.SwapRecord) =>
    Effect.map(record.to === undefined ? Effect.succeed([]) : output.lastLines(record.to), (lastLines) => ({
      record,
      lastLines
    }))

  const swapAnswer = Effect.fnUntraced(function* (answer: Supervision.Answer) {
    switch (answer._tag) {
      case "SwapEnded": {
        const ended = yield* report(answer.record)
        if (answer.record.outcome === "committed") return ended
        return yield* new SwapError({ reason: { _tag: "RolledBack", report: ended } })
      }
      case "Refused":
        return yield* new SwapError({ reason: { _tag: "Refused", refusal: answer.refusal } })
      default:
        return yield* Effect.die(new Error(`a swap was answered with ${answer._tag}`))
    }
  })

  const start = Effect.gen(function* () {
    const answer = yield* engine.ask({ _tag: "StartRequested" })
    if (answer._tag === "Started") return { generation: answer.generation, durationMs: answer.durationMs }
    if (answer._tag === "StartFailed") {
      const lastLines = yield* output.lastLines(answer.generation)
      return yield* new StartError({ generation: answer.generation, failure: answer.failure, lastLines })
    }
    return yield* Effect.die(new Error("start was called twice"))
  })

  const abort = Effect.flatMap(engine.ask({ _tag: "AbortRequested" }), (answer) =>
    answer._tag === "Aborting"
      ? Effect.succeed(answer.swap)
      : Effect.fail(new SwapError({ reason: { _tag: "Refused", refusal: { _tag: "NoSwap" } } }))
  )

  const generationStatus = Effect.fnUntraced(function* (generation: Supervision.Generation) {
    const sockets = listeners.map((listener) => listener.socket)
    const seen = generation.pid === undefined ? undefined : yield* processes.observe(generation.pid, sockets)
    return {
      id: generation.id,
      phase: generation.phase,
      pid: generation.pid,
      command: generation.command.argv,
      launchedAt: generation.launchedAt,
      readyAt: generation.readyAt,
      evidence: generation.readiness.evidence,
      connections: seen?.connections ?? 0,
      lastLines: yield* output.lastLines(generation.id)
    } satisfies GenerationStatus
  })

  const status = Effect.gen(function* () {
    const state = engine.state()
    return {
      name: options.name ?? "default",
      pid: process.pid,
      version: VERSION,
      phase: state.phase,
      startedAt: engine.startedAt,
      serving: state.serving,
      listeners: listeners.map(({ name, socket }) => ({
        name,
        address: AddressText.format(socket.address),
        backlog: socket.backlog.effective
      })),
      generations: yield* Effect.forEach(state.generations, generationStatus),
      swap: state.swap,
      swaps: state.history,
      restarts: state.restarts,
      canRollBack: state.previous !== undefined
    } satisfies Status
  })

  const stop = Effect.asVoid(engine.ask({ _tag: "StopRequested" }))
  yield* Effect.addFinalizer((exit) => Effect.andThen(stop, Scope.close(engineScope, exit)))

  return Supervisor.of({
    start,
    swap: (command) =>
      Effect.flatMap(engine.ask({ _tag: "SwapRequested", ...(command === undefined ? {} : { command }) }), swapAnswer),
    rollback: Effect.flatMap(engine.ask({ _tag: "RollbackRequested" }), swapAnswer),
    abort,
    stop,
    finished: engine.finished,
    status,
    events: Stream.fromPubSub(engine.notices)
  })
})

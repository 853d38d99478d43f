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
import { randomBytes } from "node:crypto"
import type { Address } from "@handoff/core/Address"
import * as AddressText from "@handoff/core/Address"
import type { Files } from "@handoff/core/backend/Files"
import { Locks } from "@handoff/core/backend/Locks"
import { Processes } from "@handoff/core/backend/Processes"
import type { Fd } from "@handoff/core/Fd"
import * as HandoffId from "@handoff/core/protocol/HandoffId"
import type { SignalName } from "@handoff/core/Signal"
import * as Document from "@handoff/core/swap/Document"
import type * as Mode from "@handoff/core/swap/Mode"
import type * as Readiness from "@handoff/core/swap/Readiness"
import * as Supervision from "@handoff/core/swap/Supervision"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Adoption from "./internal/Adoption.ts"
import * as Engine from "./internal/Engine.ts"
import type * as GenerationLauncher from "./internal/GenerationLauncher.ts"
import * as Listeners from "./Listeners.ts"
import * as OutputLog from "./OutputLog.ts"
import * as StateStore from "./StateStore.ts"
import { SetupError, StartError, SwapError } from "./SupervisorError.ts"
import { VERSION } from "./Version.ts"

export interface ListenerOptions {
  readonly address: Address | string
  readonly backlog?: number
  readonly nonBlocking?: boolean
  readonly mode?: number
  /** A listening descriptor of this process to be used as it is: socket activation, a descriptor store. */
  readonly inherited?: Fd
}

/** Of sealed swaps; see PROTOCOL's times. */
export interface SealedOptions {
  /** The path at which daemons that own data serve their handoff socket (`handoff.sock` in the state directory). */
  readonly controlSocket?: string
  /** From the request to the successor's Ready [60000] */
  readonly deadlineMs?: number
  /** How long the incumbent may drain [25000] */
  readonly drainGraceMs?: number
  /** For a successor to start and say Hello [the ready timeout] */
  readonly helloTimeoutMs?: number
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
  /** How swaps are made that do not say so ["auto"] */
  readonly mode?: Mode.Wish
  readonly sealed?: SealedOptions
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
  /** How swaps are made that do not say so. */
  readonly mode: Mode.Wish
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
    readonly swap: (
      command?: Supervision.Command,
      options?: { readonly mode?: Mode.Wish }
    ) => Effect.Effect<SwapReport, SwapError>
    /** Swaps to the command before the last committed swap, in the mode of the options. */
    readonly rollback: Effect.Effect<SwapReport, SwapError>
    /** Asks the running swap to end; its own caller gets the verdict. Gives the swap's number. */
    readonly abort: Effect.Effect<number, SwapError>
    /** Stops every generation, waits for their end. A second call kills at once. */
    readonly stop: Effect.Effect<void>
    /** Waits until the supervision has ended, however that came. */
    readonly finished: Effect.Effect<void>
    readonly status: Effect.Effect<Status>
    /** What was found of a supervisor before this one and should be known, one sentence each. */
    readonly remarks: ReadonlyArray<string>
    /** Everything that happens from now on. */
    readonly events: Stream.Stream<SupervisorEvent>
  }
>()("@handoff/supervisor/Supervisor") {
  /** Binds the listeners at once; nothing is started before `start`. */
  static readonly layer = (options: Options): Layer.Layer<Supervisor, SetupError, Requirements> =>
    Layer.effect(Supervisor, make(options))
}

/** What a supervisor needs: a backend's services, and files. */
export type Requirements = GenerationLauncher.Requirements | Locks | Files | FileSystem.FileSystem

const machineOptions = (options: Options, listeners: number, instance: string): Supervision.Options => {
  const { readiness, graceMs, stopSignal, generationLimit, mode, handoff, ...rest } = Supervision.defaults
  const { sealed } = options
  return {
    ...rest,
    readiness: {
      policy: options.readiness ?? readiness.policy,
      timeoutMs: options.readyTimeoutMs ?? readiness.timeoutMs,
      settleMs: options.settleMs ?? readiness.settleMs
    },
    graceMs: options.graceMs ?? graceMs,
    stopSignal: options.stopSignal ?? stopSignal,
    generationLimit: options.generationLimit ?? generationLimit,
    mode: options.mode ?? mode,
    handoff: {
      ...handoff,
      successorHelloMs: sealed?.helloTimeoutMs ?? options.readyTimeoutMs ?? handoff.successorHelloMs,
      deadlineMs: sealed?.deadlineMs ?? handoff.deadlineMs,
      drainGraceMs: sealed?.drainGraceMs ?? handoff.drainGraceMs
    },
    listeners,
    instance
  }
}

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

const prepareDirectory = Effect.fnUntraced(function* (wanted: string | undefined) {
  const files = yield* FileSystem.FileSystem
  const directory =
    wanted === undefined
      ? files.makeTempDirectoryScoped({ prefix: "handoff-" })
      : Effect.as(files.makeDirectory(wanted, { recursive: true, mode: 0o700 }), wanted)
  return yield* Effect.mapError(
    directory,
    (error) => new SetupError({ subject: `state directory ${wanted ?? ""}`, detail: error.message })
  )
})

/** Notify sockets, which nobody could bind over. A document that was being written is overwritten by the next one. */
const LEFTOVER = /^notify-\d+\.sock$/

/** Removes what a supervisor that was killed left behind. Only for who holds the directory's lock. */
const removeLeftovers = Effect.fnUntraced(
  function* (directory: string) {
    const files = yield* FileSystem.FileSystem
    const names = yield* files.readDirectory(directory)
    for (const name of names) if (LEFTOVER.test(name)) yield* files.remove(`${directory}/${name}`, { force: true })
  },
  (removal) => Effect.ignore(removal)
)

const newHandoffId = () => HandoffId.fromRandom(randomBytes(HandoffId.BYTES))

/** One supervisor at a time, for its whole life: two would write the same document and own the same processes. */
const lockDirectory = Effect.fnUntraced(function* (directory: string) {
  const locks = yield* Locks
  yield* locks.acquire(`${directory}/state.lock`).pipe(
    Effect.mapError((error) => {
      const { reason } = error
      const by = reason._tag === "Held" && reason.holder !== undefined ? `, process ${reason.holder}` : ""
      const detail = reason._tag === "Held" ? `is in use by another supervisor${by}` : error.message
      return new SetupError({ subject: `state directory ${directory}`, detail })
    })
  )
})

/** The processes of the generations that go on, as ones that can be waited for and signalled. Of others nobody is left. */
const takeOver = Effect.fnUntraced(function* (
  saved: ReadonlyArray<Document.SavedGeneration>,
  recovered: Supervision.Recovered | undefined,
  output: OutputLog.OutputLog
) {
  const processes = yield* Processes
  const adopted: Array<Engine.Adopted> = []
  const gone: Array<number> = []
  const engineScope = yield* Effect.scope
  for (const { id, identity } of recovered?.generations ?? []) {
    if (identity === undefined) continue
    const scope = yield* Scope.fork(engineScope)
    const process = yield* processes.adopt(identity).pipe(Scope.provide(scope))
    // Gone since it was looked at.
    if (process === undefined) {
      gone.push(id)
      continue
    }
    yield* output.follow(id).pipe(Scope.provide(scope))
    adopted.push({ generation: id, process, scope })
  }
  const isAdopted = (id: number) => adopted.some(({ generation }) => generation === id)
  const orphans = yield* Adoption.endOrphans(saved.filter(({ id }) => !isAdopted(id)))
  return { adopted, gone, orphans }
})

const make = Effect.fnUntraced(function* (options: Options) {
  yield* check(options)
  const directory = yield* prepareDirectory(options.stateDirectory)
  if (options.stateDirectory !== undefined) {
    yield* lockDirectory(directory)
    // What can't be removed is told by the bind that it is in the way of.
    yield* removeLeftovers(directory)
  }
  const store = yield* StateStore.make(directory)
  const loaded = yield* store.load.pipe(
    Effect.mapError(
      ({ message }) =>
        new SetupError({
          subject: store.path,
          detail:
            `the state of the supervisor before this one cannot be read: ${message}. It tells what runs, and is left ` +
            "as it is: start again when it can be read, or remove it when nothing runs"
        })
    )
  )
  const found = loaded._tag === "Found" ? yield* Adoption.find(loaded.document) : undefined
  const damage =
    loaded._tag === "Damaged"
      ? `the state of the supervisor before this one could not be read and is set aside as ${loaded.movedTo}: ${loaded.detail}`
      : undefined
  const listeners = yield* Listeners.open(options.listeners, found).pipe(
    // Whoever holds the address may well be what the document would have told of.
    Effect.mapError((error) =>
      damage === undefined ? error : new SetupError({ subject: error.subject, detail: `${error.detail}; ${damage}` })
    )
  )
  const output = yield* OutputLog.make({
    how: options.output ?? "log",
    directory,
    onLine: options.onOutput ?? ((generation, line) => process.stdout.write(`[gen ${generation}] ${line}\n`))
  })
  const instance = randomBytes(8).toString("hex")
  const wanted = options.sealed?.controlSocket ?? `${directory}/handoff.sock`
  // What runs serves it where it was told to.
  const handoffSocket = found !== undefined && found.generations.length > 0 ? found.handoffSocket : wanted
  const facts: Document.Facts = {
    name: options.name ?? "default",
    supervisor: { pid: process.pid, version: VERSION, instance },
    handoffSocket,
    listeners: listeners.map(({ name, socket }) => ({
      name,
      address: AddressText.format(socket.address),
      inode: socket.inode,
      backlog: socket.backlog
    }))
  }
  const limits = machineOptions(options, listeners.length, instance)
  const recovered = found === undefined ? undefined : yield* Adoption.decide(found, limits, handoffSocket)
  let begun = false
  /** Before the start nothing of ours runs: what the one before wrote down stays as it is. */
  const save = (state: Supervision.State) => {
    begun ||= state.phase !== "idle" && state.phase !== "stopped"
    if (!begun) return Effect.void
    const ended = state.phase === "stopped" || state.phase === "failed"
    return ended ? store.clear : store.save(Document.of(state, facts))
  }
  // Not the layer's scope: fibers forked into that later than our finalizer would be interrupted before it runs, and the
  // engine must still turn while its generations drain.
  const engineScope = yield* Scope.make()
  const saved = loaded._tag === "Found" ? loaded.document.generations : []
  const { adopted, gone, orphans } = yield* takeOver(saved, recovered, output).pipe(
    Scope.provide(engineScope),
    Effect.onError(() => Scope.close(engineScope, Exit.void))
  )
  const remarks = [
    ...(damage === undefined ? [] : [damage]),
    ...(handoffSocket === wanted
      ? []
      : [`the handoff socket stays at ${handoffSocket}, not ${wanted}, as long as anything runs that was told so`]),
    ...(found === undefined || recovered === undefined
      ? []
      : Adoption.differences(recovered, options.command, found, facts.listeners)),
    ...(orphans.length === 0
      ? []
      : [`killed what outlived the leader of its group: ${orphans.map((pid) => `process ${pid}`).join(", ")}`])
  ]
  const settings: GenerationLauncher.Settings = {
    options,
    directory,
    listeners,
    handoffSocket,
    output,
    environment: process.env,
    workingDirectory: options.workingDirectory ?? process.cwd()
  }
  const engine = yield* Engine.make({
    settings,
    machine: Supervision.initial(limits, { argv: options.command }),
    adopted,
    gone,
    save,
    canSave: store.rewrite,
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
    const answer = yield* engine.ask({ _tag: "StartRequested", ...(recovered === undefined ? {} : { recovered }) })
    if (answer._tag === "Started") return { generation: answer.generation, durationMs: answer.durationMs }
    if (answer._tag === "StartFailed") {
      const lastLines = yield* output.lastLines(answer.generation)
      return yield* new StartError({ generation: answer.generation, failure: answer.failure, lastLines })
    }
    if (answer._tag === "Refused" && answer.refusal._tag === "Stopping") {
      return yield* new StartError({ generation: undefined, failure: { _tag: "Stopping" }, lastLines: [] })
    }
    return yield* Effect.die(new Error("start was called twice"))
  })

  const abort = Effect.flatMap(engine.ask({ _tag: "AbortRequested" }), (answer) => {
    if (answer._tag === "Aborting") return Effect.succeed(answer.swap)
    const refusal: Supervision.Refusal = answer._tag === "Refused" ? answer.refusal : { _tag: "NoSwap" }
    return Effect.fail(new SwapError({ reason: { _tag: "Refused", refusal } }))
  })

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
      name: facts.name,
      pid: process.pid,
      version: VERSION,
      phase: state.phase,
      mode: limits.mode,
      startedAt: engine.startedAt,
      serving: state.serving,
      listeners: facts.listeners.map(({ name, address, backlog }) => ({ name, address, backlog: backlog.effective })),
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
    swap: (command, { mode } = {}) =>
      Effect.flatMap(
        Effect.suspend(() =>
          engine.ask({
            _tag: "SwapRequested",
            handoffId: newHandoffId(),
            ...(command === undefined ? {} : { command }),
            ...(mode === undefined ? {} : { mode })
          })
        ),
        swapAnswer
      ),
    rollback: Effect.flatMap(
      Effect.suspend(() => engine.ask({ _tag: "RollbackRequested", handoffId: newHandoffId() })),
      swapAnswer
    ),
    abort,
    stop,
    finished: engine.finished,
    status,
    remarks,
    events: Stream.fromPubSub(engine.notices)
  })
})

/**
 * The options of `run` and `plan`, a configuration file among them, and the supervisor's options that they mean.
 */
import { readFileSync } from "node:fs"
import { resolve } from "node:path"
import * as Mode from "@handoff/core/swap/Mode"
import * as Argument from "effect/cli/Argument"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Config } from "../Config.ts"
import { messageOf } from "../internal/ErrorText.ts"
import type { Options } from "../Supervisor.ts"
import type * as Trigger from "../TriggerSocket.ts"
import { Code, CommandExit, usage } from "./CommandExit.ts"
import * as OptionText from "./OptionText.ts"
import { parsed } from "./Root.ts"

const duration = (name: string, milliseconds: number, description: string) =>
  parsed(name, OptionText.duration).pipe(
    Flag.withDescription(description),
    Flag.withMetavar("DUR"),
    Flag.withDefault(milliseconds)
  )

const optionalDuration = (name: string, description: string) =>
  parsed(name, OptionText.duration).pipe(Flag.withDescription(description), Flag.withMetavar("DUR"), Flag.optional)

const path = (name: string, description: string) =>
  parsed(name, OptionText.path).pipe(Flag.withDescription(description), Flag.withMetavar("PATH"))

export const env = parsed("env", OptionText.variable).pipe(
  Flag.withDescription("A variable for the program; may be repeated"),
  Flag.withMetavar("K=V"),
  Flag.atLeast(0)
)

export const program = Argument.String("program").pipe(
  Argument.withDescription("The program and its arguments, after --"),
  Argument.variadic()
)

/** @param fallback what holds without the option, in words */
export const mode = (fallback: string) =>
  Flag.Literals("mode", Mode.WISHES).pipe(
    Flag.withDescription(
      `auto: as the serving version shows; sealed: the old one gives its data away first; overlap: old and new side by side; exclusive: the old one stops first (${fallback})`
    )
  )

export const flags = {
  config: path("config", "A configuration file (TOML); options given here win over it").pipe(Flag.optional),
  listen: parsed("listen", OptionText.listener).pipe(
    Flag.withAlias("l"),
    Flag.withDescription("A listener: NAME=HOST:PORT, NAME=:PORT, NAME=[V6]:PORT or NAME=unix:PATH; may be repeated"),
    Flag.withMetavar("NAME=ADDR"),
    Flag.atLeast(0)
  ),
  mode: mode("auto").pipe(Flag.withDefault("auto")),
  controlSocket: path(
    "control-socket",
    "Sealed: where the program serves its handoff socket (handoff.sock in the state directory)"
  ).pipe(Flag.optional),
  drainGrace: optionalDuration("drain-grace", "Sealed: how long the old version may drain before it seals (25s)"),
  deadline: optionalDuration("deadline", "Sealed: how long a swap may take in all (60s)"),
  ready: parsed("ready", OptionText.ready).pipe(
    Flag.withDescription("When a version counts as ready: auto, notify, accepting or settle:DUR (auto)"),
    Flag.withMetavar("HOW"),
    Flag.withDefault({ policy: "auto" } satisfies OptionText.Ready as OptionText.Ready)
  ),
  readyTimeout: duration("ready-timeout", 30_000, "A version not ready by then is rolled back (30s)"),
  grace: duration("grace", 25_000, "How long an old version may drain before it is killed (25s)"),
  stopSignal: parsed("stop-signal", OptionText.stopSignal).pipe(
    Flag.withDescription("What asks a version to drain and exit (SIGTERM)"),
    Flag.withMetavar("SIGNAL"),
    Flag.withDefault("SIGTERM")
  ),
  output: Flag.Literals("output", ["log", "inherit", "null"]).pipe(
    Flag.withDescription("Where output goes: log (a file each, followed here), inherit (ours) or null (log)"),
    Flag.withDefault("log")
  ),
  generations: parsed("generations", OptionText.generationLimit).pipe(
    Flag.withDescription("How many versions may exist at once (3)"),
    Flag.withMetavar("N"),
    Flag.withDefault(3)
  ),
  env,
  program
} as const

export interface Values {
  readonly config: Option.Option<string>
  readonly listen: ReadonlyArray<OptionText.NamedListener>
  readonly mode: Mode.Wish
  readonly controlSocket: Option.Option<string>
  readonly drainGrace: Option.Option<number>
  readonly deadline: Option.Option<number>
  readonly ready: OptionText.Ready
  readonly readyTimeout: number
  readonly grace: number
  readonly stopSignal: NonNullable<Options["stopSignal"]>
  readonly output: "log" | "inherit" | "null"
  readonly generations: number
  readonly env: ReadonlyArray<readonly [string, string]>
  readonly program: ReadonlyArray<string>
}

/** What `run` and `plan` are asked to do. */
export interface Launch {
  readonly options: Options & {
    readonly mode: Mode.Wish
    readonly sealed: { readonly controlSocket?: string; readonly drainGraceMs: number; readonly deadlineMs: number }
  }
  readonly trigger: Trigger.Options | undefined
  /** The journal of the crate's supervisor, to be read and set aside. */
  readonly journal: string | undefined
}

const DRAIN_GRACE_MS = 25_000
const DEADLINE_MS = 60_000

/** Reads the file. Its paths are relative to the working directory, as the reference supervisor's are. */
const readConfig = Effect.fnUntraced(function* (path: string) {
  const fail = (detail: string) => new CommandExit({ code: Code.usage, text: `${path}: ${detail}` })
  const { parse } = yield* Effect.promise(() => import("../Config.ts"))
  const text = yield* Effect.try({
    try: () => readFileSync(path, "utf8"),
    catch: (error) => fail(messageOf(error))
  })
  return yield* Effect.mapError(Effect.fromResult(parse(text)), (error) => fail(error.message))
})

const NO_CONFIG: Config = {
  controlSocket: undefined,
  triggerSocket: undefined,
  binary: undefined,
  args: [],
  env: [],
  listeners: [],
  journal: undefined,
  drainGraceMs: undefined,
  deadlineMs: undefined,
  allowedUids: [],
  allowedBinaries: []
}

/** The command of the file or the one after `--`, never both: which arguments would belong to which? */
const commandOf = Effect.fnUntraced(function* (command: string, values: Values, config: Config) {
  if (config.binary !== undefined && values.program.length > 0) {
    return yield* usage(command, `the configuration file names binary "${config.binary}", so nothing may follow --`)
  }
  const argv = config.binary === undefined ? values.program : [config.binary, ...config.args]
  if (argv.length > 0) return argv
  return yield* usage(command, `no program given: handoff ${command} --listen http=:8080 -- node server.js`)
})

/** Those of the file first, in its order; one of the same name on the command line takes its place. */
const listenersOf = Effect.fnUntraced(function* (command: string, values: Values, config: Config) {
  const names = values.listen.map(({ name }) => name)
  const twice = names.find((name, index) => names.indexOf(name) < index)
  if (twice !== undefined) return yield* usage(command, `--listen ${twice} is given twice`)
  return Object.fromEntries([...config.listeners, ...values.listen].map(({ name, address }) => [name, address]))
})

/**
 * The supervisor's options; flags win over the file. Fails with what only the whole shows: no program, two of them, a name
 * twice, a file that can't be read.
 */
export const settle = Effect.fnUntraced(function* (command: string, values: Values) {
  const config = Option.isNone(values.config) ? NO_CONFIG : yield* readConfig(values.config.value)
  const argv = yield* commandOf(command, values, config)
  const listeners = yield* listenersOf(command, values, config)
  const controlSocket = Option.getOrElse(values.controlSocket, () => config.controlSocket)
  const { policy, settleMs } = values.ready
  const options: Launch["options"] = {
    command: argv,
    environment: Object.fromEntries([...config.env, ...values.env]),
    listeners,
    mode: values.mode,
    sealed: {
      ...(controlSocket === undefined ? {} : { controlSocket: resolve(controlSocket) }),
      drainGraceMs: Option.getOrElse(values.drainGrace, () => config.drainGraceMs ?? DRAIN_GRACE_MS),
      deadlineMs: Option.getOrElse(values.deadline, () => config.deadlineMs ?? DEADLINE_MS)
    },
    readiness: policy,
    ...(settleMs === undefined ? {} : { settleMs }),
    readyTimeoutMs: values.readyTimeout,
    graceMs: values.grace,
    stopSignal: values.stopSignal,
    generationLimit: values.generations,
    output: values.output
  }
  return { options, trigger: triggerOf(argv, config), journal: config.journal } satisfies Launch
})

const triggerOf = ([binary = "", ...args]: ReadonlyArray<string>, config: Config): Trigger.Options | undefined =>
  config.triggerSocket === undefined
    ? undefined
    : {
        path: resolve(config.triggerSocket),
        binary,
        args,
        allowedUids: config.allowedUids,
        allowedBinaries: config.allowedBinaries
      }

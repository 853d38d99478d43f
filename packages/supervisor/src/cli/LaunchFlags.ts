/**
 * The options of `run` and `plan`, and the supervisor's options that they mean.
 */
import * as Argument from "effect/cli/Argument"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import type { Options } from "../Supervisor.ts"
import { usage } from "./CommandExit.ts"
import * as OptionText from "./OptionText.ts"
import { parsed } from "./Root.ts"

const duration = (name: string, milliseconds: number, description: string) =>
  parsed(name, OptionText.duration).pipe(
    Flag.withDescription(description),
    Flag.withMetavar("DUR"),
    Flag.withDefault(milliseconds)
  )

export const env = parsed("env", OptionText.variable).pipe(
  Flag.withDescription("A variable for the program; may be repeated"),
  Flag.withMetavar("K=V"),
  Flag.atLeast(0)
)

export const program = Argument.String("program").pipe(
  Argument.withDescription("The program and its arguments, after --"),
  Argument.variadic()
)

export const flags = {
  listen: parsed("listen", OptionText.listener).pipe(
    Flag.withAlias("l"),
    Flag.withDescription("A listener: NAME=HOST:PORT, NAME=:PORT, NAME=[V6]:PORT or NAME=unix:PATH; may be repeated"),
    Flag.withMetavar("NAME=ADDR"),
    Flag.atLeast(0)
  ),
  mode: Flag.Literals("mode", ["overlap"]).pipe(
    Flag.withDescription("overlap: the new version starts beside the old one, which then drains"),
    Flag.withDefault("overlap")
  ),
  ready: parsed("ready", OptionText.ready).pipe(
    Flag.withDescription("When a version counts as ready: auto, notify, accepting or settle:DUR"),
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
    Flag.withDescription("Where output goes: log (a file each, followed here), inherit (ours) or null"),
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
  readonly listen: ReadonlyArray<OptionText.NamedListener>
  readonly mode: "overlap"
  readonly ready: OptionText.Ready
  readonly readyTimeout: number
  readonly grace: number
  readonly stopSignal: NonNullable<Options["stopSignal"]>
  readonly output: "log" | "inherit" | "null"
  readonly generations: number
  readonly env: ReadonlyArray<readonly [string, string]>
  readonly program: ReadonlyArray<string>
}

/** The supervisor's options; fails with what only the whole shows: no program, a name twice. */
export const toOptions = Effect.fnUntraced(function* (command: string, values: Values) {
  if (values.program.length === 0) {
    return yield* usage(command, `no program given: handoff ${command} --listen http=:8080 -- node server.js`)
  }
  const listeners: Record<string, string> = {}
  for (const { name, address } of values.listen) {
    if (Object.hasOwn(listeners, name)) return yield* usage(command, `--listen ${name} is given twice`)
    listeners[name] = address
  }
  const { policy, settleMs } = values.ready
  return {
    command: values.program,
    environment: Object.fromEntries(values.env),
    listeners,
    readiness: policy,
    ...(settleMs === undefined ? {} : { settleMs }),
    readyTimeoutMs: values.readyTimeout,
    graceMs: values.grace,
    stopSignal: values.stopSignal,
    generationLimit: values.generations,
    output: values.output
  } satisfies Options
})

/**
 * Explores the handoff from the command line: `npm run explore -- --mode sealed --faults 2`.
 *
 *   --mode MODE      sealed, overlap, exclusive; default: all three
 *   --faults N       how many faults may happen [1]
 *   --kinds A,B      only faults of these kinds (see packages/core/src/testing/world/Settings.ts)
 *   --swaps N        how many swaps may be asked for [1]
 *   --aborts N       how many aborts [1]
 *   --stops N        how often the supervisor may be stopped [0]
 *   --writes N       how many writes clients may send, at most 8 [1]
 *   --states N       stop at so many states [50000000]
 *   --help           this text
 *
 * Exits with status 1 when a property is broken, after printing a shortest trace; with status 2, and a line on the
 * standard error, when it cannot tell what is wanted.
 */
import { readFileSync } from "node:fs"
import { parseArgs } from "node:util"
import * as Explorer from "@handoff/core/testing/Explorer"
import * as World from "@handoff/core/testing/World"

const MODES = ["sealed", "overlap", "exclusive"] as const

const refuse = (text: string): never => {
  process.stderr.write(`explore: ${text}\n`)
  process.exit(2)
}

const numbers = { faults: 1, swaps: 1, aborts: 1, stops: 0, writes: 1, states: 50_000_000 }
const names = ["mode", "kinds", ...Object.keys(numbers)]

// Not strict: what is wrong is said here, in one line, with what is allowed.
const { values, positionals } = parseArgs({
  strict: false,
  options: {
    help: { type: "boolean" },
    ...Object.fromEntries(names.map((name) => [name, { type: "string" as const }]))
  }
})

if (values.help !== undefined) {
  const [, comment = ""] = /\/\*\*\n([\s\S]*?)\n \*\//.exec(readFileSync(import.meta.filename, "utf8")) ?? []
  console.log(comment.replaceAll(/^ \* ?/gm, ""))
  process.exit(0)
}

const unknown = Object.keys(values).find((name) => !names.includes(name))
if (unknown !== undefined) refuse(`unknown option --${unknown}; options are --${names.join(", --")}, --help`)
const [stray] = positionals
if (stray !== undefined) refuse(`${stray} is no option; options are --${names.join(", --")}, --help`)

const oneOf = <A extends string>(option: string, text: string, allowed: ReadonlyArray<A>): A =>
  allowed.find((one) => one === text) ?? refuse(`${option}: "${text}" is none of ${allowed.join(", ")}`)

/** The text of an option, undefined without one. */
const given = (name: string): string | undefined => {
  const text = values[name]
  return text === true ? "" : (text as string | undefined)
}

const whole = (name: keyof typeof numbers, from: number, to = Number.MAX_SAFE_INTEGER): number => {
  const text = given(name) ?? String(numbers[name])
  const number = /^\d+$/.test(text) ? Number(text) : Number.NaN
  if (number >= from && number <= to) return number
  const range = to === Number.MAX_SAFE_INTEGER ? `from ${from}` : `from ${from} to ${to}`
  return refuse(`--${name}: "${text}" is not a whole number ${range}`)
}

const mode = given("mode")
const modes = mode === undefined ? MODES : [oneOf("--mode", mode, MODES)]
const kinds = given("kinds")
  ?.split(",")
  .map((kind) => oneOf("--kinds", kind, World.faultKinds))
const bounds = {
  kinds: kinds ?? World.faultKinds,
  faults: whole("faults", 0),
  swaps: whole("swaps", 0),
  aborts: whole("aborts", 0),
  stops: whole("stops", 0),
  writes: whole("writes", 0, World.careful.maxWrites)
}
const maxStates = whole("states", 1)

/** Time on the processor: what else the machine does is not counted. */
const clock = (): number => process.cpuUsage().user / 1000

for (const one of modes) {
  const result = Explorer.explore(World.make({ mode: one, ...bounds }), { maxStates, clock })
  console.log(Explorer.summary(`${one}, ${bounds.swaps} swap(s), ${bounds.faults} fault(s)`, result))
  if (result.broken === undefined) continue
  console.log(Explorer.explain(result.broken))
  process.exitCode = 1
}

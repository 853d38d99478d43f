/**
 * The configuration file: TOML with the keys of the reference supervisor of the Rust crate `beyond-handoff`, so that a file
 * written for that one works here. Pure: text in, values or the first error out. Nothing is opened, no default filled in.
 *
 *   control_socket    path of the daemon's handoff socket
 *   trigger_socket    path of the trigger socket (TriggerSocket.ts)
 *   binary, args      the program; PATH is searched for a name without a slash
 *   env               variables for it: an array of [name, value] pairs, or a table
 *   [[listeners]]     name, addr
 *   journal           the crate's journal file, read at start and set aside
 *   drain_grace_secs, deadline_secs   whole seconds
 *   allowed_uids      users who may use the trigger socket, besides root and ours
 *   allowed_binaries  programs that a trigger client may name, besides `binary`
 *
 * Wider than the reference: every key may be absent (the command line can give what is missing), `env` may be a table,
 * addresses may be `unix:PATH`. Narrower: two listeners may not share a name, and variables that a supervisor sets itself
 * are refused. An unknown key is an error, as there.
 *
 * Limit: the parser tells lines of malformed text only, so what is wrong with a value is told by its key.
 *
 * @example
 * Config.parse('binary = "/usr/bin/app"\n[[listeners]]\nname = "http"\naddr = ":8080"')
 */
import * as Address from "@handoff/core/Address"
import * as ListenEnvironment from "@handoff/core/ListenEnvironment"
import * as Data from "effect/Data"
import * as Toml from "effect/encoding/Toml"
import * as Result from "effect/Result"

export interface ListenerConfig {
  readonly name: string
  /** Checked to be an address, kept as text. */
  readonly address: string
}

/** What the file says. Times are in milliseconds. */
export interface Config {
  readonly controlSocket: string | undefined
  readonly triggerSocket: string | undefined
  readonly binary: string | undefined
  readonly args: ReadonlyArray<string>
  readonly env: ReadonlyArray<readonly [string, string]>
  readonly listeners: ReadonlyArray<ListenerConfig>
  readonly journal: string | undefined
  readonly drainGraceMs: number | undefined
  readonly deadlineMs: number | undefined
  readonly allowedUids: ReadonlyArray<number>
  readonly allowedBinaries: ReadonlyArray<string>
}

export class ConfigError extends Data.TaggedError("ConfigError")<{
  /** Absent when the text is no TOML. */
  readonly key?: string
  /** From 1; known only when the text is no TOML. */
  readonly line?: number
  readonly detail: string
}> {
  override get message(): string {
    const where = this.key ?? (this.line === undefined ? undefined : `line ${this.line}`)
    return where === undefined ? this.detail : `${where}: ${this.detail}`
  }
}

type Read<A> = Result.Result<A, ConfigError>
type Table = Readonly<Record<string, unknown>>
/** Reads one value; the key is for the error. */
type Reader<A> = (key: string, value: unknown) => Read<A>

const KEYS = [
  "control_socket",
  "trigger_socket",
  "binary",
  "args",
  "env",
  "listeners",
  "journal",
  "drain_grace_secs",
  "deadline_secs",
  "allowed_uids",
  "allowed_binaries"
] as const
const LISTENER_KEYS = ["name", "addr"] as const

/** Longer timers overflow setTimeout, which then fires at once. */
const MAX_SECONDS = Math.floor((2 ** 31 - 1) / 1000)
const MAX_UID = 2 ** 32 - 2

const fail = (key: string, detail: string): Result.Result<never, ConfigError> =>
  Result.fail(new ConfigError({ key, detail }))

const describe = (value: unknown): string => {
  if (typeof value === "string") return `the text ${JSON.stringify(value)}`
  if (typeof value === "number") return `the number ${value}`
  if (typeof value === "boolean") return String(value)
  if (Array.isArray(value)) return "an array"
  return value instanceof Date ? "a date" : "a table"
}

const wrong = (key: string, value: unknown, expected: string) =>
  fail(key, `found ${describe(value)}, expected ${expected}`)

const isTable = (value: unknown): value is Table =>
  typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date)

/** Levenshtein's distance: how many characters must be inserted, removed or replaced. */
const distance = (one: string, other: string): number => {
  let previous = Array.from({ length: other.length + 1 }, (_, column) => column)
  for (let row = 1; row <= one.length; row++) {
    const current = [row]
    for (let column = 1; column <= other.length; column++) {
      const replaced = (previous[column - 1] ?? 0) + (one[row - 1] === other[column - 1] ? 0 : 1)
      current.push(Math.min(replaced, (previous[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1))
    }
    previous = current
  }
  return previous[other.length] ?? 0
}

/** The known key that was meant, or all of them when none is alike. */
const advice = (key: string, known: ReadonlyArray<string>): string => {
  const nearest = known.reduce((best, next) => (distance(key, next) < distance(key, best) ? next : best))
  return distance(key, nearest) <= key.length / 2 ? `did you mean ${nearest}?` : `known are ${known.join(", ")}`
}

const checkKeys = (table: Table, known: ReadonlyArray<string>, prefix = ""): Read<void> => {
  const unknown = Object.keys(table).find((key) => !known.includes(key))
  return unknown === undefined
    ? Result.succeed(undefined)
    : fail(`${prefix}${unknown}`, `is not a known key; ${advice(unknown, known)}`)
}

const text =
  (expected: string): Reader<string> =>
  (key, value) =>
    typeof value === "string" && !value.includes("\0") ? Result.succeed(value) : wrong(key, value, expected)

const path: Reader<string> = (key, value) =>
  value === "" ? wrong(key, value, "a path") : text("a path, as text without NUL")(key, value)

const whole =
  (most: number, expected: string): Reader<number> =>
  (key, value) =>
    typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= most
      ? Result.succeed(value)
      : wrong(key, value, expected)

const milliseconds: Reader<number> = (key, value) =>
  Result.map(
    whole(MAX_SECONDS, `a whole number of seconds from 0 to ${MAX_SECONDS}`)(key, value),
    (seconds) => seconds * 1000
  )

const list =
  <A>(expected: string, item: Reader<A>): Reader<ReadonlyArray<A>> =>
  (key, value) =>
    Array.isArray(value)
      ? Result.all(value.map((one: unknown, index) => item(`${key}[${index}]`, one)))
      : wrong(key, value, expected)

const variable: Reader<readonly [string, string]> = (key, value) => {
  const [name, content, ...more]: ReadonlyArray<unknown> = Array.isArray(value) ? value : []
  if (typeof name !== "string" || typeof content !== "string" || more.length > 0) {
    return wrong(key, value, 'a pair of texts such as ["LOG", "debug"]')
  }
  if (name === "" || /[=\0]/.test(name)) return fail(key, `${JSON.stringify(name)} is no variable's name`)
  if (content.includes("\0")) return fail(key, "the value holds a NUL")
  return ListenEnvironment.VARIABLES.some((own) => own === name)
    ? fail(key, `handoff sets ${name} itself`)
    : Result.succeed([name, content])
}

const env: Reader<ReadonlyArray<readonly [string, string]>> = (key, value) =>
  isTable(value)
    ? Result.all(Object.entries(value).map(([name, content]) => variableOf(key, name, content)))
    : list("an array of [name, value] pairs or a table", variable)(key, value)

const variableOf = (key: string, name: string, content: unknown) =>
  typeof content === "string" ? variable(`${key}.${name}`, [name, content]) : wrong(`${key}.${name}`, content, "a text")

const listener: Reader<ListenerConfig> = (key, value) =>
  Result.gen(function* () {
    if (!isTable(value)) return yield* wrong(key, value, "a table with name and addr")
    yield* checkKeys(value, LISTENER_KEYS, `${key}.`)
    const missing = LISTENER_KEYS.find((one) => value[one] === undefined)
    if (missing !== undefined) return yield* fail(`${key}.${missing}`, "is missing")
    const name = yield* text("a name")(`${key}.name`, value.name)
    if (!ListenEnvironment.isName(name)) {
      return yield* wrong(`${key}.name`, name, "1 to 255 printable ASCII characters without a colon")
    }
    // Listeners are kept by name in descriptor order, and JavaScript puts keys that are numbers first.
    if (/^\d+$/.test(name)) return yield* wrong(`${key}.name`, name, "a name that is not a number")
    const address = yield* text("an address such as 127.0.0.1:8080")(`${key}.addr`, value.addr)
    const parsed = Address.parse(address)
    return Result.isFailure(parsed) ? yield* fail(`${key}.addr`, parsed.failure.message) : { name, address }
  })

const listeners: Reader<ReadonlyArray<ListenerConfig>> = (key, value) =>
  Result.flatMap(list("[[listeners]] tables", listener)(key, value), (all) => {
    const twice = all.findIndex(({ name }, index) => all.findIndex((other) => other.name === name) < index)
    return twice < 0 ? Result.succeed(all) : fail(`${key}[${twice}].name`, `"${all[twice]?.name}" is given twice`)
  })

/** The parser tells the place in words: `Expected a value at line 1, column 10`. */
const toml = (content: string): Read<Table> =>
  Result.mapError(Toml.parse(content), ({ message }) => {
    const [, detail = message, line] = /^(.*) at line (\d+), column \d+$/.exec(message) ?? []
    return line === undefined ? new ConfigError({ detail }) : new ConfigError({ line: Number(line), detail })
  })

/** The file's values, or what is wrong with it first. */
export const parse = (content: string): Result.Result<Config, ConfigError> =>
  Result.gen(function* () {
    const table = yield* toml(content)
    yield* checkKeys(table, KEYS)
    const optional = <A>(key: (typeof KEYS)[number], read: Reader<A>): Read<A | undefined> =>
      table[key] === undefined ? Result.succeed(undefined) : read(key, table[key])
    const config: Config = {
      controlSocket: yield* optional("control_socket", path),
      triggerSocket: yield* optional("trigger_socket", path),
      binary: yield* optional("binary", path),
      args: (yield* optional("args", list("an array of texts", text("a text without NUL")))) ?? [],
      env: (yield* optional("env", env)) ?? [],
      listeners: (yield* optional("listeners", listeners)) ?? [],
      journal: yield* optional("journal", path),
      drainGraceMs: yield* optional("drain_grace_secs", milliseconds),
      deadlineMs: yield* optional("deadline_secs", milliseconds),
      allowedUids: (yield* optional("allowed_uids", list("an array of user ids", whole(MAX_UID, "a user id")))) ?? [],
      allowedBinaries: (yield* optional("allowed_binaries", list("an array of paths", path))) ?? []
    }
    return config.args.length > 0 && config.binary === undefined
      ? yield* fail("args", "are arguments of binary, which is missing")
      : config
  })

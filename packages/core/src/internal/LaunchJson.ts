/**
 * Launch plans as JSON text, and back with every field checked.
 *
 * A plan is JSON by construction, so writing it is `JSON.stringify`. Reading trusts nothing: a plan may come from a file
 * or from another version, and what it says is run as system calls. The first field that is missing, unknown or of the
 * wrong kind is named by its path, such as `calls[3].to`.
 */
import * as Data from "effect/Data"
import * as Result from "effect/Result"
import { isFd } from "../Fd.ts"
import type { LaunchPlan, Resource } from "../Launch.ts"
import * as Signal from "../Signal.ts"

/** `path` is where in the input, `""` for the whole of it; `expected` says what should be there. */
export class PlanJsonError extends Data.TaggedError("PlanJsonError")<{
  readonly path: string
  readonly expected: string
}> {
  override get message(): string {
    return `${this.path === "" ? "the launch plan" : this.path} is not ${this.expected}`
  }
}

/** A check returns what is wrong below `path`, or undefined. */
type Check = (value: unknown, path: string) => PlanJsonError | undefined

const wrong = (path: string, expected: string): PlanJsonError => new PlanJsonError({ path, expected })

const when =
  (expected: string, test: (value: unknown) => boolean): Check =>
  (value, path) =>
    test(value) ? undefined : wrong(path, expected)

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const isNatural = (value: unknown): boolean => typeof value === "number" && Number.isSafeInteger(value) && value >= 0

const number = when("a whole number from 0", isNatural)
const text = when("a string without NUL bytes", (value) => typeof value === "string" && !value.includes("\0"))
const boolean = when("a boolean", (value) => typeof value === "boolean")
const fd = when("a descriptor number", (value) => typeof value === "number" && isFd(value))
const literal = (...values: ReadonlyArray<string>): Check =>
  when(`one of ${values.map((value) => JSON.stringify(value)).join(", ")}`, (value) =>
    values.some((one) => one === value)
  )
const errno = when("an errno name", (value) => typeof value === "string" && /^E[A-Z0-9]+$/.test(value))
const limit = when('a whole number from 0 or "unlimited"', (value) => isNatural(value) || value === "unlimited")
const signal = when(
  "a signal name",
  (value) => typeof value === "string" && value.startsWith("SIG") && Signal.parse(value) === value
)
const signalNumber = when(
  "a signal number from 1 to 64",
  (value) => isNatural(value) && Number(value) >= 1 && Number(value) <= 64
)
const last: Check = (value, path) => (value === "max" ? undefined : fd(value, path))

const list =
  (check: Check): Check =>
  (value, path) => {
    if (!Array.isArray(value)) return wrong(path, "an array")
    for (const [index, item] of value.entries()) {
      const problem = check(item, `${path}[${index}]`)
      if (problem !== undefined) return problem
    }
    return undefined
  }

const fields =
  (shape: Readonly<Record<string, Check>>, optional: Readonly<Record<string, Check>> = {}): Check =>
  (value, path) => {
    if (!isObject(value)) return wrong(path, "an object")
    const below = (key: string) => (path === "" ? key : `${path}.${key}`)
    for (const [key, check] of Object.entries(shape)) {
      if (!Object.hasOwn(value, key)) return wrong(below(key), "there")
      const problem = check(value[key], below(key))
      if (problem !== undefined) return problem
    }
    for (const key of Object.keys(value)) {
      if (Object.hasOwn(shape, key)) continue
      const check = Object.hasOwn(optional, key) ? optional[key] : undefined
      if (check === undefined) return wrong(below(key), "a known field")
      const problem = check(value[key], below(key))
      if (problem !== undefined) return problem
    }
    return undefined
  }

const environment: Check = (value, path) => {
  if (!isObject(value)) return wrong(path, "an object")
  for (const [name, content] of Object.entries(value)) {
    if (name === "" || /[=\0]/.test(name)) return wrong(`${path}[${JSON.stringify(name)}]`, "a variable name")
    const problem = text(content, `${path}.${name}`)
    if (problem !== undefined) return problem
  }
  return undefined
}

const slot = fields({ slot: number })
const ref: Check = (value, path) => (isObject(value) ? slot(value, path) : fd(value, path))

const RESOURCES: Readonly<Record<Resource, true>> = {
  CPU: true,
  FSIZE: true,
  DATA: true,
  STACK: true,
  CORE: true,
  RSS: true,
  NPROC: true,
  NOFILE: true,
  MEMLOCK: true,
  AS: true,
  LOCKS: true,
  SIGPENDING: true,
  MSGQUEUE: true,
  NICE: true,
  RTPRIO: true,
  RTTIME: true
}

const CALLS: Readonly<Record<LaunchPlan["calls"][number]["_tag"], Readonly<Record<string, Check>>>> = {
  Dup2: { from: ref, to: fd },
  Duplicate: { from: ref, atLeast: fd, closeOnExec: boolean, slot: number },
  ClearCloseOnExec: { fd: ref },
  Close: { fd: ref },
  CloseRange: { first: fd, last, how: literal("close", "close-on-exec") },
  SetResourceLimit: { resource: literal(...Object.keys(RESOURCES)), soft: limit, hard: limit },
  SetProcessGroup: {},
  SetSession: {},
  SetUmask: { mask: number },
  SetGroups: { groups: list(number) },
  SetGid: { gid: number },
  SetUid: { uid: number },
  ChangeDirectory: { path: text },
  SetNoNewPrivileges: {},
  SetParentDeathSignal: { signal },
  StampPid: {},
  DefaultSignals: { signals: list(signalNumber) },
  EmptySignalMask: {},
  Execute: { path: text, argv: list(text), environment }
}

const tag = literal(...Object.keys(CALLS))

const call: Check = (value, path) => {
  if (!isObject(value)) return wrong(path, "an object")
  const problem = tag(value._tag, `${path}._tag`)
  if (problem !== undefined) return problem
  const shape = CALLS[value._tag as keyof typeof CALLS]
  return fields({ _tag: tag, ...shape }, { tolerate: list(errno) })(value, path)
}

const version = when("1, the only version", (value) => value === 1)

/** A slot must be filled by an earlier call before another reads it. */
const checkSlots = (plan: LaunchPlan): PlanJsonError | undefined => {
  const filled = new Set<number>()
  for (const [step, one] of plan.calls.entries()) {
    const read = "from" in one ? one.from : "fd" in one ? one.fd : 0
    if (typeof read !== "number" && !filled.has(read.slot)) {
      return wrong(`calls[${step}].${"from" in one ? "from" : "fd"}`, "a slot that an earlier call fills")
    }
    if (one._tag === "Duplicate") filled.add(one.slot)
  }
  return undefined
}

const parse = (input: string): unknown => {
  try {
    return JSON.parse(input)
  } catch {
    return undefined
  }
}

/** The plan as JSON text. */
export const toJson = (plan: LaunchPlan): string => JSON.stringify(plan, undefined, 2)

/** Reads a plan from JSON text, or checks a value that was parsed already. Unknown fields are refused. */
export const fromJson = (input: unknown): Result.Result<LaunchPlan, PlanJsonError> => {
  const value = typeof input === "string" ? parse(input) : input
  const problem = fields({ version, calls: list(call) })(value, "")
  if (problem !== undefined) return Result.fail(problem)
  // Checked field by field just above.
  const plan = value as LaunchPlan
  const slots = checkSlots(plan)
  return slots === undefined ? Result.succeed(plan) : Result.fail(slots)
}

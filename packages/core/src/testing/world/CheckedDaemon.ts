/**
 * A daemon's model, checked while it is explored: what its hooks give, and that they give it without a throw.
 *
 * States are told apart by the JSON text of memory and disk. What JSON leaves out (the entries of a Map, a private
 * field, NaN) would make two states one, and hide every bug behind the second, without a word. So every value is
 * checked once; equal values become one object, and that is frozen, deeply: a hook that changes its argument throws
 * where it does so.
 */
import type { Daemon, Work } from "./Daemon.ts"

const ALLOWED = "Memory and Disk are numbers, texts, booleans, null, arrays and plain objects"

/** What a value is, for a message. */
export const kindOf = (value: unknown): string => {
  if (typeof value === "string") return JSON.stringify(value)
  if (typeof value === "bigint" || typeof value === "function" || typeof value === "symbol") return `a ${typeof value}`
  if (typeof value !== "object" || value === null) return String(value)
  if (Array.isArray(value)) return "an array"
  if ("then" in value && typeof value.then === "function") return "a promise"
  const made = value.constructor
  const name = typeof made === "function" && made !== Object ? made.name : "object"
  return `${/^[aeiou]/i.test(name) ? "an" : "a"} ${name || "class instance"}`
}

/** Where in a value is what may not be there. */
interface Flaw {
  readonly path: string
  readonly kind: string
}

/** By the length of the chain, not by its members: a value may come from another realm (node:vm). */
const isPlain = (value: object): boolean => {
  let prototype = Object.getPrototypeOf(value)
  if (prototype !== null && Array.isArray(value)) prototype = Object.getPrototypeOf(prototype)
  return prototype === null || Object.getPrototypeOf(prototype) === null
}

/** Memories and disks: each is looked at once. */
class Values {
  readonly #byText = new Map<string, object>()
  /** Frozen, with all that they hold. */
  readonly #frozen = new WeakSet<object>()
  readonly #refuse: (flaw: Flaw, what: "memory" | "disk", hook: string) => never

  constructor(refuse: (flaw: Flaw, what: "memory" | "disk", hook: string) => never) {
    this.#refuse = refuse
  }

  /** The one object for values equal to this one. */
  intern(value: unknown, what: "memory" | "disk", hook: string): unknown {
    const isObject = typeof value === "object" && value !== null
    if (isObject && this.#frozen.has(value)) return value
    const flaw = this.#flawIn(value, [])
    if (flaw !== undefined) return this.#refuse(flaw, what, hook)
    if (!isObject) return value
    const text = JSON.stringify(value)
    const known = this.#byText.get(text)
    if (known !== undefined) return known
    this.#freeze(value)
    this.#byText.set(text, value)
    return value
  }

  #flawIn(value: unknown, ancestors: ReadonlyArray<object>): Flaw | undefined {
    switch (typeof value) {
      case "string":
      case "boolean":
        return undefined
      case "number":
        return Number.isFinite(value) ? undefined : { path: "", kind: kindOf(value) }
      case "object":
        if (value === null || this.#frozen.has(value)) return undefined
        if (ancestors.includes(value)) return { path: "", kind: "the value that it is a part of" }
        if (!isPlain(value)) return { path: "", kind: kindOf(value) }
        return this.#flawInside(value, [...ancestors, value])
      default:
        return { path: "", kind: kindOf(value) }
    }
  }

  #flawInside(value: object, ancestors: ReadonlyArray<object>): Flaw | undefined {
    if (Array.isArray(value)) {
      for (let index = 0; index < value.length; index++) {
        const flaw = this.#flawIn(value[index], ancestors)
        if (flaw !== undefined) return { ...flaw, path: `[${index}]${flaw.path}` }
      }
      return undefined
    }
    for (const key of Reflect.ownKeys(value)) {
      const flaw =
        typeof key === "symbol"
          ? { path: "", kind: "keyed by a symbol" }
          : this.#flawIn(value[key as keyof typeof value], ancestors)
      if (flaw !== undefined) return { ...flaw, path: `.${String(key)}${flaw.path}` }
    }
    return undefined
  }

  #freeze(value: object): void {
    if (this.#frozen.has(value)) return
    this.#frozen.add(Object.freeze(value))
    for (const part of Object.values(value)) if (typeof part === "object" && part !== null) this.#freeze(part)
  }
}

const isWork = (value: unknown): value is Work<unknown, unknown> =>
  typeof value === "object" && value !== null && "memory" in value && "disk" in value

/** The same daemon, that throws with its name and the hook's when a hook gives what it may not. */
export const checked = (daemon: Daemon<unknown, unknown>): Daemon<unknown, unknown> => {
  const requested = new Set<number>()
  const fail = (text: string, cause?: unknown): never => {
    throw new Error(`daemon "${daemon.name}": ${text}`, cause === undefined ? undefined : { cause })
  }
  const values = new Values(({ path, kind }, what, hook) => {
    const given = hook === "" ? "" : ` given by ${hook}()`
    return fail(`${what}${path}${given} is ${kind}; ${ALLOWED}`)
  })
  const run = <A extends Array<unknown>, B>(hook: string, body: (...args: A) => B, ...args: A): B => {
    try {
      return body.apply(daemon, args)
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause)
      const isChange = cause instanceof TypeError && /read only|not extensible|delete property/i.test(reason)
      const hint = isChange ? " (what a hook gets is frozen: it gives a new value and changes none)" : ""
      return fail(`${hook}() threw: ${reason}${hint}`, cause)
    }
  }
  const memoryOf = (hook: string, value: unknown): unknown => values.intern(value, "memory", hook)
  const diskOf = (hook: string, value: unknown): unknown => values.intern(value, "disk", hook)
  const booleanOf = (hook: string, value: unknown): boolean =>
    typeof value === "boolean" ? value : fail(`${hook}() gave ${kindOf(value)}, not true or false`)

  const answered = (verb: "acknowledges" | "refuses", write: number | undefined): void => {
    if (write === undefined || requested.has(write)) return
    fail(`work() ${verb} ${kindOf(write)}, a write that was never requested`)
  }
  const workOf = (one: unknown, index: number): Work<unknown, unknown> => {
    if (!isWork(one)) {
      const kind =
        typeof one === "object" && one !== null ? `an object with ${Object.keys(one).join(", ")}` : kindOf(one)
      return fail(`work() gave ${kind} at ${index}, not an object with memory and disk`)
    }
    const { acknowledges, refuses } = one
    if (acknowledges !== undefined && refuses !== undefined) {
      fail(`work() acknowledges ${acknowledges} and refuses ${refuses} in one step; a step answers at most one write`)
    }
    answered("acknowledges", acknowledges)
    answered("refuses", refuses)
    return { ...one, memory: memoryOf("work", one.memory), disk: diskOf("work", one.disk) }
  }

  const { open, request, work, drain, isDrained, seal, resume, has, survives } = daemon
  return {
    name: daemon.name,
    disk: diskOf("", daemon.disk),
    open: (disk) => memoryOf("open", run("open", open, disk)),
    request: (memory, write) => {
      requested.add(write)
      return memoryOf("request", run("request", request, memory, write))
    },
    work: (memory, disk) => {
      const all: unknown = run("work", work, memory, disk)
      return Array.isArray(all) ? all.map(workOf) : fail(`work() gave ${kindOf(all)}, not an array`)
    },
    drain: (memory) => memoryOf("drain", run("drain", drain, memory)),
    isDrained: (memory) => booleanOf("isDrained", run("isDrained", isDrained, memory)),
    seal: (memory, disk) => {
      const sealed: unknown = run("seal", seal, memory, disk)
      if (!isWork(sealed)) return fail(`seal() gave ${kindOf(sealed)}, not an object with memory and disk`)
      return { memory: memoryOf("seal", sealed.memory), disk: diskOf("seal", sealed.disk) }
    },
    resume: (memory) => memoryOf("resume", run("resume", resume, memory)),
    has: (disk, write) => booleanOf("has", run("has", has, disk, write)),
    ...(survives === undefined ? {} : { survives: (disk) => diskOf("survives", run("survives", survives, disk)) })
  }
}

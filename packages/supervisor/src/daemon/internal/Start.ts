/**
 * Starts a daemon: joins what it inherited, its servers, its data, the stop signal and the process's end. The door is
 * `daemon()` in ../index.ts; this one also takes the observer of the fault tests (Points.ts).
 */
import { writeSync } from "node:fs"
import { Daemon, type DaemonOptions, GRACE_MS } from "../Daemon.ts"
import { DaemonError } from "../DaemonError.ts"
import type { DataOptions } from "../DataOptions.ts"
import { type Inheritance, inherit } from "../Inheritance.ts"
import { programName } from "../ProgramName.ts"
import { Servers } from "../Servers.ts"
import { type Observe, observeNothing } from "./Points.ts"

export type Options = DaemonOptions | DataOptions

/** Written at once, since the process is about to end. */
const complain = (text: string): void => {
  try {
    writeSync(2, `${programName()}: ${text}\n`)
  } catch {
    // Nobody reads it.
  }
}

/** How long a program that ends its process itself may take for it when it must end. */
const LEAVE_MS = 2_000

const exitWith = (text: string): never => {
  complain(text)
  process.exit(1)
}

const drainOn = (
  { stopSignal = "SIGTERM", signal }: DaemonOptions,
  handoff: Daemon,
  isWaiting: () => boolean
): void => {
  // The handler stays: without it a second signal would end the process in the middle of its drain.
  const stop = () => {
    if (isWaiting()) exitWith("stopped by a second signal while a handoff was under way")
    handoff.drain()
  }
  if (stopSignal !== false) process.on(stopSignal, stop)
  if (signal?.aborted) handoff.drain()
  else signal?.addEventListener("abort", () => handoff.drain(), { once: true })
}

const exitAfter = (handoff: Daemon, { exit = true }: DaemonOptions): void => {
  // One turn later, so that who waits for `drained` is heard first.
  if (exit) handoff.drained.then(() => setImmediate(() => process.exit(process.exitCode ?? 0)))
}

const startPlain = async (inheritance: Inheritance, options: DaemonOptions): Promise<Daemon> => {
  const servers = new Servers(inheritance.named, undefined)
  servers.inherit(await inheritance.take())
  const handoff = new Daemon(inheritance, servers, options)
  drainOn(options, handoff, () => false)
  exitAfter(handoff, options)
  return handoff
}

/** `onDrain` and `drain` are one at the stop. */
const withDrain = (options: DataOptions): DataOptions => {
  const { onDrain, drain, graceMs = GRACE_MS } = options
  if (drain === undefined) return options
  const both = () =>
    Promise.all([onDrain?.(), drain({ at: Date.now() + graceMs, signal: AbortSignal.timeout(graceMs) })])
  return { ...options, onDrain: both }
}

const startWithData = async (inheritance: Inheritance, options: DataOptions, observe: Observe): Promise<Daemon> => {
  const [{ DataOwnership }, Native] = await Promise.all([import("./DataOwnership.ts"), import("./Native.ts")])
  Native.load()
  const servers = new Servers(inheritance.named, Native)
  const ownership = new DataOwnership(options, {
    inheritance,
    servers,
    observe,
    finished: (failure) => {
      if (failure === undefined) {
        handoff.finish("handed-over")
        return
      }
      complain(failure)
      process.exitCode = 1
      // It holds the data lock and cannot open its state: nobody else can, until it is gone.
      const leave = () => setTimeout(() => process.exit(), LEAVE_MS).unref()
      handoff.finish("failed").then(options.exit === false ? leave : undefined)
    },
    refused: (error, mustEnd) => {
      if (mustEnd || options.exit !== false) exitWith(error.message)
      handoff.finish("failed")
    },
    abandon: exitWith
  })
  const handoff = new Daemon(inheritance, servers, withDrain(options), ownership)
  let isWaiting = false
  drainOn(options, handoff, () => {
    const again = isWaiting && ownership.retiring
    isWaiting = true
    return again
  })
  exitAfter(handoff, options)
  await ownership.open().catch((error: unknown) => {
    if (!ownership.stopping) throw error
  })
  // Asked to stop meanwhile: the process ends, and its program need not learn of it by an error.
  if (ownership.stopping && options.exit !== false) await new Promise(() => undefined)
  return handoff
}

const isOwner = (options: Options): options is DataOptions => "dataDir" in options && options.dataDir !== undefined

const HOOKS = ["open", "seal", "drain", "resume", "snapshot", "close", "controlSocket"] as const

const checkOptions = (options: Options): void => {
  const given = HOOKS.filter((name) => name in options)
  const missing = (["open", "seal"] as const).filter((name) => !(name in options))
  const detail = isOwner(options)
    ? missing.length > 0 && `with dataDir the hooks ${missing.join(" and ")} are needed`
    : given.length > 0 && `without dataDir there is nothing for ${given.join(", ")}`
  if (detail !== false) throw new DaemonError({ reason: { _tag: "BadOptions", detail } })
}

export const start = async (options: Options, observe: Observe = observeNothing): Promise<Daemon> => {
  checkOptions(options)
  const inheritance = await inherit(process.env, isOwner(options))
  return isOwner(options) ? startWithData(inheritance, options, observe) : startPlain(inheritance, options)
}

/**
 * What a world is made with: its bounds, the daemon, and the policies, which are the shipped ones unless a test replaces
 * one to see that the explorer notices.
 */
import * as Incumbent from "../../protocol/Incumbent.ts"
import * as Successor from "../../protocol/Successor.ts"
import * as Document from "../../swap/Document.ts"
import type { Mode } from "../../swap/Mode.ts"
import * as Recovery from "../../swap/Recovery.ts"
import * as Supervision from "../../swap/Supervision.ts"
import { type Backend, linux } from "./Backend.ts"
import { kindOf } from "./CheckedDaemon.ts"
import { careful, type Daemon } from "./Daemon.ts"
import { HANDOFF_SOCKET } from "./Layout.ts"

/** Everything that decides, and the habits of the drivers that decide nothing but can be got wrong. */
export interface Policies {
  readonly supervision: typeof Supervision.step
  readonly document: typeof Document.of
  readonly recovery: typeof Recovery.decide
  readonly incumbent: typeof Incumbent.step
  readonly successor: typeof Successor.step
  /** The document is written before the commands of a step are carried out. */
  readonly savesFirst: boolean
  /** Facts of a swap's channels are told with the swap's number. */
  readonly numbersSwaps: boolean
  /** A daemon that ends removes the handoff socket's path only if it leads to itself. */
  readonly removesOwnPathOnly: boolean
  /** An incumbent that resumes takes the handoff socket's path back from a successor that had taken it. */
  readonly reclaimsPath: "until it succeeds" | "once" | "never"
  /** Commands of the daemons in the order of the machine. */
  readonly order: (commands: ReadonlyArray<{ readonly _tag: string }>) => ReadonlyArray<{ readonly _tag: string }>
}

export const shipped: Policies = {
  supervision: Supervision.step,
  document: Document.of,
  recovery: Recovery.decide,
  incumbent: Incumbent.step,
  successor: Successor.step,
  savesFirst: true,
  numbersSwaps: true,
  removesOwnPathOnly: true,
  reclaimsPath: "until it succeeds",
  order: (commands) => commands
}

export const faultKinds = [
  "kill",
  "crash",
  "cut",
  "stop",
  "power",
  "call",
  "hook",
  "slow",
  "noise",
  "pid",
  "group"
] as const

/**
 * kill: a party is killed between two steps. crash: in the middle of one, between any two of its system calls. cut: a
 * reader gets a part of a frame, or a writer is killed after a part of it. stop: SIGSTOP, and SIGCONT some time later.
 * power: everything dies, and what was not synced is gone. call: a system call fails with an errno. hook: a hook of the
 * daemon fails, or what it opened is not well. slow: a timer fires though what it waits for is on its way. noise: a message
 * that nobody waits for, or bytes that are none. pid: the pid of a dead generation is given to a stranger. group: the
 * leader of a generation's process group is killed, and a child of it that holds the listener lives on (not sealed).
 */
export type FaultKind = (typeof faultKinds)[number]

export interface Settings<Memory = unknown, Disk = unknown> {
  readonly mode: Mode
  /** How many faults may happen, of which kinds. */
  readonly faults: number
  readonly kinds: ReadonlyArray<FaultKind>
  /** How many swaps may be asked for, how many aborts, and how often the supervisor may be stopped. */
  readonly swaps: number
  readonly aborts: number
  readonly stops: number
  /**
   * How many writes clients may send: at most the daemon's `maxWrites`. With 1 no write is ever seen to overwrite or to
   * overtake another: use 2.
   */
  readonly writes: number
  /** Where a frame is cut: after its first byte and before its last, or anywhere. */
  readonly cuts: "ends" | "anywhere"
  readonly daemon: Daemon<Memory, Disk>
  readonly backend: Backend
  readonly policies: Policies
}

export const defaults: Settings<number, number> = {
  mode: "sealed",
  faults: 0,
  kinds: faultKinds,
  swaps: 1,
  aborts: 1,
  stops: 0,
  writes: 1,
  cuts: "ends",
  daemon: careful,
  backend: linux,
  policies: shipped
}

const modes: ReadonlyArray<Mode> = ["sealed", "overlap", "exclusive"]
const bounds = ["faults", "swaps", "aborts", "stops", "writes"] as const
const reclaims: ReadonlyArray<Policies["reclaimsPath"]> = ["until it succeeds", "once", "never"]
const hooks = ["open", "request", "work", "drain", "isDrained", "seal", "resume", "has"]
/** A client names its write by one byte. */
const MOST_WRITES = 256

const fail = (text: string): never => {
  throw new Error(`World.make: ${text}`)
}

const checkNames = (what: string, given: object, known: ReadonlyArray<string>): void => {
  const unknown = Object.keys(given).find((name) => !known.includes(name))
  if (unknown !== undefined) fail(`unknown ${what} "${unknown}"; there are ${known.join(", ")}`)
}

const checkOneOf = (name: string, value: unknown, known: ReadonlyArray<unknown>): void => {
  if (!known.includes(value)) fail(`${name}: ${kindOf(value)} is none of ${known.join(", ")}`)
}

/** What is in `given` is of the same type as in `like`. */
const checkLike = (what: string, given: object, like: object): void => {
  checkNames(`${what} member`, given, Object.keys(like))
  const members = new Map<string, unknown>(Object.entries(given))
  for (const [name, value] of Object.entries(like)) {
    const member = members.get(name)
    if (typeof member !== typeof value) fail(`${what}.${name} is ${kindOf(member)}, not a ${typeof value}`)
  }
}

const checkDaemon = (daemon: Readonly<Record<string, unknown>>): void => {
  const { name, disk, survives, maxWrites } = daemon
  if (typeof name !== "string") fail(`daemon.name is ${kindOf(name)}, not a text`)
  if (disk === undefined) fail(`daemon "${name}" has no disk: what an empty one is`)
  for (const hook of hooks) {
    if (typeof daemon[hook] !== "function") fail(`daemon "${name}": ${hook} is ${kindOf(daemon[hook])}, not a function`)
  }
  if (survives !== undefined && typeof survives !== "function") {
    fail(`daemon "${name}": survives is ${kindOf(survives)}, not a function`)
  }
  if (maxWrites !== undefined) checkWhole(`daemon "${name}": maxWrites`, maxWrites)
}

const checkWhole = (name: string, value: unknown): void => {
  if (!Number.isInteger(value) || (value as number) < 0) fail(`${name}: ${kindOf(value)} is not a whole number from 0`)
}

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null

/** The wish, and the defaults for the rest. Throws, naming the setting, on what no world can be made with. */
export const checkedSettings = <Memory, Disk>(wish: Partial<Settings<Memory, Disk>>): Settings => {
  checkNames("setting", wish, Object.keys(defaults))
  const settings = { ...defaults, ...wish } as Settings
  const { kinds, daemon, backend, policies } = settings
  checkOneOf("mode", settings.mode, modes)
  checkOneOf("cuts", settings.cuts, ["ends", "anywhere"])
  for (const name of bounds) checkWhole(name, settings[name])
  if (!Array.isArray(kinds)) fail(`kinds: ${kindOf(kinds)} is not a list; kinds are ${faultKinds.join(", ")}`)
  for (const kind of kinds) checkOneOf("kinds", kind, faultKinds)
  for (const name of ["daemon", "backend", "policies"] as const) {
    if (!isObject(settings[name])) fail(`${name}: ${kindOf(settings[name])} is not an object`)
  }
  checkDaemon(daemon as unknown as Readonly<Record<string, unknown>>)
  checkLike("backend", backend, linux)
  checkLike("policies", policies, shipped)
  checkOneOf("policies.reclaimsPath", policies.reclaimsPath, reclaims)
  // The other modes know nothing of the daemon's state.
  const most = Math.min(MOST_WRITES, (settings.mode === "sealed" ? daemon.maxWrites : undefined) ?? MOST_WRITES)
  if (settings.writes > most) {
    fail(`writes: ${settings.writes} is more than the ${most} that daemon "${daemon.name}" takes`)
  }
  return settings
}

/** As the reference supervisor sets them; times do not matter. */
export const optionsOf = (mode: Mode): Supervision.Options => ({
  ...Supervision.defaults,
  listeners: 1,
  historyLimit: 1,
  mode: mode === "exclusive" ? "exclusive" : "auto",
  instance: "s"
})

export const commandOf = (version: number): Supervision.Command => ({ argv: [`v${version}`] })

export const versionOf = (command: Supervision.Command): number => Number((command.argv[0] ?? "v0").slice(1))

export const facts: Document.Facts = {
  name: "world",
  supervisor: { pid: 1, version: "", instance: "s" },
  handoffSocket: HANDOFF_SOCKET,
  listeners: []
}

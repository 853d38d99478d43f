/**
 * A whole handoff as one immutable value: the supervisor, the generations, the kernel they run on, the disk, the clients.
 *
 * What a party knows or believes is in its own record; what is so is in the kernel: who lives, who holds the lock, which
 * descriptors are open, what is in a stream, on the disk, at a path. What cannot matter is in neither: times (the clock
 * stands still, a timer that is set may fire), histories, counts of restarts, texts.
 */
import type { Fd } from "../../Fd.ts"
import type * as Incumbent from "../../protocol/Incumbent.ts"
import type * as Successor from "../../protocol/Successor.ts"
import type { Party } from "../../swap/Sealed.ts"
import type * as Supervision from "../../swap/Supervision.ts"
import type { Broken } from "../Explorer.ts"
import type { Kernel } from "../SimulatedKernel.ts"
import type { Node } from "./Machines.ts"

export { generationOf, pidOf } from "./Layout.ts"

/** The supervisor's end of a stream to a daemon. */
export interface Session {
  readonly swap: number
  readonly party: Party
  /** The daemon. */
  readonly pid: number
  /** Undefined: the connection is being made. */
  readonly fd: Fd | undefined
  /** The part of a frame that was read. */
  readonly partial: Uint8Array
  /** A write found the other end closed: nothing more is read. */
  readonly torn: boolean
}

/** A fact of one generation on its way to the machine, in order. */
export interface Fact {
  readonly generation: number
  readonly what: "launched" | "launch failed" | "notified" | "asked" | "exited" | "gone"
}

export interface Supervisor {
  /** One that is stopped is so in the kernel. */
  readonly life: "running" | "recovering" | "dead"
  readonly machine: Node<Supervision.State>
  /** With a mark (Timers.ts) those that came due while the process was stopped. */
  readonly timers: ReadonlyArray<string>
  readonly watches: ReadonlyArray<number>
  readonly looks: ReadonlyArray<number>
  readonly facts: ReadonlyArray<Fact>
  readonly sessions: ReadonlyArray<Session>
  /** Looks at the path that have not answered yet. */
  readonly probes: ReadonlyArray<{ readonly swap: number; readonly hello: boolean }>
  /** The last save failed. */
  readonly unsaved: boolean
  /** The service's listener; -1 without one. */
  readonly listener: Fd
}

export type Hook =
  | "start"
  | "lock"
  | "open"
  | "publish"
  | "drain"
  | "seal"
  | "resume"
  | "take listeners"
  | "prepare socket"
  | "remove socket"
  | "close"
  | "accept"

/** A client's connection, and the write that it asks for. */
export interface Request {
  readonly write: number
  readonly fd: Fd
}

export interface Process {
  readonly pid: number
  /** Which version it runs: v1 is 1. */
  readonly version: number
  /** It has been asked to stop (SIGTERM), and knows. */
  readonly stopping: boolean
  readonly role: "plain" | "cold" | "successor" | "incumbent"
  readonly incumbent: Node<Incumbent.State> | undefined
  readonly successor: Node<Successor.State> | undefined
  readonly timers: ReadonlyArray<string>
  /** What runs or is to run, in order. */
  readonly hooks: ReadonlyArray<Hook>
  /** Descriptors; -1 for none. The lock's: it holds the lock, as far as it knows. */
  readonly lock: Fd
  readonly socket: Fd
  /** The stream that it speaks on. */
  readonly session: Fd
  /** The part of a frame that was read from it. */
  readonly partial: Uint8Array
  /** The state is open: there is something in memory that the disk may not have. */
  readonly open: boolean
  readonly memory: unknown
  readonly requests: ReadonlyArray<Request>
  readonly accepting: boolean
  readonly cancelled: boolean
}

export type WriteStatus = "unsent" | "queued" | "in flight" | "acknowledged" | "failed"

export interface World {
  readonly supervisor: Supervisor
  readonly processes: ReadonlyArray<Process>
  readonly kernel: Kernel
  /** What the daemon's model has on the disk. */
  readonly disk: unknown
  readonly writes: ReadonlyArray<WriteStatus>
  /** The client's connection for each write; -1 for none. */
  readonly connections: ReadonlyArray<Fd>
  /** Processes that a fault, and not the supervisor, has ended or made useless. */
  readonly excused: ReadonlyArray<number>
  /** The newest version that a caller was told is in place. */
  readonly promised: number
  readonly faults: number
  readonly swaps: number
  readonly aborts: number
  readonly stops: number
  /** A supervisor died before it could write down what it had started: nothing is promised any more. */
  readonly lapsed: boolean
  /** Whether no fault has happened yet. */
  readonly faultless: boolean
  readonly broken: Broken | undefined
}

/** What happens next, by whom. `fuse`: the party dies before its system call of this number. */
export interface Move {
  readonly party: string
  readonly event: string
  readonly fuse: number
}

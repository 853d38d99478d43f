/**
 * A whole handoff as one immutable value: the supervisor, the generations, the kernel between them, the disk, the clients.
 *
 * What cannot matter is not in it: times (the clock stands still, a timer that is set may fire), histories, counts of
 * restarts, texts. A pid is 100 + the generation's number, for a generation has one process.
 */

import type * as Incumbent from "../../protocol/Incumbent.ts"
import type { Message } from "../../protocol/Message.ts"
import type * as Successor from "../../protocol/Successor.ts"
import type { Document } from "../../swap/Document.ts"
import type { Party } from "../../swap/Sealed.ts"
import type * as Supervision from "../../swap/Supervision.ts"
import type { Broken } from "../Explorer.ts"
import type { Node } from "./Machines.ts"

export const pidOf = (generation: number): number => 100 + generation
export const generationOf = (pid: number): number => pid - 100

/** A stream between the supervisor and a process: two queues, and who has closed its end. */
export interface Stream {
  readonly id: number
  readonly pid: number
  readonly toSupervisor: ReadonlyArray<Message>
  readonly toProcess: ReadonlyArray<Message>
  readonly supervisorClosed: boolean
  readonly processClosed: boolean
  /** The process has taken it out of its listener's queue. */
  readonly taken: boolean
}

/** The supervisor's end. */
export interface Session {
  readonly swap: number
  readonly party: Party
  /** Undefined: the connection is being made. */
  readonly stream: number | undefined
}

/** A fact of one generation on its way to the machine, in order. */
export interface Fact {
  readonly generation: number
  readonly what: "launched" | "launch failed" | "notified" | "asked" | "exited" | "gone"
}

export interface Supervisor {
  readonly life: "running" | "stopped" | "recovering" | "dead"
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
}

export type Hook =
  | "start"
  | "lock"
  | "open"
  | "drain"
  | "seal"
  | "resume"
  | "take listeners"
  | "prepare socket"
  | "remove socket"
  | "close"
  | "accept"

export interface Process {
  readonly pid: number
  /** Which version it runs: v1 is 1. */
  readonly version: number
  readonly stopped: boolean
  /** It has been asked to stop (SIGTERM), and knows. */
  readonly signalled: boolean
  readonly stopping: boolean
  readonly role: "plain" | "cold" | "successor" | "incumbent"
  readonly incumbent: Node<Incumbent.State> | undefined
  readonly successor: Node<Successor.State> | undefined
  readonly timers: ReadonlyArray<string>
  /** What runs or is to run, in order. */
  readonly hooks: ReadonlyArray<Hook>
  /** It holds the lock, as far as it knows. */
  readonly locked: boolean
  /** The state is open: there is something in memory that the disk may not have. */
  readonly open: boolean
  readonly memory: unknown
  readonly requests: ReadonlyArray<number>
  readonly accepting: boolean
  readonly socket: "none" | "temporary" | "published"
  readonly cancelled: boolean
}

export type WriteStatus = "unsent" | "queued" | "in flight" | "acknowledged" | "failed"

export interface World {
  readonly supervisor: Supervisor
  readonly processes: ReadonlyArray<Process>
  readonly streams: ReadonlyArray<Stream>
  /** The pid that holds the data lock; 0 for nobody. */
  readonly lock: number
  /** Whose socket the handoff socket's path leads to, dead or alive; 0: nothing is there. */
  readonly path: number
  /** Sockets under temporary names, whose processes have ended. */
  readonly litter: number
  readonly disk: unknown
  /** As the next supervisor would read it, and as it would be after a power cut. */
  readonly document: Document | undefined
  readonly durable: Document | undefined
  readonly writes: ReadonlyArray<WriteStatus>
  /** Pids that belong to strangers now. */
  readonly strangers: ReadonlyArray<number>
  /** Processes that a fault, and not the supervisor, has ended or made useless. */
  readonly excused: ReadonlyArray<number>
  /** The newest version that a caller was told is in place. */
  readonly promised: number
  readonly faults: number
  readonly swaps: number
  readonly aborts: number
  /** Whether a fault has happened yet. */
  readonly faultless: boolean
  readonly broken: Broken | undefined
}

/** What happens next, by whom. `fuse`: the party dies before its command of this number. */
export interface Move {
  readonly party: string
  readonly event: string
  readonly fuse: number
}

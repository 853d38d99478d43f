/**
 * The contract of looking at processes from outside: what the kernel shows in /proc, gathered as facts.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type { ListeningSocket } from "./Sockets.ts"

/** What is seen of a process and its descendants at one moment. */
export interface ProcessObservation {
  /** The process and its living descendants, zombies left out. Empty: it is gone. */
  readonly pids: ReadonlyArray<number>
  /** Inodes of those asked-for listeners that one of them waits on (epoll set, or a task in accept on it). */
  readonly waitingOn: ReadonlyArray<number>
  /** Established connections held by them that came in through the asked-for listeners. */
  readonly connections: number
}

/** Identifies a process for good: a pid may be used again, a pid with its start time in one boot may not. */
export interface ProcessIdentity {
  readonly pid: number
  /** Clock ticks after boot (field 22 of /proc/PID/stat). */
  readonly startTime: number
  readonly bootId: string
}

export type ProcessCapability = "waiting" | "connections" | "identity" | "group"

export class Processes extends Context.Service<
  Processes,
  {
    /** What this backend can see. Without `waiting`, readiness can't be observed; without `connections` the count is 0. */
    readonly capabilities: ReadonlySet<ProcessCapability>
    readonly observe: (
      pid: number,
      listeners: ReadonlyArray<Pick<ListeningSocket, "inode" | "address">>
    ) => Effect.Effect<ProcessObservation>
    /** Undefined when there is no such process, or only its zombie. */
    readonly identify: (pid: number) => Effect.Effect<ProcessIdentity | undefined>
    /** Living members of a process group, zombies left out. */
    readonly groupMembers: (group: number) => Effect.Effect<ReadonlyArray<number>>
  }
>()("@handoff/core/backend/Processes") {}

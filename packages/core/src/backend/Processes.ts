/**
 * The contract of looking at processes from outside: what the kernel shows in /proc, gathered as facts.
 */
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { ErrnoName } from "../Errno.ts"
import type { Fd } from "../Fd.ts"
import type { Process } from "./Launcher.ts"
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

/** Two identities of the same process. */
export const isSame = (one: ProcessIdentity, other: ProcessIdentity): boolean =>
  one.pid === other.pid && one.startTime === other.startTime && one.bootId === other.bootId

/** `copy`: descriptors can be copied out of a process; `adopt`: a process that is no child can be watched and signalled. */
export type ProcessCapability = "waiting" | "connections" | "identity" | "group" | "copy" | "adopt" | "locks"

export type CopyErrorReason =
  /** The kernel does not let us. `missing` says what would: CAP_SYS_PTRACE, a ptrace_scope of 0, the same user. */
  | { readonly _tag: "NotPermitted"; readonly call: string; readonly missing: string }
  /** No process of the group holds that socket. */
  | { readonly _tag: "NotHeld" }
  | { readonly _tag: "CallFailed"; readonly call: string; readonly errno: ErrnoName }

/** A socket could not be copied out of a process. */
export class CopyError extends Data.TaggedError("CopyError")<{
  readonly pid: number
  readonly inode: number
  readonly reason: CopyErrorReason
}> {
  override get message(): string {
    const { pid, inode, reason } = this
    switch (reason._tag) {
      case "NotPermitted":
        return `socket ${inode} could not be copied from process ${pid}: ${reason.call} is not permitted; it takes ${reason.missing}`
      case "NotHeld":
        return `process ${pid} does not hold socket ${inode}`
      case "CallFailed":
        return `socket ${inode} could not be copied from process ${pid}: ${reason.call} = ${reason.errno}`
    }
  }
}

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
    /** Living processes that were started with this variable at this value (/proc/PID/environ), oldest first. */
    readonly startedWith: (variable: string, value: string) => Effect.Effect<ReadonlyArray<ProcessIdentity>>
    /**
     * A descriptor, close-on-exec and ours, to a socket that the process or a member of the group it leads holds
     * (pidfd_getfd(2)): the same open file description, which outlives that process.
     */
    readonly copySocket: (pid: number, inode: number) => Effect.Effect<Fd, CopyError, Scope.Scope>
    /**
     * A process that is not our child, as one that can be waited for and signalled. Its exit is seen within 250 ms and
     * its status is unknown to us. Undefined when no living process has this identity.
     */
    readonly adopt: (identity: ProcessIdentity) => Effect.Effect<Process | undefined, never, Scope.Scope>
    /** Whether the process, or a member of the group it leads, holds a flock on a file of this name (/proc/PID/fdinfo). */
    readonly holdsLock: (pid: number, fileName: string) => Effect.Effect<boolean>
  }
>()("@handoff/core/backend/Processes") {}

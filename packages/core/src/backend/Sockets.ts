/**
 * The contract of listening sockets and socket pairs.
 *
 * Descriptors returned here have FD_CLOEXEC set and belong to the caller's scope. A unix listener's path belongs to the
 * listener: it is bound under a temporary name and renamed into place, and removed when the scope closes unless another
 * inode has taken its place by then.
 */
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Address } from "../Address.ts"
import type { ErrnoName } from "../Errno.ts"
import type { Fd } from "../Fd.ts"

export interface ListenOptions {
  readonly address: Address
  /** Default 4096; the kernel caps it at net.core.somaxconn without saying so. */
  readonly backlog?: number
  /** O_NONBLOCK on the shared open file description. Default false, as systemd does. */
  readonly nonBlocking?: boolean
  /** Mode of a unix socket's path. Default 0o666. */
  readonly mode?: number
  /** A wildcard or v6 address that must not take IPv4 connections. Default false. */
  readonly ipv6Only?: boolean
}

export interface ListeningSocket {
  readonly fd: Fd
  /** The address as bound: the port the kernel chose, the host as it prints it. */
  readonly address: Address
  /** Socket inode number, the same in every process that holds it (`socket:[N]` in /proc/PID/fd). */
  readonly inode: number
  /** What was asked and what the kernel allows: `min(requested, somaxconn)`. */
  readonly backlog: { readonly requested: number; readonly effective: number }
}

/** What is open at a descriptor. `inode` identifies a socket across processes. */
export interface SocketFacts {
  readonly listening: boolean
  readonly family: "tcp4" | "tcp6" | "unix"
  readonly address: Address
  readonly inode: number
  readonly nonBlocking: boolean
}

export interface PeerCredentials {
  readonly pid: number
  readonly uid: number
  readonly gid: number
}

export type SocketErrorReason =
  | { readonly _tag: "AddressInUse"; readonly holder?: { readonly pid: number; readonly command: string } }
  | { readonly _tag: "PathTooLong"; readonly bytes: number; readonly limit: number }
  | { readonly _tag: "PathOccupied"; readonly what: "file" | "directory" | "live socket" }
  | { readonly _tag: "BadAddress"; readonly detail: string }
  | { readonly _tag: "NotASocket"; readonly fd: Fd }
  | { readonly _tag: "CallFailed"; readonly call: string; readonly errno: ErrnoName }

export class SocketError extends Data.TaggedError("SocketError")<{
  /** The address as text, or `fd N`. */
  readonly subject: string
  readonly reason: SocketErrorReason
}> {
  override get message(): string {
    const reason = this.reason
    switch (reason._tag) {
      case "AddressInUse":
        return reason.holder === undefined
          ? `${this.subject} is already in use`
          : `${this.subject} is already in use by process ${reason.holder.pid} (${reason.holder.command})`
      case "PathTooLong":
        return `${this.subject} is ${reason.bytes} bytes long, a unix socket's path may have ${reason.limit}`
      case "PathOccupied":
        return `${this.subject} is occupied by a ${reason.what}`
      case "BadAddress":
        return `${this.subject}: ${reason.detail}`
      case "NotASocket":
        return `${this.subject} is not a socket`
      case "CallFailed":
        return `${this.subject}: ${reason.call} = ${reason.errno}`
    }
  }
}

export class Sockets extends Context.Service<
  Sockets,
  {
    readonly listen: (options: ListenOptions) => Effect.Effect<ListeningSocket, SocketError, Scope.Scope>
    /** A connected AF_UNIX SOCK_STREAM pair (socketpair(2)). */
    readonly pair: Effect.Effect<readonly [Fd, Fd], SocketError, Scope.Scope>
    /** SO_PEERCRED of a connected unix socket; for a pair it names the creator. */
    readonly peerCredentials: (fd: Fd) => Effect.Effect<PeerCredentials, SocketError>
    readonly inspect: (fd: Fd) => Effect.Effect<SocketFacts, SocketError>
  }
>()("@handoff/core/backend/Sockets") {}

/**
 * The contract of byte channels: connected unix stream sockets over which the handoff protocol is spoken.
 *
 * A channel carries bytes and knows nothing of frames. The supervisor never gives a descriptor number to anything else
 * that could close it: a channel made from a descriptor works on a copy, and the given one stays its owner's.
 */
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { ErrnoName } from "../Errno.ts"
import type { Fd } from "../Fd.ts"
import type { PeerCredentials } from "./Sockets.ts"

export type ChannelErrorReason =
  | { readonly _tag: "PathTooLong"; readonly bytes: number; readonly limit: number }
  /** The peer did not read: the bytes were not all written in time. */
  | { readonly _tag: "WriteTimedOut"; readonly withinMs: number }
  | { readonly _tag: "CallFailed"; readonly call: string; readonly errno: ErrnoName }

export class ChannelError extends Data.TaggedError("ChannelError")<{
  /** The path, or `fd N`. */
  readonly subject: string
  readonly reason: ChannelErrorReason
}> {
  override get message(): string {
    const reason = this.reason
    switch (reason._tag) {
      case "PathTooLong":
        return `${this.subject} is ${reason.bytes} bytes long, a unix socket's path may have ${reason.limit}`
      case "WriteTimedOut":
        return `${this.subject}: the peer did not read for ${reason.withinMs} ms`
      case "CallFailed":
        return `${this.subject}: ${reason.call} = ${reason.errno}`
    }
  }
}

export interface Channel {
  /** SO_PEERCRED: of a connection, who listens at the path; of a pair, who made it. */
  readonly peer: PeerCredentials
  /**
   * Waits for bytes, as many as there are. An empty array is the end of the stream, and stays it. One reader at a time;
   * bytes that came while nobody read are kept (at most 64 KiB are read ahead).
   */
  readonly read: Effect.Effect<Uint8Array, ChannelError>
  /** Writes all of it, or fails when the peer has not taken it within the time. Never raises SIGPIPE. */
  readonly write: (bytes: Uint8Array, withinMs: number) => Effect.Effect<void, ChannelError>
}

export class Channels extends Context.Service<
  Channels,
  {
    /** Connects to a listening unix stream socket. The connection ends with the scope. */
    readonly connect: (path: string) => Effect.Effect<Channel, ChannelError, Scope.Scope>
    /** Speaks through a copy of a connected socket's descriptor, which ends with the scope. */
    readonly open: (fd: Fd) => Effect.Effect<Channel, ChannelError, Scope.Scope>
  }
>()("@handoff/core/backend/Channels") {}

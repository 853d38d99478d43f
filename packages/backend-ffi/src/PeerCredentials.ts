/**
 * Who is at the other end of a unix socket (SO_PEERCRED: unix(7)), as a plain synchronous function.
 *
 * The kernel notes it when the connection is made: of a connection, who listened; of an accepted one, who connected; of a
 * pair, who made it. It stays so whatever becomes of that process. A peer of another pid namespace has pid 0.
 */
import type { PeerCredentials, SocketErrorReason } from "@handoff/core/backend/Sockets"
import type { Fd } from "@handoff/core/Fd"
import * as Result from "effect/Result"
import * as Libc from "./Libc.ts"
import * as Calls from "./SocketCalls.ts"

const UNKNOWN_ID = 0xffff_ffff

export type Refusal = Extract<SocketErrorReason, { readonly _tag: "NotASocket" | "CallFailed" }>

/** Through these calls; ENOTCONN for a socket without a peer. */
export const ofPeer = (calls: Calls.SocketCalls, fd: Fd): Result.Result<PeerCredentials, Refusal> => {
  const bytes = calls.optionBytes(fd, Calls.SOL_SOCKET, Calls.SO_PEERCRED, 12)
  if (Result.isFailure(bytes)) {
    return Result.fail(bytes.failure.errno === "ENOTSOCK" ? { _tag: "NotASocket", fd } : bytes.failure)
  }
  const pid = bytes.success.readInt32LE(0)
  const [uid, gid] = [bytes.success.readUInt32LE(4), bytes.success.readUInt32LE(8)]
  // A socket without a peer answers 0, -1, -1.
  if (pid === 0 && uid === UNKNOWN_ID) return Result.fail({ _tag: "CallFailed", call: "getsockopt", errno: "ENOTCONN" })
  return Result.succeed({ pid, uid, gid })
}

/**
 * The peer of the connected unix socket at `fd`; ENOSYS where the C library can't be used.
 *
 * @example
 * const peer = peerCredentials(fd)
 * if (Result.isSuccess(peer)) console.log(peer.success.uid)
 */
export const peerCredentials = (fd: Fd): Result.Result<PeerCredentials, Refusal> => {
  const libc = Libc.open()
  if (Result.isFailure(libc)) return Result.fail({ _tag: "CallFailed", call: "dlopen", errno: "ENOSYS" })
  return ofPeer(Calls.of(libc.success), fd)
}

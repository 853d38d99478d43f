/**
 * The calls of the C library that a daemon with data needs, as plain synchronous functions. None of them waits.
 *
 * Loaded only when there is a data directory: a daemon without one runs wherever Node does.
 */
import * as InheritedSocket from "@handoff/backend-ffi/InheritedSocket"
import * as Libc from "@handoff/backend-ffi/Libc"
import { ofPeer } from "@handoff/backend-ffi/PeerCredentials"
import * as Calls from "@handoff/backend-ffi/SocketCalls"
import * as UnixListener from "@handoff/backend-ffi/UnixListener"
import type { PeerCredentials, SocketErrorReason } from "@handoff/core/backend/Sockets"
import * as Result from "effect/Result"
import { DaemonError } from "../DaemonError.ts"

const calls = (): Calls.SocketCalls => {
  const libc = Libc.open()
  if (Result.isSuccess(libc)) return Calls.of(libc.success)
  throw new DaemonError({ reason: { _tag: "Unsupported", missing: libc.failure.missing } })
}

/** Throws a DaemonError where the C library can't be used. */
export const load = (): void => {
  calls()
}

/** A second descriptor for the same open file description, close-on-exec (fcntl(2)). Throws with the errno's name. */
export const duplicate = (fd: number): number => {
  // Not below 3: a closed stdio descriptor must not become a socket.
  const copy = calls().fcntl(fd, Calls.F_DUPFD_CLOEXEC, 3)
  if (Result.isSuccess(copy)) return copy.success
  throw new Error(`fcntl(${fd}, F_DUPFD_CLOEXEC) = ${copy.failure.errno}`)
}

/** Why `fd` cannot be a successor's channel, or undefined. Marks it close-on-exec. */
export const channelProblem = (fd: number): string | undefined => {
  const facts = InheritedSocket.factsOf(calls(), fd)
  if (Result.isFailure(facts)) return InheritedSocket.describe(facts.failure)
  if (facts.success.family !== "unix" || facts.success.listening) return `descriptor ${fd} is no connected unix socket`
  const marked = InheritedSocket.setCloseOnExec(fd)
  return Result.isSuccess(marked) ? undefined : `fcntl = ${marked.failure}`
}

/** Who was at the other end of a unix socket when it was connected; for a client, who called listen(2) (unix(7)). */
export const peerOf = (fd: number): PeerCredentials | undefined => {
  const peer = ofPeer(calls(), fd)
  return Result.isSuccess(peer) ? peer.success : undefined
}

/** The pid that listens at a unix socket's path; undefined when nobody answers, or its queue is full. */
export const listenerAt = (path: string): number | undefined => {
  const probed = UnixListener.probe(calls(), path)
  return Result.isSuccess(probed) ? probed.success?.pid : undefined
}

/** Whether a unix socket's path is there and certainly nobody listens at it. */
export const isDead = (path: string): boolean => {
  const probed = UnixListener.probe(calls(), path)
  return Result.isFailure(probed) && probed.failure.errno === "ECONNREFUSED"
}

const describe = (reason: SocketErrorReason): string => {
  switch (reason._tag) {
    case "AddressInUse":
      return `EADDRINUSE: ${reason.holder === undefined ? "a process" : `process ${reason.holder.pid}`} listens at it`
    case "PathTooLong":
      return `the path has ${reason.bytes} bytes, at most ${reason.limit} are possible`
    case "PathOccupied":
      return `a ${reason.what} is in its place`
    case "BadAddress":
      return reason.detail
    case "NotASocket":
      return `descriptor ${reason.fd} is not a socket`
    case "CallFailed":
      return `${reason.call} = ${reason.errno}`
  }
}

/** Binds a unix listener at a path, which stays there when a server on a copy of it closes. Throws with what is wrong. */
export const bindUnix = (path: string, backlog: number): UnixListener.UnixListener => {
  const mode = 0o777 & ~process.umask()
  const bound = UnixListener.listen(calls(), { path, backlog, nonBlocking: true, mode })
  if (Result.isSuccess(bound)) return bound.success
  throw new Error(describe(bound.failure))
}

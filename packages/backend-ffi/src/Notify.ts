/**
 * Sending a readiness datagram (sd_notify(3)), as a plain function for daemons.
 *
 * It waits at most a second for room in the receiver's queue: sd_notify itself waits for ever, and a READY=1 thrown away
 * because ten datagrams were before it would cost the whole start.
 */
import { closeSync } from "node:fs"
import type { ErrnoName } from "@handoff/core/Errno"
import * as Result from "effect/Result"
import * as Libc from "./Libc.ts"
import * as SocketAddress from "./SocketAddress.ts"
import * as Calls from "./SocketCalls.ts"

const MSG_NOSIGNAL = 0x4000

/** `struct timeval` of one second. */
const PATIENCE = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])

/**
 * Sends one datagram to the unix socket at `path`, which may be an abstract name (`@name`).
 *
 * Fails with the errno's name: `ENOENT` and `ECONNREFUSED` when nobody listens, `EAGAIN` when the receiver's queue stayed
 * full for a second, `ENAMETOOLONG` for a path over 107 bytes, `ENOSYS` where the C library can't be used.
 *
 * @example
 * send("/run/app/notify.sock", "READY=1\nSTATUS=up")
 */
export const send = (path: string, text: string): Result.Result<void, ErrnoName> => {
  const libc = Libc.open()
  if (Result.isFailure(libc)) return Result.fail("ENOSYS")
  if (path === "" || path.includes("\0")) return Result.fail("EINVAL")
  if (Buffer.byteLength(path) > SocketAddress.UNIX_PATH_LIMIT) return Result.fail("ENAMETOOLONG")
  const calls = Calls.of(libc.success)
  const socket = calls.socket(SocketAddress.AF_UNIX, Calls.SOCK_DGRAM | Calls.SOCK_CLOEXEC)
  if (Result.isFailure(socket)) return Result.fail(socket.failure.errno)
  const fd = socket.success
  const sent = Result.flatMap(calls.setOptionBytes(fd, Calls.SOL_SOCKET, Calls.SO_SNDTIMEO, PATIENCE), () =>
    calls.sendto(fd, Buffer.from(text, "utf8"), MSG_NOSIGNAL, SocketAddress.encodeUnix(path))
  )
  closeSync(fd)
  return Result.isFailure(sent) ? Result.fail(sent.failure.errno) : Result.succeed(undefined)
}

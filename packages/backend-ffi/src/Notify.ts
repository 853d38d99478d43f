/**
 * Sending readiness datagrams (sd_notify(3)), as plain functions for daemons, and descriptors along with them for systemd's
 * descriptor store (sd_pid_notify_with_fds(3)).
 *
 * A datagram waits at most a second for room in the receiver's queue: sd_notify itself waits for ever, and a READY=1 thrown
 * away because ten datagrams were before it would cost the whole start.
 *
 * Descriptors travel as the one SCM_RIGHTS message of a sendmsg(2) (unix(7), cmsg(3)). The kernel puts copies of them into
 * the datagram: they may be closed here as soon as the call has returned.
 */
import { closeSync } from "node:fs"
import type { ErrnoName } from "@handoff/core/Errno"
import type { Fd } from "@handoff/core/Fd"
import * as Result from "effect/Result"
import * as Arena from "./Arena.ts"
import * as Libc from "./Libc.ts"
import * as SocketAddress from "./SocketAddress.ts"
import * as Calls from "./SocketCalls.ts"

const MSG_NOSIGNAL = 0x4000
const SCM_RIGHTS = 1

/** SCM_MAX_FD of the kernel. */
const MAX_DESCRIPTORS = 253

/** `struct timeval` of one second. */
const PATIENCE = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])

const CMSG_HEADER_BYTES = 16
const align = (bytes: number): number => Math.ceil(bytes / 8) * 8

// The memory of a sendmsg(2): msghdr (56 bytes), iovec (16), address, control, data.
const IOVEC_AT = 64
const NAME_AT = 96
const CONTROL_AT = NAME_AT + align(SocketAddress.MAX_SOCKADDR_BYTES)

type Send = (socket: Fd, data: Uint8Array, address: Uint8Array) => Result.Result<number, Calls.CallFailure>

/** A cmsghdr with these descriptors: its length (8 bytes), level, type, and the numbers. */
const writeRights = (memory: Buffer, at: number, fds: ReadonlyArray<Fd>): void => {
  memory.writeBigUInt64LE(BigInt(CMSG_HEADER_BYTES + 4 * fds.length), at)
  memory.writeInt32LE(Calls.SOL_SOCKET, at + 8)
  memory.writeInt32LE(SCM_RIGHTS, at + 12)
  for (const [index, fd] of fds.entries()) memory.writeInt32LE(fd, at + CMSG_HEADER_BYTES + 4 * index)
}

let arenas: Arena.ArenaOwner | undefined

/** SAFETY: the structures point into the arena, which is used within this one synchronous call only. */
const sendmsg =
  (libc: Libc.Libc, fds: ReadonlyArray<Fd>): Send =>
  (socket, data, address) => {
    const controlBytes = align(CMSG_HEADER_BYTES + 4 * fds.length)
    const dataAt = CONTROL_AT + controlBytes
    arenas ??= Arena.make(libc)
    const arena = arenas.ensure(dataAt + data.length)
    if (Result.isFailure(arena)) {
      const { call, errno } = arena.failure
      return Result.fail({ _tag: "CallFailed", call, errno })
    }
    const { address: base, bytes: memory } = arena.success
    memory.fill(0, 0, dataAt)
    const words: ReadonlyArray<readonly [number, number]> = [
      [0, base + NAME_AT],
      [8, address.length],
      [16, base + IOVEC_AT],
      [24, 1],
      [32, base + CONTROL_AT],
      [40, controlBytes],
      [IOVEC_AT, base + dataAt],
      [IOVEC_AT + 8, data.length]
    ]
    for (const [at, word] of words) memory.writeBigUInt64LE(BigInt(word), at)
    memory.set(address, NAME_AT)
    writeRights(memory, CONTROL_AT, fds)
    memory.set(data, dataAt)
    return Calls.check("sendmsg", libc.call("sendmsg", "i64", ["i32", "address", "i32"], [socket, base, MSG_NOSIGNAL]))
  }

const sendBy = (
  path: string,
  text: string,
  how: (libc: Libc.Libc, calls: Calls.SocketCalls) => Send
): Result.Result<void, ErrnoName> => {
  const libc = Libc.open()
  if (Result.isFailure(libc)) return Result.fail("ENOSYS")
  if (path === "" || path.includes("\0")) return Result.fail("EINVAL")
  if (Buffer.byteLength(path) > SocketAddress.UNIX_PATH_LIMIT) return Result.fail("ENAMETOOLONG")
  const calls = Calls.of(libc.success)
  const socket = calls.socket(SocketAddress.AF_UNIX, Calls.SOCK_DGRAM | Calls.SOCK_CLOEXEC)
  if (Result.isFailure(socket)) return Result.fail(socket.failure.errno)
  const fd = socket.success
  const sent = Result.flatMap(calls.setOptionBytes(fd, Calls.SOL_SOCKET, Calls.SO_SNDTIMEO, PATIENCE), () =>
    how(libc.success, calls)(fd, Buffer.from(text, "utf8"), SocketAddress.encodeUnix(path))
  )
  closeSync(fd)
  return Result.isFailure(sent) ? Result.fail(sent.failure.errno) : Result.succeed(undefined)
}

/**
 * Sends one datagram to the unix socket at `path`, which may be an abstract name (`@name`).
 *
 * Fails with the errno's name: `ENOENT` and `ECONNREFUSED` when nobody listens, `EAGAIN` when the receiver's queue stayed
 * full for a second, `ENAMETOOLONG` for a path over 107 bytes, `ENOSYS` where the C library can't be used.
 *
 * @example
 * send("/run/app/notify.sock", "READY=1\nSTATUS=up")
 */
export const send = (path: string, text: string): Result.Result<void, ErrnoName> =>
  sendBy(path, text, (_, calls) => (fd, data, address) => calls.sendto(fd, data, MSG_NOSIGNAL, address))

/**
 * Sends one datagram and these descriptors with it, as {@link send} does; the receiver gets descriptors of its own to the
 * same open file descriptions.
 *
 * Fails as {@link send} does, and with `EBADF` for a descriptor that is not open, `EINVAL` for none or more than 253.
 *
 * @example
 * sendDescriptors(process.env.NOTIFY_SOCKET ?? "", "FDSTORE=1\nFDNAME=http", [listener.fd])
 */
export const sendDescriptors = (path: string, text: string, fds: ReadonlyArray<Fd>): Result.Result<void, ErrnoName> =>
  fds.length === 0 || fds.length > MAX_DESCRIPTORS
    ? Result.fail("EINVAL")
    : sendBy(path, text, (libc) => sendmsg(libc, fds))

/**
 * The socket calls of the C library, prepared once, and the numbers they take on x86-64 and arm64 (which agree).
 *
 * None of them waits: sockets are connected and read non-blocking, and bind, listen and the options never sleep long.
 * This module and what it imports stay free of Effect's runtime: daemons load it.
 */
import type { ErrnoName } from "@handoff/core/Errno"
import type { Fd } from "@handoff/core/Fd"
import * as Result from "effect/Result"
import type { CallResult, Libc } from "./Libc.ts"
import { MAX_SOCKADDR_BYTES } from "./SocketAddress.ts"

export const SOCK_STREAM = 1
export const SOCK_DGRAM = 2
export const SOCK_NONBLOCK = 0o4000
export const SOCK_CLOEXEC = 0o2000000

export const SOL_SOCKET = 1
export const SO_REUSEADDR = 2
export const SO_TYPE = 3
export const SO_PASSCRED = 16
export const SO_PEERCRED = 17
export const SO_SNDTIMEO = 21
export const SO_ACCEPTCONN = 30
export const SO_DOMAIN = 39
export const IPPROTO_IPV6 = 41
export const IPV6_V6ONLY = 26

export const F_DUPFD = 0
export const F_GETFD = 1
export const F_SETFD = 2
export const F_GETFL = 3
export const F_SETFL = 4
export const F_SETOWN = 8
export const F_DUPFD_CLOEXEC = 1030
export const FD_CLOEXEC = 1
export const O_NONBLOCK = 0o4000
export const O_ASYNC = 0o20000

/** A call that failed, as errors name it. */
export interface CallFailure {
  readonly _tag: "CallFailed"
  readonly call: string
  readonly errno: ErrnoName
}

/** The result of a call, or its failure under the name an error shows. */
export const check = (call: string, { value, errno }: CallResult): Result.Result<number, CallFailure> =>
  errno === undefined ? Result.succeed(value) : Result.fail({ _tag: "CallFailed", call, errno })

const int32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32LE(value, 0)
  return bytes
}

const prepare = (libc: Libc) => {
  const socket = libc.bind("socket", "i32", ["i32", "i32", "i32"])
  const bind = libc.bind("bind", "i32", ["i32", "bytes", "u32"])
  const listen = libc.bind("listen", "i32", ["i32", "i32"])
  const connect = libc.bind("connect", "i32", ["i32", "bytes", "u32"])
  const getsockname = libc.bind("getsockname", "i32", ["i32", "bytes", "bytes"])
  const setsockopt = libc.bind("setsockopt", "i32", ["i32", "i32", "i32", "bytes", "u32"])
  const getsockopt = libc.bind("getsockopt", "i32", ["i32", "i32", "i32", "bytes", "bytes"])
  const fcntl = libc.bind("fcntl", "i32", ["i32", "i32", "i32"])
  const socketpair = libc.bind("socketpair", "i32", ["i32", "i32", "i32", "bytes"])
  const sendto = libc.bind("sendto", "i64", ["i32", "bytes", "i64", "i32", "bytes", "u32"])

  const option = (fd: Fd, level: number, name: number, length: number): Result.Result<Buffer, CallFailure> => {
    const value = Buffer.alloc(length)
    return Result.map(check("getsockopt", getsockopt(fd, level, name, value, int32(length))), () => value)
  }

  return {
    socket: (family: number, type: number) => check("socket", socket(family, type, 0)),
    bind: (fd: Fd, address: Uint8Array) => check("bind", bind(fd, address, address.length)),
    listen: (fd: Fd, backlog: number) => check("listen", listen(fd, backlog)),
    connect: (fd: Fd, address: Uint8Array) => check("connect", connect(fd, address, address.length)),
    fcntl: (fd: Fd, command: number, argument: number) => check("fcntl", fcntl(fd, command, argument)),
    sendto: (fd: Fd, data: Uint8Array, flags: number, address: Uint8Array) =>
      check("sendto", sendto(fd, data, data.length, flags, address, address.length)),
    /** The bytes of the bound address and how many of them count. */
    getsockname: (fd: Fd): Result.Result<{ readonly bytes: Buffer; readonly length: number }, CallFailure> => {
      const bytes = Buffer.alloc(MAX_SOCKADDR_BYTES)
      const length = int32(bytes.length)
      return Result.map(check("getsockname", getsockname(fd, bytes, length)), () => ({
        bytes,
        length: Math.min(length.readInt32LE(0), bytes.length)
      }))
    },
    setOption: (fd: Fd, level: number, name: number, value: number) =>
      check("setsockopt", setsockopt(fd, level, name, int32(value), 4)),
    setOptionBytes: (fd: Fd, level: number, name: number, value: Uint8Array) =>
      check("setsockopt", setsockopt(fd, level, name, value, value.length)),
    optionBytes: option,
    option: (fd: Fd, level: number, name: number) =>
      Result.map(option(fd, level, name, 4), (bytes) => bytes.readInt32LE(0)),
    pair: (family: number, type: number): Result.Result<readonly [Fd, Fd], CallFailure> => {
      const fds = Buffer.alloc(8)
      return Result.map(check("socketpair", socketpair(family, type, 0, fds)), () => [
        fds.readInt32LE(0),
        fds.readInt32LE(4)
      ])
    }
  }
}

export type SocketCalls = ReturnType<typeof prepare>

const prepared = new WeakMap<Libc, SocketCalls>()

/** The calls of this library, prepared at the first time of asking. */
export const of = (libc: Libc): SocketCalls => {
  const known = prepared.get(libc)
  if (known !== undefined) return known
  const calls = prepare(libc)
  prepared.set(libc, calls)
  return calls
}

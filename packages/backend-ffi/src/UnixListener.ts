/**
 * Listening unix sockets whose path appears complete, or not at all.
 *
 * Order: the socket is bound under a temporary name beside the path, its mode set while nobody knows it, made to listen,
 * and only then renamed onto the path. So whoever finds the path can connect, a stale socket left by a dead process is
 * replaced without a moment of ENOENT, and a failure on the way leaves what was there. rename(2) would also replace a
 * live socket, hence the question first:
 *
 *     connect(path) = 0, EAGAIN (queue full), EPROTOTYPE  -> alive, AddressInUse
 *     connect(path) = ECONNREFUSED                        -> stale, to be replaced
 *     connect(path) = ENOENT                              -> free
 *
 * Limits: of two processes that bind one path in the same instant the later wins; who shares paths takes a lock. A process
 * killed between bind and rename leaves a file named `PATH.~xxxx`. The kernel keeps the temporary name: it is what
 * getsockname(2) and /proc/net/unix show, and only for paths of up to 101 bytes the path can be told from it.
 */
import { chmodSync, closeSync, constants, lstatSync, openSync, renameSync, type Stats, unlinkSync } from "node:fs"
import { basename, dirname, join } from "node:path"
import type { PeerCredentials, SocketErrorReason } from "@handoff/core/backend/Sockets"
import type { Fd } from "@handoff/core/Fd"
import * as Result from "effect/Result"
import { TEMPORARY_ENDING } from "./InheritedSocket.ts"
import { errnoOf } from "./PathErrno.ts"
import { ofPeer } from "./PeerCredentials.ts"
import * as ProcNet from "./ProcNet.ts"
import * as SocketAddress from "./SocketAddress.ts"
import * as Calls from "./SocketCalls.ts"

export interface UnixListenOptions {
  readonly path: string
  readonly backlog: number
  readonly nonBlocking: boolean
  readonly mode: number
}

/** A bound listener and how to remove its path, which is done only while the path still leads to this socket. */
export interface UnixListener {
  readonly fd: Fd
  readonly unlink: () => void
}

const O_PATH = 0o10000000

const attempt = <A>(call: string, run: () => A): Result.Result<A, SocketErrorReason> =>
  Result.try({ try: run, catch: (error) => ({ _tag: "CallFailed", call, errno: errnoOf(error) }) })

const statOf = (path: string): Stats | undefined => lstatSync(path, { throwIfNoEntry: false })

const sameInode = (path: string, stats: Stats): boolean => {
  const now = statOf(path)
  return now !== undefined && now.ino === stats.ino && now.dev === stats.dev
}

const fits = (path: string): boolean => Buffer.byteLength(path) <= SocketAddress.UNIX_PATH_LIMIT

const randomEnding = (): string =>
  `.~${Math.floor(Math.random() * 36 ** 4)
    .toString(36)
    .padStart(4, "0")}`

const withSocket = <A>(
  calls: Calls.SocketCalls,
  type: number,
  use: (fd: Fd) => Result.Result<A, SocketErrorReason>
): Result.Result<A, SocketErrorReason> => {
  const socket = calls.socket(SocketAddress.AF_UNIX, type | Calls.SOCK_CLOEXEC)
  if (Result.isFailure(socket)) return Result.fail(socket.failure)
  const used = use(socket.success)
  if (Result.isFailure(used)) closeSync(socket.success)
  return used
}

/**
 * Connects to a unix path for a moment: who called listen(2) there, where the kernel tells, or the call that failed. A live
 * listener sees one connection that ends at once; `ECONNREFUSED` says that a socket is there and nobody listens.
 */
export const probe = (
  calls: Calls.SocketCalls,
  path: string
): Result.Result<PeerCredentials | undefined, Calls.CallFailure> => {
  if (!fits(path)) return Result.fail({ _tag: "CallFailed", call: "connect", errno: "ENAMETOOLONG" })
  const type = Calls.SOCK_STREAM | Calls.SOCK_NONBLOCK | Calls.SOCK_CLOEXEC
  const socket = calls.socket(SocketAddress.AF_UNIX, type)
  if (Result.isFailure(socket)) return Result.fail(socket.failure)
  const fd = socket.success
  const connected = calls.connect(fd, SocketAddress.encodeUnix(path))
  const peer = Result.isSuccess(connected) ? ofPeer(calls, fd) : undefined
  closeSync(fd)
  if (Result.isFailure(connected)) return Result.fail(connected.failure)
  return Result.succeed(peer !== undefined && Result.isSuccess(peer) ? peer.success : undefined)
}

/** The process of these credentials, if it lives and we can see it. */
const processOf = ({ pid }: PeerCredentials): ProcNet.Holder | undefined => {
  const found = ProcNet.holder(pid)
  return found.command === "" ? undefined : found
}

const isNameOf = (path: string) => (name: string) => name === path || name.replace(TEMPORARY_ENDING, "") === path

/** Succeeds when nobody answers at a socket's path. */
const checkStale = (calls: Calls.SocketCalls, path: string): Result.Result<void, SocketErrorReason> => {
  const probed = probe(calls, path)
  if (Result.isFailure(probed)) {
    const errno = probed.failure.errno
    if (errno === "ECONNREFUSED" || errno === "ENOENT") return Result.succeed(undefined)
    if (errno !== "EAGAIN" && errno !== "EPROTOTYPE") return Result.fail(probed.failure)
  }
  const listener = Result.isSuccess(probed) ? probed.success : undefined
  const serving = listener === undefined ? undefined : processOf(listener)
  const found = serving ?? ProcNet.findHolder({ _tag: "Unix", path }, isNameOf(path))
  return Result.fail({ _tag: "AddressInUse", ...(found === undefined ? {} : { holder: found }) })
}

/** Succeeds when a path is free or a stale socket's. */
const checkPath = (calls: Calls.SocketCalls, path: string): Result.Result<void, SocketErrorReason> => {
  const stats = Result.try({ try: () => statOf(path), catch: errnoOf })
  if (Result.isFailure(stats)) return Result.fail({ _tag: "CallFailed", call: "lstat", errno: stats.failure })
  if (stats.success === undefined) return Result.succeed(undefined)
  if (stats.success.isDirectory()) return Result.fail({ _tag: "PathOccupied", what: "directory" })
  if (!stats.success.isSocket()) return Result.fail({ _tag: "PathOccupied", what: "file" })
  return checkStale(calls, path)
}

/**
 * Binds to a temporary name in the path's directory. A path too long for an ending has its last part left out, and a
 * directory too long for that is reached through /proc/self/fd.
 */
const bindTemporary = (calls: Calls.SocketCalls, fd: Fd, path: string): Result.Result<string, SocketErrorReason> => {
  for (let attempts = 0; ; attempts++) {
    const ending = randomEnding()
    const beside = `${path}${ending}`
    const temporary = fits(beside) ? beside : join(dirname(path), ending)
    const bound = bindAnyLength(calls, fd, temporary)
    if (Result.isSuccess(bound)) return Result.succeed(temporary)
    if (bound.failure._tag !== "CallFailed" || bound.failure.errno !== "EADDRINUSE" || attempts === 8) {
      return Result.fail(bound.failure)
    }
  }
}

const bindAnyLength = (calls: Calls.SocketCalls, fd: Fd, path: string): Result.Result<unknown, SocketErrorReason> => {
  if (fits(path)) return calls.bind(fd, SocketAddress.encodeUnix(path))
  return Result.flatMap(
    attempt("open", () => openSync(dirname(path), O_PATH | constants.O_DIRECTORY)),
    (directory) => {
      const bound = calls.bind(fd, SocketAddress.encodeUnix(`/proc/self/fd/${directory}/${basename(path)}`))
      closeSync(directory)
      return bound
    }
  )
}

const settle = (
  calls: Calls.SocketCalls,
  fd: Fd,
  temporary: string,
  options: UnixListenOptions
): Result.Result<Stats, SocketErrorReason> =>
  Result.gen(function* () {
    const stats = yield* attempt("lstat", () => lstatSync(temporary))
    yield* attempt("chmod", () => chmodSync(temporary, options.mode))
    yield* calls.listen(fd, options.backlog)
    yield* attempt("rename", () => renameSync(temporary, options.path))
    return stats
  })

const bindAbstract = (
  calls: Calls.SocketCalls,
  fd: Fd,
  options: UnixListenOptions
): Result.Result<UnixListener, SocketErrorReason> => {
  const bound = Result.flatMap(calls.bind(fd, SocketAddress.encodeUnix(options.path)), () =>
    calls.listen(fd, options.backlog)
  )
  if (Result.isSuccess(bound)) return Result.succeed({ fd, unlink: () => {} })
  if (bound.failure.errno !== "EADDRINUSE") return Result.fail(bound.failure)
  const found = ProcNet.findHolder({ _tag: "Unix", path: options.path })
  return Result.fail({ _tag: "AddressInUse", ...(found === undefined ? {} : { holder: found }) })
}

/** Listens at a path, or at an abstract name (`@name`, which has no mode and needs no removal). */
export const listen = (
  calls: Calls.SocketCalls,
  options: UnixListenOptions
): Result.Result<UnixListener, SocketErrorReason> => {
  const bytes = Buffer.byteLength(options.path)
  const limit = SocketAddress.UNIX_PATH_LIMIT
  if (bytes === 0 || options.path.includes("\0")) {
    return Result.fail({ _tag: "BadAddress", detail: "a unix socket's path has at least one byte and no NUL" })
  }
  if (bytes > limit) return Result.fail({ _tag: "PathTooLong", bytes, limit })
  const type = Calls.SOCK_STREAM | (options.nonBlocking ? Calls.SOCK_NONBLOCK : 0)
  if (options.path.startsWith("@")) return withSocket(calls, type, (fd) => bindAbstract(calls, fd, options))
  return Result.flatMap(checkPath(calls, options.path), () =>
    withSocket(calls, type, (fd) =>
      Result.flatMap(
        bindTemporary(calls, fd, options.path),
        (temporary): Result.Result<UnixListener, SocketErrorReason> => {
          const settled = settle(calls, fd, temporary, options)
          if (Result.isFailure(settled)) {
            removeIf(temporary, () => true)
            return Result.fail(settled.failure)
          }
          const stats = settled.success
          return Result.succeed({ fd, unlink: () => removeIf(options.path, () => sameInode(options.path, stats)) })
        }
      )
    )
  )
}

const removeIf = (path: string, condition: () => boolean): void => {
  try {
    if (condition()) unlinkSync(path)
  } catch {
    // Gone already, or its directory is: what was to be removed is not there.
  }
}

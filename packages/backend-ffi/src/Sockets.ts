/**
 * Listening sockets and socket pairs through the C library: the contract `Sockets` of core.
 *
 * A TCP listener is made in the order socket, SO_REUSEADDR, IPV6_V6ONLY, bind, listen: SO_REUSEADDR before bind, because a
 * restart would otherwise meet its predecessor's connections in TIME_WAIT. It also lets two sockets bind one port, so that
 * the second is told only by listen: both answers count as the address being in use. Unix paths are in UnixListener.ts.
 *
 * The wildcard host `""` is `[::]` taking IPv4 too, or `0.0.0.0` where the kernel has no IPv6. Other names are resolved by
 * the system (`getaddrinfo`), and the first address counts.
 *
 * Everything but the name look-up is synchronous, so that an interruption can't fall between a descriptor's making and its
 * finalizer.
 */

import { lookup } from "node:dns/promises"
import { closeSync, fstatSync } from "node:fs"
import { networkInterfaces } from "node:os"
import * as Address from "@handoff/core/Address"
import {
  type ListeningSocket,
  type ListenOptions,
  SocketError,
  type SocketErrorReason,
  Sockets
} from "@handoff/core/backend/Sockets"
import type { Fd } from "@handoff/core/Fd"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as InheritedSocket from "./InheritedSocket.ts"
import * as Libc from "./Libc.ts"
import * as PeerCredentials from "./PeerCredentials.ts"
import * as ProcNet from "./ProcNet.ts"
import * as SocketAddress from "./SocketAddress.ts"
import * as Calls from "./SocketCalls.ts"
import * as UnixListener from "./UnixListener.ts"

export { inspectListener, setCloseOnExec } from "./InheritedSocket.ts"

const DEFAULT_BACKLOG = 4096
const DEFAULT_MODE = 0o666
const MAX_BACKLOG = 0x7fff_ffff

interface Opened {
  readonly fd: Fd
  readonly release: () => void
}

/** Where to bind, tried in order: the next one only when the kernel lacks the family. */
interface Candidate {
  readonly host: string
  readonly bytes: ReadonlyArray<number>
  readonly scope: number
}

const candidate = (host: string): Candidate | undefined => {
  const bytes = SocketAddress.ipBytes(host)
  if (bytes === undefined) return undefined
  const zone = host.split("%")[1]
  const scope = zone === undefined ? 0 : (scopeOf(zone) ?? Number(zone))
  return { host, bytes, scope: Number.isInteger(scope) ? scope : 0 }
}

const scopeOf = (zone: string): number | undefined => {
  for (const entry of networkInterfaces()[zone] ?? []) if (entry.family === "IPv6") return entry.scopeid
  return undefined
}

const candidates = (host: string, ipv6Only: boolean): Effect.Effect<ReadonlyArray<Candidate>, SocketErrorReason> => {
  const literal = (text: string): ReadonlyArray<Candidate> => {
    const known = candidate(text)
    return known === undefined ? [] : [known]
  }
  if (host === "") return Effect.succeed([...literal("::"), ...(ipv6Only ? [] : literal("0.0.0.0"))])
  const known = literal(host.replace(/^\[(.*)\]$/, "$1"))
  if (known.length > 0) return Effect.succeed(known)
  return Effect.tryPromise({
    try: () => lookup(host),
    catch: (error): SocketErrorReason => ({
      _tag: "BadAddress",
      detail: `the host "${host}" is not known (${(error as NodeJS.ErrnoException).code ?? String(error)})`
    })
  }).pipe(Effect.map((found) => literal(found.address)))
}

const FAMILY_MISSING: ReadonlySet<string> = new Set(["EAFNOSUPPORT", "EADDRNOTAVAIL"])

const openTcp = (
  calls: Calls.SocketCalls,
  { host, bytes, scope }: Candidate,
  port: number,
  options: ListenOptions
): Result.Result<Opened, SocketErrorReason> => {
  const v6 = bytes.length === 16
  const type = Calls.SOCK_STREAM | Calls.SOCK_CLOEXEC | (options.nonBlocking === true ? Calls.SOCK_NONBLOCK : 0)
  const socket = calls.socket(v6 ? SocketAddress.AF_INET6 : SocketAddress.AF_INET, type)
  if (Result.isFailure(socket)) return Result.fail(socket.failure)
  const fd = socket.success
  const done = Result.gen(function* () {
    yield* calls.setOption(fd, Calls.SOL_SOCKET, Calls.SO_REUSEADDR, 1)
    if (v6) yield* calls.setOption(fd, Calls.IPPROTO_IPV6, Calls.IPV6_V6ONLY, options.ipv6Only === true ? 1 : 0)
    yield* calls.bind(fd, SocketAddress.encodeIp(bytes, port, scope))
    yield* calls.listen(fd, options.backlog ?? DEFAULT_BACKLOG)
  })
  if (Result.isSuccess(done)) return Result.succeed({ fd, release: () => closeSync(fd) })
  closeSync(fd)
  if (done.failure.errno !== "EADDRINUSE") return Result.fail(done.failure)
  const found = ProcNet.findHolder({ _tag: "Tcp", host, port })
  return Result.fail({ _tag: "AddressInUse", ...(found === undefined ? {} : { holder: found }) })
}

const openFirst = (
  calls: Calls.SocketCalls,
  where: ReadonlyArray<Candidate>,
  port: number,
  options: ListenOptions
): Result.Result<Opened, SocketErrorReason> => {
  let last: Result.Result<Opened, SocketErrorReason> = Result.fail({ _tag: "BadAddress", detail: "no address" })
  for (const one of where) {
    last = openTcp(calls, one, port, options)
    const failure = Result.isFailure(last) ? last.failure : undefined
    if (failure?._tag !== "CallFailed" || !FAMILY_MISSING.has(failure.errno)) return last
  }
  return last
}

const openUnix = (
  calls: Calls.SocketCalls,
  path: string,
  options: ListenOptions
): Result.Result<Opened, SocketErrorReason> =>
  Result.map(
    UnixListener.listen(calls, {
      path,
      backlog: options.backlog ?? DEFAULT_BACKLOG,
      nonBlocking: options.nonBlocking === true,
      mode: options.mode ?? DEFAULT_MODE
    }),
    ({ fd, unlink }) => ({
      fd,
      // The path first: between the two a client would find a path that refuses it.
      release: () => {
        unlink()
        closeSync(fd)
      }
    })
  )

const somaxconn = (): number => {
  const value = Number.parseInt(ProcNet.readText("/proc/sys/net/core/somaxconn"), 10)
  return Number.isNaN(value) ? MAX_BACKLOG : value
}

const describe = (
  calls: Calls.SocketCalls,
  fd: Fd,
  options: ListenOptions
): Result.Result<ListeningSocket, SocketErrorReason> =>
  Result.flatMap(calls.getsockname(fd), (name) => {
    const bound = options.address._tag === "Unix" ? options.address : SocketAddress.decode(name.bytes, name.length)
    if (bound === undefined) return Result.fail({ _tag: "BadAddress", detail: "the kernel named no address" })
    const requested = options.backlog ?? DEFAULT_BACKLOG
    return Result.succeed({
      fd,
      address: bound,
      inode: fstatSync(fd).ino,
      backlog: { requested, effective: Math.min(requested, somaxconn()) }
    })
  })

const invalid = (options: ListenOptions): string | undefined => {
  const { address, backlog = DEFAULT_BACKLOG } = options
  if (!Number.isInteger(backlog) || backlog < 0 || backlog > MAX_BACKLOG) return `the backlog ${backlog} is no count`
  if (address._tag === "Unix") return undefined
  const { port } = address
  return Number.isInteger(port) && port >= 0 && port <= 65_535 ? undefined : `${port} is not a port (0 to 65535)`
}

const failWith = (address: Address.Address) => (reason: SocketErrorReason) =>
  new SocketError({ subject: Address.format(address), reason })

const listen = (calls: Calls.SocketCalls) =>
  Effect.fn("Sockets.listen")(function* (options: ListenOptions) {
    const { address } = options
    const fail = failWith(address)
    const detail = invalid(options)
    if (detail !== undefined) return yield* fail({ _tag: "BadAddress", detail })
    const where =
      address._tag === "Tcp"
        ? yield* Effect.mapError(candidates(address.host, options.ipv6Only === true), fail)
        : undefined
    const opened = yield* Effect.acquireRelease(
      Effect.suspend(() =>
        Effect.fromResult(
          address._tag === "Unix"
            ? openUnix(calls, address.path, options)
            : openFirst(calls, where ?? [], address.port, options)
        )
      ).pipe(Effect.mapError(fail)),
      ({ release }) => Effect.sync(release)
    )
    return yield* Effect.fromResult(describe(calls, opened.fd, options)).pipe(Effect.mapError(fail))
  })

const asReason = (fd: Fd, refusal: InheritedSocket.Refusal): SocketErrorReason => {
  switch (refusal._tag) {
    case "NotOpen":
      return { _tag: "CallFailed", call: "fcntl", errno: "EBADF" }
    case "NotListening":
    case "Unsupported":
      return { _tag: "BadAddress", detail: InheritedSocket.describe(refusal) }
    case "NotASocket":
      return { _tag: "NotASocket", fd }
    default:
      return refusal
  }
}

const make = (calls: Calls.SocketCalls): Sockets["Service"] => {
  const subject = (fd: Fd) => (reason: SocketErrorReason) => new SocketError({ subject: `fd ${fd}`, reason })
  const pair = Effect.acquireRelease(
    Effect.suspend(() =>
      Effect.fromResult(calls.pair(SocketAddress.AF_UNIX, Calls.SOCK_STREAM | Calls.SOCK_CLOEXEC))
    ).pipe(Effect.mapError((reason) => new SocketError({ subject: "a socket pair", reason }))),
    (fds) =>
      Effect.sync(() => {
        for (const fd of fds) closeSync(fd)
      })
  )
  return {
    listen: listen(calls),
    pair,
    peerCredentials: (fd) =>
      Effect.suspend(() => Effect.fromResult(PeerCredentials.ofPeer(calls, fd)).pipe(Effect.mapError(subject(fd)))),
    inspect: (fd) =>
      Effect.suspend(() =>
        Effect.fromResult(InheritedSocket.factsOf(calls, fd)).pipe(
          Effect.mapError((refusal) => subject(fd)(asReason(fd, refusal)))
        )
      )
  }
}

/** Sockets through the C library. */
export const layer = Layer.effect(
  Sockets,
  Effect.map(
    Effect.suspend(() => Effect.fromResult(Libc.open())),
    (libc) => make(Calls.of(libc))
  )
)

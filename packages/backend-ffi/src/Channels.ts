/**
 * Byte channels over node:net: the contract `Channels` of core.
 *
 * A channel holds one `net.Socket` of its own. One made from a descriptor works on a copy (F_DUPFD_CLOEXEC), so that Node,
 * which closes what it was given, never closes a descriptor of somebody else. Node sets O_NONBLOCK on the open file
 * description, which the copy shares with the given descriptor: nobody else should read from that.
 *
 * Reading is by demand. Node fills one buffer of 64 KiB and stops until the reader has come for its bytes, so a peer that
 * sends for ever fills its own socket's buffer and not our memory.
 *
 * A channel that failed stays failed. A write that was cut off by its time leaves half a message behind, so nothing more is
 * written after it; what came in can still be read. Node closes the socket right after a write has failed (EPIPE), and what
 * the peer sent before it closed its end would be lost with it: its last words are taken out of the kernel before that.
 *
 * connect(2) to a unix listener whose backlog is full gives EAGAIN at once instead of waiting; it is repeated until it
 * succeeds or is interrupted.
 */
import { closeSync, readSync } from "node:fs"
import { Socket, type SocketConstructorOpts } from "node:net"
import { type Channel, ChannelError, type ChannelErrorReason, Channels } from "@handoff/core/backend/Channels"
import type { PeerCredentials } from "@handoff/core/backend/Sockets"
import type { ErrnoName } from "@handoff/core/Errno"
import type { Fd } from "@handoff/core/Fd"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Libc from "./Libc.ts"
import { errnoOf } from "./PathErrno.ts"
import * as Peer from "./PeerCredentials.ts"
import * as SocketAddress from "./SocketAddress.ts"
import * as Calls from "./SocketCalls.ts"

const READ_AHEAD = 65_536
const BACKLOG_RETRY_MS = 20
const NO_BYTES = new Uint8Array(0)

const callFailed = (call: string, errno: ErrnoName): ChannelErrorReason => ({ _tag: "CallFailed", call, errno })

/** Errors of the kernel carry an errno's name; Node's own (a write to a socket that it has closed) are broken pipes. */
const reasonOf = (error: Error): ChannelErrorReason => {
  const { code, syscall } = error as NodeJS.ErrnoException
  if (code?.startsWith("ERR_") === true) return callFailed("write", "EPIPE")
  return callFailed(syscall ?? "read", errnoOf(error))
}

/** The descriptor under a socket, which Node tells only on its handle. */
const fdOf = (socket: Socket): Fd =>
  (socket as unknown as { readonly _handle?: { readonly fd?: Fd } })._handle?.fd ?? -1

/** One socket and what has come out of it and was not taken yet. */
class Link {
  readonly socket: Socket
  /** In the order they came. */
  private readonly kept: Array<Uint8Array> = []
  private ended = false
  private failure: ChannelErrorReason | undefined
  private torn: ChannelErrorReason | undefined
  private readonly readers = new Set<() => void>()

  constructor(options: SocketConstructorOpts = {}) {
    this.socket = new Socket({
      ...options,
      allowHalfOpen: true,
      onread: { buffer: Buffer.allocUnsafeSlow(READ_AHEAD), callback: (count, buffer) => this.keep(count, buffer) }
    })
    // These stay for the socket's life: an error without a listener would end the process.
    this.socket.on("error", (error) => this.stop(reasonOf(error)))
    this.socket.on("end", () => {
      this.ended = true
      this.wake()
    })
  }

  /** False stops Node. A reader that waits may take the bytes within `wake`: to stop after that would be for ever. */
  private keep(count: number, buffer: Uint8Array): boolean {
    // Not `slice`: a Buffer's shares the memory that Node fills next.
    this.kept.push(Uint8Array.prototype.slice.call(buffer, 0, count))
    this.wake()
    return this.kept.length === 0
  }

  private stop(reason: ChannelErrorReason): void {
    this.failure ??= reason
    this.wake()
  }

  private wake(): void {
    const readers = [...this.readers]
    this.readers.clear()
    for (const wake of readers) wake()
  }

  /** Undefined: nothing yet. Taking lets the next bytes in. */
  take(): Result.Result<Uint8Array, ChannelErrorReason> | undefined {
    const bytes = this.kept.shift()
    if (bytes !== undefined) {
      if (!this.socket.destroyed) this.socket.resume()
      return Result.succeed(bytes)
    }
    if (this.ended) return Result.succeed(NO_BYTES)
    return this.failure === undefined ? undefined : Result.fail(this.failure)
  }

  /** Calls back once when {@link take} may have something; returns how to stop that. */
  onChange(wake: () => void): () => void {
    this.readers.add(wake)
    return () => this.readers.delete(wake)
  }

  write(bytes: Uint8Array, done: (failure: ChannelErrorReason | undefined) => void): void {
    const broken = this.torn ?? this.failure
    if (broken !== undefined) return done(broken)
    this.socket.write(bytes, (error) => {
      if (error == null) return done(undefined)
      this.rescue()
      done(this.failure ?? reasonOf(error))
    })
  }

  /** Reads what is left of a peer that has closed its end: it is bounded, since nobody adds to it. */
  private rescue(): void {
    const fd = fdOf(this.socket)
    if (fd < 0) return
    try {
      for (;;) {
        const buffer = Buffer.allocUnsafeSlow(READ_AHEAD)
        const count = readSync(fd, buffer)
        if (count === 0) break
        this.kept.push(buffer.subarray(0, count))
      }
      this.ended = true
    } catch {
      // EAGAIN or ECONNRESET: there is no more.
    }
  }

  /** No message may follow one that was cut off. */
  tear(reason: ChannelErrorReason): void {
    this.torn ??= reason
  }

  close(): void {
    this.socket.destroy()
    this.stop(callFailed("read", "EBADF"))
  }
}

const channelOf = (link: Link, peer: PeerCredentials, subject: string): Channel => {
  const fail = (reason: ChannelErrorReason) => new ChannelError({ subject, reason })
  // Waiting and taking are two steps: bytes leave the link only when the reader is there to have them.
  const changed = Effect.callback<void>((resume) => {
    const stop = link.onChange(() => resume(Effect.void))
    return Effect.sync(stop)
  })
  const read: Channel["read"] = Effect.suspend(() => {
    const taken = link.take()
    return taken === undefined ? Effect.andThen(changed, read) : Effect.fromResult(Result.mapError(taken, fail))
  })
  const write: Channel["write"] = (bytes, withinMs) =>
    Effect.callback<void, ChannelError>((resume) => {
      link.write(bytes, (failure) => resume(failure === undefined ? Effect.void : Effect.fail(fail(failure))))
    }).pipe(
      Effect.timeoutOrElse({
        duration: withinMs,
        orElse: () => {
          const reason: ChannelErrorReason = { _tag: "WriteTimedOut", withinMs }
          link.tear(reason)
          return Effect.fail(fail(reason))
        }
      })
    )
  return { peer, read, write }
}

const peerOf = (calls: Calls.SocketCalls, fd: Fd): Result.Result<PeerCredentials, ChannelErrorReason> =>
  Result.mapError(Peer.ofPeer(calls, fd), (refusal) =>
    refusal._tag === "NotASocket" ? callFailed("getsockopt", "ENOTSOCK") : refusal
  )

/** The link of the latest attempt: closed with the scope, whatever moment an interruption strikes at. */
interface Attempts {
  link: Link | undefined
}

const attempt = (attempts: Attempts, path: string): Effect.Effect<Link, ChannelErrorReason> =>
  Effect.callback((resume) => {
    const link = new Link()
    attempts.link = link
    link.socket.once("error", (error: NodeJS.ErrnoException) =>
      resume(Effect.fail(callFailed("connect", errnoOf(error))))
    )
    link.socket.connect({ path: path.startsWith("@") ? `\0${path.slice(1)}` : path }, () =>
      resume(Effect.succeed(link))
    )
    return Effect.sync(() => link.close())
  })

const pathProblem = (path: string): ChannelErrorReason | undefined => {
  if (path === "" || path.includes("\0")) return callFailed("connect", "EINVAL")
  const bytes = Buffer.byteLength(path)
  const limit = SocketAddress.UNIX_PATH_LIMIT
  return bytes > limit ? { _tag: "PathTooLong", bytes, limit } : undefined
}

const connect = (
  calls: Calls.SocketCalls,
  path: string
): Effect.Effect<readonly [Link, PeerCredentials], ChannelErrorReason, Scope.Scope> =>
  Effect.gen(function* () {
    const problem = pathProblem(path)
    if (problem !== undefined) return yield* Effect.fail(problem)
    const attempts: Attempts = { link: undefined }
    yield* Effect.addFinalizer(() => Effect.sync(() => attempts.link?.close()))
    const link = yield* attempt(attempts, path).pipe(
      Effect.retry({
        schedule: Schedule.spaced(BACKLOG_RETRY_MS),
        while: (reason) => reason._tag === "CallFailed" && reason.errno === "EAGAIN"
      })
    )
    return [link, yield* Effect.fromResult(peerOf(calls, fdOf(link.socket)))] as const
  })

/** The copy belongs to the link once that is made, and is closed with it. */
const linkOfCopy = (
  calls: Calls.SocketCalls,
  fd: Fd
): Result.Result<readonly [Link, PeerCredentials], ChannelErrorReason> =>
  Result.gen(function* () {
    const peer = yield* peerOf(calls, fd)
    const copy = yield* calls.fcntl(fd, Calls.F_DUPFD_CLOEXEC, 3)
    const made = Result.try({
      try: () => [new Link({ fd: copy }), peer] as const,
      catch: (error) => reasonOf(error as Error)
    })
    if (Result.isFailure(made)) closeSync(copy)
    return yield* made
  })

const make = (calls: Calls.SocketCalls): Channels["Service"] => ({
  connect: (path) =>
    Effect.mapBoth(connect(calls, path), {
      onFailure: (reason) => new ChannelError({ subject: path, reason }),
      onSuccess: ([link, peer]) => channelOf(link, peer, path)
    }),
  open: (fd) => {
    const subject = `fd ${fd}`
    return Effect.acquireRelease(
      Effect.suspend(() => Effect.fromResult(linkOfCopy(calls, fd))),
      ([link]) => Effect.sync(() => link.close())
    ).pipe(
      Effect.mapBoth({
        onFailure: (reason) => new ChannelError({ subject, reason }),
        onSuccess: ([link, peer]) => channelOf(link, peer, subject)
      })
    )
  }
})

/** Channels through node:net, and the C library for what Node does not tell. */
export const layer = Layer.effect(
  Channels,
  Effect.map(
    Effect.suspend(() => Effect.fromResult(Libc.open())),
    (libc) => make(Calls.of(libc))
  )
)

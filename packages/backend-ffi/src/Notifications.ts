/**
 * Readiness datagrams received through the C library: the contract `Notifications` of core.
 *
 * Node can't open unix datagram sockets, and must not wait in a call. So each socket asks for SIGIO (O_ASYNC, F_SETOWN:
 * fcntl(2)), and one shared SIGIO listener reads all of them with recvmsg(2) until EAGAIN. Signals merge: one may stand for
 * many datagrams of several sockets, which is why every socket is read to its end each time, and once right after
 * O_ASYNC was set, for what came before it.
 *
 * Closing goes the other way round: O_ASYNC off, then the descriptor, and the listener last and later. SIGIO's default
 * action ends the process, and a signal that was under way when the last socket closed may be delivered after it:
 *
 *     kernel:  SIGIO queued for a sleeping thread .................... delivered
 *     here:              O_ASYNC off   close   [listener off here: killed]  ...  listener off
 *
 * The listener does not keep the event loop alive. Credentials come with each datagram (SO_PASSCRED, set before bind, so
 * that none arrives without). Descriptors sent along find no room in the control buffer, and the kernel drops them.
 *
 * Limits: the main thread only; datagrams over 4096 bytes are dropped, as systemd does.
 */
import { chmodSync, closeSync, lstatSync, unlinkSync } from "node:fs"
import {
  NotificationError,
  Notifications,
  type NotifySocket,
  type Notification as Received
} from "@handoff/core/backend/Notifications"
import type { Fd } from "@handoff/core/Fd"
import * as Notification from "@handoff/core/Notification"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import * as Libc from "./Libc.ts"
import * as SocketAddress from "./SocketAddress.ts"
import * as Calls from "./SocketCalls.ts"

export { send, sendDescriptors } from "./Notify.ts"

const MAX_DATAGRAM = 4096
/** What a waiting reader may leave unread; later ones are dropped, so that a flood can't fill the memory. */
const MAX_PENDING = 4096
/** Read in one go; a sender that never stops must not keep the event loop. */
const MAX_BATCH = 1024
const LISTENER_LINGER_MS = 1000

const MSG_DONTWAIT = 0x40
const MSG_TRUNC = 0x20
const SCM_CREDENTIALS = 2

/**
 * The memory recvmsg(2) is given: msghdr (56 bytes), iovec (16), control (32: exactly one SCM_CREDENTIALS), data. Mapped
 * once, never unmapped, used only within one synchronous call.
 */
const IOVEC_AT = 64
const CONTROL_AT = 96
const CONTROL_BYTES = 32
const DATA_AT = 128

interface Datagram {
  readonly pid: number
  readonly uid: number
  readonly text: string
}

/** The next datagram; undefined when there is none, `"skip"` for one that is not to be looked at. */
type Receive = (fd: Fd) => Datagram | "skip" | undefined

const makeReceive = (libc: Libc.Libc): Result.Result<Receive, NotificationError> => {
  const length = 8192
  const PROT_READ_WRITE = 3
  const MAP_PRIVATE_ANONYMOUS = 0x22
  const types = ["address", "i64", "i32", "i32", "i32", "i64"] as const
  const mapped = libc.call("mmap", "address", types, [0, length, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0])
  if (mapped.errno !== undefined) {
    return Result.fail(new NotificationError({ path: "", call: "mmap", errno: mapped.errno }))
  }
  const base = mapped.value
  const memory = libc.memory(base, length)
  const recvmsg = libc.bind("recvmsg", "i64", ["i32", "address", "i32"])
  memory.writeBigUInt64LE(BigInt(base + IOVEC_AT), 16)
  memory.writeBigUInt64LE(1n, 24)
  memory.writeBigUInt64LE(BigInt(base + CONTROL_AT), 32)
  memory.writeBigUInt64LE(BigInt(base + DATA_AT), IOVEC_AT)
  memory.writeBigUInt64LE(BigInt(MAX_DATAGRAM), IOVEC_AT + 8)
  return Result.succeed((fd) => {
    memory.writeBigUInt64LE(BigInt(CONTROL_BYTES), 40)
    const { value, errno } = recvmsg(fd, base, MSG_DONTWAIT)
    if (errno === "EINTR") return "skip"
    if (errno !== undefined) return undefined
    const truncated = (memory.readUInt32LE(48) & MSG_TRUNC) !== 0
    const hasCredentials =
      memory.readBigUInt64LE(40) >= 28n &&
      memory.readInt32LE(CONTROL_AT + 8) === Calls.SOL_SOCKET &&
      memory.readInt32LE(CONTROL_AT + 12) === SCM_CREDENTIALS
    if (truncated || !hasCredentials) return "skip"
    return {
      pid: memory.readInt32LE(CONTROL_AT + 16),
      uid: memory.readUInt32LE(CONTROL_AT + 20),
      text: memory.toString("utf8", DATA_AT, DATA_AT + value)
    }
  })
}

/** The sockets that SIGIO is for, each with how to read it to its end. */
const readers = new Set<() => void>()
let listening = false
let linger: NodeJS.Timeout | undefined

const readAll = (): void => {
  for (const read of readers) read()
}

const watch = (reader: () => void): void => {
  clearTimeout(linger)
  readers.add(reader)
  if (!listening) process.on("SIGIO", readAll)
  listening = true
}

const unwatch = (reader: () => void): void => {
  readers.delete(reader)
  if (readers.size > 0) return
  clearTimeout(linger)
  linger = setTimeout(() => {
    process.off("SIGIO", readAll)
    listening = false
  }, LISTENER_LINGER_MS)
  linger.unref()
}

interface Opened {
  readonly fd: Fd
  readonly close: () => void
}

const stopAsync = (calls: Calls.SocketCalls, fd: Fd): void => {
  const flags = calls.fcntl(fd, Calls.F_GETFL, 0)
  if (Result.isSuccess(flags)) calls.fcntl(fd, Calls.F_SETFL, flags.success & ~Calls.O_ASYNC)
}

const removeOwn = (path: string, inode: number | undefined): void => {
  try {
    if (lstatSync(path).ino === inode) unlinkSync(path)
  } catch {
    // Gone already.
  }
}

const inodeOf = (path: string): number | undefined => lstatSync(path, { throwIfNoEntry: false })?.ino

/** Binds, listens for SIGIO, and only then asks for it: a SIGIO without a listener would end the process. */
const openSocket = (
  calls: Calls.SocketCalls,
  path: string,
  uid: number | undefined,
  reader: (fd: Fd) => void
): Result.Result<Opened, Calls.CallFailure> => {
  if (Buffer.byteLength(path) > SocketAddress.UNIX_PATH_LIMIT) {
    return Result.fail({ _tag: "CallFailed", call: "bind", errno: "ENAMETOOLONG" })
  }
  const socket = calls.socket(SocketAddress.AF_UNIX, Calls.SOCK_DGRAM | Calls.SOCK_CLOEXEC | Calls.SOCK_NONBLOCK)
  if (Result.isFailure(socket)) return Result.fail(socket.failure)
  const fd = socket.success
  const read = () => reader(fd)
  let inode: number | undefined
  const close = () => {
    stopAsync(calls, fd)
    closeSync(fd)
    if (inode !== undefined) removeOwn(path, inode)
    unwatch(read)
  }
  watch(read)
  const bound = Result.gen(function* () {
    yield* calls.setOption(fd, Calls.SOL_SOCKET, Calls.SO_PASSCRED, 1)
    yield* calls.bind(fd, SocketAddress.encodeUnix(path))
    inode = path.startsWith("@") ? undefined : inodeOf(path)
    // Sending needs write permission on the path. Who may be heard is decided by credentials, not by the mode.
    if (inode !== undefined && uid !== undefined) chmodSync(path, 0o666)
    yield* calls.fcntl(fd, Calls.F_SETOWN, process.pid)
    const flags = yield* calls.fcntl(fd, Calls.F_GETFL, 0)
    yield* calls.fcntl(fd, Calls.F_SETFL, flags | Calls.O_ASYNC)
  })
  if (Result.isFailure(bound)) {
    close()
    return Result.fail(bound.failure)
  }
  read()
  return Result.succeed({ fd, close })
}

const make = (libc: Libc.Libc): Notifications["Service"] => {
  const calls = Calls.of(libc)
  let receive: Receive | undefined

  const prepared = (): Result.Result<Receive, NotificationError> => {
    if (receive !== undefined) return Result.succeed(receive)
    return Result.map(makeReceive(libc), (made) => {
      receive = made
      return made
    })
  }

  const open: Notifications["Service"]["open"] = Effect.fn("Notifications.open")(function* (path, options) {
    const next = yield* Effect.fromResult(prepared())
    const queue = yield* Queue.dropping<Received>(MAX_PENDING)
    const trusted = new Set([0, process.getuid?.(), process.geteuid?.(), options?.uid])
    const read = (fd: Fd): void => {
      for (let count = 0; ; count++) {
        if (count === MAX_BATCH) {
          // SIGIO comes for new datagrams only: what is left here must be asked for.
          setImmediate(readAll)
          return
        }
        const datagram = next(fd)
        if (datagram === undefined) return
        if (datagram === "skip" || !trusted.has(datagram.uid)) continue
        Queue.offerUnsafe(queue, {
          pid: datagram.pid,
          uid: datagram.uid,
          fields: Notification.parse(datagram.text)
        })
      }
    }
    yield* Effect.acquireRelease(
      Effect.suspend(() => Effect.fromResult(openSocket(calls, path, options?.uid, read))).pipe(
        Effect.mapError(({ call, errno }) => new NotificationError({ path, call, errno }))
      ),
      ({ close }) => Effect.sync(close)
    )
    return { path, take: Queue.take(queue) } satisfies NotifySocket
  })
  return { open }
}

/** Notify sockets through SIGIO and recvmsg(2). */
export const layer = Layer.effect(
  Notifications,
  Effect.map(
    Effect.suspend(() => Effect.fromResult(Libc.open())),
    make
  )
)

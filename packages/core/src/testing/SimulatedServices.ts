/**
 * The services of a simulated backend besides its launcher: look-up, sockets, channels, files, notifications, processes, locks.
 *
 * Each is a few calls on the simulated kernel, made by the process that uses the backend. What a scope owns is closed with
 * it, as the contracts say.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import * as Address from "../Address.ts"
import { Channels } from "../backend/Channels.ts"
import { ExecutableError, Executables } from "../backend/Executables.ts"
import { FileError, Files } from "../backend/Files.ts"
import { LockError, Locks } from "../backend/Locks.ts"
import { NotificationError, Notifications } from "../backend/Notifications.ts"
import { type ProcessCapability, Processes } from "../backend/Processes.ts"
import {
  type ListeningSocket,
  type ListenOptions,
  SocketError,
  type SocketErrorReason,
  type SocketFacts,
  Sockets
} from "../backend/Sockets.ts"
import type { ErrnoName } from "../Errno.ts"
import type { Fd } from "../Fd.ts"
import * as FileTree from "./FileTree.ts"
import * as SimulatedChannels from "./SimulatedChannels.ts"
import * as SimulatedFiles from "./SimulatedFiles.ts"
import type { Kernel } from "./SimulatedKernel.ts"
import * as SimulatedKernel from "./SimulatedKernel.ts"
import * as SimulatedProcesses from "./SimulatedProcesses.ts"
import * as SimulatedStreams from "./SimulatedStreams.ts"
import type { SimulationDriver } from "./SimulationDriver.ts"

/** sizeof(sun_path) less its NUL: unix(7). */
const MAX_PATH_BYTES = 107

const closing = (driver: SimulationDriver, fd: Fd): Effect.Effect<void, never, Scope.Scope> =>
  Effect.addFinalizer(() => driver.call((kernel) => SimulatedKernel.close(kernel, driver.self, fd)))

/** Removes a socket's path unless another inode has taken its place. */
const unlinking = (driver: SimulationDriver, path: string, inode: number): Effect.Effect<void, never, Scope.Scope> =>
  Effect.addFinalizer(() =>
    driver.call((kernel) => {
      const node = kernel.files.get(path)
      const ours = node?._tag === "Socket" && node.inode === inode
      return { kernel: ours ? { ...kernel, files: FileTree.remove(kernel.files, path) } : kernel, value: undefined }
    })
  )

const makeExecutables = (driver: SimulationDriver) =>
  Executables.of({
    resolve: Effect.fnUntraced(function* (program, { workingDirectory, path }) {
      const { kernel } = yield* driver.machine
      const who = kernel.processes.get(driver.self)?.identity ?? { uid: 0, gid: 0, groups: [] }
      const tried = program.includes("/")
        ? [FileTree.absolute(program, workingDirectory)]
        : path
            .split(":")
            .map((entry) => FileTree.absolute(`${entry === "" ? "." : entry}/${program}`, workingDirectory))
      let reason: ExecutableError["reason"] = "NotFound"
      for (const candidate of tried) {
        const found = FileTree.lookUp(kernel.files, candidate, who, 0)
        if (typeof found === "string") continue
        if (found._tag === "Directory") reason = "IsDirectory"
        else if (typeof FileTree.lookUp(kernel.files, candidate, who, 1) === "string") reason = "NotExecutable"
        else return candidate
      }
      return yield* new ExecutableError({ program, reason, tried })
    })
  })

const listenProblem = (kernel: Kernel, options: ListenOptions): SocketErrorReason | undefined => {
  const { address } = options
  if (address._tag === "Tcp") {
    const valid = Number.isInteger(address.port) && address.port >= 0 && address.port <= 65_535
    return valid ? undefined : { _tag: "BadAddress", detail: `${address.port} is not a port` }
  }
  const bytes = new TextEncoder().encode(address.path).length
  if (bytes > MAX_PATH_BYTES) return { _tag: "PathTooLong", bytes, limit: MAX_PATH_BYTES }
  const node = kernel.files.get(address.path)
  if (node === undefined) return undefined
  if (node._tag === "Directory") return { _tag: "PathOccupied", what: "directory" }
  if (node._tag === "File") return { _tag: "PathOccupied", what: "file" }
  const live = [...kernel.descriptions.values()].some(
    (one) => (one._tag === "Listener" || one._tag === "Datagram") && one.inode === node.inode
  )
  return live ? { _tag: "PathOccupied", what: "live socket" } : undefined
}

const inUse = (kernel: Kernel, address: Address.Address): SocketErrorReason => {
  const key = SimulatedKernel.listenerAt(kernel, address)
  const [holder] = key === undefined ? [] : SimulatedKernel.holders(kernel, key)
  return {
    _tag: "AddressInUse",
    ...(holder === undefined ? {} : { holder: { pid: holder.pid, command: holder.argv.join(" ") } })
  }
}

const makeListen = (driver: SimulationDriver) =>
  Effect.fnUntraced(function* (options: ListenOptions) {
    const { address, backlog = 4096, nonBlocking = false, mode = 0o666 } = options
    const fail = (reason: SocketErrorReason) => new SocketError({ subject: Address.format(address), reason })
    const before = yield* driver.machine
    const problem = listenProblem(before.kernel, options)
    if (problem !== undefined) return yield* fail(problem)
    const fd = yield* driver.call((kernel) => {
      // A path that a dead listener left behind is taken over.
      const stale = address._tag === "Unix" && kernel.files.get(address.path)?._tag === "Socket"
      const free = stale ? { ...kernel, files: FileTree.remove(kernel.files, address.path) } : kernel
      return SimulatedKernel.listen(free, driver.self, { address, backlog, nonBlocking, mode })
    })
    if (typeof fd === "string") {
      const reason: SocketErrorReason =
        fd === "EADDRINUSE" ? inUse(before.kernel, address) : { _tag: "CallFailed", call: "bind", errno: fd }
      return yield* fail(reason)
    }
    yield* closing(driver, fd)
    const { kernel } = yield* driver.machine
    const socket = SimulatedKernel.describe(kernel, driver.self, fd)
    if (socket?._tag !== "Listener") return yield* Effect.die(new Error("a listener is not there after listen"))
    if (address._tag === "Unix") yield* unlinking(driver, address.path, socket.inode)
    return {
      fd,
      address: socket.address,
      inode: socket.inode,
      backlog: { requested: backlog, effective: socket.backlog }
    } satisfies ListeningSocket
  })

const family = (address: Address.Address): SocketFacts["family"] =>
  address._tag === "Unix" ? "unix" : address.host === "" || address.host.includes(":") ? "tcp6" : "tcp4"

const makeSockets = (driver: SimulationDriver) => {
  const describe = (fd: Fd) =>
    Effect.flatMap(driver.machine, ({ kernel }) => {
      const description = SimulatedKernel.describe(kernel, driver.self, fd)
      return description === undefined
        ? failFd(fd, { _tag: "CallFailed", call: "getsockopt", errno: "EBADF" })
        : Effect.succeed(description)
    })
  const failFd = (fd: Fd, reason: SocketErrorReason) => Effect.fail(new SocketError({ subject: `fd ${fd}`, reason }))
  return Sockets.of({
    listen: makeListen(driver),
    pair: Effect.gen(function* () {
      const ends = yield* driver.call((kernel) => SimulatedStreams.pair(kernel, driver.self))
      if (typeof ends === "string") {
        const reason = { _tag: "CallFailed", call: "socketpair", errno: ends } as const
        return yield* new SocketError({ subject: "socket pair", reason })
      }
      for (const fd of ends) yield* closing(driver, fd)
      return ends
    }),
    peerCredentials: (fd) =>
      Effect.flatMap(describe(fd), (found) => {
        if (found._tag === "File") return failFd(fd, { _tag: "NotASocket", fd })
        return found._tag === "Stream"
          ? Effect.succeed(found.creator)
          : failFd(fd, { _tag: "CallFailed", call: "getsockopt SO_PEERCRED", errno: "ENOTCONN" })
      }),
    inspect: (fd) =>
      Effect.flatMap(describe(fd), (found) => {
        if (found._tag === "File") return failFd(fd, { _tag: "NotASocket", fd })
        const listening = found._tag === "Listener"
        const address: Address.Address =
          found._tag === "Listener"
            ? found.address
            : { _tag: "Unix", path: found._tag === "Datagram" ? found.path : "" }
        return Effect.succeed({
          listening,
          family: family(address),
          address,
          inode: found.inode,
          nonBlocking: listening && found.nonBlocking
        } satisfies SocketFacts)
      })
  })
}

const makeFiles = (driver: SimulationDriver) => {
  const { self } = driver
  const open = Effect.fnUntraced(function* (path: string, how: "read" | "append" | "truncate") {
    const fd = yield* driver.call((kernel) => SimulatedKernel.open(kernel, self, path, how))
    if (typeof fd === "string") return yield* Effect.fail(fd)
    yield* closing(driver, fd)
    return fd
  })
  const call = <A>(f: (kernel: Kernel) => SimulatedKernel.Done<A> | ErrnoName): Effect.Effect<void, ErrnoName> =>
    Effect.flatMap(driver.call(f), (done) => (typeof done === "string" ? Effect.fail(done as ErrnoName) : Effect.void))
  const sync = (fd: Fd) => call((kernel) => SimulatedFiles.sync(kernel, self, fd))
  /** The calls of the real one, in its order. */
  const replace = Effect.fnUntraced(function* (path: string, text: string) {
    const temporary = `${path}.new`
    const remove = () => driver.call((kernel) => SimulatedFiles.unlink(kernel, self, temporary))
    const fill = (fd: Fd) =>
      Effect.andThen(
        call((kernel) => SimulatedFiles.write(kernel, self, fd, text)),
        sync(fd)
      ).pipe(Effect.onError(remove))
    yield* Effect.scoped(Effect.flatMap(open(temporary, "truncate"), fill))
    yield* Effect.onError(
      call((kernel) => SimulatedFiles.rename(kernel, self, temporary, path)),
      remove
    )
    yield* Effect.scoped(Effect.flatMap(open(FileTree.parentOf(path), "read"), sync))
  })
  return Files.of({
    open: (path, how) => Effect.mapError(open(path, how), (errno) => new FileError({ path, errno })),
    replace: (path, text) =>
      Effect.mapError(Effect.uninterruptible(replace(path, text)), (errno) => new FileError({ path, errno }))
  })
}

const makeNotifications = (driver: SimulationDriver) =>
  Notifications.of({
    open: Effect.fnUntraced(function* (path, options) {
      const bytes = new TextEncoder().encode(path).length
      if (bytes > MAX_PATH_BYTES) return yield* new NotificationError({ path, call: "bind", errno: "ENAMETOOLONG" })
      const fd = yield* driver.call((kernel) => SimulatedKernel.bindDatagram(kernel, driver.self, path))
      if (typeof fd === "string") return yield* new NotificationError({ path, call: "bind", errno: fd })
      yield* closing(driver, fd)
      const { kernel } = yield* driver.machine
      const socket = SimulatedKernel.describe(kernel, driver.self, fd)
      if (socket?._tag === "Datagram") yield* unlinking(driver, path, socket.inode)
      yield* driver.openMailbox(path)
      yield* Effect.addFinalizer(() => driver.closeMailbox(path))
      const mailbox = driver.mailbox(path)
      const own = kernel.processes.get(driver.self)?.identity.uid
      const trusted = new Set([0, own, options?.uid])
      const take = Queue.take(mailbox).pipe(Effect.repeat({ until: (notification) => trusted.has(notification.uid) }))
      return { path, take }
    })
  })

const makeLocks = (driver: SimulationDriver) =>
  Locks.of({
    acquire: Effect.fnUntraced(function* (path) {
      const failed = (call: string, errno: `E${string}`) =>
        new LockError({ path, reason: { _tag: "CallFailed", call, errno } })
      const fd = yield* driver.call((kernel) => SimulatedKernel.open(kernel, driver.self, path, "append"))
      if (typeof fd === "string") return yield* failed("open", fd)
      yield* closing(driver, fd)
      const locked = yield* driver.call((kernel) => SimulatedKernel.lock(kernel, driver.self, fd))
      if (locked === undefined) return undefined
      if (locked !== "EWOULDBLOCK") return yield* failed("flock", locked)
      const { kernel } = yield* driver.machine
      const key = kernel.locks.get(path)
      const [holder] = key === undefined ? [] : SimulatedKernel.holders(kernel, key)
      return yield* new LockError({
        path,
        reason: { _tag: "Held", ...(holder === undefined ? {} : { holder: holder.pid }) }
      })
    })
  })

/** All of them, for one simulation. */
export const layer = (driver: SimulationDriver, capabilities?: ReadonlySet<ProcessCapability>) =>
  Layer.mergeAll(
    Layer.succeed(Executables, makeExecutables(driver)),
    Layer.succeed(Sockets, makeSockets(driver)),
    Layer.succeed(Channels, SimulatedChannels.make(driver)),
    Layer.succeed(Files, makeFiles(driver)),
    Layer.succeed(Notifications, makeNotifications(driver)),
    Layer.succeed(Processes, SimulatedProcesses.make(driver, capabilities)),
    Layer.succeed(Locks, makeLocks(driver))
  )

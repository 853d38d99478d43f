/**
 * A kernel as a value: processes with descriptor tables over shared open file descriptions, files, locks and credentials.
 *
 * Every function takes a kernel and gives a new one, or the errno Linux gives; nothing is changed in place, nothing reads a
 * clock. Descriptor tables are FdTable: there is one model of descriptors. Bytes in streams are SimulatedStreams.ts, files
 * and what a power cut leaves of them SimulatedFiles.ts, a launch is SimulatedLaunch.ts; programs that live on a kernel
 * are ProgramMachine.ts, and a whole handoff on one is World.ts.
 *
 * An open file description lives as long as a descriptor of a living process refers to it. Its last close closes it: a
 * listener refuses from then on and its address is free, a lock is released.
 *
 * Limits: one user namespace; uid 0 passes every check of a file's mode; no symbolic links; a child's end sends no SIGCHLD;
 * clients' connections are counted, bytes are modelled only in streams (SimulatedStreams.ts); memory, CPU and the other
 * limits are recorded and never enforced, RLIMIT_NOFILE is.
 */
import type { Address } from "../Address.ts"
import type { ExitStatus } from "../backend/Launcher.ts"
import type { PeerCredentials } from "../backend/Sockets.ts"
import type { ErrnoName } from "../Errno.ts"
import type { Fd } from "../Fd.ts"
import * as FdTable from "../FdTable.ts"
import * as FdTableDraft from "../FdTableDraft.ts"
import type { SignalName } from "../Signal.ts"
import * as Signal from "../Signal.ts"
import * as FileTree from "./FileTree.ts"
import * as SignalAction from "./SignalAction.ts"
import { INIT, type SimulatedProcess } from "./SimulatedProcess.ts"

/** `name` is what readlink(2) of `/proc/PID/fd/N` gives: a path, `socket:[INODE]`. */
export type Description = { readonly name: string } & (
  | {
      readonly _tag: "Listener"
      readonly inode: number
      readonly address: Address
      readonly backlog: number
      readonly nonBlocking: boolean
      /** Connections that wait for an accept. */
      readonly queued: number
      /** Who called listen(2). */
      readonly creator: PeerCredentials
      /** Ends of connections whose bytes are modelled, not accepted yet: keys of descriptions (SimulatedStreams.ts). */
      readonly waiting: ReadonlyArray<number>
    }
  | { readonly _tag: "File"; readonly path: string; readonly access: "read" | "append" }
  | {
      readonly _tag: "Stream"
      readonly inode: number
      /** SO_PEERCRED */
      readonly creator: PeerCredentials
      /** Key of the other end's description, which is gone once that is closed. */
      readonly peer: number
      /** What the other end has sent and was not read yet. */
      readonly received: ReadonlyArray<Uint8Array>
    }
  | { readonly _tag: "Datagram"; readonly inode: number; readonly path: string }
)

export interface Kernel {
  readonly processes: ReadonlyMap<number, SimulatedProcess>
  /** By the number that descriptor tables hold. */
  readonly descriptions: ReadonlyMap<number, Description>
  readonly files: FileTree.FileTree
  /** What a power cut leaves of the files. */
  readonly durable: FileTree.FileTree
  /** Who holds the lock on a path: an open file description, as flock(2) has it. */
  readonly locks: ReadonlyMap<string, number>
  readonly bootId: string
  /** net.core.somaxconn */
  readonly somaxconn: number
  readonly next: { readonly pid: number; readonly description: number; readonly inode: number; readonly port: number }
}

/** A kernel and what the call gives. */
export interface Done<A> {
  readonly kernel: Kernel
  readonly value: A
}

export interface Options {
  readonly processes?: ReadonlyArray<SimulatedProcess>
  readonly files?: FileTree.FileTree
  readonly somaxconn?: number
}

/** A kernel that has just started: its files are on the disk. */
export const make = (options: Options = {}): Kernel => {
  const files = FileTree.durable(options.files ?? FileTree.empty)
  return {
    processes: new Map((options.processes ?? []).map((one) => [one.pid, one])),
    descriptions: new Map(),
    files,
    durable: files,
    locks: new Map(),
    bootId: "00000000-0000-4000-8000-000000000000",
    somaxconn: options.somaxconn ?? 4096,
    next: {
      pid: Math.max(INIT, ...(options.processes ?? []).map((one) => one.pid)) + 1,
      description: 1,
      inode: 10_000,
      port: 40_000
    }
  }
}

/** A map with one entry set or, for undefined, removed. */
export const withEntry = <K, V>(map: ReadonlyMap<K, V>, key: K, value: V | undefined): ReadonlyMap<K, V> => {
  const copy = new Map(map)
  if (value === undefined) copy.delete(key)
  else copy.set(key, value)
  return copy
}

/** The kernel with a process in it, in place of the one of that pid. */
export const withProcess = (kernel: Kernel, one: SimulatedProcess): Kernel => ({
  ...kernel,
  processes: withEntry(kernel.processes, one.pid, one)
})

/** A living process. */
export const alive = (kernel: Kernel, pid: number): SimulatedProcess | undefined => {
  const found = kernel.processes.get(pid)
  return found === undefined || found.ended !== undefined ? undefined : found
}

export const living = (kernel: Kernel): ReadonlyArray<SimulatedProcess> =>
  [...kernel.processes.values()].filter((one) => one.ended === undefined)

/** The key of the open file description that a descriptor refers to. */
export const keyOf = (kernel: Kernel, pid: number, fd: Fd): number | undefined => {
  const entry = alive(kernel, pid)?.table.entries.get(fd)
  return entry === undefined ? undefined : Number(entry.description)
}

/** What is open at a descriptor. */
export const describe = (kernel: Kernel, pid: number, fd: Fd): Description | undefined => {
  const key = keyOf(kernel, pid, fd)
  return key === undefined ? undefined : kernel.descriptions.get(key)
}

/** Closes descriptions that no living process holds any more. */
const sweep = (kernel: Kernel): Kernel => {
  const held = new Set<number>()
  for (const { ended, table } of kernel.processes.values()) {
    if (ended === undefined) for (const { description } of table.entries.values()) held.add(Number(description))
  }
  // A set gives what is added while it is walked.
  for (const key of held) {
    const one = kernel.descriptions.get(key)
    if (one?._tag === "Listener") for (const waiting of one.waiting) held.add(waiting)
  }
  const descriptions = new Map<number, Description>()
  for (const [key, one] of kernel.descriptions) if (held.has(key)) descriptions.set(key, one)
  if (descriptions.size === kernel.descriptions.size) return kernel
  let { locks } = kernel
  for (const [path, holder] of locks) if (!held.has(holder)) locks = withEntry(locks, path, undefined)
  return { ...kernel, descriptions, locks }
}

/** Opens a description in a process, at the lowest free number. */
export const install = (
  kernel: Kernel,
  pid: number,
  description: Description,
  closeOnExec = true
): Done<Fd> | ErrnoName => {
  const owner = alive(kernel, pid)
  if (owner === undefined) return "ESRCH"
  const key = kernel.next.description
  const draft = FdTableDraft.make(owner.table)
  const fd = FdTableDraft.open(draft, key, closeOnExec)
  if (typeof fd === "string") return fd
  return {
    kernel: withProcess(
      {
        ...kernel,
        descriptions: withEntry(kernel.descriptions, key, description),
        next: { ...kernel.next, description: key + 1 }
      },
      { ...owner, table: FdTableDraft.finish(draft) }
    ),
    value: fd
  }
}

/** Gives a process a descriptor, close-on-exec, of a description that is open somewhere: what pidfd_getfd(2) does. */
export const share = (kernel: Kernel, pid: number, key: number): Done<Fd> | ErrnoName => {
  const owner = alive(kernel, pid)
  if (owner === undefined) return "ESRCH"
  if (!kernel.descriptions.has(key)) return "EBADF"
  const draft = FdTableDraft.make(owner.table)
  const fd = FdTableDraft.open(draft, key, true)
  if (typeof fd === "string") return fd
  return { kernel: withProcess(kernel, { ...owner, table: FdTableDraft.finish(draft) }), value: fd }
}

/** close(2) */
export const close = (kernel: Kernel, pid: number, fd: Fd): Done<undefined> | ErrnoName => {
  const owner = alive(kernel, pid)
  if (owner === undefined) return "ESRCH"
  const draft = FdTableDraft.make(owner.table)
  const errno = FdTableDraft.close(draft, fd)
  if (errno !== undefined) return errno
  return { kernel: sweep(withProcess(kernel, { ...owner, table: FdTableDraft.finish(draft) })), value: undefined }
}

/** open(2): `"append"` and `"truncate"` create a missing file with the mode, and write at its end. */
export const open = (
  kernel: Kernel,
  pid: number,
  path: string,
  how: "read" | "append" | "truncate",
  mode = 0o600
): Done<Fd> | ErrnoName => {
  const owner = alive(kernel, pid)
  if (owner === undefined) return "ESRCH"
  const absolute = FileTree.absolute(path, owner.workingDirectory)
  const access = how === "read" ? "read" : "append"
  const want = access === "read" ? 4 : 2
  const found = FileTree.lookUp(kernel.files, absolute, owner.identity, want)
  let files = kernel.files
  // Linux refuses to create over a directory before it asks who may write.
  if (access === "append" && found !== "ENOENT" && files.get(absolute)?._tag === "Directory") return "EISDIR"
  if (found === "ENOENT" && access === "append") {
    const { uid, gid } = owner.identity
    const created = FileTree.create(files, absolute, owner.identity, {
      _tag: "File",
      mode: mode & ~owner.umask,
      uid,
      gid,
      content: ""
    })
    if (typeof created === "string") return created
    files = created
  } else if (typeof found === "string") return found
  else if (found._tag === "Socket") return "ENXIO"
  else if (found._tag === "File" && how === "truncate") files = new Map(files).set(absolute, { ...found, content: "" })
  return install({ ...kernel, files }, pid, { _tag: "File", name: absolute, path: absolute, access })
}

const collides = (one: Address, other: Address): boolean => {
  if (one._tag === "Unix" || other._tag === "Unix") return false
  const wild = (host: string) => host === "" || host === "0.0.0.0" || host === "::"
  return one.port === other.port && (one.host === other.host || wild(one.host) || wild(other.host))
}

/** Processes that hold a description. */
export const holders = (kernel: Kernel, key: number): ReadonlyArray<SimulatedProcess> =>
  living(kernel).filter((one) => [...one.table.entries.values()].some((entry) => entry.description === key))

/** The key of the listener at an address; at a unix path, of the one whose socket the path names by now. */
export const listenerAt = (kernel: Kernel, address: Address): number | undefined => {
  const node = address._tag === "Unix" ? kernel.files.get(address.path) : undefined
  for (const [key, one] of kernel.descriptions) {
    if (one._tag !== "Listener") continue
    if (node?._tag === "Socket" ? node.inode === one.inode : collides(one.address, address)) return key
  }
  return undefined
}

/** socket(2), bind(2) and listen(2) of a TCP address, or of a unix path that is free. Port 0 gets a free port. */
export const listen = (
  kernel: Kernel,
  pid: number,
  options: {
    readonly address: Address
    readonly backlog: number
    readonly nonBlocking: boolean
    readonly mode: number
  }
): Done<Fd> | ErrnoName => {
  const owner = alive(kernel, pid)
  if (owner === undefined) return "ESRCH"
  const inode = kernel.next.inode
  let { address } = options
  let { port } = kernel.next
  if (address._tag === "Tcp" && address.port === 0) {
    while (listenerAt(kernel, { ...address, port }) !== undefined) port++
    address = { ...address, port: port++ }
  }
  // A path is taken as long as its name is there, whatever became of the socket.
  if (address._tag === "Tcp" && listenerAt(kernel, address) !== undefined) return "EADDRINUSE"
  let { files } = kernel
  if (address._tag === "Unix") {
    const { uid, gid } = owner.identity
    const node: FileTree.Node = { _tag: "Socket", mode: options.mode, uid, gid, inode }
    const created = FileTree.create(files, address.path, owner.identity, node)
    if (typeof created === "string") return created === "EEXIST" ? "EADDRINUSE" : created
    files = created
  }
  const backlog = Math.min(options.backlog, kernel.somaxconn)
  const { nonBlocking } = options
  const name = `socket:[${inode}]`
  return install({ ...kernel, files, next: { ...kernel.next, inode: inode + 1, port } }, pid, {
    _tag: "Listener",
    name,
    inode,
    address,
    backlog,
    nonBlocking,
    queued: 0,
    creator: { pid, uid: owner.identity.uid, gid: owner.identity.gid },
    waiting: []
  })
}

/** A bound datagram socket at a unix path. */
export const bindDatagram = (kernel: Kernel, pid: number, path: string): Done<Fd> | ErrnoName => {
  const owner = alive(kernel, pid)
  if (owner === undefined) return "ESRCH"
  const inode = kernel.next.inode
  const { uid, gid } = owner.identity
  const files = FileTree.create(kernel.files, path, owner.identity, { _tag: "Socket", mode: 0o777, uid, gid, inode })
  if (typeof files === "string") return files === "EEXIST" ? "EADDRINUSE" : files
  const next = { ...kernel.next, inode: inode + 1 }
  return install({ ...kernel, files, next }, pid, { _tag: "Datagram", name: `socket:[${inode}]`, inode, path })
}

/** flock(2) with LOCK_EX and LOCK_NB. */
export const lock = (kernel: Kernel, pid: number, fd: Fd): Done<undefined> | ErrnoName => {
  const key = alive(kernel, pid)?.table.entries.get(fd)?.description
  const description = describe(kernel, pid, fd)
  if (key === undefined || description?._tag !== "File") return "EBADF"
  const holder = kernel.locks.get(description.path)
  if (holder !== undefined && holder !== key) return "EWOULDBLOCK"
  return {
    kernel: { ...kernel, locks: withEntry(kernel.locks, description.path, Number(key)) },
    value: undefined
  }
}

/** flock(2) with LOCK_UN: the lock goes, whoever else holds the open file description. */
export const unlock = (kernel: Kernel, pid: number, fd: Fd): Done<undefined> | ErrnoName => {
  const key = keyOf(kernel, pid, fd)
  const description = describe(kernel, pid, fd)
  if (key === undefined || description?._tag !== "File") return "EBADF"
  if (kernel.locks.get(description.path) !== key) return { kernel, value: undefined }
  return { kernel: { ...kernel, locks: withEntry(kernel.locks, description.path, undefined) }, value: undefined }
}

/**
 * A process ends: its descriptors close, its children become init's and get the signal they asked for (PR_SET_PDEATHSIG).
 * It stays a zombie until it is reaped.
 */
export const end = (kernel: Kernel, pid: number, status: ExitStatus): Kernel => {
  const one = alive(kernel, pid)
  if (one === undefined) return kernel
  const processes = new Map(kernel.processes)
  processes.set(pid, { ...one, ended: status, stopped: false, pending: [], table: FdTable.make(one.table.limit) })
  for (const child of kernel.processes.values()) {
    if (child.parent !== pid) continue
    // Init reaps at once what it inherits.
    if (child.ended === undefined) processes.set(child.pid, { ...child, parent: INIT })
    else processes.delete(child.pid)
  }
  if (!kernel.processes.has(one.parent)) processes.delete(pid)
  let next = sweep({ ...kernel, processes })
  for (const child of living(kernel)) {
    if (child.parent !== pid || child.parentDeathSignal === undefined) continue
    const signal = Signal.parse(String(child.parentDeathSignal))
    if (signal !== undefined) next = deliver(next, child.pid, signal)
  }
  return next
}

const act = (kernel: Kernel, one: SimulatedProcess, signal: SignalName): Kernel => {
  const action = SignalAction.of(signal)
  if (action === "stop") return withProcess(kernel, { ...one, stopped: true })
  if (action === "ignore" || action === "continue") return kernel
  const coreDumped = action === "dump" && one.limits.CORE.soft !== 0
  return end(kernel, one.pid, { _tag: "Signaled", signal, coreDumped })
}

const includes = (numbers: ReadonlyArray<number>, signal: SignalName): boolean =>
  numbers.includes(Signal.number(signal))

/** SIGCONT wakes a stopped process, whatever it does about it. What waited for that, and is not caught, ends it now. */
const wake = (kernel: Kernel, one: SimulatedProcess): Kernel => {
  const { blocked, caught } = one.signals
  const awake = { ...one, stopped: false }
  const deadly = one.pending.find((signal) => !includes(blocked, signal) && !includes(caught, signal))
  return deadly === undefined ? withProcess(kernel, awake) : act(kernel, awake, deadly)
}

/** A signal arrives, from whomever. */
const deliver = (kernel: Kernel, pid: number, signal: SignalName): Kernel => {
  const found = alive(kernel, pid)
  if (found === undefined) return kernel
  const pending = found.pending.filter((waiting) => !SignalAction.cancels(signal, waiting))
  const changed = { ...found, pending }
  const next = signal === "SIGCONT" ? wake(kernel, changed) : withProcess(kernel, changed)
  const one = alive(next, pid)
  if (one === undefined) return next
  if (signal === "SIGKILL" || signal === "SIGSTOP") return act(next, one, signal)
  const { blocked, ignored, caught } = one.signals
  const action = SignalAction.of(signal)
  const byDefault = !includes(caught, signal) && (action === "ignore" || action === "continue")
  const isBlocked = includes(blocked, signal)
  // A blocked signal waits even if it is ignored: it could be caught by the time it is not blocked any more.
  if (!isBlocked && (byDefault || includes(ignored, signal))) return next
  if (!isBlocked && !one.stopped && !includes(caught, signal)) return act(next, one, signal)
  return one.pending.includes(signal) ? next : withProcess(next, { ...one, pending: [...one.pending, signal] })
}

/**
 * kill(2) of one process: ESRCH if it is not there, EPERM if the sender may not reach it. A signal that is caught waits
 * until the process takes it ({@link takeSignals}), one that is blocked for good, and any but SIGKILL and SIGCONT while the
 * process is stopped; one that is neither caught nor ignored does what signal(7) says. A zombie takes none.
 */
export const kill = (kernel: Kernel, sender: number, pid: number, signal: SignalName): Done<undefined> | ErrnoName => {
  const [from, to] = [alive(kernel, sender), kernel.processes.get(pid)]
  if (from === undefined || to === undefined) return "ESRCH"
  const inSession = signal === "SIGCONT" && from.session === to.session
  if (!inSession && !maySignal(from, to)) return "EPERM"
  return { kernel: deliver(kernel, pid, signal), value: undefined }
}

/** The caught signals that wait, in the order in which they came: its handlers run. None while it is stopped. */
export const takeSignals = (kernel: Kernel, pid: number): Done<ReadonlyArray<SignalName>> | ErrnoName => {
  const one = alive(kernel, pid)
  if (one === undefined) return "ESRCH"
  const taken = one.stopped ? [] : one.pending.filter((signal) => !includes(one.signals.blocked, signal))
  if (taken.length === 0) return { kernel, value: [] }
  const pending = one.pending.filter((signal) => !taken.includes(signal))
  return { kernel: withProcess(kernel, { ...one, pending }), value: taken }
}

/** sigaction(2): from now on it catches the signal, or ignores it, and forgets then that it waited. */
const dispose = (
  kernel: Kernel,
  pid: number,
  signal: SignalName,
  how: "caught" | "ignored"
): Done<undefined> | ErrnoName => {
  const one = alive(kernel, pid)
  if (one === undefined) return "ESRCH"
  if (signal === "SIGKILL" || signal === "SIGSTOP") return "EINVAL"
  const number = Signal.number(signal)
  const without = (numbers: ReadonlyArray<number>) => numbers.filter((other) => other !== number)
  const others = { caught: without(one.signals.caught), ignored: without(one.signals.ignored) }
  const those = [...others[how], number].sort((left, right) => left - right)
  const pending = how === "ignored" ? one.pending.filter((waiting) => waiting !== signal) : one.pending
  const signals = { ...one.signals, ...others, [how]: those }
  return { kernel: withProcess(kernel, { ...one, signals, pending }), value: undefined }
}

/** sigaction(2): a handler for the signal. */
export const handle = (kernel: Kernel, pid: number, signal: SignalName): Done<undefined> | ErrnoName =>
  dispose(kernel, pid, signal, "caught")

/** sigaction(2) with SIG_IGN. */
export const ignore = (kernel: Kernel, pid: number, signal: SignalName): Done<undefined> | ErrnoName =>
  dispose(kernel, pid, signal, "ignored")

/** waitpid(2) of any child with WNOHANG: ECHILD without children, EAGAIN while none has ended. */
export const wait = (
  kernel: Kernel,
  pid: number
): Done<{ readonly pid: number; readonly status: ExitStatus }> | ErrnoName => {
  if (alive(kernel, pid) === undefined) return "ESRCH"
  const children = [...kernel.processes.values()].filter((one) => one.parent === pid)
  if (children.length === 0) return "ECHILD"
  const zombie = children.find((one) => one.ended !== undefined)
  if (zombie?.ended === undefined) return "EAGAIN"
  return { kernel: reap(kernel, zombie.pid), value: { pid: zombie.pid, status: zombie.ended } }
}

/** waitpid(2) of a zombie. */
export const reap = (kernel: Kernel, pid: number): Kernel =>
  kernel.processes.get(pid)?.ended === undefined
    ? kernel
    : { ...kernel, processes: withEntry(kernel.processes, pid, undefined) }

/** A process and its living descendants, zombies left out. */
export const descendants = (kernel: Kernel, pid: number): ReadonlyArray<number> => {
  const found = alive(kernel, pid) === undefined ? [] : [pid]
  for (const parent of found) {
    for (const one of living(kernel)) if (one.parent === parent && !found.includes(one.pid)) found.push(one.pid)
  }
  return found
}

/** Living members of a process group. */
export const groupMembers = (kernel: Kernel, group: number): ReadonlyArray<number> =>
  living(kernel)
    .filter((one) => one.group === group)
    .map((one) => one.pid)

/** May `sender` signal `target`, as kill(2) has it? */
export const maySignal = (sender: SimulatedProcess, target: SimulatedProcess): boolean =>
  sender.identity.uid === 0 || sender.identity.uid === target.identity.uid

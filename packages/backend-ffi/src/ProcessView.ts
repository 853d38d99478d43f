/**
 * Looking at processes from outside, through /proc: the contract `Processes` of core.
 *
 * A process waits on a listener when one of its epoll sets asks for input on it (`tfd` lines of /proc/PID/fdinfo, which
 * name the socket's inode), or when a task sleeps in accept(2) on it (/proc/PID/task/TID/syscall). Servers on poll, select
 * or io_uring do not show. A connection is counted when the kernel lists it as established at the listener's address and
 * a process of the tree has it open; what still waits in the queue belongs to nobody. Asking the kernel costs 1 to 2 ms
 * even when there is none, so it is asked only when the tree has a socket that is not known to be something else.
 *
 * It is polled every few milliseconds while a version starts, so it is synchronous and spares what it can (0.1 to 0.3 ms
 * for a small server). A part that cost more than {@link CHEAP_MS} is not done again before {@link REST} times its cost has
 * passed; its last answer stands until then. So a server with thousands of connections takes some 5 % of the event loop for
 * each part, and what is seen of it is up to a second old.
 *
 * What survival needs is in modules of its own: finding processes (ProcessSearch.ts), copying a socket out of one
 * (SocketCopy.ts), watching one that is no child (Adoption.ts).
 *
 * Limits: only processes of the same user, or root, can be looked into; others are seen as not waiting.
 */
import { closeSync } from "node:fs"
import { CopyError, type ProcessCapability, Processes, type ProcessObservation } from "@handoff/core/backend/Processes"
import type { ListeningSocket } from "@handoff/core/backend/Sockets"
import type { Fd } from "@handoff/core/Fd"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Adoption from "./Adoption.ts"
import * as Libc from "./Libc.ts"
import * as Pidfd from "./Pidfd.ts"
import { identify } from "./ProcessIdentity.ts"
import * as ProcessSearch from "./ProcessSearch.ts"
import * as ProcessTree from "./ProcessTree.ts"
import * as ProcNet from "./ProcNet.ts"
import * as SocketCopy from "./SocketCopy.ts"
import * as SocketDiagnosis from "./SocketDiagnosis.ts"

type Listener = Pick<ListeningSocket, "inode" | "address">

const CHEAP_MS = 1
const REST = 20

interface Remembered<A> {
  readonly value: A
  /** `performance.now()` until which it stands. */
  readonly until: number
}

const MAX_REMEMBERED = 256

/** Milliseconds of processor time that this process has taken: a look that only had to wait for a processor is not costly. */
const processorTime = (): number => {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1_000
}

/** Runs `compute` unless its last run under this key was costly and is recent. */
const makeSparing = <A>(): ((key: string, compute: () => A) => A) => {
  const known = new Map<string, Remembered<A>>()
  return (key, compute) => {
    const last = known.get(key)
    if (last !== undefined && performance.now() < last.until) return last.value
    const before = processorTime()
    const value = compute()
    const cost = processorTime() - before
    known.delete(key)
    if (cost > CHEAP_MS) known.set(key, { value, until: performance.now() + REST * cost })
    if (known.size > MAX_REMEMBERED) known.clear()
    return value
  }
}

// accept and accept4, by the numbers of each architecture (syscall(2)).
const ACCEPT_CALLS: ReadonlySet<string> = process.arch === "arm64" ? new Set(["202", "242"]) : new Set(["43", "288"])

const EPOLLIN = 1

/**
 * Inodes of `wanted` on which the epoll set of this fdinfo asks for input. Its lines read
 * `tfd:        5 events:       19 data:                5  pos:0 ino:9c2 sdev:9`, the inode in hex; a set may have thousands.
 */
const inEpollSet = (fdinfo: string, wanted: ReadonlySet<number>): ReadonlyArray<number> =>
  [...wanted].filter((inode) => {
    const needle = ` ino:${inode.toString(16)} `
    for (let at = fdinfo.indexOf(needle); at >= 0; at = fdinfo.indexOf(needle, at + 1)) {
      const events = /events:\s*([0-9a-f]+)/.exec(fdinfo.slice(fdinfo.lastIndexOf("\n", at) + 1, at))
      if ((Number.parseInt(events?.[1] ?? "0", 16) & EPOLLIN) !== 0) return true
    }
    return false
  })

/** Inodes on which a task of the process sleeps in accept; `sockets` are its descriptors of the wanted ones. */
const inAccept = (pid: number, sockets: ReadonlyMap<number, number>): ReadonlyArray<number> => {
  const found: Array<number> = []
  if (sockets.size === 0) return found
  for (const task of ProcNet.readNames(`/proc/${pid}/task`)) {
    const [call = "", argument = ""] = ProcNet.readText(`/proc/${pid}/task/${task}/syscall`).split(" ")
    if (!ACCEPT_CALLS.has(call)) continue
    // A register holds 64 bits; the argument is a C int.
    const inode = sockets.get(Number(BigInt(argument) & 0xffff_ffffn))
    if (inode !== undefined) found.push(inode)
  }
  return found
}

/** The descriptors of a process that matter here, and when they were read (`performance.now()`). */
interface Descriptors {
  readonly epollSets: ReadonlyArray<string>
  /** Socket inodes by descriptor. */
  readonly sockets: ReadonlyMap<number, number>
  readonly at: number
}

const descriptorsOf = (pid: number): Descriptors => {
  const at = performance.now()
  const epollSets: Array<string> = []
  const sockets = new Map<number, number>()
  for (const fd of ProcNet.readNames(`/proc/${pid}/fd`)) {
    const link = ProcNet.readLink(`/proc/${pid}/fd/${fd}`)
    if (link === "anon_inode:[eventpoll]") epollSets.push(fd)
    const inode = ProcNet.socketInode(link)
    if (inode !== undefined) sockets.set(Number(fd), inode)
  }
  return { epollSets, sockets, at }
}

const waitingIn = (pid: number, descriptors: Descriptors, wanted: ReadonlySet<number>): ReadonlySet<number> => {
  const found = new Set<number>()
  for (const fd of descriptors.epollSets) {
    for (const inode of inEpollSet(ProcNet.readText(`/proc/${pid}/fdinfo/${fd}`), wanted)) found.add(inode)
    if (found.size === wanted.size) return found
  }
  const listeners = new Map([...descriptors.sockets].filter(([, inode]) => wanted.has(inode)))
  for (const inode of inAccept(pid, listeners)) found.add(inode)
  return found
}

const establishedTcp = (table: "tcp" | "tcp6", port: number): ReadonlyArray<ProcNet.TcpRow> =>
  SocketDiagnosis.established(table, port) ??
  ProcNet.tcpRows(ProcNet.readText(`/proc/net/${table}`), port, [ProcNet.TCP_ESTABLISHED])

/** Inodes of established connections that came in through these listeners, whoever holds them. */
const establishedAt = (listeners: ReadonlyArray<Listener>): ReadonlySet<number> => {
  const inodes = new Set<number>()
  const unixInodes = new Set<number>()
  for (const { address, inode } of listeners) {
    if (address._tag === "Unix") {
      unixInodes.add(inode)
      continue
    }
    for (const row of establishedTcp(ProcNet.tcpTable(address.host), address.port)) {
      if (ProcNet.hostMatches(address.host)(row)) inodes.add(row.inode)
    }
  }
  if (unixInodes.size > 0) {
    const rows = ProcNet.unixRows(ProcNet.readText("/proc/net/unix"))
    // The name as bound, which need not be the path: found through the listener's inode.
    const names = new Set(rows.filter((row) => row.listening && unixInodes.has(row.inode)).map((row) => row.path))
    for (const row of rows) if (row.connected && names.has(row.path)) inodes.add(row.inode)
  }
  inodes.delete(0)
  return inodes
}

/**
 * Counts a tree's connections. An accepted socket is established from its first moment, so a socket that the table, read
 * after the descriptors, does not show as such will never be one: it is not asked about again.
 */
const makeCount = () => {
  const sparing = makeSparing<{ readonly inodes: ReadonlySet<number>; readonly at: number }>()
  const others = new Map<number, ReadonlySet<number>>()
  return (root: number, tree: ReadonlyArray<Descriptors>, listeners: ReadonlyArray<Listener>): number => {
    const known = others.get(root)
    const listening = new Set(listeners.map((listener) => listener.inode))
    const sockets = new Set(tree.flatMap((descriptors) => [...descriptors.sockets.values()]))
    const candidates = [...sockets].filter((inode) => !listening.has(inode) && known?.has(inode) !== true)
    if (candidates.length === 0) return 0
    const established = sparing([...listening].join(" "), () => {
      const at = performance.now()
      return { inodes: establishedAt(listeners), at }
    })
    const held = candidates.filter((inode) => established.inodes.has(inode))
    if (tree.every((descriptors) => descriptors.at <= established.at)) {
      if (others.size > MAX_REMEMBERED) others.clear()
      const isOther = (inode: number) => known?.has(inode) === true || !established.inodes.has(inode)
      others.set(root, new Set([...sockets].filter(isOther)))
    }
    return held.length
  }
}

/** False when nobody, not even a zombie, is in the group: one call instead of a look at every process. */
const groupExists = (group: number): boolean => {
  try {
    process.kill(-group, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== "ESRCH"
  }
}

const makeGroupMembers = (): ((group: number) => ReadonlyArray<number>) => {
  const sparing = makeSparing<ReadonlyArray<number>>()
  const scan = (group: number): ReadonlyArray<number> =>
    ProcessTree.livingProcesses()
      .filter((stat) => stat.group === group)
      .map((stat) => stat.pid)
  const belongs = (group: number) => (pid: number) => {
    const stat = ProcessTree.statOf(pid)
    return ProcessTree.isAlive(stat) && stat.group === group
  }
  return (group) => {
    if (group <= 1 || !groupExists(group)) return []
    const members = sparing(`group ${group}`, () => scan(group)).filter(belongs(group))
    // An empty answer ends a wait, so it never comes from memory.
    return members.length > 0 ? members : scan(group)
  }
}

const pidfdCalls = (): Pidfd.PidfdCalls | undefined => {
  const libc = Libc.open()
  // Libc.open has refused other architectures.
  return Result.isSuccess(libc) ? Pidfd.calls(libc.success, process.arch === "arm64" ? "arm64" : "x64") : undefined
}

const EVERYWHERE: ReadonlyArray<ProcessCapability> = ["waiting", "connections", "identity", "group", "adopt", "locks"]

const make = (): Processes["Service"] => {
  const pidfds = pidfdCalls()
  const copies = pidfds !== undefined && Pidfd.copyObstacle(pidfds) === undefined
  const sparingDescriptors = makeSparing<Descriptors>()
  const sparingWaits = makeSparing<ReadonlySet<number>>()
  const count = makeCount()
  const groupMembers = makeGroupMembers()

  const observe = (pid: number, listeners: ReadonlyArray<Listener>): ProcessObservation => {
    const pids = ProcessTree.livingTree(pid)
    if (pids.length === 0 || listeners.length === 0) return { pids, waitingOn: [], connections: 0 }
    const wanted = new Set(listeners.map((listener) => listener.inode))
    const asked = [...wanted].join(" ")
    const waitingOn = new Set<number>()
    const tree = pids.map((one) => {
      const descriptors = sparingDescriptors(String(one), () => descriptorsOf(one))
      if (waitingOn.size < wanted.size) {
        const found = sparingWaits(`${one} ${asked}`, () => waitingIn(one, descriptors, wanted))
        for (const inode of found) waitingOn.add(inode)
      }
      return descriptors
    })
    return { pids, waitingOn: [...waitingOn], connections: count(pid, tree, listeners) }
  }

  /** The process and the group it leads: itself first. */
  const family = (pid: number): ReadonlyArray<number> => [...new Set([pid, ...groupMembers(pid)])]

  const copySocket = (pid: number, inode: number): Result.Result<Fd, CopyError> => {
    const copied =
      pidfds === undefined
        ? Result.fail({ _tag: "CallFailed", call: "pidfd_open", errno: "ENOSYS" } as const)
        : SocketCopy.copySocket(pidfds, family(pid), inode)
    return Result.mapError(copied, (reason) => new CopyError({ pid, inode, reason }))
  }

  return {
    capabilities: new Set([...EVERYWHERE, ...(copies ? ["copy" as const] : [])]),
    observe: (pid, listeners) => Effect.sync(() => observe(pid, listeners)),
    identify: (pid) => Effect.sync(() => identify(pid)),
    groupMembers: (group) => Effect.sync(() => groupMembers(group)),
    startedWith: (variable, value) => Effect.sync(() => ProcessSearch.startedWith(variable, value)),
    copySocket: (pid, inode) =>
      Effect.acquireRelease(
        Effect.suspend(() => Effect.fromResult(copySocket(pid, inode))),
        (fd) => Effect.sync(() => closeSync(fd))
      ),
    adopt: Adoption.make(pidfds, groupMembers),
    holdsLock: (pid, fileName) => Effect.sync(() => ProcessSearch.holdsLock(family(pid), fileName))
  }
}

/** Processes as /proc shows them. */
export const layer = Layer.sync(Processes, make)

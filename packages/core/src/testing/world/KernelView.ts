/**
 * The kernel of a world, as moves ask about it and as the explorer tells it from others.
 *
 * Two kernels that differ only in names that nobody decides by are one. Keys of open file descriptions and inodes of sockets
 * are numbered in a key in the order in which they are met; descriptors stand in the order of what their process has them
 * for, without their numbers.
 */
import type { Fd } from "../../Fd.ts"
import type * as FileTree from "../FileTree.ts"
import type { Description, Kernel } from "../SimulatedKernel.ts"
import type { SimulatedProcess } from "../SimulatedProcess.ts"
import { HANDOFF_SOCKET, LOCK_FILE, PORT, STATE_FILE } from "./Layout.ts"
import type { Machines } from "./Parties.ts"

/** What waits at one end of a stream. */
export interface StreamView {
  /** The oldest bytes that were sent at once and not read yet. */
  readonly first: Uint8Array | undefined
  /** The other end is closed, and everything was read. */
  readonly ended: boolean
}

/** The names that are left in /run when nothing is under way. */
const LASTING: ReadonlySet<string> = new Set([STATE_FILE, HANDOFF_SOCKET])

const open = (kernel: Kernel, pid: number, fd: Fd): Description | undefined => {
  const entry = kernel.processes.get(pid)?.table.entries.get(fd)
  return entry === undefined ? undefined : kernel.descriptions.get(Number(entry.description))
}

export const isStopped = (kernel: Kernel, pid: number): boolean => kernel.processes.get(pid)?.stopped === true

/** A SIGTERM waits for it. */
export const isAsked = (kernel: Kernel, pid: number): boolean =>
  kernel.processes.get(pid)?.pending.includes("SIGTERM") === true

/** Children of generations that live on without their leaders. */
export const orphans = (kernel: Kernel): ReadonlyArray<SimulatedProcess> => {
  const found: Array<SimulatedProcess> = []
  for (const one of kernel.processes.values()) if (one.group !== one.pid) found.push(one)
  return found
}

/** How many descriptors it has open; undefined when it does not live. */
export const descriptors = (kernel: Kernel, pid: number): number | undefined =>
  kernel.processes.get(pid)?.table.entries.size

/** Who holds the data lock; 0 for nobody. */
export const lockHolder = (kernel: Kernel): number => {
  const lock = kernel.locks.get(LOCK_FILE)
  if (lock === undefined) return 0
  for (const [pid, { table }] of kernel.processes) {
    for (const { description } of table.entries.values()) if (description === lock) return pid
  }
  return 0
}

/** Who listens at the handoff socket's path; 0 for nobody. */
export const pathListener = (kernel: Kernel): number => {
  const node = kernel.files.get(HANDOFF_SOCKET)
  if (node?._tag !== "Socket") return 0
  for (const one of kernel.descriptions.values()) {
    if (one._tag === "Listener" && one.inode === node.inode) return one.creator.pid
  }
  return 0
}

/** Somebody holds the listener of the service. */
export const isListening = (kernel: Kernel): boolean => {
  for (const one of kernel.descriptions.values()) {
    if (one._tag === "Listener" && one.address._tag === "Tcp" && one.address.port === PORT) return true
  }
  return false
}

/** Files in /run under other names than those that last. */
export const hasLitter = (kernel: Kernel): boolean => {
  for (const path of kernel.files.keys()) if (path.startsWith("/run/") && !LASTING.has(path)) return true
  return false
}

/** What the document's file has: as it is read, or as it would be after a power cut. */
export const documentText = (kernel: Kernel, which: "files" | "durable"): string | undefined => {
  const node = kernel[which].get(STATE_FILE)
  return node?._tag === "File" ? node.content : undefined
}

/** Undefined when there is no stream at the descriptor. */
export const stream = (kernel: Kernel, pid: number, fd: Fd): StreamView | undefined => {
  const one = open(kernel, pid, fd)
  if (one?._tag !== "Stream") return undefined
  const [first] = one.received
  return { first, ended: first === undefined && !kernel.descriptions.has(one.peer) }
}

/** Somebody waits to be accepted at the listener. */
export const hasWaiting = (kernel: Kernel, pid: number, fd: Fd): boolean => {
  const one = open(kernel, pid, fd)
  return one?._tag === "Listener" && one.waiting.length > 0
}

/** The number of a socket's open description in this key; 0 for anything else, and for a socket that is closed. */
const nameOf = (node: FileTree.Node, named: ReadonlyArray<Description>): number => {
  if (node._tag !== "Socket") return 0
  for (let at = 0; at < named.length; at++) {
    const one = named[at]
    if (one !== undefined && one._tag !== "File" && one.inode === node.inode) return at + 1
  }
  return 0
}

/** Files without what is only a name: their number, and the sockets among them in the order of their paths. */
interface TreeView {
  readonly number: number
  readonly sockets: ReadonlyArray<FileTree.Node>
}

const trees = new WeakMap<FileTree.FileTree, TreeView>()

const viewOf = (tree: FileTree.FileTree, { numbers }: Machines): TreeView => {
  const known = trees.get(tree)
  if (known !== undefined) return known
  const parts: Array<string | undefined> = []
  const sockets: Array<FileTree.Node> = []
  for (const path of [...tree.keys()].sort()) {
    const node = tree.get(path)
    if (node === undefined || node._tag === "Directory") continue
    if (node._tag === "File") parts.push(path, node.content, node.synced, node.durableAt)
    else {
      parts.push(path)
      sockets.push(node)
    }
  }
  const view = { number: numbers.of(parts), sockets }
  trees.set(tree, view)
  return view
}

const pushTree = (
  tree: FileTree.FileTree,
  named: ReadonlyArray<Description>,
  machines: Machines,
  key: Array<number>
): void => {
  const { number, sockets } = viewOf(tree, machines)
  key.push(number)
  for (const socket of sockets) key.push(nameOf(socket, named))
}

const ascending = (one: readonly [number, unknown], other: readonly [number, unknown]): number => one[0] - other[0]

const byPid = (processes: Kernel["processes"]): Iterable<readonly [number, SimulatedProcess]> => {
  let last = 0
  for (const pid of processes.keys()) {
    if (pid < last) return [...processes].sort(ascending)
    last = pid
  }
  return processes
}

/** The descriptors of a process in the order of what it has them for. -1: it has none for that. */
export type Roles = (pid: number) => ReadonlyArray<Fd>

/** Everything by which two kernels can differ. */
export const pushKey = (kernel: Kernel, roles: Roles, machines: Machines, key: Array<number>): void => {
  const { numbers, frames } = machines
  const names: Array<number> = []
  const named: Array<Description> = []
  const meet = (description: number): number => {
    const known = names[description]
    if (known !== undefined) return known
    const one = kernel.descriptions.get(description)
    if (one === undefined) return 0
    names[description] = named.push(one)
    return named.length
  }
  key.push(numbers.of(kernel.bootId))
  for (const [pid, one] of byPid(kernel.processes)) {
    key.push(pid, one.parent, one.startTime, one.stopped ? 1 : 0, numbers.of(one.argv[0]), one.pending.length)
    const { entries } = one.table
    let left = entries.size
    for (const fd of roles(pid)) {
      const entry = entries.get(fd)
      if (entry !== undefined) left--
      key.push(entry === undefined ? 0 : meet(Number(entry.description)))
    }
    if (left === 0) continue
    // Those that nobody has anything for any more.
    for (const [fd, { description }] of [...entries].sort(ascending)) key.push(fd, meet(Number(description)))
  }
  // Ends that wait at a listener, and those that they belong to, are met on the way.
  for (let at = 0; at < named.length; at++) {
    const one = named[at] as Description
    switch (one._tag) {
      case "Stream":
        key.push(meet(one.peer), one.creator.pid, one.received.length)
        for (const bytes of one.received) key.push(frames.numberOf(bytes))
        break
      case "Listener":
        key.push(one.creator.pid, one.waiting.length)
        for (const waiting of one.waiting) key.push(meet(waiting))
        break
      default:
        key.push(numbers.of(one.path))
    }
  }
  for (const [path, description] of kernel.locks) key.push(numbers.of(path), meet(description))
  key.push(-1)
  pushTree(kernel.files, named, machines, key)
  pushTree(kernel.durable, named, machines, key)
}

/**
 * Files of a simulated kernel: reading, writing, renaming, and what a power cut leaves.
 *
 * A power cut leaves exactly what was synced. A file's content is on the disk after fsync(2) of the file; its name, and that
 * an old name is gone, only after fsync(2) of the directory that names it. A file whose name is durable and whose content
 * never was is empty afterwards. On the disk a file has one name: one that was renamed into another directory has the new
 * name once that directory is synced, and none if only the old directory was.
 *
 * @example
 * const file = SimulatedKernel.open(kernel, pid, "/run/state.new", "truncate")
 * // write, sync, rename to /run/state; until /run itself is synced a power cut leaves the old /run/state
 *
 * Limits: no hard links; directories are not renamed; the content of a file that was removed while it is open is forgotten.
 */
import type { ErrnoName } from "../Errno.ts"
import type { Fd } from "../Fd.ts"
import * as FileTree from "./FileTree.ts"
import * as SimulatedKernel from "./SimulatedKernel.ts"
import type { SimulatedProcess } from "./SimulatedProcess.ts"

type Kernel = SimulatedKernel.Kernel
type Done<A> = SimulatedKernel.Done<A>
type FileNode = Extract<FileTree.Node, { readonly _tag: "File" }>
type File = Extract<SimulatedKernel.Description, { readonly _tag: "File" }>

const fileAt = (kernel: Kernel, pid: number, fd: Fd): File | ErrnoName => {
  const found = SimulatedKernel.describe(kernel, pid, fd)
  if (found === undefined) return "EBADF"
  return found._tag === "File" ? found : "EINVAL"
}

/** write(2): the whole text, at the file's end. Gives the number of its bytes. */
export const write = (kernel: Kernel, pid: number, fd: Fd, text: string): Done<number> | ErrnoName => {
  const file = fileAt(kernel, pid, fd)
  if (typeof file === "string") return file
  if (file.access !== "append") return "EBADF"
  const value = new TextEncoder().encode(text).length
  return { kernel: { ...kernel, files: FileTree.append(kernel.files, file.path, text) }, value }
}

/** pread(2) of the whole file. */
export const read = (kernel: Kernel, pid: number, fd: Fd): Done<string> | ErrnoName => {
  const file = fileAt(kernel, pid, fd)
  if (typeof file === "string") return file
  if (file.access !== "read") return "EBADF"
  const node = kernel.files.get(file.path)
  if (node?._tag === "Directory") return "EISDIR"
  return { kernel, value: node?._tag === "File" ? node.content : "" }
}

/** A node as it is after a power cut. */
const afterPowerCut = (node: FileTree.Node): FileTree.Node =>
  node._tag === "File" ? { ...node, content: node.synced ?? "", synced: node.synced ?? "" } : node

/** A file of which the disk has no name any more. */
const withoutName = ({ durableAt: _, ...node }: FileNode): FileNode => node

const syncFile = (kernel: Kernel, path: string, node: FileTree.Node): Kernel => {
  if (node._tag !== "File") return kernel
  const synced = { ...node, synced: node.content }
  const files = new Map(kernel.files).set(path, synced)
  if (node.durableAt === undefined) return { ...kernel, files }
  return { ...kernel, files, durable: new Map(kernel.durable).set(node.durableAt, afterPowerCut(synced)) }
}

const syncDirectory = (kernel: Kernel, directory: string): Kernel => {
  const isNamedHere = (path: string) => path !== "/" && FileTree.parentOf(path) === directory
  const files = new Map(kernel.files)
  const gone = [...kernel.durable.keys()].filter((path) => isNamedHere(path) && !files.has(path))
  const durable = new Map(gone.reduce(FileTree.removeWithin, kernel.durable))
  for (const [path, node] of kernel.files) {
    if (node._tag !== "File" || node.durableAt === undefined || node.durableAt === path) continue
    if (isNamedHere(path)) durable.delete(node.durableAt)
    else if (isNamedHere(node.durableAt)) files.set(path, withoutName(node))
  }
  for (const [path, node] of kernel.files) {
    if (!isNamedHere(path) || (node._tag === "File" && node.durableAt === path)) continue
    const named = node._tag === "File" ? { ...node, durableAt: path } : node
    files.set(path, named)
    durable.set(path, afterPowerCut(named))
  }
  return { ...kernel, files, durable }
}

/** fsync(2) of a file, or of a directory. */
export const sync = (kernel: Kernel, pid: number, fd: Fd): Done<undefined> | ErrnoName => {
  const file = fileAt(kernel, pid, fd)
  if (typeof file === "string") return file
  const node = kernel.files.get(file.path)
  if (node === undefined) return { kernel, value: undefined }
  const next = node._tag === "Directory" ? syncDirectory(kernel, file.path) : syncFile(kernel, file.path, node)
  return { kernel: next, value: undefined }
}

/** Whoever has the file of a path open, or locked, has it under another name from now on. */
const follow = (kernel: Kernel, from: string, to: string): Kernel => {
  let { descriptions } = kernel
  for (const [key, one] of kernel.descriptions) {
    if (one._tag !== "File" || one.path !== from) continue
    descriptions = SimulatedKernel.withEntry(descriptions, key, { ...one, name: to, path: to })
  }
  const holder = kernel.locks.get(from)
  if (holder === undefined) return { ...kernel, descriptions }
  const locks = SimulatedKernel.withEntry(SimulatedKernel.withEntry(kernel.locks, from, undefined), to, holder)
  return { ...kernel, descriptions, locks }
}

/** What is open under a path stays so without a name, as /proc shows it. */
const forget = (kernel: Kernel, path: string): Kernel => {
  let name = `${path} (deleted)`
  while ([...kernel.descriptions.values()].some((one) => one._tag === "File" && one.path === name)) name += " "
  return follow(kernel, path, name)
}

/** Why a process may not search (1), or change (3), the directory that names a path. */
const refusal = (kernel: Kernel, { identity }: SimulatedProcess, path: string, want: 1 | 3): ErrnoName | undefined => {
  const above = FileTree.directoryOf(kernel.files, path, identity, want)
  return typeof above === "string" ? above : undefined
}

/** rename(2) of anything but a directory. Whatever has the new name is gone from the same moment. */
export const rename = (kernel: Kernel, pid: number, from: string, to: string): Done<undefined> | ErrnoName => {
  const owner = SimulatedKernel.alive(kernel, pid)
  if (owner === undefined) return "ESRCH"
  const source = FileTree.absolute(from, owner.workingDirectory)
  const target = FileTree.absolute(to, owner.workingDirectory)
  const unreached = refusal(kernel, owner, source, 1) ?? refusal(kernel, owner, target, 1)
  if (unreached !== undefined) return unreached
  const node = kernel.files.get(source)
  if (node === undefined) return "ENOENT"
  if (source === target) return { kernel, value: undefined }
  if (source.startsWith(`${target}/`)) return "ENOTEMPTY"
  const refused = refusal(kernel, owner, source, 3) ?? refusal(kernel, owner, target, 3)
  if (refused !== undefined) return refused
  if (node._tag === "Directory" || kernel.files.get(target)?._tag === "Directory") return "EISDIR"
  const next = follow(forget(kernel, target), source, target)
  const files = new Map(next.files)
  files.delete(source)
  files.set(target, node)
  return { kernel: { ...next, files }, value: undefined }
}

/** unlink(2) */
export const unlink = (kernel: Kernel, pid: number, path: string): Done<undefined> | ErrnoName => {
  const owner = SimulatedKernel.alive(kernel, pid)
  if (owner === undefined) return "ESRCH"
  const target = FileTree.absolute(path, owner.workingDirectory)
  const unreached = refusal(kernel, owner, target, 1)
  if (unreached !== undefined) return unreached
  const node = kernel.files.get(target)
  if (node === undefined) return "ENOENT"
  const refused = refusal(kernel, owner, target, 3)
  if (refused !== undefined) return refused
  if (node._tag === "Directory") return "EISDIR"
  const next = forget(kernel, target)
  return { kernel: { ...next, files: FileTree.remove(next.files, target) }, value: undefined }
}

/** Everything ends at once, and the machine starts again with what was synced. */
export const powerCut = (kernel: Kernel): Kernel => {
  const files = FileTree.reachable(kernel.durable)
  return {
    ...kernel,
    processes: new Map(),
    descriptions: new Map(),
    locks: new Map(),
    files,
    durable: files,
    bootId: kernel.bootId.replace(/\d+$/, (number) => String(Number(number) + 1).padStart(number.length, "0"))
  }
}

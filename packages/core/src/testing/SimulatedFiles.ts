/**
 * Files of a simulated kernel: reading, writing, renaming, and what a power cut leaves.
 *
 * A power cut leaves exactly what was synced. A file's content is on the disk after fsync(2) of the file; its name, and that
 * an old name is gone, only after fsync(2) of the directory that names it. A file whose name is durable and whose content
 * never was is empty afterwards.
 *
 * @example
 * const file = SimulatedKernel.open(kernel, pid, "/run/state.new", "truncate")
 * // write, sync, rename to /run/state; until /run itself is synced a power cut leaves the old /run/state
 *
 * Limits: no hard links; the content of a file that was removed while it is open is forgotten.
 */
import type { ErrnoName } from "../Errno.ts"
import type { Fd } from "../Fd.ts"
import * as FileTree from "./FileTree.ts"
import * as SimulatedKernel from "./SimulatedKernel.ts"

type Kernel = SimulatedKernel.Kernel
type Done<A> = SimulatedKernel.Done<A>
type File = Extract<SimulatedKernel.Description, { readonly _tag: "File" }>

const fileAt = (kernel: Kernel, pid: number, fd: Fd): File | ErrnoName => {
  const found = SimulatedKernel.describe(kernel, pid, fd)
  if (found === undefined) return "EBADF"
  return found._tag === "File" ? found : "EINVAL"
}

/** write(2): the whole text, at the file's end. */
export const write = (kernel: Kernel, pid: number, fd: Fd, text: string): Done<number> | ErrnoName => {
  const file = fileAt(kernel, pid, fd)
  if (typeof file === "string") return file
  if (file.access !== "append") return "EBADF"
  return { kernel: { ...kernel, files: FileTree.append(kernel.files, file.path, text) }, value: text.length }
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

const syncFile = (kernel: Kernel, path: string, node: FileTree.Node): Kernel => {
  if (node._tag !== "File") return kernel
  const synced = { ...node, synced: node.content }
  const files = new Map(kernel.files).set(path, synced)
  if (node.durableAt === undefined) return { ...kernel, files }
  return { ...kernel, files, durable: new Map(kernel.durable).set(node.durableAt, afterPowerCut(synced)) }
}

/** The names in a directory, and not those below it. */
const names = (tree: FileTree.FileTree, directory: string): ReadonlyArray<string> =>
  [...tree.keys()].filter((path) => path !== "/" && FileTree.parentOf(path) === directory)

const syncDirectory = (kernel: Kernel, directory: string): Kernel => {
  const files = new Map(kernel.files)
  const durable = new Map(kernel.durable)
  for (const path of names(durable, directory)) if (!files.has(path)) durable.delete(path)
  for (const path of names(files, directory)) {
    const node = files.get(path)
    if (node === undefined) continue
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
  const descriptions = new Map(kernel.descriptions)
  for (const [key, one] of descriptions) {
    if (one._tag === "File" && one.path === from) descriptions.set(key, { ...one, name: to, path: to })
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

const writable = (kernel: Kernel, pid: number, path: string): ErrnoName | undefined => {
  const owner = SimulatedKernel.alive(kernel, pid)
  if (owner === undefined) return "ESRCH"
  const above = FileTree.lookUp(kernel.files, FileTree.parentOf(path), owner.identity, 3)
  return typeof above === "string" ? above : undefined
}

const absolute = (kernel: Kernel, pid: number, path: string): string =>
  FileTree.absolute(path, kernel.processes.get(pid)?.workingDirectory ?? "/")

/** rename(2) of anything but a directory. Whatever has the new name is gone from the same moment. */
export const rename = (kernel: Kernel, pid: number, from: string, to: string): Done<undefined> | ErrnoName => {
  const [source, target] = [absolute(kernel, pid, from), absolute(kernel, pid, to)]
  const refused = writable(kernel, pid, source) ?? writable(kernel, pid, target)
  if (refused !== undefined) return refused
  const node = kernel.files.get(source)
  if (node === undefined) return "ENOENT"
  if (node._tag === "Directory" || kernel.files.get(target)?._tag === "Directory") return "EISDIR"
  if (source === target) return { kernel, value: undefined }
  const next = follow(forget(kernel, target), source, target)
  const files = new Map(next.files)
  files.delete(source)
  files.set(target, node)
  return { kernel: { ...next, files }, value: undefined }
}

/** unlink(2) */
export const unlink = (kernel: Kernel, pid: number, path: string): Done<undefined> | ErrnoName => {
  const target = absolute(kernel, pid, path)
  const refused = writable(kernel, pid, target)
  if (refused !== undefined) return refused
  const node = kernel.files.get(target)
  if (node === undefined) return "ENOENT"
  if (node._tag === "Directory") return "EISDIR"
  const next = forget(kernel, target)
  return { kernel: { ...next, files: FileTree.remove(next.files, target) }, value: undefined }
}

/** Everything ends at once, and the machine starts again with what was synced. */
export const powerCut = (kernel: Kernel): Kernel => ({
  ...kernel,
  processes: new Map(),
  descriptions: new Map(),
  locks: new Map(),
  files: kernel.durable,
  bootId: kernel.bootId.replace(/\d+$/, (number) => String(Number(number) + 1).padStart(number.length, "0"))
})

/**
 * The files of a simulated kernel: a map from absolute path to node, with the permission checks of path_resolution(7).
 *
 * There are no symbolic links and no sticky directories; a path is simplified before it is walked, so that `missing/..` and
 * a slash after a file's name are no errors. Contents are text. What survives a loss of power is SimulatedFiles.ts.
 */
import type { ErrnoName } from "../Errno.ts"

interface Owned {
  /** Permission bits. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
}

export type Node = Owned &
  (
    | { readonly _tag: "Directory" }
    | {
        readonly _tag: "File"
        readonly content: string
        /** What of the content is on the disk. Absent: nothing was ever synced. */
        readonly synced?: string
        /** The name under which a power cut leaves it. Absent: none; no directory that names it was synced. */
        readonly durableAt?: string
      }
    | { readonly _tag: "Socket"; readonly inode: number }
  )

export type FileTree = ReadonlyMap<string, Node>

interface Accessor {
  readonly uid: number
  readonly gid: number
  readonly groups: ReadonlyArray<number>
}

const ROOT: Node = { _tag: "Directory", mode: 0o755, uid: 0, gid: 0 }

/** Only `/`. */
export const empty: FileTree = new Map([["/", ROOT]])

export const directory = (mode = 0o755, uid = 0, gid = 0): Node => ({ _tag: "Directory", mode, uid, gid })

/** A program or another file; mode 0o755 makes it executable. */
export const file = (content = "", mode = 0o644, uid = 0, gid = 0): Node => ({ _tag: "File", mode, uid, gid, content })

/** Absolute, and without anything to be left out. */
const PLAIN = /^(\/[^/.][^/]*)+$/

/** The absolute path, without `.`, `..` and doubled slashes. */
export const absolute = (path: string, workingDirectory: string): string => {
  if (PLAIN.test(path)) return path
  const parts: Array<string> = []
  for (const part of `${path.startsWith("/") ? "" : `${workingDirectory}/`}${path}`.split("/")) {
    if (part === "..") parts.pop()
    else if (part !== "" && part !== ".") parts.push(part)
  }
  return `/${parts.join("/")}`
}

export const parentOf = (path: string): string => path.slice(0, path.lastIndexOf("/")) || "/"

/** The tree with nodes added; missing directories above them appear with mode 0o755 of root. */
export const add = (tree: FileTree, nodes: Readonly<Record<string, Node>>): FileTree => {
  const result = new Map(tree)
  for (const [path, node] of Object.entries(nodes)) {
    for (let above = parentOf(path); !result.has(above); above = parentOf(above)) result.set(above, ROOT)
    result.set(path, node)
  }
  return result
}

export const remove = (tree: FileTree, path: string): FileTree => {
  const result = new Map(tree)
  result.delete(path)
  return result
}

/** Without a path and all that is below it. */
export const removeWithin = (tree: FileTree, path: string): FileTree =>
  new Map([...tree].filter(([other]) => other !== path && !other.startsWith(`${path}/`)))

/** Without what no directory leads to. */
export const reachable = (tree: FileTree): FileTree => {
  const isReached = (path: string): boolean =>
    path === "/" || (tree.get(parentOf(path))?._tag === "Directory" && isReached(parentOf(path)))
  return new Map([...tree].filter(([path]) => isReached(path)))
}

/** Bits of `want` (4 read, 2 write, 1 execute or search) that are granted. Root needs only one x bit to execute a file. */
const permits = (node: Node, who: Accessor, want: number): boolean => {
  if (who.uid === 0) return (want & 1) === 0 || node._tag === "Directory" || (node.mode & 0o111) !== 0
  const shift = who.uid === node.uid ? 6 : who.gid === node.gid || who.groups.includes(node.gid) ? 3 : 0
  return ((node.mode >> shift) & want) === want
}

/** Walks to a node by its absolute path: ENOENT, ENOTDIR for a file on the way, EACCES for a directory that may not be searched or for `want`. */
export const lookUp = (tree: FileTree, path: string, who: Accessor, want: number): Node | ErrnoName => {
  let node = tree.get("/") ?? ROOT
  for (let end = 0; end < path.length && path !== "/"; ) {
    if (node._tag !== "Directory") return "ENOTDIR"
    if (!permits(node, who, 1)) return "EACCES"
    const slash = path.indexOf("/", end + 1)
    end = slash === -1 ? path.length : slash
    const next = tree.get(path.slice(0, end))
    if (next === undefined) return "ENOENT"
    node = next
  }
  return permits(node, who, want) ? node : "EACCES"
}

/** The directory that names a path, with `want` granted in it: ENOTDIR for a file in its place. */
export const directoryOf = (tree: FileTree, path: string, who: Accessor, want: number): Node | ErrnoName => {
  const above = lookUp(tree, parentOf(path), who, 0)
  if (typeof above === "string") return above
  if (above._tag !== "Directory") return "ENOTDIR"
  return permits(above, who, want) ? above : "EACCES"
}

/** A new node: EEXIST if something is there, then EACCES for a directory that may not be written. */
export const create = (tree: FileTree, path: string, who: Accessor, node: Node): FileTree | ErrnoName => {
  const searchable = directoryOf(tree, path, who, 1)
  if (typeof searchable === "string") return searchable
  if (tree.has(path)) return "EEXIST"
  const writable = directoryOf(tree, path, who, 3)
  return typeof writable === "string" ? writable : new Map(tree).set(path, node)
}

/** The tree as it was found on the disk: everything in it survives a power cut. */
export const durable = (tree: FileTree): FileTree =>
  new Map(
    [...tree].map(([path, node]): [string, Node] => [
      path,
      node._tag === "File" ? { ...node, synced: node.content, durableAt: path } : node
    ])
  )

/** Appends text to a file that exists. */
export const append = (tree: FileTree, path: string, text: string): FileTree => {
  const node = tree.get(path)
  return node?._tag === "File" ? new Map(tree).set(path, { ...node, content: node.content + text }) : tree
}

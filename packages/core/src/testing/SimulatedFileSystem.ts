/**
 * Effect's FileSystem over the files of a simulated kernel: what a supervisor needs of it (directories, reading a log
 * while it grows, truncating, removing). Other methods fail as those of `FileSystem.makeNoop` do.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { type PlatformError, systemError } from "effect/PlatformError"
import * as Stream from "effect/Stream"
import * as FileTree from "./FileTree.ts"
import type { SimulationDriver } from "./SimulationDriver.ts"

const notFound = (method: string, path: string): PlatformError =>
  systemError({ _tag: "NotFound", module: "SimulatedFileSystem", method, pathOrDescriptor: path })

const unsupported = (method: string, path: string): PlatformError =>
  systemError({ _tag: "Unknown", module: "SimulatedFileSystem", method, pathOrDescriptor: path })

/** A file open for reading. Its content is looked up at each read, so that it is seen growing. */
const makeFile = (path: string, content: Effect.Effect<Uint8Array, PlatformError>): FileSystem.File => {
  let offset = 0
  const refuse = (method: string) => Effect.fail(unsupported(method, path))
  const read: FileSystem.File["read"] = (buffer, options) =>
    Effect.map(content, (bytes) => {
      const from = options?.position === undefined ? offset : Number(options.position)
      const part = bytes.subarray(from, from + buffer.length)
      buffer.set(part)
      if (options?.position === undefined) offset += part.length
      return part.length
    })
  return {
    [FileSystem.FileTypeId]: FileSystem.FileTypeId,
    stat: refuse("stat"),
    sync: Effect.void,
    seek: (by, from) =>
      Effect.sync(() => {
        offset = Number(by) + (from === "start" ? 0 : offset)
        return BigInt(offset)
      }),
    read,
    readAlloc: (size, options) => {
      const buffer = new Uint8Array(size)
      return Effect.map(read(buffer, options), (count) =>
        count === 0 ? Option.none() : Option.some(buffer.subarray(0, count))
      )
    },
    truncate: () => refuse("truncate"),
    write: () => refuse("write"),
    writeAll: () => refuse("writeAll")
  }
}

const make = (driver: SimulationDriver): FileSystem.FileSystem => {
  const change = (f: (tree: FileTree.FileTree) => FileTree.FileTree) =>
    driver.use((machine) => ({
      machine: { ...machine, kernel: { ...machine.kernel, files: f(machine.kernel.files) } },
      value: undefined
    }))
  const node = (method: string, path: string) =>
    Effect.flatMap(driver.machine, ({ kernel }) => {
      const found = kernel.files.get(FileTree.absolute(path, "/"))
      return found === undefined ? Effect.fail(notFound(method, path)) : Effect.succeed(found)
    })
  const content = (method: string, path: string) =>
    Effect.flatMap(node(method, path), (found) =>
      found._tag === "File"
        ? Effect.succeed(new TextEncoder().encode(found.content))
        : Effect.fail(unsupported(method, path))
    )
  const inside = (path: string) => (other: string) => other === path || other.startsWith(`${path}/`)
  const remove: FileSystem.FileSystem["remove"] = (path, options) =>
    Effect.flatMap(driver.machine, ({ kernel }) => {
      if (!kernel.files.has(path)) return options?.force === true ? Effect.void : Effect.fail(notFound("remove", path))
      const doomed = options?.recursive === true ? [...kernel.files.keys()].filter(inside(path)) : [path]
      return change((tree) => doomed.reduce((rest, each) => FileTree.remove(rest, each), tree))
    })
  let directories = 0
  const makeTempDirectory: FileSystem.FileSystem["makeTempDirectory"] = (options) =>
    Effect.suspend(() => {
      const path = `${options?.directory ?? "/tmp"}/${options?.prefix ?? ""}${directories++}`
      return Effect.as(
        change((tree) => FileTree.add(tree, { [path]: FileTree.directory(0o700) })),
        path
      )
    })
  return FileSystem.makeNoop({
    exists: (path) => Effect.map(driver.machine, ({ kernel }) => kernel.files.has(path)),
    access: (path) => Effect.asVoid(node("access", path)),
    readFile: (path) => content("readFile", path),
    readFileString: (path) => Effect.map(content("readFileString", path), (bytes) => new TextDecoder().decode(bytes)),
    writeFileString: (path, text, options) =>
      change((tree) => FileTree.add(tree, { [path]: FileTree.file(text, options?.mode) })),
    makeDirectory: (path, options) =>
      change((tree) => (tree.has(path) ? tree : FileTree.add(tree, { [path]: FileTree.directory(options?.mode) }))),
    makeTempDirectory,
    makeTempDirectoryScoped: (options) =>
      Effect.acquireRelease(makeTempDirectory(options), (path) =>
        Effect.ignore(remove(path, { recursive: true, force: true }))
      ),
    remove,
    truncate: (path) =>
      change((tree) => {
        const found = tree.get(path)
        return found?._tag === "File" ? FileTree.add(tree, { [path]: { ...found, content: "" } }) : tree
      }),
    open: (path) => Effect.as(node("open", path), makeFile(path, content("read", path))),
    watch: () => Stream.never
  })
}

export const layer = (driver: SimulationDriver): Layer.Layer<FileSystem.FileSystem> =>
  Layer.succeed(FileSystem.FileSystem, make(driver))

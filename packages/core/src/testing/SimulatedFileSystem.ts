/**
 * Effect's FileSystem over the files of a simulated kernel: what a supervisor needs of it (directories, reading a log
 * while it grows, writing, renaming, truncating, removing). Other methods fail as those of `FileSystem.makeNoop` do.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { type PlatformError, type SystemErrorTag, systemError } from "effect/PlatformError"
import * as Stream from "effect/Stream"
import type { ErrnoName } from "../Errno.ts"
import * as FileTree from "./FileTree.ts"
import * as SimulatedFiles from "./SimulatedFiles.ts"
import type { Done, Kernel } from "./SimulatedKernel.ts"
import * as SimulatedKernel from "./SimulatedKernel.ts"
import type { SimulationDriver } from "./SimulationDriver.ts"

const TAGS: Readonly<Record<string, SystemErrorTag>> = {
  ENOENT: "NotFound",
  EACCES: "PermissionDenied",
  EEXIST: "AlreadyExists",
  EISDIR: "BadResource",
  ENOTDIR: "BadResource"
}

const failure = (method: string, path: string, errno: ErrnoName): PlatformError => {
  const _tag = TAGS[errno] ?? "Unknown"
  return systemError({ _tag, module: "SimulatedFileSystem", method, pathOrDescriptor: path, description: errno })
}

/** Opens, truncates, writes and closes. */
const writeWhole = (
  kernel: Kernel,
  self: number,
  path: string,
  text: string,
  mode = 0o666
): Done<undefined> | ErrnoName => {
  const opened = SimulatedKernel.open(kernel, self, path, "truncate", mode)
  if (typeof opened === "string") return opened
  const written = SimulatedFiles.write(opened.kernel, self, opened.value, text)
  return typeof written === "string" ? written : SimulatedKernel.close(written.kernel, self, opened.value)
}

/** A file open for reading. Its content is looked up at each read, so that it is seen growing. */
const makeFile = (path: string, content: Effect.Effect<Uint8Array, PlatformError>): FileSystem.File => {
  let offset = 0
  const refuse = (method: string) => Effect.fail(failure(method, path, "ENOSYS"))
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
      return found === undefined ? Effect.fail(failure(method, path, "ENOENT")) : Effect.succeed(found)
    })
  const content = (method: string, path: string) =>
    Effect.flatMap(node(method, path), (found) =>
      found._tag === "File"
        ? Effect.succeed(new TextEncoder().encode(found.content))
        : Effect.fail(failure(method, path, "EISDIR"))
    )
  /** A call of the process that uses the file system; its errno becomes the error. */
  const call = (method: string, path: string, f: (kernel: Kernel, self: number) => Done<undefined> | ErrnoName) =>
    Effect.flatMap(
      driver.call((kernel) => f(kernel, driver.self)),
      (errno) => (errno === undefined ? Effect.void : Effect.fail(failure(method, path, errno)))
    )
  const remove: FileSystem.FileSystem["remove"] = (path, options) =>
    Effect.flatMap(driver.machine, ({ kernel: { files } }) => {
      if (!files.has(path) && options?.force === true) return Effect.void
      if (files.get(path)?._tag !== "Directory" || options?.recursive !== true) {
        return call("remove", path, (kernel, self) => SimulatedFiles.unlink(kernel, self, path))
      }
      const below = [...files].filter(([other, found]) => other.startsWith(`${path}/`) && found._tag !== "Directory")
      return Effect.andThen(
        Effect.forEach(below, ([other]) => remove(other)),
        change((tree) => FileTree.removeWithin(tree, path))
      )
    })
  const addDirectory = (path: string, mode: number | undefined) =>
    Effect.flatMap(driver.machine, ({ kernel }) => {
      const owner = kernel.processes.get(driver.self)?.identity
      return change((tree) => FileTree.add(tree, { [path]: FileTree.directory(mode, owner?.uid, owner?.gid) }))
    })
  let directories = 0
  const makeTempDirectory: FileSystem.FileSystem["makeTempDirectory"] = (options) =>
    Effect.suspend(() => {
      const path = `${options?.directory ?? "/tmp"}/${options?.prefix ?? ""}${directories++}`
      return Effect.as(addDirectory(path, 0o700), path)
    })
  return FileSystem.makeNoop({
    exists: (path) => Effect.map(driver.machine, ({ kernel }) => kernel.files.has(path)),
    access: (path) => Effect.asVoid(node("access", path)),
    readFile: (path) => content("readFile", path),
    readFileString: (path) => Effect.map(content("readFileString", path), (bytes) => new TextDecoder().decode(bytes)),
    writeFileString: (path, text, options) =>
      call("writeFileString", path, (kernel, self) => writeWhole(kernel, self, path, text, options?.mode)),
    rename: (from, to) => call("rename", from, (kernel, self) => SimulatedFiles.rename(kernel, self, from, to)),
    makeDirectory: (path, options) =>
      Effect.flatMap(driver.machine, ({ kernel }) =>
        kernel.files.has(path) ? Effect.void : addDirectory(path, options?.mode)
      ),
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

/**
 * Descriptors of files for children's stdio, and durable writes. Node opens files close-on-exec; nothing here needs the C
 * library.
 */
import { closeSync, constants, fdatasync, fsync, openSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { dirname } from "node:path"
import { promisify } from "node:util"
import { FileError, Files } from "@handoff/core/backend/Files"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { errnoOf } from "./PathErrno.ts"

const FLAGS = {
  read: constants.O_RDONLY,
  append: constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT
} as const

const sync = promisify(fsync)
const dataSync = promisify(fdatasync)

/**
 * Only what waits for the disk goes through the thread pool: the rest takes microseconds, and a hop to a thread and back
 * a tenth of a millisecond. The temporary name is the same each time: what a process left behind that was killed here is
 * overwritten by the next replacement, whichever process makes it.
 */
const replace = async (path: string, text: string): Promise<void> => {
  const temporary = `${path}.new`
  const file = openSync(temporary, "w", 0o600)
  try {
    try {
      writeFileSync(file, text)
      await dataSync(file)
    } finally {
      closeSync(file)
    }
    renameSync(temporary, path)
  } catch (error) {
    rmSync(temporary, { force: true })
    throw error
  }
  const directory = openSync(dirname(path), "r")
  try {
    await sync(directory)
  } finally {
    closeSync(directory)
  }
}

export const layer: Layer.Layer<Files> = Layer.succeed(Files, {
  open: (path, how) =>
    Effect.acquireRelease(
      Effect.try({
        try: () => openSync(path, FLAGS[how], 0o600),
        catch: (error) => new FileError({ path, errno: errnoOf(error) })
      }),
      (fd) => Effect.sync(() => closeSync(fd))
    ),
  // An interrupted replacement would go on in the thread pool and meet the next one of its path.
  replace: (path, text) =>
    Effect.uninterruptible(
      Effect.tryPromise({
        try: () => replace(path, text),
        catch: (error) => new FileError({ path, errno: errnoOf(error) })
      })
    )
})

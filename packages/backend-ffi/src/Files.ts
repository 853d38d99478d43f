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
 * a tenth of a millisecond. The writes of one process to one path follow each other, so the temporary name is its own.
 */
const replace = async (path: string, text: string): Promise<void> => {
  const temporary = `${path}.${process.pid}.new`
  try {
    const file = openSync(temporary, "w", 0o600)
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
  replace: (path, text) =>
    Effect.tryPromise({
      try: () => replace(path, text),
      catch: (error) => new FileError({ path, errno: errnoOf(error) })
    })
})

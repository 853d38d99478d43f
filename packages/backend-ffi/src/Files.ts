/**
 * Descriptors of files for children's stdio, and durable writes. Node opens files close-on-exec; nothing here needs the C
 * library.
 */
import { closeSync, constants, openSync } from "node:fs"
import { open, rename, rm } from "node:fs/promises"
import { dirname } from "node:path"
import { FileError, Files } from "@handoff/core/backend/Files"
import type { ErrnoName } from "@handoff/core/Errno"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"

const FLAGS = {
  read: constants.O_RDONLY,
  append: constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT
} as const

const errnoOf = (error: unknown): ErrnoName => {
  const code = (error as NodeJS.ErrnoException).code
  return code?.startsWith("E") === true ? (code as ErrnoName) : "EIO"
}

/** The writes of one process to one path follow each other, so the temporary name is its own. */
const replace = async (path: string, text: string): Promise<void> => {
  const temporary = `${path}.${process.pid}.new`
  try {
    const file = await open(temporary, "w", 0o600)
    try {
      await file.writeFile(text)
      await file.datasync()
    } finally {
      await file.close()
    }
    await rename(temporary, path)
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined)
    throw error
  }
  const directory = await open(dirname(path), "r")
  try {
    await directory.sync()
  } finally {
    await directory.close()
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

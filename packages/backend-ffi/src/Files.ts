/**
 * Descriptors of files for children's stdio. Node opens them close-on-exec; nothing here needs the C library.
 */
import { closeSync, constants, openSync } from "node:fs"
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

export const layer: Layer.Layer<Files> = Layer.succeed(Files, {
  open: (path, how) =>
    Effect.acquireRelease(
      Effect.try({
        try: () => openSync(path, FLAGS[how], 0o600),
        catch: (error) => new FileError({ path, errno: errnoOf(error) })
      }),
      (fd) => Effect.sync(() => closeSync(fd))
    )
})

/** The errno names of errors that node:fs throws. */
import type { ErrnoName } from "@handoff/core/Errno"

/** The error's `code`, such as `"ENOENT"`; `"EIO"` for an error that has none. */
export const errnoOf = (error: unknown): ErrnoName => {
  const code = (error as { readonly code?: unknown } | undefined)?.code
  return typeof code === "string" && /^E[A-Z0-9]+$/.test(code) ? (code as ErrnoName) : "EIO"
}

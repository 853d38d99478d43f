/**
 * The contract of files where Effect's FileSystem is not enough: descriptors that a child is given as stdio (it does not
 * tell the number of what it opened), and content that must survive a loss of power.
 */
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { ErrnoName } from "../Errno.ts"
import type { Fd } from "../Fd.ts"

export class FileError extends Data.TaggedError("FileError")<{
  readonly path: string
  readonly errno: ErrnoName
}> {
  override get message(): string {
    return `${this.path}: ${this.errno}`
  }
}

export class Files extends Context.Service<
  Files,
  {
    /** Opens `path` close-on-exec for the scope's life: `"read"`, or `"append"` (O_WRONLY, created 0600 if missing). */
    readonly open: (path: string, how: "read" | "append") => Effect.Effect<Fd, FileError, Scope.Scope>
    /**
     * Makes `text` the content of the file, mode 0600, at once and for good: whoever reads sees the old content or the
     * new one, and after success a power cut does not take it back (the file and its directory are synced). A failure
     * leaves the old content, and no temporary file.
     *
     * The temporary file is `path` with `.new` at its end. One that a killed process left is overwritten, so one process
     * replaces a path at a time, one replacement after the other: who else might must be kept out by a lock.
     */
    readonly replace: (path: string, text: string) => Effect.Effect<void, FileError>
  }
>()("@handoff/core/backend/Files") {}

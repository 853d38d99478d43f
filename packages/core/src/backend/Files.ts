/**
 * The contract of descriptors to files that a child is given as stdio. Other files go through Effect's FileSystem, which
 * does not tell the number of what it opened.
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
    return `${this.path} could not be opened: ${this.errno}`
  }
}

export class Files extends Context.Service<
  Files,
  {
    /** Opens `path` close-on-exec for the scope's life: `"read"`, or `"append"` (O_WRONLY, created 0600 if missing). */
    readonly open: (path: string, how: "read" | "append") => Effect.Effect<Fd, FileError, Scope.Scope>
  }
>()("@handoff/core/backend/Files") {}

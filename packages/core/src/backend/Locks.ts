/**
 * The contract of whole-file advisory locks (flock(2)).
 */
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { ErrnoName } from "../Errno.ts"

export class LockError extends Data.TaggedError("LockError")<{
  readonly path: string
  readonly reason:
    | { readonly _tag: "Held"; readonly holder?: number }
    | { readonly _tag: "CallFailed"; readonly call: string; readonly errno: ErrnoName }
}> {
  override get message(): string {
    return this.reason._tag === "Held"
      ? `${this.path} is locked${this.reason.holder === undefined ? "" : ` by process ${this.reason.holder}`}`
      : `${this.path}: ${this.reason.call} = ${this.reason.errno}`
  }
}

export class Locks extends Context.Service<
  Locks,
  {
    /** Takes an exclusive lock on the file (created with mode 0600 when missing), without waiting, for the scope's life. */
    readonly acquire: (path: string) => Effect.Effect<void, LockError, Scope.Scope>
  }
>()("@handoff/core/backend/Locks") {}

/**
 * The contract of program look-up: PATH is searched afresh for each launch, so that a symlink that moved is followed.
 */
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import type * as Effect from "effect/Effect"

export class ExecutableError extends Data.TaggedError("ExecutableError")<{
  readonly program: string
  readonly reason: "NotFound" | "NotExecutable" | "IsDirectory"
  /** The paths that were tried, in order. */
  readonly tried: ReadonlyArray<string>
}> {
  override get message(): string {
    const what = { NotFound: "was not found", NotExecutable: "is not executable", IsDirectory: "is a directory" }
    return `the program "${this.program}" ${what[this.reason]} (tried ${this.tried.join(", ")})`
  }
}

export class Executables extends Context.Service<
  Executables,
  {
    /**
     * The absolute path of `program`: a name without `/` is looked up in `path` (entries joined by `:`, an empty entry
     * is the working directory), one with `/` is taken relative to `workingDirectory`.
     */
    readonly resolve: (
      program: string,
      options: { readonly workingDirectory: string; readonly path: string }
    ) => Effect.Effect<string, ExecutableError>
  }
>()("@handoff/core/backend/Executables") {}

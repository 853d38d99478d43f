/** The error of a machine, a C library or a thread that this backend cannot work in. */
import * as Data from "effect/Data"

export class UnsupportedPlatform extends Data.TaggedError("UnsupportedPlatform")<{
  /** What is missing, one sentence each; never empty. */
  readonly missing: ReadonlyArray<string>
}> {
  override get message(): string {
    return `handoff's FFI backend can't work here: ${this.missing.join("; ")}`
  }
}

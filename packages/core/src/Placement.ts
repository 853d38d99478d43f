/**
 * The wish: which source descriptor of the parent must be open at which target number in the child.
 *
 * After a plan made from placements ran, `target` refers to the open file description that `source` referred to before
 * it, with FD_CLOEXEC clear. One source may feed many targets, a target has one source, a source may equal its target,
 * and targets may be sparse and include stdio.
 */
import * as Data from "effect/Data"
import * as Result from "effect/Result"
import { type Fd, FIRST_INHERITED_FD, isFd } from "./Fd.ts"

/** `source` is a descriptor of the parent, `target` the number at which the child finds it. */
export interface Placement {
  readonly source: Fd
  readonly target: Fd
}

/** The placement of `source` at `target`: `move(7, 3)`. */
export const move = (source: Fd, target: Fd): Placement => ({ source, target })

/**
 * Places `sources` side by side from `first` on, in their order: `contiguous([9, 7])` opens 9 at 3 and 7 at 4, as
 * sd_listen_fds(3) wants it.
 */
export const contiguous = (sources: ReadonlyArray<Fd>, first: Fd = FIRST_INHERITED_FD): ReadonlyArray<Placement> =>
  sources.map((source, index) => move(source, first + index))

export type PlacementErrorReason =
  /** Not an integer from 0 to 2^31 - 1; `index` is the place in the list of placements. */
  | {
      readonly _tag: "NotADescriptor"
      readonly role: "source" | "target"
      readonly value: number
      readonly index: number
    }
  | { readonly _tag: "DuplicateTarget"; readonly target: Fd; readonly sources: readonly [Fd, Fd] }
  /** Descriptors are numbered from 0 to `limit - 1` (RLIMIT_NOFILE). */
  | { readonly _tag: "OverLimit"; readonly role: "source" | "target"; readonly fd: Fd; readonly limit: number }
  /** The plan keeps copies at numbers up to `needed`, which the limit doesn't allow. */
  | { readonly _tag: "ScratchOverLimit"; readonly needed: Fd; readonly limit: number }

export class PlacementError extends Data.TaggedError("PlacementError")<{ readonly reason: PlacementErrorReason }> {
  override get message(): string {
    const reason = this.reason
    switch (reason._tag) {
      case "NotADescriptor":
        return `placement ${reason.index}: the ${reason.role} ${reason.value} is not a descriptor number`
      case "DuplicateTarget":
        return `descriptor ${reason.target} is the target of two placements, of ${reason.sources[0]} and of ${reason.sources[1]}`
      case "OverLimit":
        return `the ${reason.role} ${reason.fd} is at or over the descriptor limit of ${reason.limit}`
      case "ScratchOverLimit":
        return `the plan needs a scratch descriptor at ${reason.needed}, at or over the descriptor limit of ${reason.limit}`
    }
  }
}

const invalid = (reason: PlacementErrorReason): Result.Result<never, PlacementError> =>
  Result.fail(new PlacementError({ reason }))

/**
 * Checks placements one by one and returns them as given, or names the first culprit.
 *
 * `descriptorLimit` is the RLIMIT_NOFILE in force when the plan runs; without it only the numbers themselves are checked.
 */
export const validate = (
  placements: ReadonlyArray<Placement>,
  options: { readonly descriptorLimit?: number } = {}
): Result.Result<ReadonlyArray<Placement>, PlacementError> => {
  const limit = options.descriptorLimit ?? Number.POSITIVE_INFINITY
  const sources = new Map<Fd, Fd>()
  let index = -1
  for (const { source, target } of placements) {
    index++
    if (!isFd(source)) return invalid({ _tag: "NotADescriptor", role: "source", value: source, index })
    if (!isFd(target)) return invalid({ _tag: "NotADescriptor", role: "target", value: target, index })
    if (source >= limit) return invalid({ _tag: "OverLimit", role: "source", fd: source, limit })
    if (target >= limit) return invalid({ _tag: "OverLimit", role: "target", fd: target, limit })
    const other = sources.get(target)
    if (other !== undefined) return invalid({ _tag: "DuplicateTarget", target, sources: [other, source] })
    sources.set(target, source)
  }
  return Result.succeed(placements)
}

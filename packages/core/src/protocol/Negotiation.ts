/**
 * Which version of the protocol two peers speak: the highest that both understand.
 *
 * The peer that is not the supervisor announces its range in Hello; the supervisor chooses and answers with HelloAck; the
 * peer checks that the choice lies in its own range ({@link confirm}). Until then frames carry the sender's highest.
 */
import * as Result from "effect/Result"

/** Versions from `min` to `max`, both included. A range with `min` over `max` holds none. */
export interface VersionRange {
  readonly min: number
  readonly max: number
}

/** The versions this library speaks. */
export const SUPPORTED: VersionRange = { min: 1, max: 1 }

/** No version is in both ranges. */
export interface VersionMismatch {
  readonly _tag: "VersionMismatch"
  readonly ours: VersionRange
  readonly theirs: VersionRange
}

/**
 * The highest version in both ranges.
 *
 * @example
 * Negotiation.choose({ min: 1, max: 3 }, { min: 2, max: 5 }) // 3
 */
export const choose = (ours: VersionRange, theirs: VersionRange): Result.Result<number, VersionMismatch> => {
  const highest = Math.min(ours.max, theirs.max)
  const lowest = Math.max(ours.min, theirs.min)
  return highest < lowest ? Result.fail({ _tag: "VersionMismatch", ours, theirs }) : Result.succeed(highest)
}

/** The version a supervisor chose, if we speak it. */
export const confirm = (ours: VersionRange, chosen: number): Result.Result<number, VersionMismatch> =>
  choose(ours, { min: chosen, max: chosen })

/** One sentence for a person. */
export const explain = ({ ours, theirs }: VersionMismatch): string =>
  `no common protocol version: this side speaks ${ours.min} to ${ours.max}, the other ${theirs.min} to ${theirs.max}`

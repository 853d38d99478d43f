/**
 * What a peer, or the code that drives a machine, may not do. Both machines of the protocol give these as data, together
 * with the recovery their tables name; nothing throws.
 */
import type { HandoffId } from "./HandoffId.ts"
import type { Tag } from "./Message.ts"
import type { VersionMismatch } from "./Negotiation.ts"

export type Violation =
  /** A message that this phase does not allow. */
  | { readonly _tag: "UnexpectedMessage"; readonly phase: string; readonly message: Tag }
  /** A message of another swap. */
  | {
      readonly _tag: "WrongHandoffId"
      readonly phase: string
      readonly message: Tag
      readonly expected: HandoffId
      readonly received: HandoffId
    }
  /** The supervisor chose a version that was not offered. */
  | VersionMismatch
  /** The driver reports a fact of something that was not asked for. The peer is not to blame and the session goes on. */
  | { readonly _tag: "UnexpectedFact"; readonly phase: string; readonly fact: string }

/** One sentence for a person. */
export const explain = (violation: Violation): string => {
  switch (violation._tag) {
    case "UnexpectedMessage":
      return `${violation.message} is not allowed while ${violation.phase}`
    case "WrongHandoffId":
      return `${violation.message} belongs to handoff ${violation.received}, this one is ${violation.expected}`
    case "VersionMismatch":
      return `the supervisor chose protocol version ${violation.theirs.max}, offered were ${violation.ours.min} to ${violation.ours.max}`
    case "UnexpectedFact":
      return `${violation.fact} was reported while ${violation.phase}, where nothing had asked for it`
  }
}

/** `setTimeout` fires at once for more than this; a peer's u64 of milliseconds must not become a deadline of zero. */
export const MAX_TIMER_MS = 0x7fff_ffff

/** A peer's duration as a timer's. */
export const timerMs = (milliseconds: bigint): number =>
  milliseconds > BigInt(MAX_TIMER_MS) ? MAX_TIMER_MS : Number(milliseconds)

/**
 * How one generation takes over from another.
 *
 *   sealed      the old one drains, seals its data and gives the lock away; the new one opens the data and serves
 *   overlap     the new one starts beside the old one, which then drains
 *   exclusive   the old one stops first; if the new one fails, the old command is started again
 *   auto        as the serving generation shows: sealed where it serves a handoff socket, else overlap
 */
import type * as Effect from "effect/Effect"

export const modes = ["auto", "sealed", "overlap", "exclusive"] as const

export type SwapMode = (typeof modes)[number]

/** A supervisor's `swap` with the mode of this one swap. */
export type Swap<Command, Report, Failure> = (
  command?: Command,
  options?: { readonly mode?: SwapMode }
) => Effect.Effect<Report, Failure>

/** What both acts say of a swap. */
import type { SwapReport } from "@handoff/supervisor/Supervisor"
import { formatDuration, formatFailure, type SwapError } from "@handoff/supervisor/SupervisorError"
import * as Effect from "effect/Effect"
import type { Screen } from "./screen.ts"

export const tell = (screen: Screen, to: string, result: SwapReport): void => {
  const { record, lastLines } = result
  if (record.outcome === "committed") {
    screen.say(`swap to ${to}: committed in ${formatDuration(record.durationMs)} (${record.evidence})`)
    return
  }
  const why = record.failure === undefined ? "" : `: ${formatFailure(record.failure)}`
  const killed = record.killed ? ", killed" : ""
  screen.say(`swap to ${to}: rolled back after ${formatDuration(record.durationMs)}${why}${killed}`)
  for (const line of lastLines) screen.say(`    | ${line}`)
}

/** A rolled back swap is a result here. */
export const reportOf = (error: SwapError): Effect.Effect<SwapReport, SwapError> =>
  error.reason._tag === "RolledBack" ? Effect.succeed(error.reason.report) : Effect.fail(error)

export const tenths = (milliseconds: number): number => Math.round(milliseconds * 10) / 10

export const outcome = (record: SwapReport["record"] | undefined): string =>
  record === undefined ? "missing" : `${record.outcome} in ${formatDuration(record.durationMs)}`

/** A swap in the summary. */
export const inShort = ({ outcome, durationMs, killed, cut, failure }: SwapReport["record"]) => ({
  outcome,
  durationMs: tenths(durationMs),
  killed,
  cut,
  reason: failure === undefined ? undefined : formatFailure(failure)
})

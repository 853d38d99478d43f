/**
 * An ended swap in one sentence: what became of it, why, what serves now, and what was cut.
 */
import type { SwapRecord } from "@handoff/core/swap/Supervision"
import { formatDuration, SwapError } from "./SupervisorError.ts"

/** What made a generation count as ready. */
export const evidence = {
  notified: "it sent READY=1",
  accepting: "it was seen accepting",
  settled: "it stayed alive",
  handoff: "it has the data"
} as const

const leaving = { overlap: "drains", sealed: "handed over", exclusive: "stopped" } as const

const committed = (record: SwapRecord): string => {
  const why = record.evidence === undefined ? "" : ` (${evidence[record.evidence]})`
  const before = record.from === undefined ? "" : `, generation ${record.from} ${leaving[record.mode ?? "overlap"]}`
  return `committed in ${formatDuration(record.durationMs)}: generation ${record.to ?? "?"} serves${why}${before}`
}

/** `committed in 1.2 s: generation 2 serves (it sent READY=1), generation 1 drains`. */
export const formatRecord = (record: SwapRecord): string =>
  record.outcome === "committed"
    ? committed(record)
    : new SwapError({ reason: { _tag: "RolledBack", report: { record, lastLines: [] } } }).message

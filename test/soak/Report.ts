/** What a soak survived, as a table for a person. */
import { KINDS } from "./Faults.ts"
import type { Summary } from "./Soak.ts"

const seconds = (milliseconds: number): string => `${(milliseconds / 1000).toFixed(2)} s`

const row = (name: string, ...columns: ReadonlyArray<string | number>): string =>
  `  ${name.padEnd(32)}${columns.map((column) => String(column).padStart(12)).join("")}`

const swapRows = ({ swaps }: Summary): ReadonlyArray<string> =>
  Object.entries(swaps)
    .sort()
    .map(([mode, { committed, rolledBack, unknown }]) => row(mode, committed, rolledBack, unknown))

const faultRows = ({ faults, longestMs }: Summary): ReadonlyArray<string> => [
  ...KINDS.map((kind) => row(kind, faults.get(kind) ?? 0, seconds(longestMs.get(kind) ?? 0))),
  row("a version hangs", "", seconds(longestMs.get("a version hangs") ?? 0)),
  row("no fault yet", "", seconds(longestMs.get("no fault") ?? 0))
]

/** The table; what broke comes after it. */
export const format = (summary: Summary): string => {
  const { minutes, seed, requests, failed, acknowledged, lost, skipped } = summary
  const failures = [...failed.values()].reduce((total, count) => total + count, 0)
  return [
    `soak: ${minutes.toFixed(1)} minutes, seed ${seed}`,
    row("swaps", "committed", "rolled back", "no verdict"),
    ...swapRows(summary),
    row("faults", "times", "longest wait"),
    ...faultRows(summary),
    ...skipped.map((what) => `  skipped: ${what}`),
    row("requests", requests),
    row("  failed", failures),
    ...[...failed].map(([reason, count]) => row(`  because ${reason}`, count)),
    row("acknowledged writes", acknowledged),
    row("  lost", lost)
  ].join("\n")
}

/** What broke and what came before it. */
export const formatBroken = (summary: Summary): string =>
  summary.broken === undefined
    ? ""
    : [
        `BROKEN with seed ${summary.seed}: ${summary.broken.invariant}`,
        `  ${summary.broken.detail}`,
        "the last events before it:",
        ...summary.lastEvents
      ].join("\n")

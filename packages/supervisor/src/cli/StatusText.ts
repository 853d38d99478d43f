/**
 * A supervisor's status as a page for a person. Pure: the time is an argument.
 */
import type { Status } from "../Supervisor.ts"
import { formatDuration } from "../SupervisorError.ts"
import * as SwapText from "../SwapText.ts"
import { formatCommand } from "./EventText.ts"

/** `12s`, `5m`, `3h 20m`, `4d 2h`. */
export const formatAge = (milliseconds: number): string => {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000))
  const minutes = Math.floor(seconds / 60)
  const hours = Math.floor(minutes / 60)
  const days = Math.floor(hours / 24)
  if (days > 0) return `${days}d ${hours % 24}h`
  if (hours > 0) return `${hours}h ${minutes % 60}m`
  return minutes > 0 ? `${minutes}m` : `${seconds}s`
}

/** Columns as wide as their widest cell; the last one is not padded. */
export const table = (rows: ReadonlyArray<ReadonlyArray<string>>): ReadonlyArray<string> => {
  const widths: Array<number> = []
  for (const row of rows) {
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, cell.length)
    })
  }
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd()
  )
}

const headline = (status: Status, now: number): string => {
  const serves =
    typeof status.serving === "number" ? `generation ${status.serving} serves` : `nothing serves (${status.phase})`
  return `${status.name} (process ${status.pid}, up ${formatAge(now - status.startedAt)}): ${serves}`
}

const generations = (status: Status, now: number): ReadonlyArray<string> =>
  table([
    ["GENERATION", "STATE", "PROCESS", "CONNECTIONS", "AGE", "COMMAND"],
    ...status.generations.map((one) => [
      String(one.id),
      one.phase,
      String(one.pid ?? "-"),
      String(one.connections),
      formatAge(now - one.launchedAt),
      formatCommand(one.command)
    ])
  ])

const running = (status: Status, now: number): ReadonlyArray<string> => {
  const { swap } = status
  if (swap === undefined) return []
  const waits =
    swap.waitingFor === undefined
      ? ""
      : `, waits for generation ${swap.waitingFor.generation}, which is ${swap.waitingFor.why}`
  const mode = swap.mode ?? swap.wish
  return [`${swap.kind} ${swap.id} (${mode}) is ${swap.phase}, for ${formatDuration(now - swap.requestedAt)}${waits}`]
}

const SHOWN_SWAPS = 5

const swaps = (status: Status, now: number): ReadonlyArray<string> =>
  status.swaps
    .toSorted((a, b) => b.id - a.id)
    .slice(0, SHOWN_SWAPS)
    .map((one) => {
      const age = formatAge(now - one.requestedAt - one.durationMs)
      const mode = one.mode === undefined ? "" : ` (${one.mode})`
      return `${one.kind} ${one.id}${mode}, ${age} ago: ${SwapText.formatRecord(one)}`
    })

/** The whole page. */
export const format = (status: Status, now: number): string => {
  const { restarts } = status
  const sections = [
    [headline(status, now)],
    status.listeners.map((one) => `  ${one.name}=${one.address} (backlog ${one.backlog})`),
    [`  mode ${status.mode}`],
    status.generations.length === 0 ? [] : ["", ...generations(status, now)],
    restarts.total === 0 ? [] : ["", `restarts: ${restarts.total}, ${restarts.failures} failed in a row`],
    running(status, now),
    status.swaps.length === 0 ? [] : ["", ...swaps(status, now)],
    status.canRollBack ? ["", "`handoff rollback` goes back to the command before"] : []
  ]
  return sections.flat().join("\n")
}

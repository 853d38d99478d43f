/**
 * The bounds that are explored exhaustively in every run of the tests, and what is asserted of each.
 */
import * as Explorer from "@handoff/core/testing/Explorer"
import type * as World from "@handoff/core/testing/World"
import { expect, it } from "vitest"

/** Time on this process's processor in milliseconds: what else the machine does is not counted. */
const clock = (): number => process.cpuUsage().user / 1_000

/** Explores everything within the bounds, and prints what that was. */
export const holds = (name: string, model: World.WorldModel): void => {
  it(`${name}: everything that is promised holds in every state`, { timeout: 900_000 }, () => {
    const result = Explorer.explore(model, { clock })
    console.log(Explorer.summary(name, result))
    expect(result.broken === undefined ? "" : Explorer.explain(result.broken)).toBe("")
    expect(result.complete).toBe(true)
    expect(result.settled).toBeGreaterThan(1)
  })
}

/** `phase event` of the rows of a machine's table, as printed. */
export const rowsOf = (table: ReadonlyArray<string>): ReadonlyArray<string> => {
  const [header = "", ...lines] = table
  const [event, next] = [header.indexOf("event"), header.indexOf("next")]
  let phase = ""
  return lines.flatMap((line) => {
    phase = line.slice(0, event).trim().split(",")[0] || phase
    const named = phase
    return line
      .slice(event, next)
      .trim()
      .replaceAll(/, (unhealthy|behind)/g, "")
      .split(", ")
      .map((one) => `${named} ${one}`)
  })
}

/** The rows of a table that were not taken. */
export const missing = (machine: string, table: ReadonlyArray<string>, models: ReadonlyArray<World.WorldModel>) => {
  const taken = (row: string) => models.some((model) => model.rows.has(`${machine} ${row}`))
  return [...new Set(rowsOf(table))].filter((row) => !taken(row))
}

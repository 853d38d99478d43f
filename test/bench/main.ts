/**
 * `npm run bench`: every figure beside its goal. `-- --json` prints JSON instead, `-- --only launch,planning,swaps,starts,sealed`
 * chooses.
 *
 * A comparison is a ratio within one run, both sides taking turns. A missed goal is said, it does not fail the run: the
 * machine may be busy, or another one.
 */
import { cpus, release } from "node:os"
import { ensureBuilt } from "../support/Build.ts"
import type { Row } from "./launch.ts"

const BENCHES: Readonly<Record<string, () => Promise<{ readonly run: () => Promise<ReadonlyArray<Row>> }>>> = {
  planning: () => import("./planning.ts"),
  starts: () => import("./starts.ts"),
  swaps: () => import("./swaps.ts"),
  sealed: () => import("./sealed.ts"),
  launch: () => import("./launch.ts")
}

/** Whether a value is what its goal says ("at least 3", "at most 10"); undefined without such words. */
const isMet = ({ value, goal }: Row): boolean | undefined => {
  const [, bound, number] = /at (least|most) ([\d.]+)/.exec(goal ?? "") ?? []
  if (number === undefined) return undefined
  return bound === "least" ? value >= Number(number) : value <= Number(number)
}

const verdict = (row: Row): string => {
  const met = isMet(row)
  return met === undefined ? "" : met ? "ok" : "missed"
}

const show = (row: Row): string =>
  [
    row.name.padEnd(46),
    row.value.toFixed(row.value < 10 ? 2 : 1).padStart(9),
    row.unit.padEnd(13),
    (row.goal ?? "").padEnd(22),
    verdict(row)
  ]
    .join("  ")
    .trimEnd()

const json = process.argv.includes("--json")
const only = process.argv[process.argv.indexOf("--only") + 1]?.split(",")
const wanted = Object.entries(BENCHES).filter(([name]) => !process.argv.includes("--only") || only?.includes(name))
const say = (line: string): void => {
  if (!json) console.log(line)
}

await ensureBuilt()
const machine = `${cpus().length} x ${cpus()[0]?.model ?? "?"}, Linux ${release()}, Node ${process.versions.node}`
const results: Record<string, ReadonlyArray<Row & { readonly met?: boolean }>> = {}
say(machine)
for (const [name, load] of wanted) {
  say(`\n${name}`)
  const rows = await (await load()).run()
  for (const row of rows) say(show(row))
  results[name] = rows.map((row) => {
    const met = isMet(row)
    return met === undefined ? row : { ...row, met }
  })
}
const missed = Object.values(results)
  .flat()
  .filter((row) => row.met === false)
say(`\n${missed.length === 0 ? "every goal is met" : `missed: ${missed.map(({ name }) => name).join("; ")}`}`)
if (json) console.log(JSON.stringify({ machine, results, missed: missed.map(({ name }) => name) }))

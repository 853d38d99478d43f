/**
 * What it costs to load: the entry points of the built packages and short commands, each in a fresh process, against
 * Node that runs an empty module. All take turns.
 */
import { writeFileSync } from "node:fs"
import { ROOT } from "../support/Build.ts"
import { HANDOFF, supervise } from "../support/Handoff.ts"
import { managedProcesses } from "../support/ManagedProcesses.ts"
import { temporaryDirectory } from "../support/TemporaryDirectory.ts"
import type { Row } from "./launch.ts"
import { takeTurns, timeOf } from "./Measure.ts"

const ROUNDS = 11

/** Entry points, with the goal for what an import adds to a bare start. */
const ENTRIES: ReadonlyArray<readonly [string, string | undefined]> = [
  ["@handoff/core/PlacementPlan", "at most 60"],
  ["@handoff/core/swap/Supervision", "at most 60"],
  ["@handoff/supervisor/daemon", "at most 150"],
  ["@handoff/backend-ffi/FfiBackend", undefined],
  ["@handoff/supervisor/Supervisor", undefined]
]

const BARE = "bare node"

const importRows = (times: Readonly<Record<string, number>>): ReadonlyArray<Row> =>
  ENTRIES.map(([name, goal]) => ({
    name: `import ${name}`,
    value: (times[name] ?? Number.NaN) - (times[BARE] ?? Number.NaN),
    unit: "ms over bare",
    ...(goal === undefined ? {} : { goal })
  }))

const commandRows = (times: Readonly<Record<string, number>>): ReadonlyArray<Row> =>
  (
    [
      ["--version", "at most 3.5"],
      ["status", "at most 6"]
    ] as const
  ).flatMap(([command, goal]) => {
    const value = times[command] ?? Number.NaN
    return [
      { name: `handoff ${command}`, value, unit: "ms" },
      {
        name: `handoff ${command} / ${BARE}`,
        value: value / (times[BARE] ?? Number.NaN),
        unit: "times",
        goal,
        ratioTo: BARE
      }
    ]
  })

export const run = async (): Promise<ReadonlyArray<Row>> => {
  await using processes = managedProcesses()
  using directory = temporaryDirectory("handoff-bench-")
  const empty = directory.file("empty.mjs")
  writeFileSync(empty, "")
  await supervise(processes, directory.path, { program: ["sleep", "1000"], options: ["--ready", "settle:10ms"] })
  const where = ["--name", "test", "--state-dir", directory.file("state")]
  const node = (...args: ReadonlyArray<string>) => timeOf(process.execPath, args, ROOT)
  const times = await takeTurns(
    {
      [BARE]: () => node(empty),
      ...Object.fromEntries(
        ENTRIES.map(([name]) => [
          name,
          () => node("--input-type=module", "-e", `await import(${JSON.stringify(name)})`)
        ])
      ),
      "--version": () => node(HANDOFF, "--version"),
      status: () => node(HANDOFF, "status", ...where)
    },
    ROUNDS
  )
  return [{ name: BARE, value: times[BARE] ?? Number.NaN, unit: "ms" }, ...importRows(times), ...commandRows(times)]
}

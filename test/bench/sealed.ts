/**
 * Sealed swaps: against the supervisor of the Rust crate, and as a client sees them.
 *
 * The crate's supervisor and ours swap the same daemons that do nothing, the Rust one and ours, and take turns in chunks;
 * both write their journal to the same disk. The crate's time is that of its `perform_handoff`; ours goes on until the
 * successor answers on the handoff socket. Without the Rust programs (cargo) only ours is measured.
 *
 * The gap: requests at a fixed rate to the SQLite service of the examples, swapped again and again. What a client waits at
 * most is the drain, the seal, the opening, and what is beyond them.
 *
 * Alone: `node --conditions=@handoff/source test/bench/main.ts --only sealed`
 */
import { execFile, fork } from "node:child_process"
import { once } from "node:events"
import { chmodSync, mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { promisify } from "node:util"
import { BENCH_DAEMON, BENCH_SUPERVISOR, cargo, ensureBuilt, type Swap } from "../interop/Interop.ts"
import { ROOT } from "../support/Build.ts"
import { temporaryDirectory } from "../support/TemporaryDirectory.ts"
import type { Row } from "./launch.ts"
import { median } from "./Measure.ts"
import type { Waited } from "./SealedLoad.ts"
import { type Phases, type Swapping, startSwapping } from "./Swapping.ts"

const CHUNKS = 3
/** Swaps in a chunk that count, after those that do not. */
const SWAPS = { rust: 60, node: 10 } as const
const WARM_UP = { rust: 20, node: 3 } as const

const GAP_SWAPS = 20
const RATE = 1_000
const PAUSE_MS = 400

const percentile99 = (values: ReadonlyArray<number>): number =>
  [...values].sort((a, b) => a - b)[Math.ceil(values.length * 0.99) - 1] ?? Number.NaN

const milliseconds = (name: string, value: number, goal?: string): Row => ({
  name,
  value,
  unit: "ms",
  ...(goal === undefined ? {} : { goal })
})

/** The daemon as a program without arguments, the only form that the crate's supervisor starts. */
const nodeDaemon = (path: string): string => {
  writeFileSync(path, `#!/bin/sh\nexec "${process.execPath}" "${join(import.meta.dirname, "noop.js")}"\n`)
  chmodSync(path, 0o755)
  return path
}

/** Swaps by the crate's supervisor, in a directory of their own. */
const byCrate = async (directory: string, daemon: string, swaps: number, warmUp: number) => {
  mkdirSync(directory, { recursive: true })
  const { stdout } = await promisify(execFile)(
    BENCH_SUPERVISOR,
    [
      ...["--dir", directory, "--daemon", daemon, "--journal"],
      ...["--swaps", String(swaps), "--warm-up", String(warmUp)]
    ],
    { cwd: ROOT, maxBuffer: 16 * 1024 * 1024 }
  )
  return stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Swap | { readonly event: "ended" })
    .filter((said) => said.event === "swap")
}

const swapOften = async (swapping: Swapping, swaps: number, warmUp: number): Promise<ReadonlyArray<Phases>> => {
  const all: Array<Phases> = []
  for (let round = 0; round < warmUp + swaps; round += 1) all.push(await swapping.swap())
  return all.slice(warmUp)
}

interface Compared {
  readonly ours: ReadonlyArray<Phases>
  readonly crate: ReadonlyArray<Swap>
}

const compare = async (directory: string, daemon: string, kind: keyof typeof SWAPS): Promise<Compared> => {
  await using swapping = await startSwapping({
    directory: join(directory, "ours"),
    command: [daemon],
    environment: { HANDOFF_DATA_DIR: join(directory, "ours", "data") }
  })
  const ours: Array<Phases> = []
  const crate: Array<Swap> = []
  for (let chunk = 0; chunk < CHUNKS; chunk += 1) {
    ours.push(...(await swapOften(swapping, SWAPS[kind], WARM_UP[kind])))
    if (!cargo.available) continue
    crate.push(...(await byCrate(join(directory, `crate-${chunk}`), daemon, SWAPS[kind], WARM_UP[kind])))
  }
  return { ours, crate }
}

const PHASES = ["start", "drain", "seal", "open", "publish"] as const

const comparisonRows = (what: string, { ours, crate }: Compared): ReadonlyArray<Row> => {
  const ourTimes = ours.map(({ whole }) => whole)
  const crateTimes = crate.map(({ ms }) => ms)
  const reference = `${what}, by the crate's supervisor`
  const phases = PHASES.map((phase) => milliseconds(`  ${phase}`, median(ours.map((swap) => swap[phase]))))
  const rows = [
    milliseconds(`${what}, by ours`, median(ourTimes)),
    milliseconds("  99th percentile", percentile99(ourTimes)),
    ...phases
  ]
  if (crate.length === 0) return rows
  return [
    milliseconds(reference, median(crateTimes)),
    milliseconds("  99th percentile", percentile99(crateTimes)),
    milliseconds("  start", median(crate.map((swap) => swap.hello_and_spawn_ms ?? Number.NaN))),
    milliseconds("  drain", median(crate.map((swap) => swap.drain_ms ?? Number.NaN))),
    milliseconds("  seal", median(crate.map((swap) => swap.seal_ms ?? Number.NaN))),
    milliseconds("  open", median(crate.map((swap) => swap.begin_to_ready_ms ?? Number.NaN))),
    ...rows,
    {
      name: `${what}, ours / the crate's`,
      value: median(ourTimes) / median(crateTimes),
      unit: "times",
      goal: "at most 1.5",
      ratioTo: reference
    }
  ]
}

/** For each swap the longest wait of a request that was due around it. */
const waitsIn = (swaps: ReadonlyArray<Phases>, { waits }: Waited): ReadonlyArray<number> =>
  swaps.map(({ preparedAt, gap }) =>
    Math.max(...waits.filter(([at]) => at > preparedAt - 100 && at < preparedAt + gap + 100).map(([, wait]) => wait))
  )

/** Of the requests that were due well away from any swap: what the machine costs by itself. */
const waitsBetween = (swaps: ReadonlyArray<Phases>, { waits }: Waited): ReadonlyArray<number> =>
  waits
    .filter(([at]) => !swaps.some(({ preparedAt, gap }) => at > preparedAt - 100 && at < preparedAt + gap + 100))
    .map(([, wait]) => wait)

const gapRows = async (directory: string): Promise<ReadonlyArray<Row>> => {
  await using swapping = await startSwapping({
    directory: join(directory, "gap"),
    command: [process.execPath, join(ROOT, "examples", "sealed-sqlite", "server.ts")],
    environment: { DATA_DIR: join(directory, "gap", "data") }
  })
  const load = fork(join(import.meta.dirname, "SealedLoad.ts"), [String(swapping.port), String(RATE)])
  try {
    await sleep(1_000)
    const swaps: Array<Phases> = []
    for (let round = 0; round < GAP_SWAPS; round += 1) {
      swaps.push(await swapping.swap())
      await sleep(PAUSE_MS)
    }
    load.send("stop")
    const [told] = (await once(load, "message")) as [Waited]
    const waits = waitsIn(swaps, told)
    const beyond = swaps.map(({ drain, open }, index) => (waits[index] ?? Number.NaN) - drain - open)
    const usual = median(told.waits.map(([, wait]) => wait))
    return [
      { name: `requests at ${RATE} a second, over ${GAP_SWAPS} swaps`, value: told.waits.length, unit: "requests" },
      { name: "failed", value: told.failures.length, unit: "requests", goal: "at most 0" },
      milliseconds("wait of a request, median", usual),
      milliseconds("  99th percentile between swaps", percentile99(waitsBetween(swaps, told))),
      milliseconds("longest wait of a swap, median", median(waits)),
      milliseconds("longest wait of all swaps", Math.max(...waits)),
      ...PHASES.slice(1).map((phase) => milliseconds(`  ${phase}, median`, median(swaps.map((swap) => swap[phase])))),
      milliseconds("longest wait beyond drain and open, median", median(beyond)),
      milliseconds("longest wait beyond drain and open", Math.max(...beyond), "at most 150")
    ]
  } finally {
    load.kill("SIGKILL")
  }
}

export const run = async (): Promise<ReadonlyArray<Row>> => {
  using directory = temporaryDirectory("handoff-bench-")
  await ensureBuilt()
  const node = nodeDaemon(directory.file("node-daemon"))
  const rust = cargo.available ? await compare(directory.file("rust"), BENCH_DAEMON, "rust") : undefined
  return [
    ...(rust === undefined ? [] : comparisonRows("sealed swap, Rust daemon", rust)),
    ...comparisonRows("sealed swap, Node daemon", await compare(directory.file("node"), node, "node")),
    ...(await gapRows(directory.path))
  ]
}

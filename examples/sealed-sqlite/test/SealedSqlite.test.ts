/**
 * The service under writing clients while it is swapped, well and badly, by the real command. Which misfortune comes when,
 * what each client asks, and when a swap is aborted follow from one seed: `SEED=7 npx vitest run examples/sealed-sqlite`.
 */
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { random, shuffle } from "@handoff/core/testing/Arbitraries"
import { beforeAll, expect, it } from "vitest"
import { BUILD_TIMEOUT, ensureBuilt } from "../../../test/support/Build.ts"
import { type Supervised, supervise } from "../../../test/support/Handoff.ts"
import { managedProcesses } from "../../../test/support/ManagedProcesses.ts"
import { temporaryDirectory } from "../../../test/support/TemporaryDirectory.ts"
import { audit, generations, UNDAMAGED } from "./Audit.ts"
import { ask, type Memory, startClients } from "./Clients.ts"
import type { Fault } from "./faults.ts"

beforeAll(ensureBuilt, BUILD_TIMEOUT)

const EXAMPLE = join(import.meta.dirname, "..")
const PROGRAM = [
  process.execPath,
  "--conditions=@handoff/source",
  ...["--import", join(EXAMPLE, "test", "faults.ts")],
  join(EXAMPLE, "server.ts")
]

const COMMITTED = 0
const ROLLED_BACK = 3
/** Nothing serves at the moment of the verdict; the supervisor then starts a new process. */
const NOTHING_SERVES = 6

type Story = Fault | "well" | "slow client" | "aborted"

/** Their writes are not among those that the clients count. */
const SLOW_CLIENTS = 2

/** Twenty swaps, and the exit status that each must end with; an abort may come too late. */
const STORIES: ReadonlyArray<readonly [Story, number | undefined]> = [
  ...Array.from({ length: 6 }, () => ["well", COMMITTED] as const),
  ...Array.from({ length: SLOW_CLIENTS }, () => ["slow client", COMMITTED] as const),
  ["aborted", undefined],
  ["seal-slow", COMMITTED],
  ["seal-fails", ROLLED_BACK],
  ["seal-fails-late", ROLLED_BACK],
  ["seal-killed", NOTHING_SERVES],
  ["open-fails", ROLLED_BACK],
  ["open-exits", ROLLED_BACK],
  ["open-killed", ROLLED_BACK],
  ["open-killed-late", ROLLED_BACK],
  ["open-hangs", ROLLED_BACK],
  ["unhealthy", ROLLED_BACK],
  ["behind", ROLLED_BACK]
]

/** One swap with what befalls it; gives its exit status and what it said. */
const swapWith = async (story: Story, { port, swap, command }: Supervised, data: string, abortAfterMs: number) => {
  if (story === "slow client") {
    const slow = ask(port, "PUT", "/kv/slow", { body: "in two halves", halfwayMs: 700 })
    const [ended, answered] = await Promise.all([swap(), slow.catch((error: Error) => error.message)])
    return typeof answered === "string" ? { ...ended, code: undefined, stdout: answered } : ended
  }
  if (story === "aborted") {
    const [ended] = await Promise.all([swap(), sleep(abortAfterMs).then(() => command("abort"))])
    return ended
  }
  if (story !== "well") writeFileSync(join(data, "fault"), story)
  return swap()
}

/** Until some generation serves, which is at once unless the one that served was lost. */
const serves = async ({ status }: Supervised): Promise<void> => {
  while ((await status()).serving === undefined) await sleep(100)
}

/** Processes that answered a request which was sent before they opened the database: it waited in the gap. */
const waitedFor = (data: string, { answered }: Memory): ReadonlySet<number> => {
  const first = new Map<number, number>()
  for (const { what, pid, at } of generations(data)) if (what === "open" && !first.has(pid)) first.set(pid, at)
  const waited = answered.filter(({ pid = 0, sentAt }) => sentAt < (first.get(pid) ?? 0))
  return new Set(waited.map(({ pid = 0 }) => pid))
}

it("20 swaps, most of them unlucky, lose no write, fail no request and never have two writers", {
  timeout: 180_000
}, async () => {
  const seed = Number(process.env.SEED ?? Date.now() % 100_000)
  const next = random(seed)
  await using processes = managedProcesses()
  using directory = temporaryDirectory()
  const data = directory.file("data")
  const supervised = await supervise(processes, directory.path, {
    program: PROGRAM,
    options: ["--deadline", "5s"],
    environment: { DATA_DIR: data }
  })
  using clients = startClients(supervised.port, { count: 8, random: next })
  const told: Array<string> = []
  const wrong: Array<string> = []
  for (const [story, expected] of shuffle(next, STORIES)) {
    await sleep(100 + next(200))
    const { code, stdout } = await swapWith(story, supervised, data, next(500))
    told.push(`${story}: ${stdout.split("\n")[0]}`)
    if (code !== expected && expected !== undefined) wrong.push(`${story} ended with ${code}: ${stdout}`)
    if (code === NOTHING_SERVES) await serves(supervised)
  }
  const memory = await clients.stop()
  await supervised.command("stop")
  const { requests, revisions, longestWaitMs } = memory
  const summary = `seed ${seed}: ${requests} requests, ${revisions.length} writes, longest wait ${Math.round(longestWaitMs)} ms`
  console.log(summary)
  const story = [summary, ...told, supervised.run.output().stdout].join("\n")
  expect(wrong, story).toEqual([])
  expect(audit(data, memory), story).toEqual({ ...UNDAMAGED, unaccounted: SLOW_CLIENTS })
  // Ten times another process comes to serve; a gap is short, and on a busy machine the clients may sleep through it.
  expect(waitedFor(data, memory).size, story).toBeGreaterThanOrEqual(5)
  expect(processes.alive()).toEqual([])
})

it("docs/sealed.md shows the lines of the daemon as they are", () => {
  const server = readFileSync(join(EXAMPLE, "server.ts"), "utf8")
  const lines = server.slice(server.indexOf("const store"), server.indexOf("console.log"))
  expect(readFileSync(join(EXAMPLE, "..", "..", "docs", "sealed.md"), "utf8")).toContain(lines)
})

/**
 * The main job: a real server behind the real command is replaced again and again while clients hammer it.
 */
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { beforeAll, expect, it } from "vitest"
import { BUILD_TIMEOUT, ensureBuilt, ROOT } from "../support/Build.ts"
import { supervise } from "../support/Handoff.ts"
import { startLoad, startWrk } from "../support/Load.ts"
import { managedProcesses } from "../support/ManagedProcesses.ts"
import { descriptorsOf } from "../support/ProcessTable.ts"
import { temporaryDirectory } from "../support/TemporaryDirectory.ts"
import { requireTool } from "../support/Tools.ts"

const SWAPS = 20
const SERVER = join(ROOT, "examples", "node-http", "server.js")
const wrk = requireTool("wrk")

beforeAll(ensureBuilt, BUILD_TIMEOUT)

/** Descriptor kinds with a number of their own taken off: `socket:[123]` counts as `socket`. */
const census = (pid: number): Record<string, number> => {
  const counted: Record<string, number> = {}
  for (const target of descriptorsOf(pid).values()) {
    const kind = target.replace(/:\[\d+\]$/, "").replace(/-\d+\./, "-N.")
    counted[kind] = (counted[kind] ?? 0) + 1
  }
  return counted
}

/** The census of a supervisor that is not writing its document down at that moment. */
const censusAtRest = async (pid: number): Promise<Record<string, number>> => {
  for (;;) {
    const counted = census(pid)
    if (!Object.keys(counted).some((target) => target.endsWith(".new"))) return counted
    await sleep(10)
  }
}

const versioned = (version: number) => ["--env", `VERSION=${version}`, "--", process.execPath, SERVER]

it(`${SWAPS} swaps under wrk and clients of both kinds: no request fails, no generation and no descriptor is left${wrk.reason}`, {
  timeout: 120_000
}, async () => {
  await using processes = managedProcesses()
  using directory = temporaryDirectory()
  const supervised = await supervise(processes, directory.path, {
    program: [process.execPath, SERVER],
    environment: { VERSION: "0" }
  })
  const { pid, port } = supervised
  const before = await censusAtRest(pid)
  using load = startLoad({ port })
  using kept = wrk.available ? startWrk(wrk.path, { port, connections: 16, seconds: 100 }) : undefined
  using fresh = wrk.available ? startWrk(wrk.path, { port, connections: 4, seconds: 100, fresh: true }) : undefined
  for (let version = 1; version <= SWAPS; version++) {
    const swapped = await supervised.swap(...versioned(version))
    expect(swapped.code, swapped.stdout + swapped.stderr).toBe(0)
  }
  const reports = [await kept?.stop(), await fresh?.stop()].filter((report) => report !== undefined)
  for (const report of reports) expect(report.failed, report.text).toBe(0)
  const { requests, failed, byVersion, errors } = await load.stop()
  expect({ failed, errors }).toEqual({ failed: 0, errors: {} })
  expect(requests).toBeGreaterThan(1000)
  expect(byVersion[String(SWAPS)]).toBeGreaterThan(0)
  expect(Object.keys(byVersion).length).toBeGreaterThan(SWAPS / 2)

  await expect.poll(async () => (await supervised.status()).generations.length, { timeout: 10_000 }).toBe(1)
  const status = await supervised.status()
  expect(status.swaps.map((swap) => swap.outcome)).toEqual(Array.from({ length: SWAPS }, () => "committed"))
  expect(status.swaps.reduce((sum, swap) => sum + swap.cut, 0)).toBe(0)
  const serving = status.generations[0]?.pid
  expect([...processes.alive()].sort()).toEqual([pid, serving].sort())
  await expect.poll(() => census(pid)).toEqual(before)
})

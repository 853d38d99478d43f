/**
 * Broken versions: the old one keeps serving, the new one ends for certain, and who typed `swap` is told why.
 */
import { get } from "node:http"
import { join } from "node:path"
import { afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest"
import { BUILD_TIMEOUT, ensureBuilt, ROOT } from "../support/Build.ts"
import { type Supervised, supervise } from "../support/Handoff.ts"
import { startLoad } from "../support/Load.ts"
import { type ManagedProcesses, managedProcesses } from "../support/ManagedProcesses.ts"
import { type TemporaryDirectory, temporaryDirectory } from "../support/TemporaryDirectory.ts"

const SERVER = join(ROOT, "examples", "node-http", "server.js")
const BROKEN = join(import.meta.dirname, "servers", "broken.js")
const PLAIN = join(import.meta.dirname, "servers", "plain.js")
const broken = (how: string) => ["--", process.execPath, BROKEN, how]

beforeAll(ensureBuilt, BUILD_TIMEOUT)

let processes: ManagedProcesses
let directory: TemporaryDirectory

beforeEach(() => {
  processes = managedProcesses()
  directory = temporaryDirectory()
})

afterEach(async () => {
  await processes[Symbol.asyncDispose]()
  directory[Symbol.dispose]()
})

const started = (...options: ReadonlyArray<string>): Promise<Supervised> =>
  supervise(processes, directory.path, {
    program: [process.execPath, SERVER],
    options,
    environment: { VERSION: "good" }
  })

const ask = (port: number, path: string): Promise<{ readonly complete: boolean; readonly version: string }> =>
  new Promise((resolve, reject) => {
    get({ host: "127.0.0.1", port, path, agent: false }, (response) => {
      let body = ""
      response.on("data", (chunk) => {
        body += String(chunk)
      })
      response.on("error", reject)
      response.on("end", () =>
        resolve({ complete: response.complete, version: (JSON.parse(body) as { version: string }).version })
      )
    }).on("error", reject)
  })

/** Until the old version has heard that it is to leave, a new connection may be its. */
const expectServing = (port: number, version: string) =>
  expect.poll(async () => (await ask(port, "/")).version, { timeout: 10_000 }).toBe(version)

/** Nothing runs but the supervisor and what it serves with. */
const expectAlone = async (supervised: Supervised): Promise<void> => {
  const status = await supervised.status()
  expect(status.generations.map(({ phase }) => phase)).toEqual(["serving"])
  const pids = [supervised.pid, status.generations[0]?.pid].sort()
  await expect.poll(() => [...processes.alive()].sort(), { timeout: 5_000 }).toEqual(pids)
}

const expectNextSwapWorks = async (supervised: Supervised): Promise<void> => {
  const next = await supervised.swap("--env", "VERSION=next", "--", process.execPath, SERVER)
  expect(next.code, next.stdout + next.stderr).toBe(0)
  await expectServing(supervised.port, "next")
}

describe("a broken version", { timeout: 60_000 }, () => {
  it("that exits at start: status 3, the reason, the time and its last lines; no request fails", async () => {
    const supervised = await started()
    using load = startLoad({ port: supervised.port, kept: 4, fresh: 4 })
    const swapped = await supervised.swap(...broken("exits"))
    expect(swapped.code).toBe(3)
    expect(swapped.stdout).toMatch(/exited with status 78 .*\d+ (ms|s)/)
    expect(swapped.stdout).toContain("cannot read the configuration")
    expect(swapped.stdout).toContain("generation 1 keeps serving")
    expect(await load.stop()).toMatchObject({ failed: 0 })
    await expectAlone(supervised)
    await expectNextSwapWorks(supervised)
  })

  it("that hangs and ignores SIGTERM, with a child that does so too: killed by group; a 3 s request stays whole", async () => {
    const supervised = await started("--ready-timeout", "1s")
    const slow = ask(supervised.port, "/slow?ms=3000")
    using load = startLoad({ port: supervised.port, kept: 4, fresh: 4 })
    const swapped = await supervised.swap(...broken("hangs"))
    expect(swapped.code).toBe(3)
    expect(swapped.stdout).toMatch(/not ready 1\.\d s after its start/)
    expect(swapped.stdout).toContain("waiting for the database")
    expect(await slow).toEqual({ complete: true, version: "good" })
    expect(await load.stop()).toMatchObject({ failed: 0 })
    await expectAlone(supervised)
    await expectNextSwapWorks(supervised)
  })

  it("that accepts but never says that it is ready: what it accepted is answered before it ends", async () => {
    const supervised = await started("--ready", "notify", "--ready-timeout", "2s")
    using load = startLoad({ port: supervised.port, kept: 0, fresh: 8 })
    const swapped = await supervised.swap(...broken("accepts"))
    expect(swapped.code).toBe(3)
    expect(swapped.stdout).toContain("it was seen accepting")
    const { failed, errors, byVersion } = await load.stop()
    expect(byVersion.broken).toBeGreaterThan(0)
    expect({ failed, errors }).toEqual({ failed: 0, errors: {} })
    await expectAlone(supervised)
    await expectNextSwapWorks(supervised)
  })

  it("that accepts and then exits: the verdict says how many connections were cut with it", async () => {
    const supervised = await started("--ready", "notify")
    using load = startLoad({ port: supervised.port, kept: 0, fresh: 8 })
    const swapped = await supervised.swap("--json", ...broken("accepts-then-exits"))
    expect(swapped.code).toBe(3)
    const verdict = JSON.parse(swapped.stdout.trim().split("\n").at(-1) ?? "null")
    expect(verdict.record.cut).toBeGreaterThan(0)
    expect(verdict.message).toMatch(/cut/)
    const { failed } = await load.stop()
    expect(failed).toBeGreaterThan(0)
    await expectAlone(supervised)
    await expectNextSwapWorks(supervised)
  })
})

describe("a wrapper", { timeout: 60_000 }, () => {
  // It leaves LISTEN_PID as the shell's, so that the server in it must be one that does not look.
  const wrapped = ["sh", "-c", `'${process.execPath}' '${PLAIN}' wrapped & wait`]

  it("that is replaced leaves no child that holds the listener: its group is ended", async () => {
    const supervised = await supervise(processes, directory.path, { program: wrapped, options: ["--grace", "2s"] })
    const swapped = await supervised.swap("--env", "VERSION=next", "--", process.execPath, SERVER)
    expect(swapped.code, swapped.stdout + swapped.stderr).toBe(0)
    await expect.poll(async () => (await supervised.status()).generations.length, { timeout: 10_000 }).toBe(1)
    await expectAlone(supervised)
    expect((await ask(supervised.port, "/")).version).toBe("next")
  })

  it("that is the new version serves through its child, and stops with it", async () => {
    // A version that sent READY=1 makes its successors send it too, unless readiness is to be seen.
    const supervised = await started("--grace", "2s", "--ready", "accepting")
    const swapped = await supervised.swap("--", ...wrapped)
    expect(swapped.code, swapped.stdout + swapped.stderr).toBe(0)
    await expectServing(supervised.port, "wrapped")
    await supervised.command("stop")
    await supervised.run.ended
    expect(processes.alive()).toEqual([])
  })
})

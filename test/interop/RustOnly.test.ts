/**
 * The Rust programs alone, in every role: what is asked of this project's programs beside them is asked of them first, so that
 * a failure elsewhere is not the harness's own.
 */
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { beforeAll, describe, expect, it } from "vitest"
import { managedProcesses } from "../support/ManagedProcesses.ts"
import { isAlive } from "../support/ProcessTable.ts"
import { temporaryDirectory } from "../support/TemporaryDirectory.ts"
import { handOff, startIncumbent } from "./HandOff.ts"
import { BUILD_TIMEOUT, cargo, ensureBuilt, RUST_DAEMON, RUST_SUPERVISOR, startRustSupervisor } from "./Interop.ts"
import { place } from "./Place.ts"
import { append, audit, damage, startWriters, UNDAMAGED, wroteInTurn } from "./Writers.ts"

const SWAPS = 20

beforeAll(ensureBuilt, BUILD_TIMEOUT)

describe("the audit of a log", () => {
  const lines = (...pids: ReadonlyArray<number>) => pids.map((pid, index) => ({ pid, text: `line ${index}` }))

  it("finds a lost line, one written twice, and one moved by a stranger's", () => {
    const log = [...lines(1, 1), { pid: 2, text: "line 0" }, { pid: 2, text: "stray" }, { pid: 1, text: "line 4" }]
    const acknowledged = [0, 1, 3, 4].map((line) => ({ text: `line ${line}`, revision: line }))
    expect(
      damage(
        log,
        acknowledged.map((each) => ({ ...each, revision: each.revision + 1 }))
      )
    ).toEqual({
      lost: ["line 3"],
      doubled: ["line 0"],
      moved: []
    })
    expect(damage(log, [{ text: "line 4", revision: 4 }]).moved).toHaveLength(1)
  })

  it("finds a process that writes after another has opened the log", () => {
    expect(wroteInTurn(lines(1, 1, 2, 2), [1, 2])).toBe(true)
    expect(wroteInTurn(lines(1, 2, 1), [1, 2])).toBe(false)
    expect(wroteInTurn(lines(1, 2, 1), [1, 2, 1])).toBe(true)
    expect(wroteInTurn(lines(3), [1, 2])).toBe(false)
  })
})

describe.skipIf(!cargo.available)(`Rust in all roles${cargo.reason}`, () => {
  it(`${SWAPS} swaps under writers: no line is lost, nobody writes out of turn, one lock`, {
    timeout: 90_000
  }, async () => {
    await using processes = managedProcesses()
    using directory = temporaryDirectory()
    const where = place(directory.path)
    const supervisor = await startRustSupervisor(processes, where, { daemon: RUST_DAEMON })
    using writers = startWriters(supervisor.port)
    const pids = [supervisor.first]
    for (let round = 0; round < SWAPS; round += 1) {
      const swap = await supervisor.swap(RUST_DAEMON)
      expect(swap).toMatchObject({ committed: true, abort_reason: null, error: null, aftermath: null })
      pids.push(swap.pid)
      const sofar = writers.count()
      await expect.poll(writers.count, { timeout: 10_000 }).toBeGreaterThan(sofar)
    }
    const serving = pids.at(-1) ?? 0
    expect(audit(where, await writers.stop())).toEqual(UNDAMAGED)
    expect(where.openings()).toEqual(pids)
    expect(where.lockHolders(processes.alive())).toEqual([serving])
    expect([...processes.alive()].sort()).toEqual([supervisor.process.pid, serving].sort())
    expect((await supervisor.quit({ stop: true })).code).toBe(0)
    expect(processes.alive()).toEqual([])
  })

  it("a seal that fails leaves the incumbent writing, and the next swap commits", { timeout: 60_000 }, async () => {
    await using processes = managedProcesses()
    using directory = temporaryDirectory()
    const where = place(directory.path)
    const supervisor = await startRustSupervisor(processes, where, {
      daemon: RUST_DAEMON,
      daemonVariables: { HANDOFF_SEAL_FAILS_ONCE: "1" }
    })
    using writers = startWriters(supervisor.port)
    const failed = await supervisor.swap(RUST_DAEMON)
    expect(failed).toMatchObject({ committed: false, error: null, pid: supervisor.first })
    expect(failed.abort_reason).toMatch(/^seal failed: /)
    expect(where.lockHolders(processes.alive())).toEqual([supervisor.first])
    await append(supervisor.port, "after the failed seal")
    const swapped = await supervisor.swap(RUST_DAEMON)
    expect(swapped).toMatchObject({ committed: true, aftermath: null, predecessor: supervisor.first })
    await append(supervisor.port, "after the swap")
    expect(audit(where, await writers.stop())).toEqual(UNDAMAGED)
    expect(where.openings()).toEqual([supervisor.first, swapped.pid])
  })

  it("a successor killed after Begin: the incumbent takes the lock back and goes on", { timeout: 60_000 }, async () => {
    await using processes = managedProcesses()
    using directory = temporaryDirectory()
    const where = place(directory.path)
    const supervisor = await startRustSupervisor(processes, where, { daemon: RUST_DAEMON })
    using writers = startWriters(supervisor.port)
    const attempt = place(directory.path, "attempt")
    const swapping = supervisor.swap(RUST_DAEMON, { ...attempt.variables, HANDOFF_READY_DELAY_MS: "60000" })
    const victim = Number(await attempt.awaitMarker("successor-begin"))
    await expect.poll(() => where.lockHolders(processes.alive()), { timeout: 10_000 }).toEqual([victim])
    await expect.poll(where.openings, { timeout: 10_000 }).toContain(victim)
    process.kill(victim, "SIGKILL")
    const killed = await swapping
    expect(killed).toMatchObject({ committed: false, error: null, pid: supervisor.first })
    await append(supervisor.port, "after the rollback")
    expect(where.lockHolders(processes.alive())).toEqual([supervisor.first])
    expect(isAlive(victim)).toBe(false)
    const swapped = await supervisor.swap(RUST_DAEMON)
    expect(swapped).toMatchObject({ committed: true, aftermath: null })
    await append(supervisor.port, "after the swap")
    expect(audit(where, await writers.stop())).toEqual(UNDAMAGED)
    expect(where.openings()).toEqual([supervisor.first, victim, supervisor.first, swapped.pid])
  })
})

describe.skipIf(!cargo.available)(`the contract of an external fault test${cargo.reason}`, () => {
  const programs = { supervisor: RUST_SUPERVISOR, daemon: RUST_DAEMON }

  it("status 0 when committed; the successor lives on and answers at the control socket", async () => {
    await using processes = managedProcesses()
    using directory = temporaryDirectory()
    const where = place(directory.path)
    const incumbent = await startIncumbent(processes, where, RUST_DAEMON)
    const ended = await handOff(processes, where, programs)
    expect(ended.code, ended.output).toBe(0)
    expect((await incumbent.ended).code).toBe(0)
    const successor = Number(await where.awaitMarker("successor-pid"))
    await where.awaitMarker("successor-ready")
    expect(processes.alive()).toEqual([successor])
    for (const name of ["serving", "drain-called", "seal-called", "supervisor-committed"]) {
      expect(where.marker(name), name).toBeDefined()
    }
    expect(where.marker("resume-called")).toBeUndefined()
  })

  it("status 2 when aborted, 3 when nobody is there", async () => {
    await using processes = managedProcesses()
    using directory = temporaryDirectory()
    const where = place(directory.path)
    expect((await handOff(processes, where, programs)).code).toBe(3)
    const incumbent = await startIncumbent(processes, where, RUST_DAEMON, { HANDOFF_SEAL_FAILS_ONCE: "1" })
    expect((await handOff(processes, where, programs)).code).toBe(2)
    await where.awaitMarker("resume-called")
    expect(where.marker("supervisor-aborted")).toMatch(/^seal failed/)
    expect(processes.alive()).toEqual([incumbent.pid])
  })

  const crashes: ReadonlyArray<readonly [role: "primitive" | "successor" | "supervisor", point: string]> = [
    ["supervisor", "s-after-begin-sent"],
    ["successor", "n-before-announce-ready"],
    ["primitive", "o-inside-seal"],
    ["primitive", "o-after-commit-recv"]
  ]
  for (const [role, point] of crashes) {
    it(`${point}: a marker and status 99, and one writer is left`, async () => {
      await using processes = managedProcesses()
      using directory = temporaryDirectory()
      const where = place(directory.path)
      const incumbent = await startIncumbent(
        processes,
        where,
        RUST_DAEMON,
        role === "primitive" ? { HANDOFF_CRASH_AT: point } : {}
      )
      const ended = await handOff(processes, where, programs, {
        HANDOFF_CRASH_AT: role === "supervisor" ? point : "",
        HANDOFF_CRASH_AT_FOR_N: role === "successor" ? point : ""
      })
      expect(readFileSync(join(where.variables.HANDOFF_CRASH_MARKER_DIR ?? "", `crashed-${role}.marker`), "utf8")).toBe(
        point
      )
      const statuses = { supervisor: 99, successor: 2, primitive: point === "o-inside-seal" ? 3 : 0 }
      expect(ended.code, ended.output).toBe(statuses[role])
      if (role === "primitive") expect((await incumbent.ended).code).toBe(99)
      const successor = Number(where.marker("successor-pid"))
      const left = point === "o-inside-seal" ? [] : role === "primitive" ? [successor] : [incumbent.pid]
      await expect.poll(processes.alive, { timeout: 10_000 }).toEqual(left)
      await expect.poll(() => where.lockHolders(processes.alive()), { timeout: 10_000 }).toEqual(left)
      if (role !== "supervisor") return
      expect(existsSync(where.journal)).toBe(true)
      expect((await handOff(processes, where, programs)).code).toBe(0)
      expect(where.marker("supervisor-resume-from-journal")).toBeDefined()
      expect(existsSync(where.journal)).toBe(false)
    })
  }
})

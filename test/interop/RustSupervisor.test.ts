/**
 * The crate's supervisor with this project's daemon as incumbent, as successor, and as both.
 *
 * What is asked: no line is lost that a client saw acknowledged, no request fails, one writer at any time, and whatever
 * goes wrong with a successor, the incumbent goes on and can be swapped again.
 */
import { beforeAll, describe, expect, it } from "vitest"
import { managedProcesses } from "../support/ManagedProcesses.ts"
import { temporaryDirectory } from "../support/TemporaryDirectory.ts"
import { handOff, startIncumbent } from "./HandOff.ts"
import {
  BUILD_TIMEOUT,
  cargo,
  ensureBuilt,
  RUST_DAEMON,
  RUST_SUPERVISOR,
  startRustSupervisor,
  TYPESCRIPT_DAEMON
} from "./Interop.ts"
import { place } from "./Place.ts"
import { append, audit, startWriters, UNDAMAGED } from "./Writers.ts"

const SWAPS = 20

/** Goes through every pair of predecessor and successor: T to T, T to R, R to R, R to T. */
const CYCLE = [TYPESCRIPT_DAEMON, RUST_DAEMON, RUST_DAEMON, TYPESCRIPT_DAEMON]

const PAIRS = [
  { incumbent: "TypeScript", successor: "TypeScript" },
  { incumbent: "TypeScript", successor: "Rust" },
  { incumbent: "Rust", successor: "TypeScript" }
] as const

const DAEMONS = { TypeScript: TYPESCRIPT_DAEMON, Rust: RUST_DAEMON } as const

const SUCCESSOR_CRASHES = ["n-before-handshake", "n-after-handshake", "n-after-begin", "n-before-announce-ready"]

/** The supervisor's crash points, and who serves afterwards. */
const SUPERVISOR_CRASHES: ReadonlyArray<readonly [point: string, left: "incumbent" | "successor" | "either"]> = [
  ["s-after-o-hello", "incumbent"],
  ["s-after-spawn-successor", "incumbent"],
  ["s-after-n-hello", "incumbent"],
  ["s-after-prepare-sent", "incumbent"],
  ["s-after-drained-recv", "incumbent"],
  ["s-after-seal-request-sent", "incumbent"],
  ["s-after-seal-complete-recv", "incumbent"],
  // The successor has Begin and the end of its channel at once: it may be ready before it looks at the latter.
  ["s-after-begin-sent", "either"],
  ["s-after-ready-recv", "successor"],
  ["s-after-commit-sent", "successor"],
  ["s-after-journal-clear", "successor"]
]

/** The incumbent's crash points, and the supervisor's status: before the seal is told nobody can go on, afterwards nothing is lost. */
const INCUMBENT_CRASHES: ReadonlyArray<readonly [point: string, status: 0 | 3]> = [
  ["o-inside-drain", 3],
  ["o-after-drained-sent", 3],
  ["o-inside-seal", 3],
  ["o-after-seal-flock-released", 3],
  ["o-after-seal-complete-sent", 0],
  ["o-after-commit-recv", 0]
]

beforeAll(ensureBuilt, BUILD_TIMEOUT)

describe.skipIf(!cargo.available)(`a Rust supervisor${cargo.reason}`, () => {
  it(`${SWAPS} swaps between TypeScript and Rust daemons in every order, under writers`, {
    timeout: 120_000
  }, async () => {
    await using processes = managedProcesses()
    using directory = temporaryDirectory()
    const where = place(directory.path)
    const supervisor = await startRustSupervisor(processes, where, { daemon: TYPESCRIPT_DAEMON })
    using writers = startWriters(supervisor.port)
    const pids = [supervisor.first]
    for (let round = 0; round < SWAPS; round += 1) {
      const swap = await supervisor.swap(CYCLE[round % CYCLE.length] ?? RUST_DAEMON)
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

  for (const { incumbent, successor } of PAIRS) {
    it(`a ${incumbent} incumbent outlives every way a ${successor} successor can fail`, {
      timeout: 90_000
    }, async () => {
      await using processes = managedProcesses()
      using directory = temporaryDirectory()
      const where = place(directory.path)
      const supervisor = await startRustSupervisor(processes, where, { daemon: DAEMONS[incumbent] })
      using writers = startWriters(supervisor.port)
      for (const point of SUCCESSOR_CRASHES) {
        const attempt = place(directory.path, point)
        const swap = await supervisor.swap(DAEMONS[successor], { ...attempt.variables, HANDOFF_CRASH_AT: point })
        expect(swap, point).toMatchObject({ committed: false, pid: supervisor.first })
        expect(attempt.marker("crashed-successor"), point).toBe(point)
        await append(supervisor.port, `after ${point}`)
        expect(where.lockHolders(processes.alive()), point).toEqual([supervisor.first])
      }
      const killed = place(directory.path, "killed")
      const slow = { ...killed.variables, HANDOFF_READY_DELAY_MS: "60000" }
      const swapping = supervisor.swap(DAEMONS[successor], slow)
      const victim = Number(await killed.awaitMarker("successor-pid"))
      await expect.poll(() => where.lockHolders([victim]), { timeout: 10_000 }).toEqual([victim])
      process.kill(victim, "SIGKILL")
      expect(await swapping).toMatchObject({ committed: false, error: null, pid: supervisor.first })
      await append(supervisor.port, "after the kill")
      const swapped = await supervisor.swap(DAEMONS[successor])
      expect(swapped).toMatchObject({ committed: true, aftermath: null, predecessor: supervisor.first })
      await append(supervisor.port, "after the swap")
      expect(audit(where, await writers.stop())).toEqual(UNDAMAGED)
      expect(where.lockHolders(processes.alive())).toEqual([swapped.pid])
    })
  }

  for (const successor of ["TypeScript", "Rust"] as const) {
    it(`a TypeScript incumbent whose seal fails goes on, then hands over to ${successor}`, {
      timeout: 60_000
    }, async () => {
      await using processes = managedProcesses()
      using directory = temporaryDirectory()
      const where = place(directory.path)
      const supervisor = await startRustSupervisor(processes, where, {
        daemon: TYPESCRIPT_DAEMON,
        daemonVariables: { HANDOFF_SEAL_FAILS_ONCE: "1" }
      })
      using writers = startWriters(supervisor.port)
      const failed = await supervisor.swap(DAEMONS[successor])
      expect(failed).toMatchObject({ committed: false, error: null, pid: supervisor.first })
      expect(failed.abort_reason).toMatch(/^seal failed: /)
      await append(supervisor.port, "after the failed seal")
      expect(where.lockHolders(processes.alive())).toEqual([supervisor.first])
      const swapped = await supervisor.swap(DAEMONS[successor])
      expect(swapped).toMatchObject({ committed: true, aftermath: null, predecessor: supervisor.first })
      await append(supervisor.port, "after the swap")
      expect(audit(where, await writers.stop())).toEqual(UNDAMAGED)
    })
  }

  // O_NONBLOCK belongs to all holders of a listener, and the crate's successor clears it when it starts. An incumbent that
  // accepts until EAGAIN would then sleep in accept until the next client comes, deaf to its handoff socket.
  it("a Rust successor makes the listener blocking: an idle TypeScript incumbent still hears its supervisor", {
    timeout: 60_000
  }, async () => {
    await using processes = managedProcesses()
    using directory = temporaryDirectory()
    const where = place(directory.path)
    const supervisor = await startRustSupervisor(processes, where, { daemon: TYPESCRIPT_DAEMON })
    expect((await supervisor.swap(RUST_DAEMON, { HANDOFF_CRASH_AT: "n-after-handshake" })).committed).toBe(false)
    await append(supervisor.port, "the only client")
    const swapped = await supervisor.swap(RUST_DAEMON)
    expect(swapped).toMatchObject({ committed: true, error: null, aftermath: null })
    await append(supervisor.port, "after the swap")
    expect(where.log().map(({ pid }) => pid)).toEqual([supervisor.first, swapped.pid])
  })

  for (const [point, left] of SUPERVISOR_CRASHES) {
    it(`dead at ${point}: one TypeScript daemon is left, and the next supervisor swaps it`, {
      timeout: 60_000
    }, async () => {
      await using processes = managedProcesses()
      using directory = temporaryDirectory()
      const where = place(directory.path)
      const programs = { supervisor: RUST_SUPERVISOR, daemon: TYPESCRIPT_DAEMON }
      const incumbent = await startIncumbent(processes, where, TYPESCRIPT_DAEMON)
      const crashed = await handOff(processes, where, programs, { HANDOFF_CRASH_AT: point })
      expect(crashed.code, crashed.output).toBe(99)
      await expect.poll(() => processes.alive().length, { timeout: 15_000 }).toBe(1)
      await expect.poll(() => where.lockHolders(processes.alive()).length, { timeout: 15_000 }).toBe(1)
      const survivor = processes.alive()[0] === incumbent.pid ? "incumbent" : "successor"
      if (left !== "either") expect(survivor).toBe(left)
      const next = await handOff(processes, where, programs, { HANDOFF_CRASH_AT: "" })
      expect(next.code, next.output).toBe(0)
      expect(where.lockHolders(processes.alive())).toEqual([Number(where.marker("successor-pid"))])
    })
  }

  for (const [point, status] of INCUMBENT_CRASHES) {
    it(`a TypeScript incumbent dead at ${point}: its Rust successor ${status === 0 ? "serves" : "leaves the data alone"}`, async () => {
      await using processes = managedProcesses()
      using directory = temporaryDirectory()
      const where = place(directory.path)
      const programs = { supervisor: RUST_SUPERVISOR, daemon: RUST_DAEMON }
      const incumbent = await startIncumbent(processes, where, TYPESCRIPT_DAEMON, { HANDOFF_CRASH_AT: point })
      const ended = await handOff(processes, where, programs)
      expect(ended.code, ended.output).toBe(status)
      expect((await incumbent.ended).code).toBe(99)
      expect(where.marker("crashed-primitive")).toBe(point)
      const successor = Number(where.marker("successor-pid"))
      await expect.poll(processes.alive, { timeout: 10_000 }).toEqual(status === 0 ? [successor] : [])
      expect(where.openings()).toEqual(status === 0 ? [incumbent.pid, successor] : [incumbent.pid])
      if (status === 0) expect(where.lockHolders([successor])).toEqual([successor])
      else await startIncumbent(processes, place(directory.path, "restart"), RUST_DAEMON)
    })
  }
})

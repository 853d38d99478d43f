/**
 * The shipped supervisor, `handoff run`, with the crate's daemon as incumbent, as successor, and as both.
 *
 * What is asked: no line is lost that a client saw acknowledged, one writer at any time, a failed swap leaves a version that
 * serves and can be swapped, and a new supervisor takes over a Rust daemon that one before it left. A TypeScript daemon under
 * this supervisor on both sides is tested elsewhere (test/fault).
 */
import { once } from "node:events"
import { writeFileSync } from "node:fs"
import { type IncomingMessage, request } from "node:http"
import { dirname, join } from "node:path"
import type { SwapRecord } from "@handoff/core/swap/Supervision"
import type { SwapVerdict } from "@handoff/supervisor/AdminMessages"
import type { Status } from "@handoff/supervisor/Supervisor"
import { beforeAll, describe, expect, it } from "vitest"
import { BUILD_TIMEOUT as PACKAGES_TIMEOUT, ensureBuilt as packages } from "../support/Build.ts"
import { type Supervised, supervise } from "../support/Handoff.ts"
import { type ManagedProcesses, managedProcesses } from "../support/ManagedProcesses.ts"
import { temporaryDirectory } from "../support/TemporaryDirectory.ts"
import { BUILD_TIMEOUT, cargo, ensureBuilt, RUST_DAEMON, TYPESCRIPT_DAEMON } from "./Interop.ts"
import { type Place, place, type Variables } from "./Place.ts"
import { append, audit, startWriters, UNDAMAGED } from "./Writers.ts"

const SWAPS = 20

const DAEMONS = { TypeScript: TYPESCRIPT_DAEMON, Rust: RUST_DAEMON } as const

/** Goes through every pair of predecessor and successor: R to R, R to T, T to T, T to R. */
const CYCLE = [RUST_DAEMON, TYPESCRIPT_DAEMON, TYPESCRIPT_DAEMON, RUST_DAEMON]

const PAIRS = [
  { incumbent: "Rust", successor: "Rust" },
  { incumbent: "Rust", successor: "TypeScript" },
  { incumbent: "TypeScript", successor: "Rust" }
] as const

const SUCCESSOR_CRASHES = ["n-before-handshake", "n-after-handshake", "n-after-begin", "n-before-announce-ready"]

/** The incumbent's crash points: before it has told of its seal its data is left to a restart of its own command. */
const INCUMBENT_CRASHES = [
  ["o-inside-drain", "rolled-back"],
  ["o-after-drained-sent", "rolled-back"],
  ["o-inside-seal", "rolled-back"],
  ["o-after-seal-flock-released", "rolled-back"],
  ["o-after-seal-complete-sent", "committed"],
  ["o-after-commit-recv", "committed"]
] as const

/** Milliseconds, for what takes a moment on an idle machine. */
const PATIENCE = 20_000

const WITH_FAULTS = join(import.meta.dirname, "with-faults")

/** `handoff swap OPTIONS -- env VARIABLES PROGRAM`; env executes the program, so that the pid stays the one that was started. */
const swapTo = async (
  supervised: Supervised,
  program: ReadonlyArray<string>,
  variables: Variables = {}
): Promise<SwapRecord> => {
  const assignments = Object.entries(variables).map(([name, value]) => `${name}=${value}`)
  const { stdout, stderr } = await supervised.swap("--json", "--", "env", ...assignments, ...program)
  const verdict = stdout === "" ? undefined : (JSON.parse(stdout) as SwapVerdict)
  if (verdict?._tag !== "SwapEnded") throw new Error(`no swap was made: ${stdout}${stderr}`)
  return verdict.record
}

/** Markers of one start alone. The path of the handoff socket is the supervisor's to give. */
const attemptAt = (directory: string, name: string) => {
  const { marker, awaitMarker, variables } = place(directory, name)
  const { HANDOFF_MARKER_DIR = "", HANDOFF_CRASH_MARKER_DIR = "" } = variables
  return { marker, awaitMarker, variables: { HANDOFF_MARKER_DIR, HANDOFF_CRASH_MARKER_DIR } }
}

/** What `handoff status` asks for, without the start of a command: it is asked for until it is as expected. */
const statusOf = async (directory: string): Promise<Status> => {
  const asked = request({ socketPath: join(directory, "state", "test", "admin.sock"), path: "/status" })
  const [response] = (await once(asked.end(), "response")) as [IncomingMessage]
  return JSON.parse(Buffer.concat(await response.toArray()).toString()) as Status
}

const servingPid = async (directory: string): Promise<number | undefined> => {
  const { serving, generations } = await statusOf(directory)
  return generations.find(({ id }) => id === serving)?.pid
}

/** A place, a supervisor and its first daemon; `start` again is a new supervisor of the same name. */
const setUp = (processes: ManagedProcesses, directory: string) => {
  const where = place(directory)
  const faults = join(directory, "faults")
  return {
    where,
    /** What the next program started through WITH_FAULTS finds in its environment. */
    fault: (variables: Variables) =>
      writeFileSync(
        faults,
        Object.entries(variables)
          .map(([name, value]) => `export ${name}='${value}'\n`)
          .join("")
      ),
    start: (program: string) =>
      supervise(processes, directory, {
        program: [program],
        environment: { ...where.variables, INTEROP_FAULTS: faults }
      })
  }
}

/** One daemon is left, it serves and holds the data's lock; gives its pid. `step` is the text of a line of its own. */
const expectSettled = async (
  processes: ManagedProcesses,
  where: Place,
  supervised: Supervised,
  step: string
): Promise<number> => {
  let serving: number | undefined
  const look = async () => {
    serving = await servingPid(dirname(where.dataDir))
    return [...processes.alive()].sort()
  }
  await expect.poll(look, { timeout: PATIENCE, message: step }).toSatisfy((alive: ReadonlyArray<number>) => {
    return serving !== undefined && alive.length === 2 && alive.includes(serving)
  })
  const pid = serving ?? 0
  expect(where.lockHolders(processes.alive()), step).toEqual([pid])
  await append(supervised.port, step)
  expect(where.log().findLast(({ text }) => text === step)?.pid, step).toBe(pid)
  return pid
}

beforeAll(packages, PACKAGES_TIMEOUT)
beforeAll(ensureBuilt, BUILD_TIMEOUT)

describe.skipIf(!cargo.available)(`handoff run over Rust daemons${cargo.reason}`, () => {
  it(`${SWAPS} sealed swaps between Rust and TypeScript daemons in every order, under writers`, {
    timeout: 120_000
  }, async () => {
    await using processes = managedProcesses()
    using directory = temporaryDirectory()
    const { where, start } = setUp(processes, directory.path)
    const supervised = await start(RUST_DAEMON)
    using writers = startWriters(supervised.port)
    for (let round = 0; round < SWAPS; round += 1) {
      // Nobody asks for the mode: the handoff socket of whoever serves is what decides.
      const swapped = await swapTo(supervised, [CYCLE[round % CYCLE.length] ?? RUST_DAEMON])
      expect(swapped, `swap ${round}`).toMatchObject({ outcome: "committed", mode: "sealed", evidence: "handoff" })
      const sofar = writers.count()
      await expect.poll(writers.count, { timeout: PATIENCE }).toBeGreaterThan(sofar)
    }
    expect(audit(where, await writers.stop())).toEqual(UNDAMAGED)
    const serving = await expectSettled(processes, where, supervised, "after the swaps")
    expect(new Set(where.openings()).size).toBe(SWAPS + 1)
    expect(where.openings()).toHaveLength(SWAPS + 1)
    expect(where.openings().at(-1)).toBe(serving)
    expect((await supervised.command("stop")).code).toBe(0)
    await expect.poll(processes.alive, { timeout: PATIENCE }).toEqual([])
  })

  for (const { incumbent, successor } of PAIRS) {
    it(`a ${incumbent} incumbent outlives its failed seal and every way a ${successor} successor can fail`, {
      timeout: 120_000
    }, async () => {
      await using processes = managedProcesses()
      using directory = temporaryDirectory()
      const { where, start } = setUp(processes, directory.path)
      const supervised = await start(DAEMONS[incumbent])
      using writers = startWriters(supervised.port)
      const sealing = await swapTo(supervised, [DAEMONS[incumbent]], { HANDOFF_SEAL_FAILS_ONCE: "1" })
      expect(sealing.outcome).toBe("committed")
      const first = await expectSettled(processes, where, supervised, "before the failures")

      const unsealed = await swapTo(supervised, [DAEMONS[successor]])
      expect(unsealed).toMatchObject({ outcome: "rolled-back", failure: { _tag: "HandoffFailed", phase: "sealing" } })
      expect(await expectSettled(processes, where, supervised, "after the failed seal")).toBe(first)

      for (const point of SUCCESSOR_CRASHES) {
        const attempt = attemptAt(directory.path, point)
        const variables = { ...attempt.variables, HANDOFF_CRASH_ROLE: "successor", HANDOFF_CRASH_AT: point }
        expect(await swapTo(supervised, [DAEMONS[successor]], variables), point).toMatchObject({
          outcome: "rolled-back",
          mode: "sealed"
        })
        expect(attempt.marker("crashed-successor"), point).toBe(point)
        expect(await expectSettled(processes, where, supervised, `after ${point}`)).toBe(first)
      }

      const killed = attemptAt(directory.path, "killed")
      const slow = { ...killed.variables, HANDOFF_READY_DELAY_MS: "60000" }
      const swapping = swapTo(supervised, [DAEMONS[successor]], slow)
      const victim = Number(await killed.awaitMarker("successor-pid"))
      await expect.poll(() => where.lockHolders([victim]), { timeout: PATIENCE }).toEqual([victim])
      process.kill(victim, "SIGKILL")
      expect(await swapping).toMatchObject({ outcome: "rolled-back", failure: { _tag: "Exited" } })
      expect(await expectSettled(processes, where, supervised, "after the kill")).toBe(first)

      expect(await swapTo(supervised, [DAEMONS[successor]])).toMatchObject({ outcome: "committed", mode: "sealed" })
      expect(await expectSettled(processes, where, supervised, "after the swap")).not.toBe(first)
      expect(audit(where, await writers.stop())).toEqual(UNDAMAGED)
    })
  }

  for (const [incumbent, successor] of [
    ["Rust", "TypeScript"],
    ["TypeScript", "Rust"]
  ] as const) {
    it(`a ${incumbent} incumbent dead at any point of a swap to ${successor}: one version serves, nothing is lost`, {
      timeout: 120_000
    }, async () => {
      await using processes = managedProcesses()
      using directory = temporaryDirectory()
      const { where, fault, start } = setUp(processes, directory.path)
      const supervised = await start(DAEMONS[incumbent])
      using writers = startWriters(supervised.port)
      for (const [point, outcome] of INCUMBENT_CRASHES) {
        const attempt = attemptAt(directory.path, point)
        fault({ ...attempt.variables, HANDOFF_CRASH_ROLE: "primitive", HANDOFF_CRASH_AT: point })
        expect(await swapTo(supervised, [WITH_FAULTS, DAEMONS[incumbent]]), point).toMatchObject({
          outcome: "committed",
          mode: "sealed"
        })
        const doomed = await expectSettled(processes, where, supervised, `before ${point}`)
        expect(await swapTo(supervised, [DAEMONS[successor]]), point).toMatchObject({ outcome, mode: "sealed" })
        expect(await expectSettled(processes, where, supervised, `after ${point}`)).not.toBe(doomed)
        expect(attempt.marker("crashed-primitive"), point).toBe(point)
      }
      expect(await swapTo(supervised, [DAEMONS[successor]])).toMatchObject({ outcome: "committed", mode: "sealed" })
      await expectSettled(processes, where, supervised, "after the last swap")
      // What was in flight in a process that died is cut, and was not acknowledged.
      const { failures, ...damage } = audit(where, await writers.stop())
      expect(damage).toEqual({ lost: [], doubled: [], moved: [], inTurn: true })
      expect(failures.filter((failure) => failure !== "ECONNRESET")).toEqual([])
    })
  }

  it("kill -9 of the supervisor while a Rust daemon serves: a new one goes on with it, and swaps it at once", {
    timeout: 90_000
  }, async () => {
    await using processes = managedProcesses()
    using directory = temporaryDirectory()
    const { where, start } = setUp(processes, directory.path)
    const before = await start(RUST_DAEMON)
    using writers = startWriters(before.port)
    let serving = await expectSettled(processes, where, before, "before the kills")
    let dead = before
    for (const [round, next] of [RUST_DAEMON, TYPESCRIPT_DAEMON, RUST_DAEMON].entries()) {
      process.kill(dead.pid, "SIGKILL")
      await dead.run.ended
      const sofar = writers.count()
      await expect.poll(writers.count, { timeout: PATIENCE }).toBeGreaterThan(sofar)
      const supervised = await start(RUST_DAEMON)
      expect(supervised.port).toBe(before.port)
      expect(await servingPid(directory.path)).toBe(serving)
      expect(await swapTo(supervised, [next])).toMatchObject({ outcome: "committed", mode: "sealed" })
      const successor = await expectSettled(processes, where, supervised, `after swap ${round}`)
      expect(successor).not.toBe(serving)
      serving = successor
      dead = supervised
    }
    expect(audit(where, await writers.stop())).toEqual(UNDAMAGED)
  })
})

/**
 * "The contract of an external fault test": one process per role, which speak through the environment and files alone. Any
 * party may be exchanged for one of the Rust crate; here our supervisor hands daemons of both kinds over, crashes with
 * them, and goes on where a supervisor of the other kind died.
 */
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { beforeAll, describe, expect, it } from "vitest"
import { handOff, startIncumbent } from "../interop/HandOff.ts"
import {
  BUILD_TIMEOUT,
  cargo,
  ensureBuilt,
  RUST_DAEMON,
  RUST_SUPERVISOR,
  TYPESCRIPT_DAEMON
} from "../interop/Interop.ts"
import { type Place, place, type Variables } from "../interop/Place.ts"
import { type ManagedProcesses, managedProcesses } from "../support/ManagedProcesses.ts"
import { temporaryDirectory } from "../support/TemporaryDirectory.ts"

const OURS = join(import.meta.dirname, "typescript-supervisor")

const DAEMONS = { TypeScript: TYPESCRIPT_DAEMON, Rust: RUST_DAEMON } as const
const SUPERVISORS = { TypeScript: OURS, Rust: RUST_SUPERVISOR } as const

type Kind = keyof typeof DAEMONS

const PAIRS: ReadonlyArray<readonly [incumbent: Kind, successor: Kind]> = [
  ["TypeScript", "TypeScript"],
  ["TypeScript", "Rust"],
  ["Rust", "TypeScript"],
  ["Rust", "Rust"]
]

/** Status of the supervisor when a party dies, and who is left; `either`: whoever the kernel let go first. */
const CRASHES: ReadonlyArray<
  readonly [role: "primitive" | "successor" | "supervisor", point: string, status: number, left: string]
> = [
  ["supervisor", "s-after-n-hello", 99, "incumbent"],
  ["supervisor", "s-after-seal-complete-recv", 99, "incumbent"],
  ["supervisor", "s-after-begin-sent", 99, "either"],
  ["supervisor", "s-after-ready-recv", 99, "successor"],
  ["supervisor", "s-after-journal-clear", 99, "successor"],
  ["successor", "n-before-handshake", 2, "incumbent"],
  ["successor", "n-before-announce-ready", 2, "incumbent"],
  ["primitive", "o-inside-drain", 3, "nobody"],
  ["primitive", "o-inside-seal", 3, "nobody"],
  ["primitive", "o-after-commit-recv", 0, "successor"]
]

/** The deaths of which each kind of daemon has a part of its own to show. */
const MIXED = ["s-after-begin-sent", "n-before-announce-ready", "o-inside-seal", "o-after-commit-recv"]

/** Only with every party of our own can the test do without cargo. */
const needsCargo = (...kinds: ReadonlyArray<Kind>): boolean => kinds.includes("Rust") && !cargo.available

const nameOf = (pair: readonly [Kind, Kind]): string => pair.join(" to ") + (needsCargo(...pair) ? cargo.reason : "")

const needsAll = (pair: readonly [Kind, Kind]): boolean => !pair.includes("Rust")

beforeAll(ensureBuilt, BUILD_TIMEOUT)

interface Play {
  readonly processes: ManagedProcesses
  readonly where: Place
  /** Pid of the first daemon. */
  readonly incumbent: number
  readonly handOff: (variables?: Variables, supervisor?: Kind) => ReturnType<typeof handOff>
}

const play = async (
  [incumbent, successor]: readonly [Kind, Kind],
  faults: Variables,
  body: (it: Play) => Promise<void>
): Promise<void> => {
  await using processes = managedProcesses()
  using directory = temporaryDirectory()
  const where = place(directory.path)
  const first = await startIncumbent(processes, where, DAEMONS[incumbent], faults)
  await body({
    processes,
    where,
    incumbent: first.pid,
    handOff: (variables = {}, supervisor = "TypeScript") =>
      handOff(processes, where, { supervisor: SUPERVISORS[supervisor], daemon: DAEMONS[successor] }, variables)
  })
}

/** One daemon lives, it holds the lock, and it says whose. */
const survivor = async ({ processes, where }: Play): Promise<number | undefined> => {
  await expect.poll(() => processes.alive().length, { timeout: 15_000 }).toBeLessThan(2)
  const [pid] = processes.alive()
  if (pid !== undefined) await expect.poll(() => where.lockHolders([pid]), { timeout: 15_000 }).toEqual([pid])
  return pid
}

describe("our supervisor, one handoff", { timeout: 90_000 }, () => {
  for (const pair of PAIRS) {
    it.skipIf(needsCargo(...pair))(`of ${nameOf(pair)}: committed, and once more`, () =>
      play(pair, {}, async (it) => {
        const ended = await it.handOff()
        expect(ended.code, ended.output).toBe(0)
        const successor = Number(
          await it.where.awaitMarker("successor-ready").then(() => it.where.marker("successor-pid"))
        )
        expect(await survivor(it)).toBe(successor)
        for (const name of ["drain-called", "seal-called", "supervisor-committed"]) {
          expect(it.where.marker(name), name).toBeDefined()
        }
        expect(it.where.marker("resume-called")).toBeUndefined()
        expect(it.where.marker("supervisor-resume-from-journal")).toBeUndefined()
        expect(existsSync(it.where.journal)).toBe(false)
        const again = await it.handOff()
        expect(again.code, again.output).toBe(0)
        expect(await survivor(it)).not.toBe(successor)
      })
    )

    it.skipIf(needsCargo(...pair))(`of ${nameOf(pair)}: aborted when the seal fails`, () =>
      play(pair, { HANDOFF_SEAL_FAILS_ONCE: "1" }, async (it) => {
        const ended = await it.handOff()
        expect(ended.code, ended.output).toBe(2)
        expect(it.where.marker("supervisor-aborted")).toMatch(/could not seal its data/)
        expect(await survivor(it)).toBe(it.incumbent)
        expect((await it.handOff()).code).toBe(0)
      })
    )
  }

  it("status 3 when nobody is there", async () => {
    await using processes = managedProcesses()
    using directory = temporaryDirectory()
    const where = place(directory.path)
    const ended = await handOff(processes, where, { supervisor: OURS, daemon: TYPESCRIPT_DAEMON })
    expect(ended.code, ended.output).toBe(3)
    expect(processes.alive()).toEqual([])
  })
})

describe("a party dies under our supervisor", { timeout: 90_000 }, () => {
  for (const pair of PAIRS.slice(0, 3)) {
    const crashes = needsAll(pair) ? CRASHES : CRASHES.filter(([, point]) => MIXED.includes(point))
    for (const [role, point, status, left] of crashes) {
      it.skipIf(needsCargo(...pair))(`${nameOf(pair)}, ${point}`, () =>
        play(pair, role === "primitive" ? { HANDOFF_CRASH_AT: point } : {}, async (it) => {
          const ended = await it.handOff({
            HANDOFF_CRASH_AT: role === "supervisor" ? point : "",
            HANDOFF_CRASH_AT_FOR_N: role === "successor" ? point : ""
          })
          expect(ended.code, ended.output).toBe(status)
          const markers = it.where.variables.HANDOFF_CRASH_MARKER_DIR ?? ""
          expect(readFileSync(join(markers, `crashed-${role}.marker`), "utf8")).toBe(point)
          const pid = await survivor(it)
          const successor = Number(it.where.marker("successor-pid"))
          if (left !== "either") {
            expect(pid).toBe(left === "incumbent" ? it.incumbent : left === "successor" ? successor : undefined)
          }
          if (left === "nobody") return
          const hadJournal = existsSync(it.where.journal)
          expect(hadJournal).toBe(role === "supervisor" && point !== "s-after-journal-clear")
          const next = await it.handOff()
          expect(next.code, next.output).toBe(0)
          expect(it.where.marker("supervisor-resume-from-journal") !== undefined).toBe(hadJournal)
          expect(existsSync(it.where.journal)).toBe(false)
          expect(await survivor(it)).not.toBe(pid)
        })
      )
    }
  }
})

describe("a supervisor of the other kind goes on", { timeout: 90_000 }, () => {
  const points = ["s-after-drained-recv", "s-after-begin-sent", "s-after-ready-recv"]
  for (const [dies, follows] of [
    ["Rust", "TypeScript"],
    ["TypeScript", "Rust"]
  ] as const) {
    for (const point of points) {
      it.skipIf(needsCargo(dies, follows))(`${dies}, dead at ${point}, then ${follows}${cargo.reason}`, () =>
        play(["TypeScript", "TypeScript"], {}, async (it) => {
          expect((await it.handOff({ HANDOFF_CRASH_AT: point }, dies)).code).toBe(99)
          expect(existsSync(it.where.journal)).toBe(true)
          const next = await it.handOff({}, follows)
          expect(next.code, next.output).toBe(0)
          expect(it.where.marker("supervisor-resume-from-journal")).toBeDefined()
          expect(existsSync(it.where.journal)).toBe(false)
          expect(await survivor(it)).toBe(Number(it.where.marker("successor-pid")))
        })
      )
    }
  }
})

/**
 * The swaps of a soak: one after the other, to versions good and broken, and what must come of each.
 *
 * A broken version never commits. A good one always does, unless a fault, an abort or the old version's own seal (which is asked to
 * fail once) explains why not. A swap whose supervisor was killed ends without a verdict; what became of it is
 * then read from the history.
 */
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { type Random, shuffle } from "@handoff/core/testing/Arbitraries"
import type { SwapVerdict } from "@handoff/supervisor/AdminMessages"
import { ROOT } from "../support/Build.ts"
import type { Chronicle } from "./Chronicle.ts"
import { clock } from "./Clients.ts"
import type { Gate } from "./Gate.ts"
import type { Name, Service } from "./Service.ts"

export const PROGRAMS: Readonly<Record<Name, ReadonlyArray<string>>> = {
  overlap: [process.execPath, join(ROOT, "examples", "node-http", "server.js")],
  sealed: [process.execPath, "--conditions=@handoff/source", join(ROOT, "test", "fault", "Daemon.ts")]
}

/** Milliseconds in which clients are answered that had waited for a version that hung. */
const HANG_AFTERMATH = 1_000

/** Marks a broken version, in the history too. */
const BROKEN = "SOAK_BROKEN"

interface Version {
  readonly label: string
  readonly subcommand: "swap" | "rollback"
  readonly args: ReadonlyArray<string>
  readonly broken: boolean
  /** Ends the swap from outside, so many milliseconds after its beginning. */
  readonly abortAfterMs?: number
  /** It hangs, in sealed mode with the data in its hands, until the swap ends. */
  readonly hangs?: boolean
}

const environment = (variables: Readonly<Record<string, string>>): ReadonlyArray<string> =>
  Object.entries(variables).flatMap(([name, value]) => ["--env", `${name}=${value}`])

const good = (
  name: Name,
  label: string,
  variables: Readonly<Record<string, string>> = {},
  more: Partial<Version> = {}
) => ({
  label,
  subcommand: "swap" as const,
  args: [...environment({ VERSION: label, ...variables }), "--", ...PROGRAMS[name]],
  broken: false,
  ...more
})

const broken = (
  label: string,
  variables: Readonly<Record<string, string>>,
  program: ReadonlyArray<string>,
  more: Partial<Version> = {}
) => ({
  label,
  subcommand: "swap" as const,
  args: [...environment({ [BROKEN]: "1", ...variables }), "--", ...program],
  broken: true,
  ...more
})

const rollback: Version = { label: "rollback", subcommand: "rollback", args: [], broken: false }
const BROKEN_SERVER = [process.execPath, join(ROOT, "test", "integration", "servers", "broken.js")]

const abortAfter = (next: Random) => ({ abortAfterMs: 200 + next(1_000) })

/** One round of versions for a service, to be taken in any order. */
const rounds: Readonly<Record<Name, (next: Random) => ReadonlyArray<Version>>> = {
  overlap: (next) => {
    const exclusive = good("overlap", "exclusive")
    return [
      ...Array.from({ length: 7 }, (_, index) => good("overlap", `good ${index}`)),
      rollback,
      { ...exclusive, args: ["--mode", "exclusive", ...exclusive.args] },
      good("overlap", "aborted", {}, { abortAfterMs: next(400) }),
      broken("exits", {}, [...BROKEN_SERVER, "exits"]),
      broken("hangs", {}, [...BROKEN_SERVER, "hangs"], abortAfter(next)),
      broken("accepts", {}, [...BROKEN_SERVER, "accepts"], abortAfter(next))
    ]
  },
  sealed: (next) => {
    // With nobody to succeed, while the old version is down, it would be a good one.
    const bad = (label: string, variables: Readonly<Record<string, string>>) =>
      broken(label, { HANDOFF_TEST_COLD_FAILS: "1", ...variables }, PROGRAMS.sealed)
    const crash = (point: string) => bad(point, { HANDOFF_CRASH_AT: point, HANDOFF_CRASH_ROLE: "successor" })
    return [
      ...Array.from({ length: 6 }, (_, index) => good("sealed", `good ${index}`)),
      rollback,
      good("sealed", "slow drain", { HANDOFF_DRAIN_DELAY_MS: "300" }),
      good("sealed", "slow seal", { HANDOFF_SEAL_DELAY_MS: "200" }),
      good("sealed", "slow open", { HANDOFF_READY_DELAY_MS: "300" }),
      good("sealed", "its seal fails once", { HANDOFF_SEAL_FAILS_ONCE: "1" }),
      good("sealed", "aborted", {}, { abortAfterMs: next(600) }),
      bad("open fails", { HANDOFF_TEST_OPEN_FAILS: "1" }),
      bad("unhealthy", { HANDOFF_TEST_UNHEALTHY: "1" }),
      broken("hangs in open", { HANDOFF_READY_DELAY_MS: "60000" }, PROGRAMS.sealed, {
        ...abortAfter(next),
        hangs: true
      }),
      ...["n-before-handshake", "n-after-handshake", "n-after-begin", "n-before-announce-ready"].map(crash)
    ]
  }
}

export interface Count {
  committed: number
  rolledBack: number
  /** The supervisor was killed, or could not answer. */
  unknown: number
}

/** By mode, `sealed`, `overlap`, `exclusive`; swaps that were never decided count for none. */
export type Counts = Record<string, Count>

/** Undefined where the last line tells of an error: then stderr has it in words. */
const verdictIn = (stdout: string): SwapVerdict | undefined => {
  try {
    const last: SwapVerdict | { readonly error: unknown } = JSON.parse(stdout.trim().split("\n").at(-1) ?? "")
    return "_tag" in last ? last : undefined
  } catch {
    return undefined
  }
}

/** What must not have come of a swap, in words; undefined when it is as it must be. */
const objection = (version: Version, verdict: SwapVerdict | undefined, disturbed: boolean): string | undefined => {
  if (verdict?._tag === "SwapEnded" && verdict.record.outcome === "committed") {
    return version.broken ? "a broken version committed" : undefined
  }
  if (version.broken || version.abortAfterMs !== undefined || disturbed) return undefined
  if (verdict?._tag === "SwapRefused" && verdict.refusal._tag === "NoPrevious") return undefined
  const why = verdict === undefined ? "it gave no verdict" : verdict.message
  return why.includes("seal fails once") ? undefined : `a good version did not commit: ${why}`
}

/** Asks for the end of a swap until it has ended: a supervisor that is stopped or short of descriptors may not hear it at first. */
const abort = async (service: Service, afterMs: number, ended: Promise<unknown>): Promise<void> => {
  let isOver = false
  const over = ended.then(() => {
    isOver = true
  })
  await Promise.race([sleep(afterMs), over])
  while (!isOver) {
    await service.command("abort")
    await Promise.race([sleep(300), over])
  }
}

const count = (counts: Counts, mode: string, outcome: keyof Count): void => {
  counts[mode] ??= { committed: 0, rolledBack: 0, unknown: 0 }
  counts[mode][outcome] += 1
}

export interface Swapper {
  readonly counts: Counts
  /** A version that hangs with the data in its hands is being tried, or was a moment ago. */
  readonly hangs: () => boolean
  readonly ended: Promise<void>
}

/** Swaps until `isOver`, and stands before the gate in between. */
export const startSwaps = (
  service: Service,
  diary: Chronicle,
  next: Random,
  gate: Gate,
  isOver: () => boolean,
  wrong: (invariant: string, detail: string) => void
): Swapper => {
  const counts: Counts = {}
  let hangsUntil = Number.NEGATIVE_INFINITY

  const swap = async (version: Version): Promise<void> => {
    const requested = clock()
    const release = version.hangs === true ? service.excuses.hold() : () => undefined
    if (version.hangs === true) hangsUntil = Number.POSITIVE_INFINITY
    const ending = service.command(version.subcommand, ...version.args)
    if (version.abortAfterMs !== undefined) await abort(service, version.abortAfterMs, ending)
    const { code, signal, stdout, stderr } = await ending
    release()
    if (version.hangs === true) hangsUntil = clock() + HANG_AFTERMATH
    const verdict = verdictIn(stdout)
    const what =
      verdict === undefined ? `status ${signal ?? code}: ${stderr.trim().split("\n").at(-1)}` : verdict.message
    diary.note(service.name, `swap to "${version.label}" ended: ${what}`)
    if (verdict?._tag === "SwapEnded") {
      const { mode = "undecided", outcome } = verdict.record
      count(counts, mode, outcome === "committed" ? "committed" : "rolledBack")
    } else count(counts, "undecided", "unknown")
    const problem =
      signal === null ? objection(version, verdict, service.excuses.disturbed(requested)) : "a swap had no end"
    if (problem !== undefined) wrong("swaps end as they must", `${service.name}, "${version.label}": ${problem}`)
  }

  const loop = async (): Promise<void> => {
    let round: Array<Version> = []
    while (!isOver()) {
      await gate.pass()
      if (round.length === 0) round = [...shuffle(next, rounds[service.name](next))]
      const version = round.shift()
      if (version !== undefined && !isOver()) await swap(version)
      await sleep(200 + next(1_200))
    }
  }
  return { counts, hangs: () => clock() < hangsUntil, ended: loop() }
}

/** Whether a command of the history is that of a broken version. */
export const isBroken = (command: { readonly environment?: Readonly<Record<string, string>> }): boolean =>
  command.environment?.[BROKEN] === "1"

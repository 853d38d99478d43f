/**
 * The faults of a soak. Each strikes one service, at once or at a random moment of a swap, and lasts for a random time.
 *
 *   kill     SIGKILL: the supervisor (the next one starts at once), the incumbent, the successor, supervisor and incumbent
 *   stop     SIGSTOP for up to 3 s, then SIGCONT: the supervisor, the incumbent, the successor
 *   disk full          the file system of the supervisor's document has no byte left, for up to 3 s
 *   descriptor limit   the supervisor can open next to nothing, for up to 3 s
 *   slow disk          other processes make the disk sync all the time, for up to 3 s
 *
 * A process is stopped for a moment before it is killed, so that its connections can be counted: only so many requests may
 * be reset for it.
 */
import { execFile } from "node:child_process"
import { closeSync, openSync, readdirSync, readFileSync, rmSync, writeSync } from "node:fs"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { promisify } from "node:util"
import { pick, type Random, shuffle } from "@handoff/core/testing/Arbitraries"
import type { ManagedProcesses } from "../support/ManagedProcesses.ts"
import { isAlive } from "../support/ProcessTable.ts"
import { findTool } from "../support/Tools.ts"
import type { Chronicle } from "./Chronicle.ts"
import type { Gate } from "./Gate.ts"
import { connectionsOf } from "./Kernel.ts"
import type { Service } from "./Service.ts"

export const KINDS = [
  "kill supervisor",
  "kill incumbent",
  "kill successor",
  "kill supervisor and incumbent",
  "stop supervisor",
  "stop incumbent",
  "stop successor",
  "disk full",
  "descriptor limit",
  "slow disk"
] as const
export type Kind = (typeof KINDS)[number]

export interface Surroundings {
  readonly processes: ManagedProcesses
  readonly diary: Chronicle
  /** A directory on the disk that is to be slow. */
  readonly disk: string
  /** Whether this service's document lies on a small file system of its own, which may be filled. */
  readonly mayFill: (service: Service) => boolean
}

/** One fault that is about to strike. */
interface Case extends Surroundings {
  readonly service: Service
  readonly next: Random
  /** To be called when it strikes, or when something of it is worth a line. */
  readonly struck: (how: string) => void
}

const SLOW_DISK = join(import.meta.dirname, "SlowDisk.ts")

const lasting = (next: Random): number => 300 + next(2_700)

const signal = (pid: number, name: NodeJS.Signals): void => {
  try {
    process.kill(pid, name)
  } catch {
    // It ended by itself.
  }
}

/** Kills processes that are still ours and waits for their end; gives whether they were all there. */
const kill = async ({ processes, service, struck }: Case, pids: ReadonlyArray<number>): Promise<boolean> => {
  const alive = new Set(processes.alive())
  const victims = pids.filter((pid) => alive.has(pid))
  for (const pid of victims) signal(pid, "SIGSTOP")
  const connections = victims.map((pid) => connectionsOf(pid, service.port)).reduce((sum, each) => sum + each, 0)
  const gone = service.excuses.killed(connections)
  struck(`SIGKILL to ${victims.join(" and ")}, with ${connections} connections`)
  for (const pid of victims) signal(pid, "SIGKILL")
  // A process that gets no processor time to die in holds its connections for so long.
  while (victims.some(isAlive)) await sleep(5)
  gone()
  return victims.length === pids.length
}

/** Waits for a random moment of the next swap; without one, for nothing. */
const momentOfSwap = async ({ service, next }: Case): Promise<void> => {
  await service.next("SwapRequested", 4_000)
  await sleep(next(700))
}

/** Waits for a successor and a random moment of its life. */
const successorOf = async ({ service, next }: Case): Promise<number | undefined> => {
  for (let attempt = 0; attempt < 3; attempt += 1) {
    if (service.successor() === undefined) await service.next("GenerationLaunched", 4_000)
    await sleep(next(500))
    const found = service.successor()
    if (found !== undefined) return found.pid
  }
  return undefined
}

type Who = "supervisor" | "incumbent" | "successor"

const victimOf = async (one: Case, who: Who): Promise<number | undefined> => {
  if (who === "successor") return successorOf(one)
  if (one.next(3) > 0) await momentOfSwap(one)
  return who === "supervisor" ? one.service.supervisor() : one.service.incumbent()?.pid
}

const killSupervisor = async (one: Case): Promise<boolean> => {
  const pid = await victimOf(one, "supervisor")
  if (pid === undefined) return false
  const replaced = one.service.replaced()
  await kill(one, [pid])
  await replaced
  return true
}

const killGeneration = async (one: Case, who: Who): Promise<boolean> => {
  const pid = await victimOf(one, who)
  return pid !== undefined && (await kill(one, [pid]))
}

/** With both gone nobody may be left to hold the listener. */
const killBoth = async (one: Case): Promise<boolean> => {
  const incumbent = await victimOf(one, "incumbent")
  const supervisor = one.service.supervisor()
  if (incumbent === undefined || supervisor === undefined) return false
  const taken = one.service.excuses.vacant()
  const replaced = one.service.replaced()
  await kill(one, [supervisor, incumbent])
  await replaced
  taken()
  return true
}

const stop = async (one: Case, who: Who): Promise<boolean> => {
  const { processes, service, next, struck } = one
  const pid = await victimOf(one, who)
  if (pid === undefined || !processes.alive().includes(pid)) return false
  const milliseconds = lasting(next)
  const release = service.excuses.hold()
  struck(`SIGSTOP to ${pid} for ${milliseconds} ms`)
  signal(pid, "SIGSTOP")
  await sleep(milliseconds)
  if (processes.alive().includes(pid)) signal(pid, "SIGCONT")
  release()
  return true
}

const fill = (path: string): void => {
  const fd = openSync(path, "w")
  try {
    for (;;) writeSync(fd, new Uint8Array(65_536))
  } catch {
    // Not a byte more.
  } finally {
    closeSync(fd)
  }
}

const diskFull = async ({ service, next, struck }: Case): Promise<boolean> => {
  const milliseconds = lasting(next)
  const ballast = join(service.directory, "..", "ballast")
  const release = service.excuses.disturb()
  struck(`no byte left for ${milliseconds} ms`)
  fill(ballast)
  await sleep(milliseconds)
  rmSync(ballast)
  release()
  return true
}

const softLimitOf = (pid: number): string =>
  /^Max open files\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/limits`, "utf8"))?.[1] ?? ""

const limit = (pid: number, soft: number | string): Promise<unknown> =>
  promisify(execFile)("prlimit", ["--pid", String(pid), `--nofile=${soft}:`])

/** An exclusive swap that meets it has stopped the old version and cannot start any: then clients wait until it is over. */
const descriptorLimit = async ({ service, next, struck }: Case): Promise<boolean> => {
  const pid = service.supervisor()
  if (pid === undefined) return false
  const milliseconds = lasting(next)
  const before = softLimitOf(pid)
  const soft = readdirSync(`/proc/${pid}/fd`).length + next(4)
  const release = service.name === "overlap" ? service.excuses.hold() : service.excuses.disturb()
  struck(`process ${pid} may have ${soft} descriptors for ${milliseconds} ms`)
  await limit(pid, soft)
  await sleep(milliseconds)
  await limit(pid, before)
  release()
  return true
}

const slowDisk = async ({ processes, disk, next, struck }: Case): Promise<boolean> => {
  const milliseconds = lasting(next)
  struck(`syncs for ${milliseconds} ms`)
  await processes.run(process.execPath, [SLOW_DISK, disk, String(milliseconds)])
  return true
}

/** Lets a fault happen; false when there was nobody to strike. */
const strike = (kind: Kind, one: Case): Promise<boolean> => {
  switch (kind) {
    case "kill supervisor":
      return killSupervisor(one)
    case "kill incumbent":
      return killGeneration(one, "incumbent")
    case "kill successor":
      return killGeneration(one, "successor")
    case "kill supervisor and incumbent":
      return killBoth(one)
    case "stop supervisor":
      return stop(one, "supervisor")
    case "stop incumbent":
      return stop(one, "incumbent")
    case "stop successor":
      return stop(one, "successor")
    case "disk full":
      return diskFull(one)
    case "descriptor limit":
      return descriptorLimit(one)
    case "slow disk":
      return slowDisk(one)
  }
}

export interface Faults {
  /** How often each has struck. */
  readonly counts: ReadonlyMap<Kind, number>
  /** The one that struck last. */
  readonly latest: () => Kind | undefined
  readonly ended: Promise<void>
}

/** Strikes until `isOver`, and stands before the gate in between. */
export const startFaults = (
  service: Service,
  around: Surroundings,
  next: Random,
  gate: Gate,
  isOver: () => boolean
): Faults => {
  const possible = KINDS.filter(
    (kind) =>
      (kind !== "disk full" || around.mayFill(service)) &&
      (kind !== "descriptor limit" || findTool("prlimit") !== undefined)
  )
  const counts = new Map<Kind, number>()
  const { diary } = around
  let latest: Kind | undefined

  const one = async (kind: Kind): Promise<void> => {
    const struck = (how: string) => {
      latest = kind
      diary.note(service.name, `fault: ${kind}: ${how}`)
    }
    const happened = await strike(kind, { ...around, service, next, struck })
    if (happened) counts.set(kind, (counts.get(kind) ?? 0) + 1)
    diary.note(service.name, happened ? `over: ${kind}` : `no chance for: ${kind}`)
  }

  const loop = async (): Promise<void> => {
    let round: ReadonlyArray<Kind> = []
    while (!isOver()) {
      await gate.pass()
      if (round.length === 0) round = shuffle(next, possible)
      const [kind, ...rest] = round
      round = rest
      if (kind !== undefined && !isOver()) await one(kind)
      await sleep(pick(next, [300, 1_000, 2_000, 3_000]))
    }
  }
  return { counts, latest: () => latest, ended: loop() }
}

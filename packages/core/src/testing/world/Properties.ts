/**
 * What must hold. Those of a transition (a lock released over an open state, a write to the disk without the lock, a
 * signal to the wrong process) are noticed where they happen, in Draft and in the drivers, under the same names.
 *
 *   property                             modes      with which faults
 *   0 without a fault a swap commits     all        none
 *   1 one holder of the data             sealed     any
 *   1 one program runs                   exclusive  any
 *   2 released only after the seal       sealed     any
 *   3 no acknowledged write is lost      sealed     any, power cuts included
 *   4 the listener's queue lives         all        any, as long as one holder lives
 *   5 only the lock's holder writes      sealed     any
 *   6 the incumbent serves on            sealed, overlap; any that did not hit the incumbent itself; at rest a daemon
 *                                                   takes writes, whatever has hit it
 *   6 nothing is left of an abort        all        any
 *   6 nothing but the handoff's own      all        any, reused pids included
 *   7 what was told stays true           all        any, power cuts included
 *   8 a stop leaves nobody               all        any: nor does a first start that failed
 *   liveness                             all        any: from wherever they stop, the service comes back to one
 *                                                   generation that serves, with nothing left over and an empty journal
 */
import type { Broken } from "../Explorer.ts"
import * as KernelView from "./KernelView.ts"
import { CLIENT, SUPERVISOR } from "./Layout.ts"
import type { Settings } from "./Settings.ts"
import { versionOf } from "./Settings.ts"
import { pidOf, type World } from "./State.ts"

const held = (world: World): Broken | undefined => {
  const lockHolder = KernelView.lockHolder(world.kernel)
  const holders = world.processes.filter((one) => one.lock >= 0)
  const wrong = holders.find((one) => one.pid !== lockHolder)
  if (wrong !== undefined || holders.length > 1) {
    return { property: "1 one holder of the data", detail: `${holders.map((one) => one.pid)} hold it, as they believe` }
  }
  const open = world.processes.find((one) => one.open && one.pid !== lockHolder)
  if (open === undefined) return undefined
  return { property: "1 one holder of the data", detail: `process ${open.pid} has it open without the lock` }
}

const lost = (world: World, settings: Settings): Broken | undefined => {
  const { daemon } = settings
  const disk = daemon.survives === undefined ? world.disk : daemon.survives(world.disk)
  const write = world.writes.findIndex((one, index) => one === "acknowledged" && !daemon.has(disk, index))
  if (write === -1) return undefined
  return { property: "3 no acknowledged write is lost", detail: `write ${write} is not on the disk` }
}

export const check = (world: World, settings: Settings): Broken | undefined => {
  if (world.broken !== undefined) return world.broken
  if (settings.mode === "sealed") {
    const broken = held(world) ?? lost(world, settings)
    if (broken !== undefined) return broken
  }
  if (settings.mode === "exclusive") {
    const pids = [...world.processes, ...KernelView.orphans(world.kernel)].map(({ pid }) => pid)
    if (pids.length > 1) return { property: "1 one program runs", detail: `${pids.join(" and ")} run at once` }
  }
  const { supervisor } = world
  if (supervisor.life === "running" && versionOf(supervisor.machine.state.command) < world.promised) {
    const detail = `v${world.promised} was told to be in place, ${supervisor.machine.state.command.argv[0]} is what a restart starts`
    return { property: "7 what was told stays true", detail }
  }
  return undefined
}

/** A descriptor that is left, or missing: those of the supervisor, of the daemon, of the clients. */
const leak = (world: World, settings: Settings): string | undefined => {
  const [process] = world.processes
  const expected: ReadonlyArray<readonly [who: string, pid: number, descriptors: number]> = [
    ["the supervisor", SUPERVISOR, 1],
    ["the daemon", process?.pid ?? 0, settings.mode === "sealed" ? 3 : 1],
    ["the client", CLIENT, 0]
  ]
  for (const [who, pid, descriptors] of expected) {
    const open = KernelView.descriptors(world.kernel, pid)
    if (open !== descriptors) return `${who} has ${open} descriptors open, not ${descriptors}`
  }
  return undefined
}

/**
 * Whether the daemon at rest can still do what it is there for: a write that came now would be acknowledged, by something
 * that it may do, within as many steps as there are writes and some more.
 */
export const takesWrites = (world: World, { daemon, writes }: Settings): boolean => {
  const [process] = world.processes
  let reached = [{ memory: daemon.request(process?.memory, writes), disk: world.disk }]
  for (let steps = 0; steps < 4 * (writes + 2) && reached.length > 0; steps++) {
    const next = reached.flatMap(({ memory, disk }) => daemon.work(memory, disk))
    if (next.some((one) => one.acknowledges === writes)) return true
    reached = next.slice(0, 16)
  }
  return false
}

/** Why a world may not last as it is; undefined for one that may. */
export const unsettled = (world: World, settings: Settings): string | undefined => {
  const { supervisor, processes, kernel } = world
  const { state } = supervisor.machine
  const [process] = processes
  if (supervisor.life !== "running" || state.phase !== "serving") return "no supervisor that serves"
  if (state.swap !== undefined) return "a swap is under way"
  if (process === undefined || processes.length > 1) return `${processes.length} generations`
  if (state.serving === undefined || pidOf(state.serving) !== process.pid) return "the supervisor has another in mind"
  if (state.generations.length !== 1) return "a generation that is gone is not forgotten"
  if (KernelView.isStopped(kernel, process.pid) || KernelView.isStopped(kernel, SUPERVISOR))
    return "a process is stopped"
  if (!process.accepting || process.stopping || KernelView.isAsked(kernel, process.pid)) return "nobody accepts"
  if (process.hooks.length > 0 || process.timers.length > 0) return "something is still to happen"
  if (supervisor.sessions.length > 0 || process.session >= 0) return "a stream is left"
  if (supervisor.probes.length > 0 || supervisor.looks.length > 0 || supervisor.facts.length > 0) return "S is at work"
  if (supervisor.timers.length > 0) return `timer ${supervisor.timers[0]} is left`
  if (supervisor.watches.length > 0) return "the supervisor watches"
  if (supervisor.unsaved) return "the document is not saved"
  if (KernelView.hasLitter(kernel)) return "a temporary file is left"
  if (KernelView.orphans(kernel).length > 0) return "a child of a generation that is gone is left"
  if (world.writes.includes("queued") || world.writes.includes("in flight")) return "a client waits"
  if (settings.mode === "sealed") {
    if (process.incumbent?.state.phase !== "serving") return "no incumbent"
    const { pid } = process
    if (KernelView.lockHolder(kernel) !== pid || !process.open || KernelView.pathListener(kernel) !== pid)
      return "the daemon does not have its data"
  }
  return leak(world, settings)
}

/**
 * How a world is told: to the explorer as a key, to a person as columns.
 */
import { type Fd, FIRST_INHERITED_FD } from "../../Fd.ts"
import type { Line } from "../Explorer.ts"
import * as KernelView from "./KernelView.ts"
import { CLIENT, SUPERVISOR } from "./Layout.ts"
import type { Machines } from "./Parties.ts"
import type { Process, World } from "./State.ts"

const lives = ["running", "recovering", "dead"]
const roles = ["plain", "cold", "successor", "incumbent"]
const statuses = ["unsent", "queued", "in flight", "acknowledged", "failed"]

const flags = (...all: ReadonlyArray<boolean>): number => all.reduce((bits, one) => bits * 2 + (one ? 1 : 0), 0)

const processKey = (process: Process, { numbers, frames }: Machines, key: Array<number>): void => {
  const { stopping, open, accepting, cancelled } = process
  key.push(
    process.pid,
    process.version,
    flags(stopping, open, accepting, cancelled) * 4 + roles.indexOf(process.role),
    frames.numberOf(process.partial),
    process.incumbent?.id ?? 0,
    process.successor?.id ?? 0,
    process.memory === undefined ? -1 : numbers.of(process.memory),
    process.timers.length
  )
  for (const timer of process.timers) key.push(numbers.of(timer))
  key.push(process.hooks.length)
  for (const hook of process.hooks) key.push(numbers.of(hook))
  key.push(process.requests.length)
  for (const { write } of process.requests) key.push(write)
}

const NONE: ReadonlyArray<Fd> = []

/** What a process has its descriptors for. */
const rolesOf =
  ({ supervisor, processes, connections }: World): KernelView.Roles =>
  (pid) => {
    if (pid === SUPERVISOR) return [supervisor.listener, ...supervisor.sessions.map(({ fd = -1 }) => fd)]
    if (pid === CLIENT) return connections
    const process = processes.find((one) => one.pid === pid)
    if (process === undefined) return NONE
    const { lock, socket, session, requests } = process
    return [FIRST_INHERITED_FD, lock, socket, session, ...requests.map(({ fd }) => fd)]
  }

export const keyOf = (world: World, machines: Machines): ReadonlyArray<number> => {
  const { numbers, frames } = machines
  const { supervisor } = world
  const key: Array<number> = [
    lives.indexOf(supervisor.life) * 2 + (supervisor.unsaved ? 1 : 0),
    supervisor.machine.id,
    supervisor.timers.length
  ]
  for (const timer of supervisor.timers) key.push(numbers.of(timer))
  key.push(-1)
  for (const generation of supervisor.watches) key.push(generation)
  key.push(-1)
  for (const generation of supervisor.looks) key.push(generation)
  key.push(-1)
  for (const { generation, what } of supervisor.facts) key.push(generation, numbers.of(what))
  key.push(-1)
  for (const { swap, party, pid, fd, partial, torn } of supervisor.sessions) {
    key.push(
      swap * 2 + (party === "incumbent" ? 1 : 0),
      pid,
      fd === undefined ? 0 : 1,
      frames.numberOf(partial),
      torn ? 1 : 0
    )
  }
  key.push(-1)
  for (const { swap, hello } of supervisor.probes) key.push(swap * 2 + (hello ? 1 : 0))
  key.push(-1)
  for (const process of world.processes) processKey(process, machines, key)
  key.push(-1, numbers.of(world.disk), world.promised, world.faults, world.swaps, world.aborts, world.stops)
  for (const write of world.writes) key.push(statuses.indexOf(write))
  for (const pid of world.excused) key.push(pid)
  key.push(world.lapsed ? -2 : -1)
  KernelView.pushKey(world.kernel, rolesOf(world), machines, key)
  if (world.broken !== undefined) key.push(-1, numbers.of(world.broken))
  return key
}

const supervisorColumn = (world: World): string => {
  const { supervisor } = world
  if (supervisor.life !== "running") return supervisor.life
  if (KernelView.isStopped(world.kernel, SUPERVISOR)) return "STOPPED"
  const { state } = supervisor.machine
  const swap = state.swap === undefined ? "" : `, swap ${state.swap.handoff?.phase ?? state.swap.phase}`
  const saved = supervisor.unsaved ? ", not saved" : ""
  return `${state.phase}${state.serving === undefined ? "" : ` ${state.serving}`}${swap}${saved}`
}

const processColumn = (world: World, process: Process): string => {
  const phase = process.incumbent?.state.phase ?? process.successor?.state.phase ?? process.role
  const marks = [
    process.lock >= 0 ? "lock" : "",
    process.open ? "open" : "",
    process.accepting ? "accepts" : "",
    KernelView.isStopped(world.kernel, process.pid) ? "STOPPED" : "",
    process.stopping ? "stopping" : "",
    ...process.hooks.map((one) => `(${one})`)
  ]
  return [phase, ...marks.filter((one) => one !== "")].join(" ")
}

export const columns = (world: World, machines: Machines): Line["parties"] => {
  const document = machines.saved(world.kernel)
  const pathListener = KernelView.pathListener(world.kernel)
  return [
    ["S", supervisorColumn(world)],
    ...world.processes.map((one) => [`v${one.version} ${one.pid}`, processColumn(world, one)] as const),
    ...KernelView.orphans(world.kernel).map(({ pid, group }) => [`child ${pid}`, `of ${group}, lives on`] as const),
    ["journal", document === undefined ? "none" : (document.swap?.journal ?? document.swap?.phase ?? "-")],
    ["path", pathListener === 0 ? "-" : String(pathListener)]
  ]
}

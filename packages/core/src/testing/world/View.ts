/**
 * How a world is told: to the explorer as a key, to a person as columns.
 */
import type { Line } from "../Explorer.ts"
import type { Machines } from "./Parties.ts"
import type { Process, World } from "./State.ts"

const lives = ["running", "stopped", "recovering", "dead"]
const roles = ["plain", "cold", "successor", "incumbent"]
const sockets = ["none", "temporary", "published"]
const statuses = ["unsent", "queued", "in flight", "acknowledged", "failed"]

const flags = (...all: ReadonlyArray<boolean>): number => all.reduce((bits, one) => bits * 2 + (one ? 1 : 0), 0)

const processKey = (process: Process, { numbers }: Machines, key: Array<number>): void => {
  const { stopped, signalled, stopping, locked, open, accepting, cancelled } = process
  key.push(
    process.pid,
    process.version,
    flags(stopped, signalled, stopping, locked, open, accepting, cancelled),
    roles.indexOf(process.role) * 3 + sockets.indexOf(process.socket),
    process.incumbent?.id ?? 0,
    process.successor?.id ?? 0,
    process.memory === undefined ? -1 : numbers.of(process.memory),
    process.timers.length
  )
  for (const timer of process.timers) key.push(numbers.of(timer))
  key.push(process.hooks.length)
  for (const hook of process.hooks) key.push(numbers.of(hook))
  key.push(process.requests.length)
  for (const request of process.requests) key.push(request)
}

export const keyOf = (world: World, machines: Machines): ReadonlyArray<number> => {
  const { numbers } = machines
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
  for (const { swap, party, stream } of supervisor.sessions) {
    key.push(swap * 2 + (party === "incumbent" ? 1 : 0), stream ?? -2)
  }
  key.push(-1)
  for (const { swap, hello } of supervisor.probes) key.push(swap * 2 + (hello ? 1 : 0))
  key.push(-1)
  for (const process of world.processes) processKey(process, machines, key)
  key.push(-1)
  for (const stream of world.streams) {
    key.push(stream.id, stream.pid, flags(stream.supervisorClosed, stream.processClosed, stream.taken))
    for (const message of stream.toProcess) key.push(numbers.of(message))
    key.push(-1)
    for (const message of stream.toSupervisor) key.push(numbers.of(message))
    key.push(-1)
  }
  key.push(
    world.lock,
    world.path,
    world.litter,
    numbers.of(world.disk),
    world.document === undefined ? -1 : numbers.of(world.document),
    world.durable === undefined ? -1 : numbers.of(world.durable),
    world.promised,
    world.faults,
    world.swaps,
    world.aborts
  )
  for (const write of world.writes) key.push(statuses.indexOf(write))
  for (const pid of world.strangers) key.push(pid)
  key.push(-1)
  for (const pid of world.excused) key.push(pid)
  if (world.broken !== undefined) key.push(-1, numbers.of(world.broken))
  return key
}

const supervisorColumn = ({ supervisor }: World): string => {
  if (supervisor.life !== "running") return supervisor.life
  const { state } = supervisor.machine
  const swap = state.swap === undefined ? "" : `, swap ${state.swap.handoff?.phase ?? state.swap.phase}`
  const saved = supervisor.unsaved ? ", not saved" : ""
  return `${state.phase}${state.serving === undefined ? "" : ` ${state.serving}`}${swap}${saved}`
}

const processColumn = (process: Process): string => {
  const phase = process.incumbent?.state.phase ?? process.successor?.state.phase ?? process.role
  const marks = [
    process.locked ? "lock" : "",
    process.open ? "open" : "",
    process.accepting ? "accepts" : "",
    process.stopped ? "STOPPED" : "",
    process.stopping ? "stopping" : "",
    ...process.hooks.map((one) => `(${one})`)
  ]
  return [phase, ...marks.filter((one) => one !== "")].join(" ")
}

export const columns = (world: World): Line["parties"] => [
  ["S", supervisorColumn(world)],
  ...world.processes.map((one) => [`v${one.version} ${one.pid}`, processColumn(one)] as const),
  [
    "journal",
    world.document === undefined ? "none" : (world.document.swap?.journal ?? world.document.swap?.phase ?? "-")
  ],
  ["path", world.path === 0 ? "-" : String(world.path)]
]

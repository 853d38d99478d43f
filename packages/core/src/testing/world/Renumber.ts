/**
 * A world that has come to rest is numbered anew: its one generation is the first again, of version 1.
 *
 * Only equality of numbers ever decides anything, so nothing is lost, and histories that lead to the same situation meet
 * in one state: what follows is explored once. In a trace the numbers start again there.
 */
import { FIRST_INHERITED_FD } from "../../Fd.ts"
import type * as FdTable from "../../FdTable.ts"
import type { Kernel } from "../SimulatedKernel.ts"
import type { SimulatedProcess } from "../SimulatedProcess.ts"
import * as KernelView from "./KernelView.ts"
import { BOOT, CLIENT, STATE_FILE, SUPERVISOR } from "./Layout.ts"
import type { Machines } from "./Parties.ts"
import { commandOf } from "./Settings.ts"
import { type Process, pidOf, type World } from "./State.ts"

const FIRST = pidOf(1)
const TOKEN = "s.1"

/** Where a daemon at rest has its lock and its socket: after the listener. */
const LOCK = FIRST_INHERITED_FD + 1
const SOCKET = FIRST_INHERITED_FD + 2

const reopened = (table: FdTable.FdTable, process: Process): FdTable.FdTable => {
  const numbers = new Map([
    [FIRST_INHERITED_FD, FIRST_INHERITED_FD],
    [process.lock, LOCK],
    [process.socket, SOCKET]
  ])
  return { ...table, entries: new Map([...table.entries].map(([fd, entry]) => [numbers.get(fd) ?? fd, entry])) }
}

const renumberKernel = (kernel: Kernel, process: Process, text: string): Kernel => {
  const processes = new Map<number, SimulatedProcess>()
  for (const pid of [SUPERVISOR, CLIENT]) {
    const one = kernel.processes.get(pid)
    if (one !== undefined) processes.set(pid, one)
  }
  const one = kernel.processes.get(process.pid)
  if (one !== undefined) {
    processes.set(FIRST, {
      ...one,
      pid: FIRST,
      group: FIRST,
      argv: commandOf(1).argv,
      environment: { ...one.environment, HANDOFF_TOKEN: TOKEN, LISTEN_PID: String(FIRST) },
      startTime: FIRST,
      table: reopened(one.table, process)
    })
  }
  const creator = { pid: FIRST, uid: 0, gid: 0 }
  const descriptions = new Map(
    [...kernel.descriptions].map(([key, one]) => [
      key,
      one._tag === "Listener"
        ? { ...one, creator: one.address._tag === "Unix" ? creator : { ...creator, pid: 0 } }
        : one
    ])
  )
  const renamed = (tree: Kernel["files"]): Kernel["files"] =>
    new Map(
      [...tree].map(([path, node]) => [
        path,
        path === STATE_FILE && node._tag === "File" ? { ...node, content: text, synced: text } : node
      ])
    )
  const { files, durable } = kernel
  return { ...kernel, bootId: BOOT, processes, descriptions, files: renamed(files), durable: renamed(durable) }
}

const isUnsynced = (kernel: Kernel): boolean =>
  KernelView.documentText(kernel, "files") !== KernelView.documentText(kernel, "durable")

/** What the generation is called from now on. */
const named = (machines: Machines) => ({
  id: 1,
  pid: FIRST,
  command: commandOf(1),
  token: TOKEN,
  identity: machines.sameIdentity({ pid: FIRST, startTime: FIRST, bootId: BOOT })
})

/** The world must be at rest. */
export const renumber = (world: World, machines: Machines): World => {
  const [process] = world.processes
  const { kernel } = world
  const [generation] = world.supervisor.machine.state.generations
  if (process === undefined || generation === undefined || isUnsynced(kernel)) return world
  const machine = machines.rested(world.supervisor.machine, (state) => ({
    ...state,
    command: commandOf(1),
    previous: undefined,
    generations: [{ ...generation, ...named(machines), failure: undefined }],
    serving: 1,
    nextGeneration: 2,
    nextSwap: 1,
    startGeneration: undefined
  }))
  const document = machines.documentOf(machine.state)
  const text = document === undefined ? "" : machines.textOf(document)
  return {
    ...world,
    supervisor: { ...world.supervisor, machine },
    kernel: renumberKernel(kernel, process, text),
    processes: [
      {
        ...process,
        pid: FIRST,
        version: 1,
        incumbent: process.incumbent === undefined ? undefined : machines.incumbentOf(FIRST),
        ...(process.lock < 0 ? {} : { lock: LOCK, socket: SOCKET })
      }
    ],
    excused: [],
    promised: world.promised === process.version ? 1 : 0
  }
}

/**
 * A world that has come to rest is numbered anew: its one generation is the first again, of version 1.
 *
 * Only equality of numbers ever decides anything, so nothing is lost, and histories that lead to the same situation meet
 * in one state: what follows is explored once. In a trace the numbers start again there.
 */
import type { Machines } from "./Parties.ts"
import { commandOf } from "./Settings.ts"
import { pidOf, type World } from "./State.ts"

const FIRST = pidOf(1)

/** The world must be at rest. */
export const renumber = (world: World, machines: Machines): World => {
  const [process] = world.processes
  const [generation] = world.supervisor.machine.state.generations
  if (process === undefined || generation === undefined || world.durable !== world.document) return world
  const command = commandOf(1)
  const machine = machines.supervision.intern({
    ...world.supervisor.machine.state,
    command,
    previous: undefined,
    generations: [
      {
        ...generation,
        id: 1,
        pid: FIRST,
        command,
        token: "s.1",
        identity: machines.identityOf(FIRST),
        failure: undefined
      }
    ],
    serving: 1,
    nextGeneration: 2,
    nextSwap: 1,
    startGeneration: undefined
  })
  const document = machines.documentOf(machine.state)
  return {
    ...world,
    supervisor: { ...world.supervisor, machine },
    processes: [
      {
        ...process,
        pid: FIRST,
        version: 1,
        incumbent: process.incumbent === undefined ? undefined : machines.incumbentOf(FIRST)
      }
    ],
    lock: world.lock === 0 ? 0 : FIRST,
    path: world.path === 0 ? 0 : FIRST,
    document,
    durable: document,
    strangers: [],
    excused: [],
    promised: world.promised === process.version ? 1 : 0
  }
}

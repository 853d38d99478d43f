/**
 * The working copy of a world while one move is made, and what the kernel does: streams, locks, paths, deaths.
 *
 * A draft lives for one move; the worlds it passes through are values and never change in place.
 */
import type { Message } from "../../protocol/Message.ts"
import type { Machines } from "./Parties.ts"
import type { Settings } from "./Settings.ts"
import { generationOf, type Process, type Stream, type Supervisor, type World, type WriteStatus } from "./State.ts"

type Mutable<T> = { -readonly [K in keyof T]: T[K] }

export class Draft {
  readonly world: Mutable<World>
  readonly settings: Settings
  readonly machines: Machines
  /** The acting party dies before its effect of this number; 0: never. */
  readonly fuse: number
  effects = 0
  /** What was done, for a trace. */
  readonly log: Array<string> | undefined

  constructor(world: World, settings: Settings, machines: Machines, fuse: number, log?: Array<string>) {
    this.world = { ...world }
    this.settings = settings
    this.machines = machines
    this.fuse = fuse
    this.log = log
  }

  /** Counts an effect of the acting party; false when it has just died of its fuse. */
  lives(): boolean {
    this.effects++
    return this.effects !== this.fuse
  }
}

export const breaks = (draft: Draft, property: string, detail: string): void => {
  draft.world.broken ??= { property, detail }
}

export const setSupervisor = (draft: Draft, change: Partial<Supervisor>): void => {
  draft.world.supervisor = { ...draft.world.supervisor, ...change }
}

export const processOf = ({ world }: Draft, pid: number): Process | undefined =>
  world.processes.find((one) => one.pid === pid)

export const setProcess = (draft: Draft, pid: number, change: Partial<Process>): void => {
  draft.world.processes = draft.world.processes.map((one) => (one.pid === pid ? { ...one, ...change } : one))
}

export const streamOf = ({ world }: Draft, id: number | undefined): Stream | undefined =>
  world.streams.find((one) => one.id === id)

/** A stream that nobody has open any more is gone. */
export const setStream = (draft: Draft, id: number, change: Partial<Stream>): void => {
  draft.world.streams = draft.world.streams.flatMap((one) => {
    if (one.id !== id) return [one]
    const next = { ...one, ...change }
    return next.supervisorClosed && next.processClosed ? [] : [next]
  })
}

export const addStream = (draft: Draft, pid: number, taken: boolean): number => {
  const used = new Set(draft.world.streams.map((one) => one.id))
  let id = 1
  while (used.has(id)) id++
  const stream: Stream = {
    id,
    pid,
    toSupervisor: [],
    toProcess: [],
    supervisorClosed: false,
    processClosed: false,
    taken
  }
  draft.world.streams = [...draft.world.streams, stream].sort((one, other) => one.id - other.id)
  return id
}

/** What is written to a stream whose reader has closed goes nowhere; the writer learns of it when it reads. */
export const sendToProcess = (draft: Draft, id: number | undefined, message: Message): void => {
  const stream = streamOf(draft, id)
  if (stream === undefined || stream.supervisorClosed || stream.processClosed) return
  setStream(draft, stream.id, { toProcess: [...stream.toProcess, message] })
}

export const sendToSupervisor = (draft: Draft, pid: number, message: Message): void => {
  const stream = draft.world.streams.find((one) => one.pid === pid && one.taken && !one.processClosed)
  if (stream === undefined || stream.supervisorClosed) return
  setStream(draft, stream.id, { toSupervisor: [...stream.toSupervisor, message] })
}

export const closeSupervisorEnd = (draft: Draft, id: number | undefined): void => {
  if (id !== undefined) setStream(draft, id, { supervisorClosed: true, toSupervisor: [] })
}

/** The process closes the stream that it speaks on. */
export const closeProcessEnd = (draft: Draft, pid: number): void => {
  const stream = draft.world.streams.find((one) => one.pid === pid && one.taken && !one.processClosed)
  if (stream !== undefined) setStream(draft, stream.id, { processClosed: true, toProcess: [] })
}

export const setWrite = (draft: Draft, write: number, status: WriteStatus): void => {
  draft.world.writes = draft.world.writes.map((one, index) => (index === write ? status : one))
}

/** Somebody holds the listener: its queue lives. */
export const isListening = ({ processes, supervisor }: World): boolean =>
  processes.length > 0 || supervisor.life !== "dead"

/** The listener's last holder has gone: who waits in its queue is refused. */
export const closeQueueIfUnheld = (draft: Draft): void => {
  if (isListening(draft.world)) return
  draft.world.writes = draft.world.writes.map((one) => (one === "queued" ? "failed" : one))
}

/** The process is gone, and with it everything it held; the supervisor will learn of it. */
export const endProcess = (draft: Draft, pid: number): void => {
  const process = processOf(draft, pid)
  if (process === undefined) return
  const { world } = draft
  draft.log?.push(`process ${pid} ends`)
  world.processes = world.processes.filter((one) => one.pid !== pid)
  if (world.lock === pid) world.lock = 0
  if (process.socket === "temporary") world.litter++
  world.streams = world.streams.flatMap((one) => {
    if (one.pid !== pid) return [one]
    return one.supervisorClosed ? [] : [{ ...one, processClosed: true, toProcess: [] }]
  })
  for (const write of process.requests) setWrite(draft, write, "failed")
  const { supervisor } = world
  const generation = generationOf(pid)
  const known = supervisor.life !== "dead" && supervisor.machine.state.generations.some((one) => one.id === generation)
  if (known) {
    const facts = [...supervisor.facts, { generation, what: "exited" as const }, { generation, what: "gone" as const }]
    setSupervisor(draft, { facts: facts.sort((one, other) => one.generation - other.generation) })
  }
  closeQueueIfUnheld(draft)
}

/** A fault has ended it, or made it useless: nobody is to blame for what it does not do any more. */
export const excuse = (draft: Draft, pid: number): void => {
  const { world } = draft
  if (!world.excused.includes(pid)) world.excused = [...world.excused, pid].sort((one, other) => one - other)
}

/** The supervisor is gone; what it had written is still read, what it had not is lost. */
export const endSupervisor = (draft: Draft): void => {
  const { world } = draft
  draft.log?.push("the supervisor ends")
  for (const stream of world.streams) closeSupervisorEnd(draft, stream.id)
  setSupervisor(draft, {
    life: "dead",
    machine: draft.machines.nobody,
    timers: [],
    watches: [],
    looks: [],
    facts: [],
    sessions: [],
    probes: [],
    unsaved: false
  })
  closeQueueIfUnheld(draft)
}

/**
 * Carries the supervisor's commands out in a world, in the order in which the engine does: take an event, step, write the
 * document, then the commands one by one.
 *
 * What the engine leaves to fibers of their own (connecting, looking at the path, waiting for an exit) is a pending thing
 * in the world, which happens in a move of its own.
 */
import type { Document, SavedGeneration } from "../../swap/Document.ts"
import type { Sighting } from "../../swap/Recovery.ts"
import type { Party } from "../../swap/Sealed.ts"
import type * as Supervision from "../../swap/Supervision.ts"
import {
  addStream,
  breaks,
  closeSupervisorEnd,
  type Draft,
  endProcess,
  endSupervisor,
  excuse,
  processOf,
  sendToProcess,
  setProcess,
  setSupervisor
} from "./Draft.ts"
import { textOf } from "./Machines.ts"
import { optionsOf, versionOf } from "./Settings.ts"
import { type Fact, type Hook, type Process, pidOf, type Session, type World } from "./State.ts"
import * as Timers from "./Timers.ts"

/** `how`: what is to fail in this step. */
export type Failing = "launch" | "save" | undefined

/** One event for the machine. `name` tells it from every other. */
export const feed = (draft: Draft, name: string, event: Supervision.Event, failing?: Failing): void => {
  const { machines, world } = draft
  const before = world.supervisor.machine.state
  const { node, commands } = machines.supervision.step(world.supervisor.machine, name, event)
  setSupervisor(draft, { machine: node })
  const { savesFirst } = draft.settings.policies
  if (savesFirst && !save(draft, failing)) return
  for (const command of commands) {
    note(draft, command)
    if (!carryOut(draft, command, failing)) return endSupervisor(draft)
  }
  if (!savesFirst && !save(draft, failing)) return
  const ended = before.swap
  if (ended?.mode === "sealed" && node.state.swap?.id !== ended.id && world.supervisor.life === "running") {
    end(draft, ended.id, "incumbent")
    end(draft, ended.id, "successor")
  }
}

const note = (draft: Draft, command: Supervision.Action): void => {
  if (draft.log === undefined) return
  switch (command._tag) {
    case "Handoff": {
      const inner = command.command
      if (inner._tag === "Send") draft.log.push(`send ${inner.message._tag} to ${inner.to}`)
      else draft.log.push(inner._tag === "Close" ? `close ${inner.to}` : inner._tag)
      return
    }
    case "Launch":
      draft.log.push(`launch generation ${command.generation}${command.successor ? " as successor" : ""}`)
      return
    case "Signal":
      draft.log.push(`${command.signal} to generation ${command.generation}`)
      return
    case "Answer":
      if (command.answer._tag === "SwapEnded") draft.log.push(`answer: ${command.answer.record.outcome}`)
      return
    case "Tell":
    case "SetTimer":
    case "ClearTimer":
    case "Watch":
    case "Unwatch":
      return
    default:
      draft.log.push(command._tag)
  }
}

/** False: it died before the document was written. */
const save = (draft: Draft, failing: Failing): boolean => {
  const { world, machines, settings } = draft
  const document = machines.documentOf(world.supervisor.machine.state)
  if (failing === "save") {
    setSupervisor(draft, { unsaved: true })
    draft.log?.push("the document is not saved")
    return true
  }
  setSupervisor(draft, { unsaved: false })
  if (document === world.document) return true
  if (!draft.lives()) {
    endSupervisor(draft)
    return false
  }
  world.document = document
  // A start that failed is told to its caller, and the next one begins anew.
  if (document === undefined) world.promised = 0
  if (settings.policies.syncs) world.durable = document
  return true
}

/** False: it died before this command. */
const carryOut = (draft: Draft, command: Supervision.Action, failing: Failing): boolean => {
  const { supervisor } = draft.world
  switch (command._tag) {
    case "Launch":
      if (!draft.lives()) return false
      launch(draft, command, failing)
      return true
    case "LookForHandoffSocket":
      setSupervisor(draft, { looks: insert(supervisor.looks, command.generation) })
      return true
    case "Handoff":
      return handoff(draft, command.swap, command.command)
    case "Watch":
      setSupervisor(draft, { watches: insert(supervisor.watches, command.generation) })
      return true
    case "Unwatch":
      setSupervisor(draft, { watches: supervisor.watches.filter((one) => one !== command.generation) })
      return true
    case "Signal":
      if (processOf(draft, pidOf(command.generation)) !== undefined && !draft.lives()) return false
      signal(draft, command.generation, command.signal)
      return true
    case "SetTimer":
      if (command.timer !== "stable") setSupervisor(draft, { timers: Timers.set(supervisor.timers, command.timer) })
      return true
    case "ClearTimer":
      setSupervisor(draft, { timers: Timers.clear(supervisor.timers, command.timer) })
      return true
    case "Answer":
      if (command.answer._tag === "SwapEnded") answered(draft, command.answer.record)
      return true
    case "Tell":
      return true
    case "Finish":
      endSupervisor(draft)
      return true
  }
}

const insert = (sorted: ReadonlyArray<number>, value: number): ReadonlyArray<number> =>
  sorted.includes(value) ? sorted : [...sorted, value].sort((one, other) => one - other)

const addFacts = (draft: Draft, ...facts: ReadonlyArray<Fact>): void => {
  const all = [...draft.world.supervisor.facts, ...facts].sort((one, other) => one.generation - other.generation)
  setSupervisor(draft, { facts: all })
}

const launch = (draft: Draft, command: Extract<Supervision.Action, { _tag: "Launch" }>, failing: Failing): void => {
  const { world } = draft
  const { generation, successor } = command
  const isSwap = world.supervisor.machine.state.swap !== undefined
  if (failing === "launch" || (world.supervisor.unsaved && isSwap)) {
    return addFacts(draft, { generation, what: "launch failed" })
  }
  const pid = pidOf(generation)
  if (processOf(draft, pid) !== undefined) return breaks(draft, "the model", `process ${pid} lives already`)
  if (successor) {
    const swap = world.supervisor.machine.state.swap?.id ?? 0
    const stream = addStream(draft, pid, true)
    setSupervisor(draft, { sessions: [...world.supervisor.sessions, { swap, party: "successor", stream }] })
  }
  const isSealed = draft.settings.mode === "sealed"
  const hooks: ReadonlyArray<Hook> = isSealed && !successor ? ["lock", "open"] : ["start"]
  const process: Process = {
    pid,
    version: versionOf(command.command),
    stopped: false,
    signalled: false,
    stopping: false,
    role: successor ? "successor" : isSealed ? "cold" : "plain",
    incumbent: undefined,
    successor: successor ? draft.machines.successorOf(pid) : undefined,
    timers: [],
    hooks,
    locked: false,
    open: false,
    memory: undefined,
    requests: [],
    accepting: false,
    socket: "none",
    cancelled: false
  }
  // Its pid is its own: the stranger that had it has gone.
  if (world.strangers.includes(pid)) world.strangers = world.strangers.filter((one) => one !== pid)
  world.processes = [...world.processes, process].sort((one, other) => one.pid - other.pid)
  addFacts(draft, { generation, what: "launched" })
}

const handoff = (draft: Draft, swap: number, command: Supervision.HandoffCommand): boolean => {
  const { supervisor } = draft.world
  switch (command._tag) {
    case "Connect":
      setSupervisor(draft, { sessions: [...supervisor.sessions, { swap, party: "incumbent", stream: undefined }] })
      return true
    case "Send":
      if (!draft.lives()) return false
      sendToProcess(draft, sessionOf(draft, swap, command.to)?.stream, command.message)
      return true
    case "Close":
      if (!draft.lives()) return false
      end(draft, swap, command.to)
      return true
    case "Probe":
      setSupervisor(draft, { probes: [...supervisor.probes, { swap, hello: command.hello }] })
      return true
  }
}

export const sessionOf = ({ world }: Draft, swap: number, party: Party): Session | undefined =>
  world.supervisor.sessions.find((one) => one.swap === swap && one.party === party)

/** Closes the supervisor's end; what it sent before is still read. */
const end = (draft: Draft, swap: number, party: Party): void => {
  const session = sessionOf(draft, swap, party)
  if (session === undefined) return
  closeSupervisorEnd(draft, session.stream)
  setSupervisor(draft, { sessions: draft.world.supervisor.sessions.filter((one) => one !== session) })
}

const signal = (draft: Draft, generation: number, name: string): void => {
  const { world } = draft
  const pid = pidOf(generation)
  const { state } = world.supervisor.machine
  if (world.strangers.includes(pid))
    breaks(draft, "6 nothing but the handoff's own", `${name} to a stranger, process ${pid}`)
  const process = processOf(draft, pid)
  if (process === undefined) return
  if (name !== "SIGKILL") {
    setProcess(draft, pid, { signalled: true })
    return addFacts(draft, { generation, what: "asked" })
  }
  // An incumbent that did not come back in time is given up by intent.
  if (state.swap?.handoff?.phase === "resuming") excuse(draft, pid)
  else if (state.serving === generation || (state.swap?.mode !== "exclusive" && state.swap?.from === generation)) {
    breaks(draft, "6 the incumbent serves on", `the supervisor kills generation ${generation}, which serves`)
  }
  endProcess(draft, pid)
}

/** Whoever is said to serve must be able to, unless a fault has just hit it. */
const checkSuccessor = (draft: Draft, { to, mode }: Supervision.SwapRecord): void => {
  const pid = pidOf(to ?? 0)
  const process = processOf(draft, pid)
  const able = mode === "sealed" ? process?.open === true && process.locked : process?.accepting === true
  if (able || draft.world.excused.includes(pid)) return
  breaks(draft, "7 what was told stays true", `committed, and generation ${to} cannot serve`)
}

/** A caller is told. */
const answered = (draft: Draft, record: Supervision.SwapRecord): void => {
  const { world } = draft
  if (record.outcome === "committed") {
    checkSuccessor(draft, record)
    // One that could not be written down was told as such (StateNotSaved): the next supervisor will not know.
    if (!world.supervisor.unsaved) world.promised = Math.max(world.promised, versionOf(record.command))
    return
  }
  if (world.faultless && world.aborts === draft.settings.aborts) {
    breaks(draft, "0 without a fault a swap commits", `swap ${record.id} was rolled back: ${textOf(record.failure)}`)
  }
  const { from, to } = record
  if (to !== undefined && processOf(draft, pidOf(to)) !== undefined) {
    breaks(draft, "6 nothing is left of an abort", `generation ${to} lives`)
  }
  if (record.mode === "exclusive" || from === undefined) return
  const pid = pidOf(from)
  if (processOf(draft, pid) === undefined && !world.excused.includes(pid)) {
    breaks(draft, "6 the incumbent serves on", `swap ${record.id} was rolled back, and generation ${from} is gone`)
  }
}

export const handoffEvent = (
  draft: Draft,
  swap: number,
  name: string,
  event: Supervision.HandoffEvent,
  failing?: Failing
): void => {
  const current = draft.world.supervisor.machine.state.swap?.id ?? swap
  const told = draft.settings.policies.numbersSwaps ? swap : current
  feed(draft, `${told} ${name}`, { _tag: "Handoff", swap: told, event, at: 0 }, failing)
}

/** A stream has something to read. */
export const read = (draft: Draft, session: Session, failing?: Failing): void => {
  const stream = draft.world.streams.find((one) => one.id === session.stream)
  if (stream === undefined) return
  const [message, ...rest] = stream.toSupervisor
  const { swap, party } = session
  if (message !== undefined) {
    draft.world.streams = draft.world.streams.map((one) => (one === stream ? { ...one, toSupervisor: rest } : one))
    const name = `R${party} ${draft.machines.numbers.of(message)}`
    return handoffEvent(draft, swap, name, { _tag: "Received", from: party, message }, failing)
  }
  closeSupervisorEnd(draft, stream.id)
  setSupervisor(draft, { sessions: draft.world.supervisor.sessions.filter((one) => one !== session) })
  handoffEvent(draft, swap, `L${party}`, { _tag: "Lost", from: party, detail: "it closed the connection" }, failing)
}

/** The connection to whoever listens at the path. */
export const connect = (draft: Draft, session: Session, refused: boolean): void => {
  const { world } = draft
  const { swap } = session
  const others = world.supervisor.sessions.filter((one) => one !== session)
  const pid = listenerAt(draft)
  if (pid === undefined || refused) {
    setSupervisor(draft, { sessions: others })
    return handoffEvent(draft, swap, "CF", { _tag: "ConnectFailed", detail: "ECONNREFUSED" })
  }
  const stream = addStream(draft, pid, false)
  setSupervisor(draft, { sessions: [...others, { ...session, stream }] })
  const from = world.supervisor.machine.state.swap?.from
  const member = from !== undefined && pidOf(from) === pid
  handoffEvent(draft, swap, `C${pid}${member}`, { _tag: "Connected", pid, member })
}

/** Who answers at the handoff socket's path. */
export const listenerAt = ({ world }: Draft): number | undefined => listenerIn(world)

export const listenerIn = (world: World): number | undefined =>
  world.processes.find((one) => one.pid === world.path && one.socket === "published")?.pid

export const fact = (draft: Draft, taken: Fact, failing?: Failing): void => {
  const { supervisor } = draft.world
  const { generation, what } = taken
  const isLast = what === "gone" || what === "launch failed"
  const others = supervisor.facts.filter((one) => one !== taken && !(isLast && one.generation === generation))
  setSupervisor(draft, { facts: others })
  const name = `${what} ${generation}`
  switch (what) {
    case "launched": {
      const pid = pidOf(generation)
      return feed(
        draft,
        name,
        { _tag: "Launched", generation, pid, identity: draft.machines.identityOf(pid), at: 0 },
        failing
      )
    }
    case "launch failed":
      return feed(draft, name, { _tag: "LaunchFailed", generation, detail: "ENOMEM", at: 0 }, failing)
    case "asked":
      return feed(draft, name, { _tag: "Asked", generation, at: 0 }, failing)
    case "notified":
      return feed(draft, name, { _tag: "Notified", generation, at: 0 }, failing)
    case "exited": {
      const status = { _tag: "Unknown" } as const
      return feed(draft, name, { _tag: "Exited", generation, status, at: 0 }, failing)
    }
    case "gone":
      return feed(draft, name, { _tag: "Gone", generation, at: 0 }, failing)
  }
}

/** A new supervisor: reads the document and begins to look. */
export const restart = (draft: Draft): void => {
  const { world, settings, machines } = draft
  const knows = (world.document?.generations ?? []).some((one) => processFor(draft, one) !== undefined)
  if (world.processes.length > 0 && !knows && settings.policies.adoptsListeners) {
    // Somebody it does not know holds the address: the bind fails, and it ends.
    draft.log?.push("EADDRINUSE")
    return
  }
  if (world.processes.length > 0 && !settings.policies.adoptsListeners) {
    breaks(draft, "4 the listener's queue lives", "a second listener is made while the first has holders")
  }
  setSupervisor(draft, { life: "recovering", machine: machines.supervision.intern(machines.fresh()) })
  if (world.document !== undefined) return
  setSupervisor(draft, { life: "running" })
  feed(draft, "start", { _tag: "StartRequested", request: 0, at: 0 })
}

/** The process that a saved generation names, if it lives. */
const processFor = (draft: Draft, saved: SavedGeneration): number | undefined => {
  const pid = pidOf(saved.id)
  const { knowsProcesses } = draft.settings.policies
  if (!knowsProcesses && saved.process !== null && draft.world.strangers.includes(pid)) return pid
  return processOf(draft, pid)?.pid
}

/** One look at what is there. */
export const look = (draft: Draft, patient: boolean): void => {
  const { world, settings } = draft
  const document = world.document
  if (document === undefined) return
  const found: Document = {
    ...document,
    generations: document.generations.flatMap((one) => {
      const pid = processFor(draft, one)
      return pid === undefined ? [] : [{ ...one, process: draft.machines.identityOf(pid) }]
    })
  }
  const answering = listenerAt(draft)
  const sightings = new Map<number, Sighting>()
  for (const { id } of found.generations) {
    const pid = pidOf(id)
    sightings.set(id, { alive: true, holdsLock: world.lock === pid, answers: answering === pid })
  }
  const name = [...sightings].map(([id, { holdsLock, answers }]) => `${id}${holdsLock ? "L" : ""}${answers ? "A" : ""}`)
  const recovered = draft.machines.decided(document, `${name} ${patient}`, () => {
    const decision = settings.policies.recovery(found, sightings, optionsOf(settings.mode), 0, patient)
    return decision._tag === "Wait" ? undefined : decision.recovered
  })
  if (recovered === undefined) return
  setSupervisor(draft, { life: "running" })
  feed(draft, `start ${draft.machines.numbers.of(recovered)}`, { _tag: "StartRequested", request: 0, recovered, at: 0 })
}

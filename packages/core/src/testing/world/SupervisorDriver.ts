/**
 * Carries the supervisor's commands out in a world, in the order in which the engine does: take an event, step, write the
 * document, then the commands one by one.
 *
 * What the engine leaves to fibers of their own (connecting, looking at the path, waiting for an exit) is a pending thing
 * in the world, which happens in a move of its own.
 */
import * as Result from "effect/Result"
import { isSame, type ProcessIdentity } from "../../backend/Processes.ts"
import { type Fd, FIRST_INHERITED_FD } from "../../Fd.ts"
import type { Document, SavedGeneration } from "../../swap/Document.ts"
import type { Sighting } from "../../swap/Recovery.ts"
import type { Party } from "../../swap/Sealed.ts"
import type * as Supervision from "../../swap/Supervision.ts"
import * as SimulatedKernel from "../SimulatedKernel.ts"
import * as SimulatedProcess from "../SimulatedProcess.ts"
import type { Calls } from "./Backend.ts"
import {
  addFacts,
  breaks,
  close,
  type Draft,
  endSupervisor,
  excuse,
  isGeneration,
  learnOfEnd,
  processOf,
  receive,
  STRANGER,
  send,
  setSupervisor
} from "./Draft.ts"
import { NOTHING } from "./Frames.ts"
import * as KernelView from "./KernelView.ts"
import { childOf, HANDOFF_SOCKET, PROGRAM, STATE_FILE, SUPERVISOR } from "./Layout.ts"
import { textOf } from "./Machines.ts"
import { optionsOf, versionOf } from "./Settings.ts"
import { type Fact, type Hook, type Process, pidOf, type Session, type World } from "./State.ts"
import * as Timers from "./Timers.ts"

/** Where a successor finds its channel: after the one listener. */
const SUCCESSOR_FD = FIRST_INHERITED_FD + 1

const callsOf = (draft: Draft): Calls => ({
  pid: SUPERVISOR,
  call: (name, f) => draft.call(SUPERVISOR, name, f)
})

/** One event for the machine. `name` tells it from every other. */
export const feed = (draft: Draft, name: string, event: Supervision.Event): void => {
  const { machines, world } = draft
  const before = world.supervisor.machine.state
  const { node, commands } = machines.supervision.step(world.supervisor.machine, name, event)
  setSupervisor(draft, { machine: node })
  const { savesFirst } = draft.settings.policies
  if (savesFirst) save(draft)
  for (const command of commands) {
    note(draft, command)
    carryOut(draft, command)
  }
  if (!savesFirst) save(draft)
  const ended = before.swap
  if (ended?.handoff?.phase === "resuming" && node.state.swap === undefined) checkResumed(draft, ended)
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

/** Makes the text the document. What that comes to on the same files is worked out once, where nobody asks for the way. */
const replace = (draft: Draft, text: string): Result.Result<void, unknown> => {
  const { world, machines, settings } = draft
  const before = world.kernel
  const known = draft.isSafe ? machines.replacements.get(before, text) : undefined
  if (known !== undefined) {
    world.kernel = { ...before, ...known }
    return Result.void
  }
  const done = settings.backend.replace(callsOf(draft), STATE_FILE, text)
  if (draft.isSafe && Result.isSuccess(done)) machines.replacements.set(before, text, world.kernel)
  return done
}

const save = (draft: Draft): void => {
  const { world, machines, settings } = draft
  const document = machines.documentOf(world.supervisor.machine.state)
  const text = document === undefined ? undefined : machines.textOf(document)
  // A save that failed is made again whatever it was.
  if (text === KernelView.documentText(world.kernel, "files") && !world.supervisor.unsaved) return
  const { backend } = settings
  const done = text === undefined ? backend.remove(callsOf(draft), STATE_FILE) : replace(draft, text)
  // A file that nobody has to read and that can't be removed is none of anybody's concern.
  const failed = text !== undefined && Result.isFailure(done)
  setSupervisor(draft, { unsaved: failed })
  if (failed) draft.log?.push("the document is not saved")
  // A start that failed is told to its caller, and the next one begins anew.
  else if (document === undefined) world.promised = 0
}

/** Whether the document can be written: it is, once more. */
export const canSave = (draft: Draft): boolean => {
  const { world, machines } = draft
  const document = machines.documentOf(world.supervisor.machine.state)
  return document === undefined || Result.isSuccess(replace(draft, machines.textOf(document)))
}

const carryOut = (draft: Draft, command: Supervision.Action): void => {
  const { supervisor } = draft.world
  switch (command._tag) {
    case "Launch":
      return launch(draft, command)
    case "LookForHandoffSocket":
      return setSupervisor(draft, { looks: insert(supervisor.looks, command.generation) })
    case "Handoff":
      return handoff(draft, command.swap, command.command)
    case "Watch":
      return setSupervisor(draft, { watches: insert(supervisor.watches, command.generation) })
    case "Unwatch":
      return setSupervisor(draft, { watches: supervisor.watches.filter((one) => one !== command.generation) })
    case "Signal":
      return signal(draft, command)
    case "SetTimer":
      if (command.timer !== "stable") setSupervisor(draft, { timers: Timers.set(supervisor.timers, command.timer) })
      return
    case "ClearTimer":
      return setSupervisor(draft, { timers: Timers.clear(supervisor.timers, command.timer) })
    case "Answer":
      if (command.answer._tag === "SwapEnded") answered(draft, command.answer.record)
      return
    case "Tell":
      return
    case "Finish":
      return finish(draft)
  }
}

/** The end of a stop, or of a first start that failed. */
const finish = (draft: Draft): void => {
  const { processes, kernel } = draft.world
  const [left] = [...processes, ...KernelView.orphans(kernel)]
  if (left !== undefined) breaks(draft, "8 a stop leaves nobody", `process ${left.pid} lives`)
  endSupervisor(draft)
}

const insert = (sorted: ReadonlyArray<number>, value: number): ReadonlyArray<number> =>
  sorted.includes(value) ? sorted : [...sorted, value].sort((one, other) => one - other)

const forgetNextPid = (draft: Draft): void =>
  draft.happen((kernel) => ({ ...kernel, next: { ...kernel.next, pid: 0 } }))

const launch = (draft: Draft, command: Extract<Supervision.Action, { _tag: "Launch" }>): void => {
  const { world, settings } = draft
  const { generation, successor } = command
  const { state } = world.supervisor.machine
  if (world.supervisor.unsaved && state.swap?.to === generation) {
    return addFacts(draft, { generation, what: "launch failed" })
  }
  const pid = pidOf(generation)
  if (processOf(draft, pid) !== undefined) return breaks(draft, "the model", `process ${pid} lives already`)
  const token = state.generations.find((one) => one.id === generation)?.token ?? ""
  // The kernel gives this pid next; a stranger that had it has gone.
  draft.happen((kernel) => ({
    ...kernel,
    processes: SimulatedKernel.withEntry(kernel.processes, pid, undefined),
    next: { ...kernel.next, pid }
  }))
  const launched = settings.backend.launch(callsOf(draft), {
    argv: command.command.argv,
    environment: { HANDOFF_TOKEN: token },
    listener: world.supervisor.listener,
    successor
  })
  forgetNextPid(draft)
  if (Result.isFailure(launched)) return addFacts(draft, { generation, what: "launch failed" })
  const { channel } = launched.success
  if (channel !== undefined) {
    const swap = state.swap?.id ?? 0
    const session: Session = { swap, party: "successor", pid, fd: channel, partial: NOTHING, torn: false }
    setSupervisor(draft, { sessions: [...world.supervisor.sessions, session] })
  }
  born(draft, pid, versionOf(command.command), successor)
  addFacts(draft, { generation, what: "launched" })
}

/** What a child is from its first instruction on, whether or not its parent comes to know. */
const born = (draft: Draft, pid: number, version: number, successor: boolean): void => {
  const { world, settings, machines } = draft
  const isSealed = settings.mode === "sealed"
  const hooks: ReadonlyArray<Hook> = isSealed && !successor ? ["lock", "open"] : ["start"]
  const process: Process = {
    pid,
    version,
    stopping: false,
    role: successor ? "successor" : isSealed ? "cold" : "plain",
    incumbent: undefined,
    successor: successor ? machines.successorOf(pid) : undefined,
    timers: [],
    hooks,
    lock: -1,
    socket: -1,
    session: successor ? SUCCESSOR_FD : -1,
    partial: NOTHING,
    open: false,
    memory: undefined,
    requests: [],
    accepting: false,
    cancelled: false
  }
  draft.happen((kernel) => {
    const handled = SimulatedKernel.handle(kernel, pid, "SIGTERM")
    return typeof handled === "string" ? kernel : handled.kernel
  })
  world.processes = [...world.processes, process].sort((one, other) => one.pid - other.pid)
}

const handoff = (draft: Draft, swap: number, command: Supervision.HandoffCommand): void => {
  const { supervisor } = draft.world
  switch (command._tag) {
    case "Connect": {
      const session: Session = { swap, party: "incumbent", pid: 0, fd: undefined, partial: NOTHING, torn: false }
      return setSupervisor(draft, { sessions: [...supervisor.sessions, session] })
    }
    case "Send": {
      const session = sessionOf(draft, swap, command.to)
      if (session?.fd === undefined || session.torn) return
      const bytes = draft.machines.frames.encode(command.message, command.version)
      if (!send(draft, SUPERVISOR, session.fd, bytes)) setSession(draft, session, { torn: true })
      return
    }
    case "Close":
      return end(draft, swap, command.to)
    case "Probe":
      return setSupervisor(draft, { probes: [...supervisor.probes, { swap, hello: command.hello }] })
  }
}

const sessionOf = ({ world }: Draft, swap: number, party: Party): Session | undefined =>
  world.supervisor.sessions.find((one) => one.swap === swap && one.party === party)

const setSession = (draft: Draft, session: Session, change: Partial<Session>): void => {
  const { sessions } = draft.world.supervisor
  setSupervisor(draft, { sessions: sessions.map((one) => (one === session ? { ...one, ...change } : one)) })
}

const drop = (draft: Draft, session: Session): void => {
  const { sessions } = draft.world.supervisor
  setSupervisor(draft, { sessions: sessions.filter((one) => one !== session) })
  if (session.fd !== undefined) close(draft, SUPERVISOR, session.fd)
}

/** Closes the supervisor's end; what it sent before is still read. */
const end = (draft: Draft, swap: number, party: Party): void => {
  const session = sessionOf(draft, swap, party)
  if (session !== undefined) drop(draft, session)
}

const signal = (draft: Draft, command: Extract<Supervision.Action, { _tag: "Signal" }>): void => {
  const { world, settings } = draft
  const { generation, signal: name, to } = command
  const pid = pidOf(generation)
  const { state } = world.supervisor.machine
  const identity = identityOf(draft, generation)
  const target = world.kernel.processes.get(pid)
  if (to === "group") {
    if (Result.isFailure(settings.backend.signalGroup(callsOf(draft), pid, identity, name))) return
  } else if (identity === undefined || Result.isFailure(settings.backend.signal(callsOf(draft), identity, name))) return
  if (target?.argv[0] === STRANGER) {
    return breaks(draft, "6 nothing but the handoff's own", `${name} to a stranger, process ${pid}`)
  }
  if (name !== "SIGKILL") return addFacts(draft, { generation, what: "asked" })
  if (processOf(draft, pid) === undefined) return
  // An incumbent that did not come back in time is given up by intent, and everybody by a stop.
  if (state.swap?.handoff?.phase === "resuming" || state.phase === "stopping") excuse(draft, pid)
  else if (state.serving === generation || (state.swap?.mode !== "exclusive" && state.swap?.from === generation)) {
    breaks(draft, "6 the incumbent serves on", `the supervisor kills generation ${generation}, which serves`)
  }
  draft.log?.push(`process ${pid} ends`)
  world.processes = world.processes.filter((one) => one.pid !== pid)
  learnOfEnd(draft, pid)
}

/** The process that the supervisor means: of one that it started, whatever it is. */
const identityOf = (draft: Draft, generation: number): ProcessIdentity | undefined => {
  const { state } = draft.world.supervisor.machine
  const known = state.generations.find((one) => one.id === generation)?.identity
  return known ?? draft.settings.backend.identify(callsOf(draft), pidOf(generation))
}

/** Whoever is said to serve must be able to, unless a fault has just hit it. */
const checkSuccessor = (draft: Draft, { to, mode }: Supervision.SwapRecord): void => {
  const pid = pidOf(to ?? 0)
  const process = processOf(draft, pid)
  const able = mode === "sealed" ? process?.open === true && process.lock >= 0 : process?.accepting === true
  if (able || draft.world.excused.includes(pid)) return
  breaks(draft, "7 what was told stays true", `committed, and generation ${to} cannot serve`)
}

/** Who was waited for until it serves again must do so when the swap is said to be over, unless a fault has hit it. */
const checkResumed = (draft: Draft, { id, from }: Supervision.Swap): void => {
  const { world } = draft
  const pid = pidOf(from ?? 0)
  const process = processOf(draft, pid)
  if (process === undefined || process.accepting || process.stopping || world.excused.includes(pid)) return
  breaks(draft, "6 the incumbent serves on", `swap ${id} was rolled back, and generation ${from} does not serve`)
}

/** A caller is told. */
const answered = (draft: Draft, record: Supervision.SwapRecord): void => {
  const { world } = draft
  const { phase } = world.supervisor.machine.state
  const isStopping = phase === "stopping" || phase === "stopped"
  if (record.outcome === "committed") {
    if (!isStopping) checkSuccessor(draft, record)
    // One that could not be written down was told as such (StateNotSaved): the next supervisor will not know.
    if (!world.supervisor.unsaved) world.promised = Math.max(world.promised, versionOf(record.command))
    return
  }
  if (world.faultless && world.aborts === draft.settings.aborts && !isStopping) {
    breaks(draft, "0 without a fault a swap commits", `swap ${record.id} was rolled back: ${textOf(record.failure)}`)
  }
  const { from, to } = record
  const isLeft = (pid: number) => processOf(draft, pid) !== undefined || world.kernel.processes.has(childOf(pid))
  if (to !== undefined && isLeft(pidOf(to))) {
    breaks(draft, "6 nothing is left of an abort", `generation ${to} lives`)
  }
  if (record.mode === "exclusive" || from === undefined || isStopping) return
  const pid = pidOf(from)
  if (processOf(draft, pid) === undefined && !world.excused.includes(pid)) {
    breaks(draft, "6 the incumbent serves on", `swap ${record.id} was rolled back, and generation ${from} is gone`)
  }
}

export const handoffEvent = (draft: Draft, swap: number, name: string, event: Supervision.HandoffEvent): void => {
  const current = draft.world.supervisor.machine.state.swap?.id ?? swap
  const told = draft.settings.policies.numbersSwaps ? swap : current
  feed(draft, `${told} ${name}`, { _tag: "Handoff", swap: told, event, at: 0 })
}

/** A stream has something to read. */
export const read = (draft: Draft, session: Session, limit: number): void => {
  const { swap, party, fd, partial } = session
  if (fd === undefined) return
  const bytes = session.torn ? NOTHING : receive(draft, SUPERVISOR, fd, limit)
  if (bytes.length === 0) {
    drop(draft, session)
    return handoffEvent(draft, swap, `L${party}`, { _tag: "Lost", from: party, detail: "it closed the connection" })
  }
  const decoded = draft.machines.frames.decode(partial, bytes)
  setSession(draft, session, { partial: decoded.partial })
  const { message } = decoded
  if (decoded.isGarbled) {
    const garbled = { _tag: "Garbled", from: party, detail: "no frame" } as const
    return handoffEvent(draft, swap, `G${party}`, garbled)
  }
  if (message === undefined) return
  handoffEvent(draft, swap, `R${party} ${decoded.number}`, { _tag: "Received", from: party, message })
}

/** The connection to whoever listens at the path. */
export const connect = (draft: Draft, session: Session): void => {
  const { world, settings } = draft
  const { swap } = session
  const connected = settings.backend.connect(callsOf(draft), HANDOFF_SOCKET)
  if (Result.isFailure(connected)) {
    drop(draft, session)
    return handoffEvent(draft, swap, "CF", { _tag: "ConnectFailed", detail: connected.failure })
  }
  const { fd, pid } = connected.success
  setSession(draft, session, { fd, pid })
  const from = world.supervisor.machine.state.swap?.from
  const member = from !== undefined && pidOf(from) === pid
  handoffEvent(draft, swap, `C${pid}${member}`, { _tag: "Connected", pid, member })
}

/** Who answers at the handoff socket's path. */
export const listenerAt = ({ kernel }: World): number | undefined => {
  const pid = KernelView.pathListener(kernel)
  return pid === 0 ? undefined : pid
}

/** A look at the path. One that fails has seen nobody. */
export const lookAt = (draft: Draft): number | undefined =>
  Result.isFailure(draft.call(SUPERVISOR, "look", (kernel) => ({ kernel, value: undefined })))
    ? undefined
    : listenerAt(draft.world)

export const fact = (draft: Draft, taken: Fact): void => {
  const { supervisor } = draft.world
  const { generation, what } = taken
  const isLast = what === "gone" || what === "launch failed"
  const others = supervisor.facts.filter((one) => one !== taken && !(isLast && one.generation === generation))
  setSupervisor(draft, { facts: others })
  const name = `${what} ${generation}`
  switch (what) {
    case "launched": {
      const pid = pidOf(generation)
      const identity = draft.machines.sameIdentity(draft.settings.backend.identify(callsOf(draft), pid))
      const known = identity === undefined ? {} : { identity }
      return feed(draft, `${name} ${identity?.bootId}`, {
        _tag: "Launched",
        generation,
        pid,
        ...known,
        at: 0
      })
    }
    case "launch failed":
      return feed(draft, name, { _tag: "LaunchFailed", generation, detail: "EAGAIN", at: 0 })
    case "asked":
      return feed(draft, name, { _tag: "Asked", generation, at: 0 })
    case "notified":
      return feed(draft, name, { _tag: "Notified", generation, at: 0 })
    case "exited": {
      const status = { _tag: "Unknown" } as const
      return feed(draft, name, { _tag: "Exited", generation, status, at: 0 })
    }
    case "gone":
      return feed(draft, name, { _tag: "Gone", generation, at: 0 })
  }
}

/** A new supervisor: finds the listener, reads the document and begins to look. */
export const restart = (draft: Draft): void => {
  const { machines, settings } = draft
  draft.happen((kernel) =>
    SimulatedKernel.withProcess(kernel, SimulatedProcess.make({ pid: SUPERVISOR, program: PROGRAM, argv: ["handoff"] }))
  )
  const document = draft.machines.saved(draft.world.kernel)
  const found = (document?.generations ?? []).flatMap((one) => {
    const process = processFor(draft, one)
    return process === undefined ? orphansOf(draft, one).map(({ pid }) => pid) : [process.pid]
  })
  const calls = callsOf(draft)
  const adopted = settings.backend.adopt(calls, found)
  const listener: Result.Result<Fd, unknown> =
    adopted === undefined ? settings.backend.listen(calls) : Result.succeed(adopted)
  if (Result.isFailure(listener)) {
    // Somebody it does not know holds the address.
    draft.log?.push(`listen: ${listener.failure}`)
    return endSupervisor(draft)
  }
  const machine = machines.supervision.intern(machines.fresh())
  // Its own pid is in the document that it is to write: even one that says the same is another.
  setSupervisor(draft, { life: "recovering", machine, listener: listener.success, unsaved: true })
  if (document !== undefined) return
  setSupervisor(draft, { life: "running" })
  feed(draft, "start", { _tag: "StartRequested", request: 0, at: 0 })
}

/** The process that a saved generation names, if it lives. */
const processFor = (draft: Draft, generation: SavedGeneration): ProcessIdentity | undefined => {
  const { backend } = draft.settings
  const { process, token } = generation
  if (process === null) return startedWith(draft, token).find(({ pid }) => leads(draft, pid))
  const now = backend.identify(callsOf(draft), process.pid)
  return now !== undefined && isSame(now, process) ? now : undefined
}

const startedWith = (draft: Draft, token: string): ReadonlyArray<ProcessIdentity> =>
  draft.settings.backend.startedWith(callsOf(draft), "HANDOFF_TOKEN", token)

const leads = (draft: Draft, pid: number): boolean =>
  draft.settings.backend.groupMembers(callsOf(draft), pid).includes(pid)

/** Who outlived the process of a saved generation that does not live any more. */
const orphansOf = (draft: Draft, { process, token }: SavedGeneration): ReadonlyArray<ProcessIdentity> => {
  const { backend } = draft.settings
  if (process === null) return startedWith(draft, token)
  if (backend.identify(callsOf(draft), process.pid) !== undefined) return []
  const members = backend.groupMembers(callsOf(draft), process.pid)
  return members.length === 0 ? [] : startedWith(draft, token).filter(({ pid }) => members.includes(pid))
}

const endOrphans = (draft: Draft, document: Document, found: Document): void => {
  for (const one of document.generations) {
    if (found.generations.some(({ id }) => id === one.id)) continue
    for (const orphan of orphansOf(draft, one)) draft.settings.backend.signal(callsOf(draft), orphan, "SIGKILL")
  }
}

/** One look at what is there. */
export const look = (draft: Draft, patient: boolean): void => {
  const { world, settings, machines } = draft
  const document = draft.machines.saved(draft.world.kernel)
  if (document === undefined) return
  const found: Document = {
    ...document,
    generations: document.generations.flatMap((one) => {
      const process = machines.sameIdentity(processFor(draft, one))
      return process === undefined ? [] : [{ ...one, process }]
    })
  }
  const answering = lookAt(draft)
  const sightings = new Map<number, Sighting>()
  for (const { id } of found.generations) {
    const pid = pidOf(id)
    const holdsLock = KernelView.lockHolder(world.kernel) === pid
    sightings.set(id, { alive: true, holdsLock, answers: answering === pid })
  }
  const name = [...sightings].map(([id, { holdsLock, answers }]) => `${id}${holdsLock ? "L" : ""}${answers ? "A" : ""}`)
  const recovered = machines.decided(document, `${name} ${patient} ${world.kernel.bootId}`, () => {
    const decision = settings.policies.recovery(found, sightings, optionsOf(settings.mode), 0, patient)
    return decision._tag === "Wait" ? undefined : decision.recovered
  })
  if (recovered === undefined) return
  endOrphans(draft, document, found)
  setSupervisor(draft, { life: "running" })
  feed(draft, `start ${machines.numbers.of(recovered)}`, { _tag: "StartRequested", request: 0, recovered, at: 0 })
}

/** A supervisor that died between a clone and hearing of it leaves a child all the same. */
export const adoptOrphans = (draft: Draft): void => {
  const { world } = draft
  forgetNextPid(draft)
  for (const one of world.kernel.processes.values()) {
    const { pid, argv, table } = one
    if (!isGeneration(one) || processOf(draft, pid) !== undefined) continue
    born(draft, pid, Number((argv[0] ?? "v0").slice(1)), table.entries.has(SUCCESSOR_FD))
  }
}

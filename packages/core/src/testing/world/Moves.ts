/**
 * Everything that can happen in a world.
 *
 * Fair moves happen by themselves, sooner or later: something is read, a hook ends, a prompt timer fires, a dead supervisor
 * is started again, a stopped process goes on. A slow timer fires by itself when nothing else is under way; earlier it is
 * a fault. Faults have a budget. What people do (writes, swaps, aborts) has one, too, and is neither.
 */
import * as Result from "effect/Result"
import type { Transition } from "../Explorer.ts"
import * as SimulatedFiles from "../SimulatedFiles.ts"
import * as SimulatedKernel from "../SimulatedKernel.ts"
import * as SimulatedProcess from "../SimulatedProcess.ts"
import * as SimulatedStreams from "../SimulatedStreams.ts"
import {
  breaks,
  type Crash,
  Draft,
  endProcess,
  endSupervisor,
  excuse,
  type Failure,
  KILLED,
  orphan,
  STRANGER,
  send,
  setProcess,
  setSupervisor,
  settleClients,
  setWrite
} from "./Draft.ts"
import { GARBAGE } from "./Frames.ts"
import * as KernelView from "./KernelView.ts"
import { ADDRESS, CLIENT, childOf, SUPERVISOR } from "./Layout.ts"
import type { Machines } from "./Parties.ts"
import * as Plain from "./PlainDriver.ts"
import { unsettled } from "./Properties.ts"
import { renumber } from "./Renumber.ts"
import * as Sealed from "./SealedDriver.ts"
import { commandOf, type FaultKind, type Settings, versionOf } from "./Settings.ts"
import { generationOf, type Move, type Process, pidOf, type Session, type World } from "./State.ts"
import * as S from "./SupervisorDriver.ts"
import * as Timers from "./Timers.ts"

const OTHER_HANDOFF = "ffffffff-ffff-4fff-bfff-ffffffffffff"

type Kind = "fair" | "idle" | "user" | FaultKind

/** Runs what a move does. `idle`: fair, but it does not keep slow timers from firing. */
type Offer = (kind: Kind, party: string, event: string, run: (draft: Draft) => void) => void

/** The calls that may fail, with the errno that comes of a full machine or a bad disk. */
export const FAILURES: ReadonlyArray<Failure> = [
  { call: "socketpair", errno: "EMFILE" },
  { call: "clone", errno: "EAGAIN" },
  { call: "connect", errno: "ECONNREFUSED" },
  { call: "look", errno: "EMFILE" },
  { call: "bind", errno: "ENOSPC" },
  { call: "flock", errno: "ENOLCK" },
  { call: "write", errno: "ENOSPC" },
  { call: "fsync", errno: "EIO" },
  { call: "rename", errno: "EIO" },
  { call: "fsync directory", errno: "EIO" }
]

const WEIGHT: Readonly<Record<string, number>> = { fair: 1, idle: 0.2, user: 0.3 }

const isFault = (kind: Kind): kind is FaultKind => kind !== "fair" && kind !== "idle" && kind !== "user"

export class Moves {
  readonly #settings: Settings
  readonly #machines: Machines

  constructor(settings: Settings, machines: Machines) {
    this.#settings = settings
    this.#machines = machines
  }

  next(world: World): ReadonlyArray<Transition<World, Move>> {
    if (world.broken !== undefined || world.lapsed) return []
    const transitions: Array<Transition<World, Move>> = []
    const { kinds } = this.#settings
    const add = (kind: Kind, party: string, event: string, fuse: number, draft: Draft): void => {
      const fair = kind === "fair" || kind === "idle"
      const weight = WEIGHT[kind] ?? 0.03
      transitions.push({ move: { party, event, fuse }, next: this.#rest(draft), fair, weight })
    }
    const make = (kind: Kind, party: string, event: string, act: (draft: Draft) => void, failure?: Failure): Draft => {
      const costs = (isFault(kind) ? 1 : 0) + (failure === undefined ? 0 : 1)
      const mayCrash = world.faults > costs && (kinds.includes("crash") || kinds.includes("cut"))
      const crashes: Array<Crash> | undefined = mayCrash ? [] : undefined
      const draft = new Draft(world, this.#settings, this.#machines, { failure, crashes })
      for (let spent = 0; spent < costs; spent++) spend(draft)
      act(draft)
      const name = event + reasonOf(failure)
      if (failure !== undefined) this.#machines.rows.add(`call ${failure.call}`)
      add(failure === undefined ? kind : "call", party, name, 0, draft)
      for (const crash of crashes ?? []) {
        if (crash.isNew && kinds.includes("crash")) {
          add("crash", party, name, crash.effect, this.#crash(crash, false))
        }
        if (crash.sending !== undefined && kinds.includes("cut")) {
          add("cut", party, name, -crash.effect, this.#crash(crash, true))
        }
      }
      return draft
    }
    const offer: Offer = (kind, party, event, act) => {
      const costs = isFault(kind) ? 1 : 0
      if (costs > 0 && (world.faults === 0 || !kinds.includes(kind as FaultKind))) return
      const draft = make(kind, party, event, act)
      if (world.faults === costs || !kinds.includes("call")) return
      for (const failure of FAILURES) if (draft.made(failure.call)) make(kind, party, event, act, failure)
    }
    this.#offerAll(world, offer)
    return transitions
  }

  /** The same move once more, telling what was done. */
  retell(world: World, move: Move): { readonly next: World | undefined; readonly log: ReadonlyArray<string> } {
    let told: { readonly next: World; readonly log: ReadonlyArray<string> } | undefined
    const offer: Offer = (kind, party, event, act) => {
      if (told !== undefined || party !== move.party || !move.event.startsWith(event)) return
      const failure = FAILURES.find((one) => event + reasonOf(one) === move.event)
      if (failure === undefined && event !== move.event) return
      const log: Array<string> = []
      const crashes: Array<Crash> = []
      const draft = new Draft(world, this.#settings, this.#machines, { failure, crashes, log })
      if (isFault(kind)) spend(draft)
      if (failure !== undefined) spend(draft)
      act(draft)
      const crash = crashes.find((one) => one.effect === Math.abs(move.fuse))
      if (crash === undefined) told = { next: this.#rest(draft), log }
      else {
        const cut = this.#crash(crash, move.fuse < 0)
        told = { next: this.#rest(cut), log: [...(crash.log ?? []), ...(cut.log ?? [])] }
      }
    }
    this.#offerAll(world, offer)
    return told ?? { next: undefined, log: [] }
  }

  /** Everything that can happen, whatever it costs. */
  #offerAll(world: World, offer: Offer): void {
    let busy = false
    const noting: Offer = (kind, ...rest) => {
      if (kind === "fair") busy = true
      offer(kind, ...rest)
    }
    supervisorMoves(world, noting, this.#settings, this.#machines)
    for (const process of world.processes) {
      if (KernelView.isStopped(world.kernel, process.pid))
        noting("idle", name(process), "SIGCONT", (draft) => goOn(draft, process))
      else processMoves(world, process, noting, this.#settings, this.#machines)
    }
    clientMoves(world, noting)
    faults(world, noting, this.#machines)
    const late: Kind = busy ? "slow" : "fair"
    slowMoves(world, this.#settings, (timer) => (Timers.isDue(timer) ? "fair" : late), noting)
  }

  /** The acting party dies right before one of its calls; `partly`: of what it was about to send, a part is sent. */
  #crash({ pid, world, sending, log }: Crash, partly: boolean): Draft {
    const draft = new Draft(world, this.#settings, this.#machines, log === undefined ? {} : { log: [] })
    if (partly && sending !== undefined) {
      send(draft, pid, sending.fd, this.#machines.frames.half(sending.bytes))
    }
    spend(draft)
    if (pid === SUPERVISOR) {
      endSupervisor(draft)
      S.adoptOrphans(draft)
    } else {
      excuse(draft, pid)
      endProcess(draft, pid)
    }
    return draft
  }

  #rest(draft: Draft): World {
    settleClients(draft)
    const { world } = draft
    if (world.lapsed) return world
    if (unsettled(world, this.#settings) !== undefined) return forgive(world)
    if (this.#settings.mode === "sealed" && !this.#machines.isKnownToServe(world, this.#settings)) {
      breaks(draft, "6 the incumbent serves on", "a daemon at rest would never acknowledge a write")
    }
    return renumber(world, this.#machines)
  }
}

const reasonOf = (failure: Failure | undefined): string =>
  failure === undefined ? "" : `; ${failure.call}: ${failure.errno}`

const spend = ({ world }: Draft): void => {
  world.faults--
  world.faultless = false
}

export const name = (process: Process): string => `v${process.version} ${process.pid}`

/** Nobody asks about a generation that the supervisor has forgotten, unless a swap is not wholly over. */
const forgive = (world: World): World => {
  const { supervisor, excused } = world
  if (excused.length === 0 || supervisor.life !== "running" || supervisor.machine.state.swap !== undefined) return world
  if (world.processes.length > 1 || world.processes.some(({ session }) => session >= 0)) return world
  const { generations } = supervisor.machine.state
  const kept = excused.filter((pid) => generations.some((one) => pidOf(one.id) === pid))
  return kept.length === excused.length ? world : { ...world, excused: kept }
}

const goOn = (draft: Draft, process: Process): void => {
  setStopped(draft, process.pid, false)
  setProcess(draft, process.pid, { timers: Timers.expire(process.timers) })
}

/** SIGSTOP and SIGCONT, by whoever may. */
const setStopped = (draft: Draft, pid: number, stopped: boolean): void =>
  draft.happen((kernel) => {
    const process = kernel.processes.get(pid)
    return process === undefined ? kernel : SimulatedKernel.withProcess(kernel, { ...process, stopped })
  })

const supervisorMoves = (world: World, offer: Offer, settings: Settings, machines: Machines): void => {
  const { supervisor } = world
  if (supervisor.life === "dead") return offer("idle", "S", "starts", S.restart)
  if (KernelView.isStopped(world.kernel, SUPERVISOR)) {
    return offer("idle", "S", "SIGCONT", (draft) => {
      setStopped(draft, SUPERVISOR, false)
      setSupervisor(draft, { timers: Timers.expire(supervisor.timers) })
    })
  }
  if (supervisor.life === "recovering") return offer("idle", "S", "looks", (draft) => S.look(draft, true))
  runningSupervisor(world, offer, settings, machines)
}

const runningSupervisor = (world: World, offer: Offer, settings: Settings, machines: Machines): void => {
  const { supervisor } = world
  const { state } = supervisor.machine
  const party = "S"
  const heard = new Set<number>()
  for (const fact of supervisor.facts) {
    // A generation is gone when its group is empty.
    if (fact.what === "gone" && world.kernel.processes.has(childOf(pidOf(fact.generation)))) continue
    if (fact.what !== "notified") {
      if (heard.has(fact.generation)) continue
      heard.add(fact.generation)
    }
    const event = `hears: generation ${fact.generation} ${fact.what}`
    offer("fair", party, event, (draft) => S.fact(draft, fact))
  }
  for (const session of supervisor.sessions) sessionMoves(world, session, offer, settings, machines)
  for (const generation of supervisor.looks) {
    offer("fair", party, `sees who serves the handoff socket for generation ${generation}`, (draft) => {
      setSupervisor(draft, { looks: supervisor.looks.filter((one) => one !== generation) })
      const served = S.lookAt(draft) === pidOf(generation)
      S.feed(draft, `see ${generation} ${served}`, { _tag: "HandoffSocketSeen", generation, served, at: 0 })
    })
  }
  for (const probe of supervisor.probes) probeMoves(world, probe, offer)
  for (const generation of supervisor.watches) {
    const process = world.processes.find((one) => one.pid === pidOf(generation))
    const known = state.generations.find((one) => one.id === generation)
    if (process?.accepting !== true || known === undefined) continue
    if (known.accepted && (known.phase !== "starting" || known.readiness.settling || known.readiness.mustNotify))
      continue
    // It publishes right after it has begun to accept, or is slow: nothing is decided by an instant of it.
    const kind = process.hooks[0] === "publish" ? "slow" : "fair"
    offer(kind, party, `sees generation ${generation} accept`, (draft) =>
      S.feed(draft, `observe ${generation}`, {
        _tag: "Observed",
        generation,
        accepting: true,
        waiting: true,
        connections: 0,
        at: 0
      })
    )
  }
  for (const timer of supervisor.timers) {
    const timerName = Timers.nameOf(timer)
    if (!Timers.isPrompt(timerName)) continue
    // A restart waits for a tenth of a second at least: what is known by then is heard before, or S is slow.
    const isEarly = timerName === "restart" && supervisor.facts.length > 0
    const kind = isEarly ? "slow" : isInVain(world, timerName) ? "idle" : "fair"
    offer(kind, party, `timer ${timerName}`, (draft) => fireSupervisor(draft, timerName))
  }
  if (supervisor.unsaved) {
    offer("fair", party, "saves again", (draft) => S.feed(draft, "save", { _tag: "TimerFired", timer: "save", at: 0 }))
  }
  userMoves(world, offer)
}

const resumes = ({ supervisor }: World): boolean => supervisor.machine.state.swap?.handoff?.phase === "resuming"

/** A try that will end as the last one did. A sealed daemon that is started finds the lock held. */
const isInVain = (world: World, timer: string): boolean =>
  timer === "handoff:probe"
    ? !isAnswered(world, resumes(world))
    : timer === "restart" && KernelView.lockHolder(world.kernel) !== 0

const fireSupervisor = (draft: Draft, timer: string): void => {
  setSupervisor(draft, { timers: Timers.clear(draft.world.supervisor.timers, timer) })
  S.feed(draft, `timer ${timer}`, { _tag: "TimerFired", timer, at: 0 })
}

/** Where a reader's bytes may stop within a frame. */
const cutsOf = (bytes: Uint8Array, { cuts }: Settings): ReadonlyArray<number> =>
  cuts === "ends" ? [1, bytes.length - 1] : Array.from({ length: bytes.length - 1 }, (_, index) => index + 1)

/** What a reader makes of the bytes that wait for it, and how they may be cut. */
const reads = (
  offer: Offer,
  party: string,
  from: string,
  waiting: { readonly partial: Uint8Array; readonly first: Uint8Array },
  settings: Settings,
  machines: Machines,
  read: (limit: number) => (draft: Draft) => void
): void => {
  const { partial, first } = waiting
  const { message, isGarbled } = machines.frames.decode(partial, first)
  const what = isGarbled ? "what is no frame" : (message?._tag ?? "a part")
  const event = `reads ${what}${from}`
  offer("fair", party, event, read(first.length))
  for (const cut of message === undefined || partial.length > 0 ? [] : cutsOf(first, settings)) {
    offer("cut", party, `${event}, of ${first.length} bytes ${cut}`, read(cut))
  }
}

const sessionMoves = (world: World, session: Session, offer: Offer, settings: Settings, machines: Machines): void => {
  const { fd, pid, partial, torn } = session
  if (fd === undefined) return offer("fair", "S", "connects", (draft) => S.connect(draft, session))
  // Nothing is read before the launch is known.
  const generation = generationOf(pid)
  if (world.supervisor.facts.some((one) => one.generation === generation && one.what === "launched")) return
  const stream = KernelView.stream(world.kernel, SUPERVISOR, fd)
  const read = (limit: number) => (draft: Draft) => S.read(draft, session, limit)
  const first = torn ? undefined : stream?.first
  if (first !== undefined) {
    reads(offer, "S", ` of ${pid}`, { partial, first }, settings, machines, read)
  } else if (torn || stream?.ended === true) {
    offer("fair", "S", `reads the end of ${pid}`, read(1))
  }
}

/** A look at the path would bring the swap on. */
const isAnswered = (world: World, hello: boolean): boolean => {
  const pid = S.listenerAt(world)
  const listener = world.processes.find((one) => one.pid === pid)
  if (!hello) return pid !== undefined && pid !== world.supervisor.machine.state.swap?.handoff?.incumbentPid
  return (
    listener === undefined ||
    (!KernelView.isStopped(world.kernel, listener.pid) && listener.incumbent?.state.phase === "serving")
  )
}

const probeMoves = (world: World, probe: World["supervisor"]["probes"][number], offer: Offer): void => {
  const answer = (draft: Draft, pid: number | undefined): void => {
    setSupervisor(draft, { probes: draft.world.supervisor.probes.filter((one) => one !== probe) })
    const { swap, hello } = probe
    S.handoffEvent(draft, swap, `P${pid}${hello}`, { _tag: "PathAnswered", pid, hello })
  }
  const answered = isAnswered(world, probe.hello)
  if (probe.hello && !answered) {
    // A connection that nobody takes; the look has a limit of its own.
    return offer("idle", "S", "is not greeted at the path", (draft) => answer(draft, undefined))
  }
  offer(answered ? "fair" : "idle", "S", "looks at the path", (draft) => answer(draft, S.lookAt(draft)))
}

const userMoves = (world: World, offer: Offer): void => {
  const { state } = world.supervisor.machine
  const wanted = state.swap === undefined && (state.phase === "serving" || state.phase === "recovering")
  if (world.swaps > 0 && wanted && world.supervisor.life === "running") {
    const version = versionOf(state.command) + 1
    const ask = (draft: Draft) => {
      draft.world.swaps--
      const handoffId = `00000000-0000-4000-8000-${String(state.nextSwap).padStart(12, "0")}`
      const unsaved = state.options.mode === "exclusive" && !S.canSave(draft) ? { unsaved: "ENOSPC" } : {}
      const event = {
        _tag: "SwapRequested",
        request: 1,
        command: commandOf(version),
        handoffId,
        at: 0,
        ...unsaved
      } as const
      S.feed(draft, `swap ${state.nextSwap} ${"unsaved" in unsaved}`, event)
    }
    offer("user", "user", `swap to v${version}`, ask)
  }
  if (world.stops > 0) {
    offer("user", "user", "stop", (draft) => {
      draft.world.stops--
      S.feed(draft, "stop", { _tag: "StopRequested", request: 3, at: 0 })
    })
  }
  if (world.aborts > 0 && state.swap !== undefined && state.swap.phase !== "rolling-back") {
    offer("user", "user", "abort", (draft) => {
      draft.world.aborts--
      S.feed(draft, "abort", { _tag: "AbortRequested", request: 2, at: 0 })
    })
  }
}

const processMoves = (world: World, process: Process, offer: Offer, settings: Settings, machines: Machines): void => {
  const party = name(process)
  const { pid } = process
  const signalled = KernelView.isAsked(world.kernel, pid)
  if (process.role === "plain") Plain.moves(process, signalled, offer)
  else sealedMoves(world, process, signalled, offer, settings, machines)
  const write = process.accepting ? world.writes.indexOf("queued") : -1
  if (write === -1) return
  offer("fair", party, `accepts write ${write}`, (draft) => {
    const request = Sealed.acceptWrite(draft, pid)
    if (request === undefined) return
    const memory = process.role === "plain" ? undefined : settings.daemon.request(process.memory, request.write)
    setProcess(draft, pid, { requests: [...process.requests, request], memory })
  })
}

const sealedMoves = (
  world: World,
  process: Process,
  signalled: boolean,
  offer: Offer,
  settings: Settings,
  machines: Machines
): void => {
  const party = name(process)
  const { pid } = process
  const [hook] = process.hooks
  if (hook !== undefined && Sealed.mayEnd(process, hook, settings.daemon)) {
    offer("fair", party, `${hook} ends`, (draft) => Sealed.endHook(draft, pid, "well"))
  }
  if (hook !== undefined) hookFaults(world, process, hook, offer)
  const stream = KernelView.stream(world.kernel, pid, process.session)
  if (stream !== undefined && hook !== "start") {
    const { first, ended } = stream
    const read = (limit: number) => (draft: Draft) => Sealed.read(draft, pid, limit)
    if (first !== undefined) reads(offer, party, "", { partial: process.partial, first }, settings, machines, read)
    else if (ended) offer("fair", party, "reads the end", read(1))
  }
  const phase = process.incumbent?.state.phase
  const serves = phase === "serving"
  if (serves && !process.stopping && KernelView.hasWaiting(world.kernel, pid, process.socket)) {
    offer("fair", party, "takes a supervisor", (draft) => Sealed.take(draft, pid))
  }
  if (signalled) offer("fair", party, "hears SIGTERM", (draft) => Sealed.hearStop(draft, pid))
  if (process.stopping && (phase === "greeting" || phase === "resumed")) {
    offer("fair", party, "sends the supervisor away", (draft) => Sealed.hearEnd(draft, pid))
  }
  if (process.stopping && serves) {
    if (process.accepting) {
      offer("fair", party, "drains to stop", (draft) => {
        Sealed.leavePath(draft, pid)
        setProcess(draft, pid, { accepting: false, memory: settings.daemon.drain(process.memory) })
      })
    } else if (settings.daemon.isDrained(process.memory)) {
      offer("fair", party, "stops", (draft) => Sealed.stop(draft, pid))
    }
  }
  for (const timer of process.timers) {
    const timerName = Timers.nameOf(timer)
    if (!Timers.isPoll(timerName)) continue
    if (timerName === "reclaim") {
      // It is tried while the lock is held.
      if (process.lock >= 0) offer("fair", party, "takes the path again", (draft) => Sealed.reclaim(draft, pid))
      continue
    }
    const isFree =
      timerName === "publish" ||
      KernelView.lockHolder(world.kernel) === 0 ||
      (phase !== undefined && isReplaced(world, pid))
    offer(isFree ? "fair" : "idle", party, `timer ${timerName}`, (draft) => Sealed.fire(draft, pid, timerName))
  }
  const choices = process.memory === undefined ? [] : settings.daemon.work(process.memory, world.disk)
  for (const choice of choices.keys()) {
    const about = choices[choice]?.acknowledges ?? choices[choice]?.refuses ?? choice
    offer("fair", party, `works on ${about} (${choice})`, (draft) => Sealed.work(draft, pid, choice))
  }
}

const isReplaced = (world: World, pid: number): boolean => {
  const listener = S.listenerAt(world)
  return listener !== undefined && listener !== pid
}

const hookFaults = (world: World, process: Process, hook: string, offer: Offer): void => {
  const party = name(process)
  const { pid } = process
  const fail = (kind: FaultKind, end: Sealed.End) =>
    offer(kind, party, `${hook}: ${end}`, (draft) => Sealed.endHook(draft, pid, end))
  switch (hook) {
    case "take listeners":
      return fail("call", "failed")
    case "open":
      fail("hook", "failed")
      if (process.role === "cold") return
      fail("hook", "unhealthy")
      if (world.writes.includes("acknowledged")) fail("hook", "behind")
      return
    case "drain":
    case "seal":
    case "resume":
      return fail("hook", "failed")
  }
}

const clientMoves = (world: World, offer: Offer): void => {
  const write = world.writes.indexOf("unsent")
  if (write === -1 || !KernelView.isListening(world.kernel)) return
  offer("user", "client", `sends write ${write}`, (draft) => {
    const connected = draft.call(CLIENT, "connect", (kernel) => SimulatedStreams.connect(kernel, CLIENT, ADDRESS))
    const fd = Result.getOrThrow(connected)
    send(draft, CLIENT, fd, Uint8Array.of(write))
    draft.world.connections = world.connections.map((one, index) => (index === write ? fd : one))
    setWrite(draft, write, "queued")
  })
}

const faults = (world: World, offer: Offer, machines: Machines): void => {
  const { supervisor } = world
  if (world.faults === 0) return
  if (supervisor.life !== "dead") offer("kill", "S", "kill -9", endSupervisor)
  if (supervisor.life === "running" && !KernelView.isStopped(world.kernel, SUPERVISOR)) {
    offer("stop", "S", "SIGSTOP", (draft) => setStopped(draft, SUPERVISOR, true))
  }
  for (const process of world.processes) {
    const party = name(process)
    const { pid } = process
    offer("kill", party, "kill -9", (draft) => {
      excuse(draft, pid)
      endProcess(draft, pid)
    })
    if (process.role === "plain") {
      offer("group", party, "kill -9, and a child of it lives on", (draft) => {
        excuse(draft, pid)
        orphan(draft, pid)
      })
    }
    if (!KernelView.isStopped(world.kernel, pid))
      offer("stop", party, "SIGSTOP", (draft) => setStopped(draft, pid, true))
  }
  offer("power", "kernel", "power cut", powerCut)
  strangers(world, offer, machines)
  noise(world, offer, machines)
}

const powerCut = (draft: Draft): void => {
  const { world } = draft
  endSupervisor(draft)
  for (const { pid } of world.processes) {
    excuse(draft, pid)
    endProcess(draft, pid)
  }
  for (const { pid } of KernelView.orphans(world.kernel)) {
    draft.happen((kernel) => SimulatedKernel.end(kernel, pid, KILLED))
  }
  settleClients(draft)
  // Whoever connects is elsewhere, and lives on.
  draft.happen((kernel) => ({
    ...SimulatedFiles.powerCut(kernel),
    processes: new Map([...kernel.processes].filter(([pid]) => pid === CLIENT))
  }))
  const { survives } = draft.settings.daemon
  if (survives !== undefined) world.disk = survives(world.disk)
}

/** While nobody looks, the pid of a dead generation is given to another program. */
const strangers = (world: World, offer: Offer, machines: Machines): void => {
  if (world.supervisor.life !== "dead") return
  for (const { id } of machines.saved(world.kernel)?.generations ?? []) {
    const pid = pidOf(id)
    // The number of a group is not given away.
    if (world.kernel.processes.has(pid) || world.kernel.processes.has(childOf(pid))) continue
    offer("pid", "kernel", `gives pid ${pid} to a stranger`, (draft) =>
      draft.happen((kernel) =>
        SimulatedKernel.withProcess(kernel, SimulatedProcess.make({ pid, argv: [STRANGER], startTime: 1 }))
      )
    )
  }
}

const stray = [
  { _tag: "Commit", handoffId: OTHER_HANDOFF },
  { _tag: "Abort", handoffId: OTHER_HANDOFF, reason: "" },
  { _tag: "Heartbeat", tsMs: 0n }
] as const

const noise = (world: World, offer: Offer, { frames }: Machines): void => {
  for (const { fd, pid, torn } of world.supervisor.sessions) {
    const process = world.processes.find((one) => one.pid === pid)
    if (fd === undefined || torn || process === undefined || process.session < 0) continue
    for (const message of stray) {
      offer("noise", "S", `a stray ${message._tag} goes to ${pid}`, (draft) => {
        send(draft, SUPERVISOR, fd, frames.encode(message, 1))
      })
    }
    offer("noise", "S", `what is no frame goes to ${pid}`, (draft) => {
      send(draft, SUPERVISOR, fd, GARBAGE)
    })
    if (KernelView.isStopped(world.kernel, pid)) continue
    offer("noise", name(process), "sends what is no frame", (draft) => {
      send(draft, pid, process.session, GARBAGE)
    })
  }
  for (const process of world.processes) {
    const { pid } = process
    if (process.session < 0 || KernelView.isStopped(world.kernel, pid)) continue
    if (process.timers.includes("heartbeat")) {
      offer("noise", name(process), "timer heartbeat", (draft) => Sealed.fire(draft, pid, "heartbeat"))
    }
    if (process.hooks[0] === "seal") {
      const event = { _tag: "Progressed", sealed: 1, total: 2, lastRevision: 0n } as const
      offer("noise", name(process), "tells its progress", (draft) => Sealed.feed(draft, pid, "PR", event))
    }
  }
}

/** Timers that fire only when somebody is late, and limits of the same kind. */
const slowMoves = (world: World, settings: Settings, kindOf: (timer: string) => Kind, offer: Offer): void => {
  const { supervisor } = world
  if (supervisor.life === "running" && !KernelView.isStopped(world.kernel, SUPERVISOR)) {
    for (const timer of supervisor.timers) {
      const timerName = Timers.nameOf(timer)
      if (Timers.isPrompt(timerName)) continue
      offer(kindOf(timer), "S", `timer ${timerName}`, (draft) => fireSupervisor(draft, timerName))
    }
  }
  if (supervisor.life === "recovering" && !KernelView.isStopped(world.kernel, SUPERVISOR)) {
    offer(kindOf(""), "S", "looks, its patience at an end", (draft) => S.look(draft, false))
  }
  for (const process of world.processes) {
    const { pid } = process
    if (KernelView.isStopped(world.kernel, pid)) continue
    for (const timer of process.timers) {
      const timerName = Timers.nameOf(timer)
      if (Timers.isPoll(timerName) || timerName === "heartbeat") continue
      offer(kindOf(timer), name(process), `timer ${timerName}`, (draft) => Sealed.fire(draft, pid, timerName))
    }
    if (process.hooks[0] === "drain" && !Sealed.mayEnd(process, "drain", settings.daemon)) {
      offer(kindOf(""), name(process), "drain runs out of time", (draft) => Sealed.endHook(draft, pid, "well"))
    }
    if (process.stopping && process.incumbent?.state.session) {
      offer(kindOf(""), name(process), "loses patience", (draft) => Sealed.hearEnd(draft, pid))
    }
  }
}

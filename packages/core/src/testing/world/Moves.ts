/**
 * Everything that can happen in a world.
 *
 * Fair moves happen by themselves, sooner or later: something is read, a hook ends, a prompt timer fires, a dead supervisor
 * is started again, a stopped process goes on. A slow timer fires by itself when nothing else is under way; earlier it is
 * a fault. Faults have a budget. What people do (writes, swaps, aborts) has one, too, and is neither.
 */
import type { Transition } from "../Explorer.ts"
import { Draft, endProcess, endSupervisor, excuse, isListening, setProcess, setSupervisor, setWrite } from "./Draft.ts"
import type { Machines } from "./Parties.ts"
import * as Plain from "./PlainDriver.ts"
import { unsettled } from "./Properties.ts"
import { renumber } from "./Renumber.ts"
import * as Sealed from "./SealedDriver.ts"
import { commandOf, type FaultKind, type Settings, versionOf } from "./Settings.ts"
import { generationOf, type Move, type Process, pidOf, type World } from "./State.ts"
import * as S from "./SupervisorDriver.ts"
import * as Timers from "./Timers.ts"

const OTHER_HANDOFF = "another handoff"

type Kind = "fair" | "idle" | "user" | FaultKind

/** Runs what a move does; `fair`, `idle`: the latter does not keep slow timers from firing. */
type Offer = (kind: Kind, party: string, event: string, run: (draft: Draft) => void) => void

const WEIGHT: Readonly<Record<string, number>> = { fair: 1, idle: 0.2, user: 0.3 }

export class Moves {
  readonly #settings: Settings
  readonly #machines: Machines

  constructor(settings: Settings, machines: Machines) {
    this.#settings = settings
    this.#machines = machines
  }

  next(world: World): ReadonlyArray<Transition<World, Move>> {
    if (world.broken !== undefined) return []
    const transitions: Array<Transition<World, Move>> = []
    const { kinds } = this.#settings
    let busy = false
    const add = (kind: Kind, party: string, event: string, fuse: number, next: World): void => {
      const fair = kind === "fair" || kind === "idle"
      transitions.push({ move: { party, event, fuse }, next: rest(next), fair, weight: WEIGHT[kind] ?? 0.03 })
    }
    const run = (act: (draft: Draft) => void, fuse: number, isFault: boolean): Draft => {
      const draft = new Draft(world, this.#settings, this.#machines, fuse)
      if (isFault) {
        draft.world.faults--
        draft.world.faultless = false
      }
      act(draft)
      return draft
    }
    const rest = (next: World): World =>
      unsettled(next, this.#settings) === undefined ? renumber(next, this.#machines) : forgive(next)
    const offer: Offer = (kind, party, event, act) => {
      const isFault = kind !== "fair" && kind !== "idle" && kind !== "user"
      if (isFault && (world.faults === 0 || !kinds.includes(kind))) return
      const draft = run(act, 0, isFault)
      if (kind === "fair") busy = true
      add(kind, party, event, 0, draft.world)
      const left = world.faults - (isFault ? 1 : 0)
      if (draft.effects < 2 || left === 0 || !kinds.includes("crash")) return
      for (let fuse = 2; fuse <= draft.effects; fuse++) {
        const cut = run(act, fuse, isFault)
        cut.world.faults--
        cut.world.faultless = false
        add("crash", party, event, fuse, cut.world)
      }
    }
    supervisorMoves(world, offer)
    for (const process of world.processes) {
      if (process.stopped) offer("idle", name(process), "SIGCONT", (draft) => goOn(draft, process))
      else processMoves(world, process, offer, this.#settings)
    }
    clientMoves(world, offer)
    faults(world, offer)
    const late: Kind = busy ? "slow" : "fair"
    slowMoves(world, this.#settings, (timer) => (Timers.isDue(timer) ? "fair" : late), offer)
    return transitions
  }

  /** The same move once more, telling what was done. */
  retell(world: World, move: Move): { readonly next: World | undefined; readonly log: ReadonlyArray<string> } {
    const log: Array<string> = []
    let next: World | undefined
    const offer: Offer = (_, party, event, act) => {
      if (next !== undefined || party !== move.party || event !== move.event) return
      const draft = new Draft(world, this.#settings, this.#machines, move.fuse, log)
      act(draft)
      next = unsettled(draft.world, this.#settings) === undefined ? renumber(draft.world, this.#machines) : draft.world
    }
    supervisorMoves(world, offer)
    for (const process of world.processes) {
      if (process.stopped) offer("idle", name(process), "SIGCONT", (draft) => goOn(draft, process))
      else processMoves(world, process, offer, this.#settings)
    }
    clientMoves(world, offer)
    faults(world, offer)
    slowMoves(world, this.#settings, () => "slow", offer)
    return { next, log }
  }
}

export const name = (process: Process): string => `v${process.version} ${process.pid}`

/** Nobody asks about a generation that the supervisor has forgotten, unless a swap is not wholly over. */
const forgive = (world: World): World => {
  const { supervisor, excused } = world
  if (excused.length === 0 || supervisor.life !== "running" || supervisor.machine.state.swap !== undefined) return world
  if (world.streams.length > 0 || world.processes.length > 1) return world
  const { generations } = supervisor.machine.state
  const kept = excused.filter((pid) => generations.some((one) => pidOf(one.id) === pid))
  return kept.length === excused.length ? world : { ...world, excused: kept }
}

const goOn = (draft: Draft, process: Process): void =>
  setProcess(draft, process.pid, { stopped: false, timers: Timers.expire(process.timers) })

const supervisorMoves = (world: World, offer: Offer): void => {
  const { supervisor } = world
  switch (supervisor.life) {
    case "dead":
      return offer("idle", "S", "starts", S.restart)
    case "stopped":
      return offer("idle", "S", "SIGCONT", (draft) =>
        setSupervisor(draft, { life: "running", timers: Timers.expire(supervisor.timers) })
      )
    case "recovering":
      return offer("idle", "S", "looks", (draft) => S.look(draft, true))
    default:
      runningSupervisor(world, offer)
  }
}

const runningSupervisor = (world: World, offer: Offer): void => {
  const { supervisor } = world
  const { state } = supervisor.machine
  const party = "S"
  const heard = new Set<number>()
  for (const fact of supervisor.facts) {
    if (fact.what !== "notified") {
      if (heard.has(fact.generation)) continue
      heard.add(fact.generation)
    }
    const event = `hears: generation ${fact.generation} ${fact.what}`
    offer("fair", party, event, (draft) => S.fact(draft, fact))
    offer("call", party, `${event}; the save fails`, (draft) => S.fact(draft, fact, "save"))
    if (fact.what === "gone") offer("call", party, `${event}; a launch fails`, (draft) => S.fact(draft, fact, "launch"))
  }
  for (const session of supervisor.sessions) sessionMoves(world, session, offer)
  for (const generation of supervisor.looks) {
    offer("fair", party, `sees who serves the handoff socket for generation ${generation}`, (draft) => {
      setSupervisor(draft, { looks: supervisor.looks.filter((one) => one !== generation) })
      const served = S.listenerAt(draft) === pidOf(generation)
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
    offer("fair", party, `sees generation ${generation} accept`, (draft) =>
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
    if (timerName === "restart") {
      offer("call", party, "timer restart; the launch fails", (draft) => fireSupervisor(draft, timerName, "launch"))
    }
  }
  if (supervisor.unsaved) {
    offer("fair", party, "saves again", (draft) => S.feed(draft, "save", { _tag: "TimerFired", timer: "save", at: 0 }))
  }
  userMoves(world, offer)
}

const resumes = ({ supervisor }: World): boolean => supervisor.machine.state.swap?.handoff?.phase === "resuming"

/** A try that will end as the last one did. A sealed daemon that is started finds the lock held. */
const isInVain = (world: World, timer: string): boolean =>
  timer === "handoff:probe" ? !isAnswered(world, resumes(world)) : timer === "restart" && world.lock !== 0

const fireSupervisor = (draft: Draft, timer: string, failing?: S.Failing): void => {
  setSupervisor(draft, { timers: Timers.clear(draft.world.supervisor.timers, timer) })
  S.feed(draft, `timer ${timer}`, { _tag: "TimerFired", timer, at: 0 }, failing)
}

const sessionMoves = (world: World, session: World["supervisor"]["sessions"][number], offer: Offer): void => {
  if (session.stream === undefined) {
    offer("fair", "S", "connects", (draft) => S.connect(draft, session, false))
    return offer("call", "S", "cannot connect", (draft) => S.connect(draft, session, true))
  }
  const stream = world.streams.find((one) => one.id === session.stream)
  if (stream === undefined) return
  const generation = generationOf(stream.pid)
  // Nothing is read before the launch is known.
  if (world.supervisor.facts.some((one) => one.generation === generation && one.what === "launched")) return
  const [message] = stream.toSupervisor
  if (message !== undefined) {
    const event = `reads ${message._tag} of ${stream.pid}`
    offer("fair", "S", event, (draft) => S.read(draft, session))
    if (message._tag === "Hello" && session.party === "incumbent") {
      offer("call", "S", `${event}; the launch fails`, (draft) => S.read(draft, session, "launch"))
    }
    offer("call", "S", `${event}; the save fails`, (draft) => S.read(draft, session, "save"))
  } else if (stream.processClosed) {
    offer("fair", "S", `reads the end of ${stream.pid}`, (draft) => S.read(draft, session))
  }
}

/** A look at the path would bring the swap on. */
const isAnswered = (world: World, hello: boolean): boolean => {
  const listener = world.processes.find((one) => one.pid === world.path && one.socket === "published")
  if (hello) return listener === undefined || (!listener.stopped && listener.incumbent?.state.phase === "serving")
  return listener !== undefined && listener.pid !== world.supervisor.machine.state.swap?.handoff?.incumbentPid
}

const probeMoves = (world: World, probe: World["supervisor"]["probes"][number], offer: Offer): void => {
  const answer = (draft: Draft, pid: number | undefined): void => {
    setSupervisor(draft, { probes: draft.world.supervisor.probes.filter((one) => one !== probe) })
    S.handoffEvent(draft, probe.swap, `P${pid}`, { _tag: "PathAnswered", pid })
  }
  const answered = isAnswered(world, probe.hello)
  if (probe.hello && !answered) {
    // A connection that nobody takes; the look has a limit of its own.
    return offer("idle", "S", "is not greeted at the path", (draft) => answer(draft, undefined))
  }
  offer(answered ? "fair" : "idle", "S", "looks at the path", (draft) => answer(draft, S.listenerAt(draft)))
}

const userMoves = (world: World, offer: Offer): void => {
  const { state } = world.supervisor.machine
  const wanted = state.swap === undefined && (state.phase === "serving" || state.phase === "recovering")
  if (world.swaps > 0 && wanted && world.supervisor.life === "running") {
    const version = versionOf(state.command) + 1
    const ask = (failing?: S.Failing) => (draft: Draft) => {
      draft.world.swaps--
      const handoffId = `handoff ${state.nextSwap}`
      const event = { _tag: "SwapRequested", request: 1, command: commandOf(version), handoffId, at: 0 } as const
      S.feed(draft, `swap ${state.nextSwap}`, event, failing)
    }
    offer("user", "user", `swap to v${version}`, ask())
    offer("call", "user", `swap to v${version}; the save fails`, ask("save"))
    offer("call", "user", `swap to v${version}; the launch fails`, ask("launch"))
  }
  if (world.aborts > 0 && state.swap !== undefined && state.swap.phase !== "rolling-back") {
    offer("user", "user", "abort", (draft) => {
      draft.world.aborts--
      S.feed(draft, "abort", { _tag: "AbortRequested", request: 2, at: 0 })
    })
  }
}

const processMoves = (world: World, process: Process, offer: Offer, settings: Settings): void => {
  const party = name(process)
  const { pid } = process
  if (process.role === "plain") Plain.moves(process, offer)
  else sealedMoves(world, process, offer, settings)
  for (const write of process.accepting ? world.writes.keys() : []) {
    if (world.writes[write] !== "queued") continue
    offer("fair", party, `accepts write ${write}`, (draft) => {
      setWrite(draft, write, "in flight")
      const requests = [...process.requests, write]
      const memory = process.role === "plain" ? undefined : settings.daemon.request(process.memory, write)
      setProcess(draft, pid, { requests, memory })
    })
    break
  }
}

const sealedMoves = (world: World, process: Process, offer: Offer, settings: Settings): void => {
  const party = name(process)
  const { pid } = process
  const [hook] = process.hooks
  if (hook !== undefined && Sealed.mayEnd(process, hook, settings.daemon)) {
    offer("fair", party, `${hook} ends`, (draft) => Sealed.endHook(draft, pid, "well"))
  }
  if (hook !== undefined) hookFaults(world, process, hook, offer)
  const spoken = world.streams.find((one) => one.pid === pid && one.taken && !one.processClosed)
  if (spoken !== undefined && hook !== "start") {
    const [message] = spoken.toProcess
    if (message !== undefined) offer("fair", party, `reads ${message._tag}`, (draft) => Sealed.read(draft, pid))
    else if (spoken.supervisorClosed) {
      offer("fair", party, "reads the end", (draft) => Sealed.read(draft, pid))
      if (process.successor?.state.phase === "announced") {
        offer("call", party, "reads the end; the rename fails", (draft) => Sealed.read(draft, pid, true))
      }
    }
  }
  const phase = process.incumbent?.state.phase
  const serves = phase === "serving"
  if (serves && !process.stopping && world.streams.some((one) => one.pid === pid && !one.taken)) {
    offer("fair", party, "takes a supervisor", (draft) => Sealed.take(draft, pid))
  }
  if (process.signalled) offer("fair", party, "hears SIGTERM", (draft) => Sealed.hearStop(draft, pid))
  if (process.stopping && (phase === "greeting" || phase === "resumed")) {
    offer("fair", party, "sends the supervisor away", (draft) => Sealed.dismiss(draft, pid))
  }
  if (process.stopping && serves) {
    if (process.accepting) {
      offer("fair", party, "drains to stop", (draft) =>
        setProcess(draft, pid, { accepting: false, memory: settings.daemon.drain(process.memory) })
      )
    } else if (settings.daemon.isDrained(process.memory)) {
      offer("fair", party, "stops", (draft) => Sealed.stop(draft, pid))
    }
  }
  for (const timer of process.timers) {
    const timerName = Timers.nameOf(timer)
    if (!Timers.isPoll(timerName)) continue
    const isFree = timerName === "publish" || world.lock === 0 || (phase !== undefined && isReplaced(world, pid))
    offer(isFree ? "fair" : "idle", party, `timer ${timerName}`, (draft) => Sealed.fire(draft, pid, timerName))
  }
  const choices = process.memory === undefined ? [] : settings.daemon.work(process.memory, world.disk)
  for (const choice of choices.keys()) {
    const about = choices[choice]?.acknowledges ?? choices[choice]?.refuses ?? choice
    offer("fair", party, `works on ${about} (${choice})`, (draft) => Sealed.work(draft, pid, choice))
  }
}

const isReplaced = (world: World, pid: number): boolean => {
  const listener = S.listenerIn(world)
  return listener !== undefined && listener !== pid
}

const hookFaults = (world: World, process: Process, hook: string, offer: Offer): void => {
  const party = name(process)
  const { pid } = process
  const fail = (kind: FaultKind, end: Sealed.End) =>
    offer(kind, party, `${hook}: ${end}`, (draft) => Sealed.endHook(draft, pid, end))
  switch (hook) {
    case "take listeners":
    case "prepare socket":
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
  if (write === -1 || !isListening(world)) return
  offer("user", "client", `sends write ${write}`, (draft) => setWrite(draft, write, "queued"))
}

const faults = (world: World, offer: Offer): void => {
  const { supervisor } = world
  if (world.faults === 0) return
  if (supervisor.life !== "dead") offer("kill", "S", "kill -9", endSupervisor)
  if (supervisor.life === "running") {
    offer("stop", "S", "SIGSTOP", (draft) => setSupervisor(draft, { life: "stopped" }))
  }
  for (const process of world.processes) {
    const party = name(process)
    offer("kill", party, "kill -9", (draft) => {
      excuse(draft, process.pid)
      endProcess(draft, process.pid)
    })
    if (!process.stopped) {
      offer("stop", party, "SIGSTOP", (draft) => setProcess(draft, process.pid, { stopped: true }))
    }
  }
  offer("power", "kernel", "power cut", powerCut)
  strangers(world, offer)
  noise(world, offer)
}

const powerCut = (draft: Draft): void => {
  const { world } = draft
  endSupervisor(draft)
  for (const { pid } of world.processes) {
    excuse(draft, pid)
    endProcess(draft, pid)
  }
  world.document = world.durable
  const { survives } = draft.settings.daemon
  if (survives !== undefined) world.disk = survives(world.disk)
}

/** While nobody looks, the pid of a dead generation is given to another program. */
const strangers = (world: World, offer: Offer): void => {
  if (world.supervisor.life !== "dead") return
  for (const { id } of world.document?.generations ?? []) {
    const pid = pidOf(id)
    if (world.processes.some((one) => one.pid === pid) || world.strangers.includes(pid)) continue
    offer("pid", "kernel", `gives pid ${pid} to a stranger`, (draft) => {
      draft.world.strangers = [...world.strangers, pid]
    })
  }
}

const stray = [
  { _tag: "Commit", handoffId: OTHER_HANDOFF },
  { _tag: "Abort", handoffId: OTHER_HANDOFF, reason: "" },
  { _tag: "Heartbeat", tsMs: 0n }
] as const

const noise = (world: World, offer: Offer): void => {
  for (const stream of world.streams) {
    const process = world.processes.find((one) => one.pid === stream.pid)
    if (process === undefined || stream.processClosed || stream.supervisorClosed || !stream.taken) continue
    for (const message of stray) {
      offer("noise", "S", `a stray ${message._tag} goes to ${stream.pid}`, (draft) => {
        const streams = world.streams.map((one) =>
          one === stream ? { ...one, toProcess: [...one.toProcess, message] } : one
        )
        draft.world.streams = streams
      })
    }
    if (process.timers.includes("heartbeat") && !process.stopped) {
      offer("noise", name(process), "timer heartbeat", (draft) => Sealed.fire(draft, process.pid, "heartbeat"))
    }
    if (process.hooks[0] === "seal" && !process.stopped) {
      const event = { _tag: "Progressed", sealed: 1, total: 2, lastRevision: 0n } as const
      offer("noise", name(process), "tells its progress", (draft) => Sealed.feed(draft, process.pid, "PR", event))
    }
  }
}

/** Timers that fire only when somebody is late, and limits of the same kind. */
const slowMoves = (world: World, settings: Settings, kindOf: (timer: string) => Kind, offer: Offer): void => {
  const { supervisor } = world
  if (supervisor.life === "running") {
    for (const timer of supervisor.timers) {
      const timerName = Timers.nameOf(timer)
      if (Timers.isPrompt(timerName)) continue
      offer(kindOf(timer), "S", `timer ${timerName}`, (draft) => fireSupervisor(draft, timerName))
    }
  }
  if (supervisor.life === "recovering") {
    offer(kindOf(""), "S", "looks, its patience at an end", (draft) => S.look(draft, false))
  }
  for (const process of world.processes) {
    if (process.stopped) continue
    const { pid } = process
    for (const timer of process.timers) {
      const timerName = Timers.nameOf(timer)
      if (Timers.isPoll(timerName) || timerName === "heartbeat") continue
      offer(kindOf(timer), name(process), `timer ${timerName}`, (draft) => Sealed.fire(draft, pid, timerName))
    }
    if (process.hooks[0] === "drain" && !Sealed.mayEnd(process, "drain", settings.daemon)) {
      offer(kindOf(""), name(process), "drain runs out of time", (draft) => Sealed.endHook(draft, pid, "well"))
    }
    if (process.stopping && process.incumbent?.state.session) {
      offer(kindOf(""), name(process), "loses patience", (draft) => Sealed.dismiss(draft, pid))
    }
  }
}

/**
 * A World as the other side of a replay: what a path comes down to as a script, and how a script may end.
 *
 * A state here is a world and what a world forgets: in which order processes were started, what the caller heard, and
 * which faults of the script are still to come. Faults are taken out of the world's own hands (its budget is 0): a fault
 * happens where its script says, at the first time that its party comes there, and nowhere else. All else is as free as
 * in any exploration, so `outcomes` gives every end that a run of the script may have.
 */
import type { Transition } from "@handoff/core/testing/Explorer"
import * as World from "@handoff/core/testing/World"
import type { Fault, Mode, Outcome, Party, Script } from "./ReplayScript.ts"
import { faultText } from "./ReplayScript.ts"

type State = World.World
type Step = Transition<State, World.Move>

/** What a world forgets. */
interface Memory {
  /** Which process is which, by pid. */
  readonly labels: Readonly<Record<number, number>>
  readonly started: number
  /** What version 1 of the world is: it counts anew when it comes to rest. */
  readonly first: "old" | "new"
  readonly told: "" | "committed" | "rolled back" | "nothing"
}

interface Point {
  readonly party: Party
  readonly name: string
  /**
   * Where in the step: before anything of it, after its first effect, after all of it, or after that message went out.
   * `around`: a real step has two parts, and the point is between them.
   */
  readonly where: "before" | "around" | "saved" | "after" | { readonly sent: string; readonly to: string }
}

export const modelOf = (mode: Mode, faults: number): World.WorldModel => World.make({ mode, faults, aborts: 1 })

const pidOf = (party: string): number => Number(party.split(" ").at(-1))

const partyOf = ({ labels }: Memory, party: string): Party | undefined =>
  party === "S" ? "S" : party.startsWith("v") ? labels[pidOf(party)] : undefined

/** Who makes this step: what a user asks for is the supervisor's. */
const actorOf = (memory: Memory, { move }: Step): Party | undefined =>
  move.party === "user" ? "S" : partyOf(memory, move.party)

const sideOf = (world: State, pid: number): string =>
  world.supervisor.machine.state.swap?.from === pid - 100 ? "incumbent" : "successor"

/** The event that a supervisor's step takes, in the words of a script. */
const eventName = (before: State, event: string, memory: Memory): string => {
  const hears = /^hears: generation (\d+) (launched|exited|gone)/.exec(event)
  if (hears !== null) {
    const what = { launched: "launch", exited: "exit", gone: "end" }[hears[2] ?? ""]
    return `${what} of #${memory.labels[100 + Number(hears[1])]}`
  }
  const reads = /^reads (\w+) of (\d+)/.exec(event)
  if (reads !== null) return `${reads[1]} of ${sideOf(before, Number(reads[2]))}`
  const lost = /^reads the end of (\d+)/.exec(event)
  if (lost !== null) return `the end of ${sideOf(before, Number(lost[1]))}`
  if (event.startsWith("swap to")) return "the request"
  if (event.startsWith("timer restart")) return "time to restart"
  return event === "connects" ? "the connection" : ""
}

const SENT: ReadonlyArray<readonly [message: string, to: string, point: string]> = [
  ["HelloAck", "incumbent", "s-after-o-hello"],
  ["HelloAck", "successor", "s-after-n-hello"],
  ["PrepareHandoff", "incumbent", "s-after-prepare-sent"],
  ["SealRequest", "incumbent", "s-after-seal-request-sent"],
  ["Begin", "successor", "s-after-begin-sent"],
  ["Commit", "incumbent", "s-after-commit-sent"]
]

const supervisorPoints = (before: State, step: Step, memory: Memory, log: ReadonlyArray<string>) => {
  const points: Array<Point> = []
  const event = eventName(before, step.move.event, memory)
  if (event === "" || event.includes("undefined")) return points
  if (event === "the connection" && step.next.supervisor.sessions.every((one) => one.fd === undefined)) return points
  const add = (name: string, where: Point["where"]) => points.push({ party: "S", name, where })
  if (event !== "the request") add(`takes ${event}`, event === "the connection" ? "around" : "before")
  if (World.documentOf(step.next) !== World.documentOf(before)) add(`saved ${event}`, "saved")
  for (const [sent, to, name] of SENT) if (log.includes(`send ${sent} to ${to}`)) add(name, { sent, to })
  if (log.some((one) => /^launch generation .* as successor/.test(one))) add("s-after-spawn-successor", "after")
  return points
}

const processOf = (world: State, pid: number) => world.processes.find((one) => one.pid === pid)

const OWN_HOOKS = ["open", "drain", "seal", "resume", "close"]

const daemonPoints = (before: State, step: Step, memory: Memory, log: ReadonlyArray<string>) => {
  const points: Array<Point> = []
  const { event, party } = step.move
  const pid = pidOf(party)
  const label = memory.labels[pid]
  const process = processOf(before, pid)
  if (label === undefined || process === undefined) return points
  const add = (name: string, where: Point["where"]) => points.push({ party: label, name, where })
  const hook = processOf(step.next, pid)?.hooks[0]
  if (process.role === "plain") {
    if (event === "accepts") add("start", "before")
    if (event === "hears SIGTERM") add("SIGTERM", "after")
    return points
  }
  if (process.role === "successor") {
    if (event === "start ends") add("n-before-handshake", "before")
    if (event === "reads HelloAck") add("n-after-handshake", "after")
    if (event === "reads Begin") add("n-after-begin", "after")
    if (log.includes("send Ready")) add("n-before-announce-ready", "before")
    if (log.includes("send Ready")) add("n-after-announce-ready", "after")
    if (log.includes("Publish")) add("n-before-publish", "before")
    if (log.includes("Publish")) add("n-after-publish", "after")
  } else {
    if (log.includes("send Drained")) add("o-after-drained-sent", "after")
    if (log.includes("ReleaseLock")) add("o-after-seal-flock-released", "saved")
    if (log.includes("send SealComplete")) add("o-after-seal-complete-sent", "after")
    if (event === "reads Commit") add("o-after-commit-recv", "before")
  }
  if (hook !== undefined && OWN_HOOKS.includes(hook) && process.hooks[0] !== hook) add(hook, "after")
  return points
}

const isOf = (party: string): boolean => party === "S" || party.startsWith("v") || party === "user"

const pointsOf = (before: State, step: Step, memory: Memory, log: ReadonlyArray<string>): ReadonlyArray<Point> => {
  const { party } = step.move
  if (!isOf(party)) return []
  return party.startsWith("v") ? daemonPoints(before, step, memory, log) : supervisorPoints(before, step, memory, log)
}

const remember = (
  model: World.WorldModel,
  memory: Memory,
  before: State,
  step: Step,
  log: ReadonlyArray<string>
): Memory => {
  const after = step.next
  const ended = new Set(log.flatMap((one) => /^process (\d+) ends$/.exec(one)?.[1] ?? []).map(Number))
  const [survivor, ...others] = before.processes.filter((one) => !ended.has(one.pid))
  const told = memory.told === "" ? heard(after, log) : memory.told
  const rests = model.unsettled(after) === undefined && survivor !== undefined && others.length === 0
  if (rests && after.processes[0]?.pid === 101) {
    // It counts anew.
    const first = survivor.version === 1 ? memory.first : "new"
    return { ...memory, labels: { 101: memory.labels[survivor.pid] ?? 0 }, first, told }
  }
  const labels = { ...memory.labels }
  let { started } = memory
  for (const { pid } of after.processes) if (processOf(before, pid) === undefined) labels[pid] = ++started
  return { ...memory, labels, started, told }
}

const heard = (after: State, log: ReadonlyArray<string>): Memory["told"] => {
  if (log.includes("answer: committed")) return "committed"
  if (log.includes("answer: rolled-back")) return "rolled back"
  return after.supervisor.life === "dead" ? "nothing" : ""
}

/** The world in which the script begins: clients have written, and a swap has just been asked for. */
export const beginning = (model: World.WorldModel): { readonly world: State; readonly memory: Memory } => {
  let world = model.initial
  while (!world.writes.includes("acknowledged")) {
    const step = model.next(world).find((one) => one.fair || one.move.event.startsWith("sends write"))
    if (step === undefined) throw new Error("a write is not acknowledged")
    world = step.next
  }
  return { world, memory: { labels: { 101: 0 }, started: 0, first: "old", told: "" } }
}

interface Situation {
  readonly world: State
  readonly memory: Memory
  /** Faults still to come, by their number. */
  readonly left: ReadonlyArray<number>
  /** The party that stands still, and for which fault. */
  readonly held: number | undefined
  readonly asked: boolean
}

interface Search {
  readonly model: World.WorldModel
  readonly script: Script
}

const quiet = (world: State): State => (world.faults === 0 ? world : { ...world, faults: 0 })

const logOf = (model: World.WorldModel, world: State, step: Step): ReadonlyArray<string> =>
  model.describe?.(world, step.move).commands ?? []

/** Those of the world's own faults whose name this is. */
const strike = (model: World.WorldModel, world: State, party: Party, memory: Memory, event: string, fuse = 0) =>
  model
    .next({ ...world, faults: 1 })
    .filter(
      ({ move }) => move.event === event && partyOf(memory, move.party) === party && (fuse === 0) === (move.fuse === 0)
    )

const without = (left: ReadonlyArray<number>, one: number): ReadonlyArray<number> => left.filter((each) => each !== one)

/** A transition of the world, with what is remembered of it. */
const advance = (search: Search, from: Situation, world: State, step: Step, change: Partial<Situation>): Situation => {
  const log = logOf(search.model, world, step)
  return {
    ...from,
    memory: remember(search.model, from.memory, world, step, log),
    ...change,
    world: quiet(step.next)
  }
}

/** The party ends, or is hit: by the world's own move of that name. */
const hit = (search: Search, from: Situation, party: Party, event: string): ReadonlyArray<Situation> => {
  const loud = { ...from.world, faults: 1 }
  const steps = strike(search.model, from.world, party, from.memory, event)
  // Who is gone already is not hit.
  if (steps.length === 0) return [from]
  return steps.map((step) => advance(search, from, loud, step, {}))
}

const wasSent = (world: State, message: string): boolean => World.unread(world).some((sent) => sent._tag === message)

/** The ways in which the step's party may die at the point. */
const die = (search: Search, from: Situation, step: Step, point: Point, number: number): ReadonlyArray<Situation> => {
  const { model } = search
  const { party, name, where } = point
  if (where === "before") return hit(search, from, party, "kill -9")
  const loud = { ...from.world, faults: 1 }
  // Others go on until it is dead.
  const whole = () => [{ ...advance(search, from, from.world, step, {}), held: number }]
  if (where === "after") return whole()
  if (where === "around") return [...hit(search, from, party, "kill -9"), ...whole()]
  const cuts = model
    .next(loud)
    .filter(({ move }) => move.party === step.move.party && move.event === step.move.event && move.fuse > 0)
  const document = World.documentOf(step.next)
  // A daemon's point of that kind is its first call that anybody can see.
  const isSaved = ({ next }: Step) => name.startsWith("o-") || World.documentOf(next) === document
  const inTime =
    where === "saved" ? cuts.filter(isSaved).slice(0, 1) : cuts.filter(({ next }) => wasSent(next, where.sent))
  const cut = inTime.map((one) => advance(search, from, loud, one, {}))
  if (name.startsWith("o-") || (where === "saved" && cut.length > 0)) return cut
  return [...cut, ...whole()]
}

export const launchesIn = (model: World.WorldModel, world: State, step: Step): boolean =>
  logOf(model, world, step).some((one) => one.startsWith("launch generation"))

/** The world's own name for the failure that the script wants in this step; undefined: not here. */
const failureIn = (
  model: World.WorldModel,
  from: Situation,
  step: Step,
  { party, point }: Fault,
  how: string
): RegExp | undefined => {
  const { event } = step.move
  if (party !== "S") {
    if (point === "start") return event === "accepts" ? /^fails at its start$/ : undefined
    return event === `${point} ends` ? new RegExp(`^${point}: ${how}$`) : undefined
  }
  const name = eventName(from.world, event, from.memory)
  if (name === "") return undefined
  if (point === `launches in ${name}` && launchesIn(model, from.world, step))
    return new RegExp(`^${event}; clone: EAGAIN$`)
  // Nothing has changed: nothing is written.
  if (World.documentOf(step.next) === World.documentOf(from.world)) return undefined
  return point === `saves ${name}` ? new RegExp(`^${event}; write: ENOSPC$`) : undefined
}

const fail = (search: Search, from: Situation, step: Step, fault: Fault): ReadonlyArray<Situation> | undefined => {
  const { act, party } = fault
  if (act._tag !== "fails" || actorOf(from.memory, step) !== party) return undefined
  const wanted = failureIn(search.model, from, step, fault, act.how)
  if (wanted === undefined) return undefined
  const loud = { ...from.world, faults: 1 }
  const found = search.model
    .next(loud)
    .find(({ move }) => move.fuse === 0 && move.party === step.move.party && wanted.test(move.event))
  return found === undefined ? undefined : [advance(search, from, loud, found, {})]
}

const victimOf = ({ party, act }: Fault): Party => (act._tag === "kill" || act._tag === "stop" ? act.victim : party)

/** The world before the step or after it; in the middle of a step both are near. */
const placesOf = (search: Search, from: Situation, step: Step, { where }: Point): ReadonlyArray<Situation> => {
  if (where === "before") return [from]
  const whole = advance(search, from, from.world, step, {})
  return where === "after" || step.move.party === "user" ? [whole] : [from, whole]
}

/** The fault happens at a point that this step comes to. */
const happen = (search: Search, from: Situation, step: Step, point: Point, number: number) => {
  const fault = search.script.faults[number]
  if (fault === undefined) return []
  const { act, party } = fault
  const next = { ...from, left: without(from.left, number) }
  if (act._tag === "dies") return die(search, next, step, point, number)
  const places = placesOf(search, next, step, point)
  if (act._tag === "abort" && party === "S")
    return places.map((one) => ({ ...one, world: { ...one.world, aborts: 1 } }))
  if (victimOf(fault) === party && act._tag === "stop")
    return places.flatMap((one) => hit(search, one, party, "SIGSTOP"))
  return places.map((one) => ({ ...one, held: number }))
}

/** What is done while a party stands still. */
const release = (search: Search, from: Situation, fault: Fault): ReadonlyArray<Situation> => {
  const free = { ...from, held: undefined }
  const { act } = fault
  switch (act._tag) {
    case "dies":
      return hit(search, free, fault.party, "kill -9")
    case "kill":
      return hit(search, free, act.victim, "kill -9")
    case "stop":
      return hit(search, free, act.victim, "SIGSTOP")
    case "abort": {
      const world = { ...free.world, aborts: 1 }
      const step = search.model.next(world).find(({ move }) => move.event === "abort")
      return step === undefined ? [free] : [advance(search, free, world, step, {})]
    }
    default:
      return [free]
  }
}

const isHeld = ({ held, memory }: Situation, { faults }: Script, step: Step): boolean =>
  held !== undefined && faults[held]?.party === actorOf(memory, step)

const situationsAfter = (search: Search, from: Situation): ReadonlyArray<Situation> => {
  const { model, script } = search
  const found: Array<Situation> = []
  const holding = from.held === undefined ? undefined : script.faults[from.held]
  if (holding !== undefined) found.push(...release(search, from, holding))
  for (const step of model.next(from.world)) {
    if (isHeld(from, script, step)) continue
    const asks = step.move.event.startsWith("swap to")
    if (!from.asked && !asks) continue
    found.push(...taken(search, { ...from, asked: true }, step))
  }
  return found
}

/** One step of the world, with the fault that hits it, if one does. */
const taken = (search: Search, from: Situation, step: Step): ReadonlyArray<Situation> => {
  const log = from.left.length === 0 ? [] : logOf(search.model, from.world, step)
  const points = from.left.length === 0 ? [] : pointsOf(from.world, step, from.memory, log)
  for (const number of from.left) {
    const fault = search.script.faults[number]
    if (fault === undefined) continue
    if (fault.act._tag === "fails") {
      const failed = fail(search, { ...from, left: without(from.left, number) }, step, fault)
      if (failed !== undefined) return failed
      continue
    }
    const point = points.find((one) => one.party === fault.party && one.name === fault.point)
    if (point !== undefined) return happen(search, from, step, point, number)
  }
  return [advance(search, from, from.world, step, {})]
}

const outcomeOf = ({ world, memory, left }: Situation, { faults }: Script): Outcome => {
  const process = world.processes[0]
  return {
    told: memory.told,
    serves: `#${memory.labels[process?.pid ?? 0]}`,
    kept: process?.version === 1 ? memory.first : "new",
    happened: faults.map((_, index) => (left.includes(index) ? "-" : String(index + 1))).join("")
  }
}

const MAX_SITUATIONS = 20_000

/** Every end that a run of the script may have. */
export const outcomes = (model: World.WorldModel, script: Script): ReadonlyArray<Outcome> => {
  const search: Search = { model, script }
  const { world, memory } = beginning(model)
  const seen = new Set<string>()
  const ends = new Map<string, Outcome>()
  const next: Array<Situation> = [
    {
      world: { ...world, faults: 0, aborts: 0 },
      memory,
      left: script.faults.map((_, index) => index),
      held: undefined,
      asked: false
    }
  ]
  for (let from = next.pop(); from !== undefined; from = next.pop()) {
    const key = `${model.key(from.world)}|${JSON.stringify([from.memory, from.left, from.held, from.asked])}`
    if (seen.has(key)) continue
    seen.add(key)
    if (seen.size > MAX_SITUATIONS) throw new Error(`too many situations: ${script.faults.map(faultText)}`)
    if (from.world.broken !== undefined) throw new Error(`the world is broken: ${from.world.broken.detail}`)
    if (from.asked && from.held === undefined && model.unsettled(from.world) === undefined) {
      const outcome = outcomeOf(from, script)
      ends.set(JSON.stringify(outcome), outcome)
    }
    next.push(...situationsAfter(search, from))
  }
  return [...ends.values()]
}

export { logOf, type Memory, type Point, partyOf, pointsOf, remember, type State, type Step }

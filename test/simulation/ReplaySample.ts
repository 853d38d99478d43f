/**
 * Samples paths of a World, and makes of each the script that real processes can be put through.
 *
 * A fault of the path is mapped to the point of a script that is nearest before it: the last one that the party has come
 * to when it is the one that has moved last, else the last one of anybody, who then stands still while the fault is done
 * from outside. Not every fault has a counterpart: a power cut, a pid that is given away, stray messages, a timer that
 * fires early, a failing call of a daemon that no hook of its author makes. A path with such a fault is not taken, and
 * `left out` counts why.
 */
import * as World from "@handoff/core/testing/World"
import type { Fault, Mode, Party, Script } from "./ReplayScript.ts"
import { scriptText } from "./ReplayScript.ts"
import {
  beginning,
  launchesIn,
  logOf,
  type Memory,
  modelOf,
  type Point,
  partyOf,
  pointsOf,
  remember,
  type State,
  type Step
} from "./ReplayWorld.ts"

/** Numbers from 0 to 1, always the same ones for a seed (mulberry32). */
export const randomOf = (seed: number): (() => number) => {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** What has no counterpart, in a word for the count. */
class LeftOut extends Error {}

const NO_COUNTERPART: ReadonlyArray<readonly [pattern: RegExp, why: string]> = [
  [/^power cut$/, "power cut"],
  [/^gives pid/, "pid of a stranger"],
  [/^a stray|^tells its progress|^timer heartbeat|what is no frame/, "stray message"],
  [/^reads .* of \d+ bytes \d+$/, "part of a frame"],
  [/^timer |runs out of time$|loses patience$|its patience at an end$/, "timer that fires early"],
  [/; (fsync directory|rename|bind|connect): E\w+$|^take listeners: failed$/, "other call that fails"]
]

interface Walk {
  readonly world: State
  readonly memory: Memory
  /** The last point that anybody has come to, and the last one of each party. */
  readonly last: Point | undefined
  readonly byParty: ReadonlyMap<Party, Point>
  readonly lastMover: Party | undefined
}

/** A launch, or a save of which nothing comes to the disk. */
const isFailingCall = (event: string): boolean => /; (clone: EAGAIN|write: ENOSPC)$/.test(event)

const isHit = (event: string): boolean => event === "kill -9" || event === "SIGSTOP"

const place = (walk: Walk, victim: Party, act: "kill" | "stop"): Fault => {
  const { last, lastMover, byParty } = walk
  const own = byParty.get(victim)
  const point = lastMover === victim && own !== undefined ? own : last
  if (point === undefined) throw new LeftOut("fault before any point")
  const { party, name } = point
  if (party === victim) return { party, point: name, act: act === "kill" ? { _tag: "dies" } : { _tag: "stop", victim } }
  return { party, point: name, act: { _tag: act, victim } }
}

/** In the middle of a step: at the last of its points that it had come to. */
const cut = (before: State, points: ReadonlyArray<Point>, step: Step): Fault => {
  const isSent = (sent: string) => World.unread(step.next).some((message) => message._tag === sent)
  const isSaved = World.documentOf(step.next) !== World.documentOf(before)
  const point = points.findLast(({ party, where }) => {
    if (where === "saved") return party !== "S" || isSaved
    return typeof where === "string" ? where !== "after" : isSent(where.sent)
  })
  if (point === undefined) throw new LeftOut("death in the middle of a step without a point")
  return { party: point.party, point: point.name, act: { _tag: "dies" } }
}

/** A save or a launch of the supervisor. */
const failingCall = (points: ReadonlyArray<Point>, event: string): Fault => {
  const isLaunch = event.endsWith("clone: EAGAIN")
  const nameAfter = (verb: string) =>
    points.flatMap(({ name }) => (name.startsWith(verb) ? [name.slice(verb.length)] : []))[0]
  // Without a change nothing is written, and no save can fail.
  const step = nameAfter("saved ") ?? (isLaunch ? nameAfter("takes ") : undefined)
  if (step === undefined) throw new LeftOut("failing call in a step without a point")
  return { party: "S", point: `${isLaunch ? "launches in" : "saves"} ${step}`, act: { _tag: "fails", how: "failed" } }
}

const failure = (points: ReadonlyArray<Point>, event: string, party: Party): Fault => {
  const [, hook, how] = /^(open|drain|seal|resume): (failed|unhealthy|behind)$/.exec(event) ?? []
  if (hook !== undefined) return { party, point: hook, act: { _tag: "fails", how: how as "failed" } }
  if (event === "fails at its start") return { party, point: "start", act: { _tag: "fails", how: "failed" } }
  return failingCall(points, event)
}

const isPlainStep = (step: Step): boolean => step.fair && step.move.fuse === 0

/** The fault of the path as one of a script. */
const project = (walk: Walk, step: Step, points: ReadonlyArray<Point>): Fault => {
  const { event, fuse, party } = step.move
  for (const [pattern, why] of NO_COUNTERPART) if (pattern.test(event) && !isFailingCall(event)) throw new LeftOut(why)
  const victim = party === "user" ? "S" : partyOf(walk.memory, party)
  if (victim === undefined) throw new LeftOut(`${party} ${event}`)
  if (fuse < 0) throw new LeftOut("death in the middle of a write")
  if (fuse > 0) return cut(walk.world, points, step)
  if (isHit(event)) return place(walk, victim, event === "SIGSTOP" ? "stop" : "kill")
  return failure(points, event, victim)
}

const pointsHere = (model: World.WorldModel, { world, memory }: Walk, step: Step): ReadonlyArray<Point> =>
  pointsOf(world, step, memory, logOf(model, world, step))

/** Those of the step as it would have been without the fault. */
const pointsOfWhole = (
  model: World.WorldModel,
  walk: Walk,
  all: ReadonlyArray<Step>,
  { move }: Step
): ReadonlyArray<Point> => {
  const [event, call = ""] = move.event.split("; ")
  const whole = isHit(move.event)
    ? undefined
    : all.find((one) => one.move.fuse === 0 && one.move.party === move.party && one.move.event === event)
  if (whole === undefined) return []
  // Nothing is started in this step: no launch can fail.
  if (call.startsWith("clone") && !launchesIn(model, walk.world, whole)) return []
  return pointsHere(model, walk, whole)
}

const follow = (model: World.WorldModel, walk: Walk, step: Step, points: ReadonlyArray<Point>): Walk => {
  const log = logOf(model, walk.world, step)
  const byParty = new Map(walk.byParty)
  for (const point of points) byParty.set(point.party, point)
  const moved = step.move.party === "user" ? "S" : partyOf(walk.memory, step.move.party)
  return {
    world: step.next,
    memory: remember(model, walk.memory, walk.world, step, log),
    last: points.at(-1) ?? walk.last,
    byParty,
    lastMover: moved ?? walk.lastMover
  }
}

const pick = <A>(random: () => number, items: ReadonlyArray<A>): A => {
  const item = items[Math.floor(random() * items.length)]
  if (item === undefined) throw new Error("nothing to pick from")
  return item
}

/** One of a kind first, then one of that kind: there are many places to die in, and few to fail in. */
const pickFault = (random: () => number, steps: ReadonlyArray<Step>): Step => {
  const kindOf = ({ move: { event, fuse } }: Step): string =>
    fuse !== 0 ? "cut" : isHit(event) ? event : isFailingCall(event) ? "call" : event.includes(": ") ? "hook" : event
  const kind = pick(random, [...new Set(steps.map(kindOf))].sort())
  return pick(
    random,
    steps.filter((one) => kindOf(one) === kind)
  )
}

const WEIGHT_OF_FAULT = 0.09

/** One path from the swap's beginning to rest; its faults as a script. */
const walkOnce = (random: () => number, mode: Mode, wanted: number): Script => {
  const model = modelOf(mode, wanted)
  const begun = beginning(model)
  const faults: Array<Fault> = []
  let walk: Walk = { ...begun, last: undefined, byParty: new Map(), lastMover: undefined }
  const request = model
    .next(walk.world)
    .find(({ move }) => move.event.startsWith("swap to") && move.fuse === 0 && !move.event.includes(";"))
  if (request === undefined) throw new Error("no swap can be asked for")
  walk = follow(model, walk, request, pointsHere(model, walk, request))
  for (let steps = 0; steps < 300; steps++) {
    const all = model.next(walk.world)
    const fair = all.filter(isPlainStep)
    const hits = all.filter((one) => !one.fair && one.move.event !== "abort" && !one.move.event.startsWith("sends"))
    const aborts = all.filter(({ move }) => move.event === "abort" && move.fuse === 0)
    const isAtRest = model.unsettled(walk.world) === undefined
    if (isAtRest && (walk.world.faults === 0 || random() < 0.5)) break
    if (aborts[0] !== undefined && walk.last !== undefined && random() < 0.01) {
      faults.push({ party: walk.last.party, point: walk.last.name, act: { _tag: "abort" } })
      walk = follow(model, walk, aborts[0], [])
      continue
    }
    if (hits.length > 0 && random() < WEIGHT_OF_FAULT) {
      const step = pickFault(random, hits)
      faults.push(project(walk, step, pointsOfWhole(model, walk, all, step)))
      walk = follow(model, walk, step, [])
      continue
    }
    if (fair.length === 0) break
    const step = pick(random, fair)
    walk = follow(model, walk, step, pointsHere(model, walk, step))
  }
  return { mode, faults }
}

const isRunnable = ({ faults }: Script): boolean => {
  const places = new Set(faults.map(({ party, point }) => `${party} ${point}`))
  return places.size === faults.length
}

export interface Sample {
  readonly scripts: ReadonlyArray<Script>
  readonly paths: number
  /** Why paths were not taken, and how many. */
  readonly leftOut: ReadonlyMap<string, number>
}

/** Mainly sealed swaps. */
const modeOf = (random: () => number): Mode => {
  const draw = random()
  return draw < 0.7 ? "sealed" : draw < 0.85 ? "overlap" : "exclusive"
}

/** So many different scripts. */
export const sample = (seed: number, count: number): Sample => {
  const random = randomOf(seed)
  const scripts = new Map<string, Script>()
  const leftOut = new Map<string, number>()
  const count1 = (why: string) => leftOut.set(why, (leftOut.get(why) ?? 0) + 1)
  let paths = 0
  while (scripts.size < count) {
    if (++paths > count * 200) throw new Error(`${paths} paths give only ${scripts.size} scripts`)
    try {
      const script = walkOnce(random, modeOf(random), random() < 0.5 ? 1 : 2)
      const text = scriptText(script)
      if (script.faults.length === 0) count1("path without a fault")
      else if (!isRunnable(script)) count1("two faults at one point")
      else if (scripts.has(text)) count1("the same script again")
      else scripts.set(text, script)
    } catch (error) {
      if (!(error instanceof LeftOut)) throw error
      count1(error.message)
    }
  }
  return { scripts: [...scripts.values()], paths, leftOut }
}

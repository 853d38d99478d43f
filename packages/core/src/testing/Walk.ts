/**
 * Long random histories of a model, where an exhaustive search would never end: many swaps, many faults.
 *
 * A walk is made by a seed alone. It takes transitions at random, by their weights, checks every state, and now and then
 * lets the faults rest: then fair transitions alone must lead to a state that may last. What fails is shrunk: moves are
 * left out as long as the same property still breaks, so that a person reads a few lines and not a thousand.
 */
import * as Explorer from "./Explorer.ts"

export interface Options {
  readonly seed: number
  /** How many transitions are taken. */
  readonly steps: number
  /** How many fair transitions may be needed to come to rest, beyond which it counts as never. */
  readonly patience?: number
}

export interface Walked<Move> {
  readonly steps: number
  /** How often it came to rest. */
  readonly rests: number
  readonly broken: Explorer.Counterexample<Move> | undefined
}

/** Numbers in [0, 1) from a seed (mulberry32). */
export const random = (seed: number): (() => number) => {
  let state = seed | 0
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

const choose = <State, Move>(
  transitions: ReadonlyArray<Explorer.Transition<State, Move>>,
  draw: () => number
): Explorer.Transition<State, Move> | undefined => {
  let at = draw() * transitions.reduce((sum, one) => sum + (one.weight ?? 1), 0)
  for (const one of transitions) {
    at -= one.weight ?? 1
    if (at < 0) return one
  }
  return transitions.at(-1)
}

interface Found {
  readonly property: string
  readonly detail: string
}

const NEVER: Found = { property: "liveness", detail: "left alone, it does not come to rest" }

/** Lets the faults rest until nothing is under way: what is broken, or the state that it came to. */
const settle = <State, Move>(
  model: Explorer.Model<State, Move>,
  from: State,
  draw: () => number,
  patience: number,
  taken: (move: Move) => void
): Found | { readonly rest: State } => {
  let state = from
  for (let steps = 0; steps < patience; steps++) {
    if (model.settled?.(state) !== false) return { rest: state }
    const next = choose(
      model.next(state).filter((one) => one.fair),
      draw
    )
    if (next === undefined) return NEVER
    taken(next.move)
    state = next.next
    const broken = model.check(state)
    if (broken !== undefined) return broken
  }
  return NEVER
}

/** One history. */
export const walk = <State, Move>(model: Explorer.Model<State, Move>, options: Options): Walked<Move> => {
  const { steps, patience = 2_000 } = options
  const draw = random(options.seed)
  const moves: Array<Move> = []
  let state = model.initial
  let rests = 0
  const failed = (found: Found): Walked<Move> => ({
    steps: moves.length,
    rests,
    broken: shrink(model, moves, found, patience)
  })
  while (moves.length < steps) {
    const next = choose(model.next(state), draw)
    if (next === undefined) break
    moves.push(next.move)
    state = next.next
    const broken = model.check(state)
    if (broken !== undefined) return failed(broken)
    if (draw() > 0.01) continue
    const end = settle(model, state, draw, patience, (move) => moves.push(move))
    if ("property" in end) return failed(end)
    rests++
    state = end.rest
  }
  const end = settle(model, state, draw, patience, (move) => moves.push(move))
  return "property" in end ? failed(end) : { steps: moves.length, rests: rests + 1, broken: undefined }
}

/** What these moves come to; moves that cannot be taken are left out. */
const attempt = <State, Move>(
  model: Explorer.Model<State, Move>,
  moves: ReadonlyArray<Move>,
  patience: number
): { readonly found: Found | undefined; readonly taken: ReadonlyArray<Move> } => {
  const { describe: _, ...silent } = model
  const { state, taken } = Explorer.replay<State, Move>(silent, moves)
  const broken = model.check(state)
  if (broken !== undefined) return { found: broken, taken }
  // Several ways of letting it rest: one that gets home is enough.
  for (let seed = 1; seed <= 3; seed++) {
    const onward: Array<Move> = []
    const end = settle(model, state, random(seed), patience, (move) => onward.push(move))
    if (!("property" in end)) return { found: undefined, taken }
    // What was broken on the way to rest belongs to the history.
    if (end.property !== NEVER.property) return { found: end, taken: [...taken, ...onward] }
  }
  return { found: NEVER, taken }
}

/** Leaves out moves, in ever smaller pieces, as long as the same property breaks. */
export const shrink = <State, Move>(
  model: Explorer.Model<State, Move>,
  moves: ReadonlyArray<Move>,
  { property }: Found,
  patience = 2_000
): Explorer.Counterexample<Move> => {
  let best = moves
  let last: Found = { property, detail: "" }
  for (let size = Math.ceil(best.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let at = 0; at < best.length; ) {
      const { found, taken } = attempt(model, [...best.slice(0, at), ...best.slice(at + size)], patience)
      if (found?.property === property && taken.length < best.length) {
        best = taken
        last = found
      } else at += size
    }
  }
  const { taken, lines, state } = Explorer.replay(model, best)
  return { property, detail: model.check(state)?.detail ?? last.detail, trace: taken, lines }
}

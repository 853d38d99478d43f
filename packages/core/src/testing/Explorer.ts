/**
 * Explores a model exhaustively: every state that can be reached, in every order of events, within the model's bounds.
 *
 * Theory of operation. A model is a value: where it begins, what can happen in a state, a key that is equal for states
 * that cannot be told apart, and what must hold. Breadth first, so the trace to a broken property is a shortest one. Of a
 * visited state only a hash of 64 bits, its parent and the number of the transition that led to it are kept (18 bytes): a
 * trace is found by going back to the beginning and running the model again. Two states with one hash would be taken for
 * one; with ten million states the odds of that are about one in 400,000.
 *
 * Liveness. Transitions are `fair` (they happen by themselves, sooner or later), or they are not: faults, and what people
 * do. If a model says which states it may rest in (`settled`), then from every state that was reached such a state must be
 * reachable by fair transitions alone: wherever the faults stop, there is a way home, and no corner without one. In a
 * finite model whose fair transitions are taken fairly, that is the same as getting home.
 *
 * Limits: a model with endless counters is never explored to the end. `maxStates` ends the search, and the result says so.
 * Liveness is only judged when the search was complete.
 *
 * @example
 * const result = Explorer.explore(World.make({ mode: "sealed", faults: 1 }))
 * if (result.broken !== undefined) throw new Error(Explorer.explain(result.broken))
 */
import { kindOf } from "./world/CheckedDaemon.ts"
import * as StateTable from "./world/StateTable.ts"

/** What tells states apart: a text, or whole numbers of 32 bits (from -2^31 to 2^31 - 1). */
export type Key = string | ReadonlyArray<number>

export interface Broken {
  /** The name of the property. */
  readonly property: string
  readonly detail: string
}

export interface Transition<State, Move> {
  readonly move: Move
  readonly next: State
  /** It happens by itself, sooner or later. */
  readonly fair: boolean
  /** How likely a random walk takes it; 1 unless told. */
  readonly weight?: number
}

/** One line of a trace. */
export interface Line {
  readonly party: string
  readonly event: string
  readonly commands: ReadonlyArray<string>
  /** The parties and how they are afterwards, in the order of the columns. */
  readonly parties: ReadonlyArray<readonly [name: string, state: string]>
}

export interface Model<State, Move> {
  readonly initial: State
  /** Everything that can happen, in an order that depends on nothing but the state. */
  readonly next: (state: State) => ReadonlyArray<Transition<State, Move>>
  readonly key: (state: State) => Key
  readonly check: (state: State) => Broken | undefined
  /** The states that may last. Absent: liveness is not judged. */
  readonly settled?: (state: State) => boolean
  /** Why a state may not last; told with a history that does not come home. */
  readonly unsettled?: (state: State) => string | undefined
  /** A move in one line; two moves of a state have different names. */
  readonly name: (move: Move) => string
  readonly describe?: (state: State, move: Move) => Line
}

export interface Counterexample<Move> extends Broken {
  readonly trace: ReadonlyArray<Move>
  readonly lines: ReadonlyArray<Line>
}

export interface Options {
  readonly maxStates?: number
  /** Milliseconds; for the rate. */
  readonly clock?: () => number
  /** Called now and then with the number of states so far. */
  readonly progress?: (states: number, depth: number) => void
}

export interface Result<Move> {
  readonly states: number
  readonly transitions: number
  /** The longest of the shortest paths. */
  readonly depth: number
  readonly complete: boolean
  readonly settled: number
  readonly milliseconds: number
  readonly broken: Counterexample<Move> | undefined
}

/** Runs the moves that can be taken, in order, and skips the others. */
export const replay = <State, Move>(
  model: Model<State, Move>,
  moves: ReadonlyArray<Move>
): { readonly state: State; readonly taken: ReadonlyArray<Move>; readonly lines: ReadonlyArray<Line> } => {
  let state = model.initial
  const taken: Array<Move> = []
  const lines: Array<Line> = []
  for (const move of moves) {
    const name = model.name(move)
    const found = model.next(state).find((one) => model.name(one.move) === name)
    if (found === undefined) continue
    taken.push(found.move)
    lines.push(lineOf(model, state, found.move))
    state = found.next
    if (model.check(state) !== undefined) break
  }
  return { state, taken, lines }
}

const lineOf = <State, Move>(model: Model<State, Move>, state: State, move: Move): Line =>
  model.describe?.(state, move) ?? { party: "", event: model.name(move), commands: [], parties: [] }

const changed = (what: string): Error =>
  new Error(
    `the model does not give the same transitions twice: ${what}; ` +
      "next() or a hook reads a clock, a random number or a variable outside"
  )

/** The path to a state by the numbers of its transitions. */
const pathTo = <State, Move>(model: Model<State, Move>, table: StateTable.StateTable, index: number) => {
  let state = model.initial
  const trace: Array<Move> = []
  const lines: Array<Line> = []
  for (const { ordinal, to } of table.path(index)) {
    const all = model.next(state)
    const taken = all[ordinal]
    if (taken === undefined) {
      const last = trace.at(-1)
      const when = last === undefined ? "in the beginning" : `after step ${trace.length}, "${model.name(last)}",`
      throw changed(`${when} there were ${ordinal + 1} or more, and now there are ${all.length}`)
    }
    if (table.find(model.key(taken.next)) !== to) {
      throw changed(`step ${trace.length + 1}, "${model.name(taken.move)}", leads elsewhere now`)
    }
    trace.push(taken.move)
    lines.push(lineOf(model, state, taken.move))
    state = taken.next
  }
  return { state, trace, lines }
}

/** From a state that has no way home on, by fair transitions, until nothing new happens. */
const wander = <State, Move>(model: Model<State, Move>, from: State) => {
  const trace: Array<Move> = []
  const lines: Array<Line> = []
  const seen = new StateTable.StateTable()
  let state = from
  seen.add(model.key(state), 0, 0)
  for (let steps = 0; steps < 200; steps++) {
    const next = model.next(state).find((one) => one.fair && seen.find(model.key(one.next)) === -1)
    if (next === undefined) break
    seen.add(model.key(next.next), 0, 0)
    trace.push(next.move)
    lines.push(lineOf(model, state, next.move))
    state = next.next
  }
  return { state, trace, lines }
}

/** Every state within the model's bounds. Throws on a model or an option with which a search would tell nothing. */
export const explore = <State, Move>(model: Model<State, Move>, options: Options = {}): Result<Move> => {
  const { maxStates = 50_000_000, clock = () => 0, progress } = options
  if (typeof maxStates !== "number" || !(maxStates > 0)) {
    throw new Error(`Explorer.explore: maxStates: ${String(maxStates)} is not a positive number`)
  }
  const table = new StateTable.StateTable()
  const edges = new StateTable.Edges()
  const startedAt = clock()
  const settled: Array<number> = []
  let transitions = 0
  let depth = 0
  let complete = true
  const result = (broken: Counterexample<Move> | undefined): Result<Move> => ({
    states: table.size,
    transitions,
    depth,
    complete,
    settled: settled.length,
    milliseconds: clock() - startedAt,
    broken
  })
  const first = model.check(model.initial)
  if (first !== undefined) return result({ ...first, trace: [], lines: [] })
  table.add(model.key(model.initial), 0, 0)
  let level: Array<State> = [model.initial]
  let base = 0
  while (level.length > 0) {
    const following: Array<State> = []
    for (let at = 0; at < level.length; at++) {
      const state = level[at] as State
      const index = base + at
      if (model.settled?.(state) === true) settled.push(index)
      const all = model.next(state)
      if (!Array.isArray(all)) throw new Error(`the model's next() gave ${kindOf(all)}, not an array`)
      for (let ordinal = 0; ordinal < all.length; ordinal++) {
        const { next, fair } = all[ordinal] as Transition<State, Move>
        transitions++
        const target = table.add(model.key(next), index, ordinal)
        const isNew = target < 0
        const to = isNew ? -target - 1 : target
        if (fair && model.settled !== undefined && to !== index) edges.add(index, to)
        if (!isNew) continue
        const broken = model.check(next)
        if (broken !== undefined) {
          const { trace, lines } = pathTo(model, table, to)
          return result({ ...broken, trace, lines })
        }
        following.push(next)
      }
      if (table.size > maxStates) {
        complete = false
        return result(undefined)
      }
    }
    base += level.length
    level = following
    if (following.length > 0) depth++
    progress?.(table.size, depth)
  }
  if (model.settled === undefined) return result(undefined)
  const lost = edges.firstWithoutWay(table.size, settled)
  if (lost === undefined) return result(undefined)
  const to = pathTo(model, table, lost)
  const on = wander(model, to.state)
  const reason = model.unsettled?.(on.state)
  return result({
    property: "liveness",
    detail:
      `from step ${to.trace.length} on no way leads to a state that may last` +
      (reason === undefined ? "" : `; in the end: ${reason}`),
    trace: [...to.trace, ...on.trace],
    lines: [...to.lines, ...on.lines]
  })
}

/** A counterexample as a sequence diagram for a person: one row per step, one column per party. */
export const explain = ({ property, detail, lines }: Counterexample<unknown>): string => {
  const names = [...new Set(lines.flatMap((line) => line.parties.map(([name]) => name)))]
  const header = ["#", "party", "event", ...names]
  let before = new Map<string, string>()
  const rows: Array<ReadonlyArray<string>> = [header]
  for (const [index, line] of lines.entries()) {
    const now = new Map(line.parties)
    // What has not changed is left blank: the eye finds what did.
    const columns = names.map((name) => (before.get(name) === now.get(name) ? "" : (now.get(name) ?? "(gone)")))
    rows.push([String(index + 1), line.party, line.event, ...columns])
    if (line.commands.length > 0) rows.push(["", "", `  -> ${line.commands.join(", ")}`, ...names.map(() => "")])
    before = now
  }
  const widths = header.map((_, column) => Math.min(60, Math.max(...rows.map((row) => row[column]?.length ?? 0))))
  const text = rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd()
  )
  return [`${property}: ${detail}`, ...text].join("\n")
}

/** One line about a search. */
export const summary = (name: string, result: Result<unknown>): string => {
  const rate = result.milliseconds > 0 ? `, ${Math.round((result.states / result.milliseconds) * 1000)} states/s` : ""
  const end = result.complete ? "" : " (stopped at the bound)"
  return (
    `${name}: ${result.states} states, ${result.transitions} transitions, deepest path ${result.depth}, ` +
    `${result.settled} at rest, ${(result.milliseconds / 1000).toFixed(1)} s${rate}${end}` +
    (result.broken === undefined ? "" : `; BROKEN: ${result.broken.property}: ${result.broken.detail}`)
  )
}

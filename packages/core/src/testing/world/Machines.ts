/**
 * The production machines, each run once per distinct state and event.
 *
 * A machine is a pure function and the clock of a world stands still (every event is `at` 0), so a state and an event that
 * have been met before give what they gave then. States are interned: equal states are one object with one number, and
 * that number is all that the key of a world needs to hold of them.
 */

/** A value as text: equal texts, equal values. */
export const textOf = (value: unknown): string =>
  JSON.stringify(value, (_, part) => (typeof part === "bigint" ? `${part}n` : part)) ?? "undefined"

export interface Node<State> {
  readonly id: number
  readonly state: State
}

export interface Outcome<State, Command> {
  readonly node: Node<State>
  readonly commands: ReadonlyArray<Command>
}

interface MemoNode<State, Command> extends Node<State> {
  readonly outcomes: Map<string, Outcome<State, Command>>
}

interface Step<State, Command> {
  readonly state: State
  readonly commands: ReadonlyArray<Command>
  readonly violation?: { readonly _tag: string } | undefined
}

export class Machine<State, Event, Command> {
  readonly #step: (state: State, event: Event) => Step<State, Command>
  readonly #canonical: (state: State) => State
  readonly #taken: ((before: State, event: Event, step: Step<State, Command>) => void) | undefined
  readonly #nodes = new Map<string, MemoNode<State, Command>>()

  /** `canonical` leaves out of a state what can never matter again; `taken` sees every distinct step once. */
  constructor(
    step: (state: State, event: Event) => Step<State, Command>,
    canonical: (state: State) => State,
    taken?: (before: State, event: Event, step: Step<State, Command>) => void
  ) {
    this.#step = step
    this.#canonical = canonical
    this.#taken = taken
  }

  intern(state: State): Node<State> {
    const canonical = this.#canonical(state)
    const text = textOf(canonical)
    const known = this.#nodes.get(text)
    if (known !== undefined) return known
    const node = { id: this.#nodes.size + 1, state: canonical, outcomes: new Map() }
    this.#nodes.set(text, node)
    return node
  }

  /** `name` tells the event from every other one that this machine ever gets. */
  step(node: Node<State>, name: string, event: Event): Outcome<State, Command> {
    const { outcomes } = node as MemoNode<State, Command>
    const known = outcomes.get(name)
    if (known !== undefined) return known
    const step = this.#step(node.state, event)
    if (step.violation?._tag === "UnexpectedFact") throw new Error(`a driver's error: ${textOf(step.violation)}`)
    this.#taken?.(node.state, event, step)
    const outcome = { node: this.intern(step.state), commands: step.commands }
    outcomes.set(name, outcome)
    return outcome
  }
}

const SMALL = 1 << 20

/** Numbers for values: equal values get equal numbers. */
export class Numbers {
  /** Texts and objects apart: a text may read like an object's. */
  readonly #byPrimitive = new Map<unknown, number>()
  readonly #byText = new Map<string, number>()
  readonly #byObject = new WeakMap<object, number>()
  #count = 0

  of(value: unknown): number {
    if (typeof value === "object" && value !== null) {
      const known = this.#byObject.get(value)
      if (known !== undefined) return known
      const number = this.#add(this.#byText, textOf(value))
      this.#byObject.set(value, number)
      return number
    }
    if (typeof value === "number" && value >= 0 && value < SMALL && Number.isInteger(value)) return -1 - value
    return this.#add(this.#byPrimitive, value)
  }

  #add<Key>(known: Map<Key, number>, key: Key): number {
    const number = known.get(key) ?? ++this.#count
    known.set(key, number)
    return number
  }
}

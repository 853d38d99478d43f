/**
 * Drives a machine of the protocol: one event after the other, its commands in order, its timers.
 *
 * A command that is carried out at once reports its fact from within; such events wait in a queue until the commands of
 * the present step are done, so that a step never begins inside another.
 */

export interface Step<State, Command, Violation> {
  readonly state: State
  readonly commands: ReadonlyArray<Command>
  readonly violation: Violation | undefined
}

export interface Machine<State, Event, Command, Violation> {
  readonly step: (state: State, event: Event) => Step<State, Command, Violation>
  readonly carryOut: (command: Command) => void
  readonly violated: (violation: Violation) => void
}

export class MachineDriver<State, Event, Command, Violation> {
  #state: State
  readonly #machine: Machine<State, Event, Command, Violation>
  readonly #queue: Array<Event> = []
  #stepping = false

  constructor(initial: State, machine: Machine<State, Event, Command, Violation>) {
    this.#state = initial
    this.#machine = machine
  }

  get state(): State {
    return this.#state
  }

  /** Commands of a step are being carried out. */
  get busy(): boolean {
    return this.#stepping
  }

  send(event: Event): void {
    this.#queue.push(event)
    if (this.#stepping) return
    this.#stepping = true
    try {
      for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) this.#step(next)
    } finally {
      this.#stepping = false
    }
  }

  #step(event: Event): void {
    const { state, commands, violation } = this.#machine.step(this.#state, event)
    this.#state = state
    if (violation !== undefined) this.#machine.violated(violation)
    for (const command of commands) this.#machine.carryOut(command)
  }
}

/** The timers of one machine, by name: setting one that runs starts it anew. */
export class Timers<Name extends string> {
  readonly #running = new Map<Name, NodeJS.Timeout>()
  readonly #fired: (name: Name) => void

  constructor(fired: (name: Name) => void) {
    this.#fired = fired
  }

  set(name: Name, delayMs: number): void {
    this.clear(name)
    const timer = setTimeout(() => {
      this.#running.delete(name)
      this.#fired(name)
    }, delayMs)
    this.#running.set(name, timer)
  }

  clear(name: Name): void {
    clearTimeout(this.#running.get(name))
    this.#running.delete(name)
  }

  clearAll(): void {
    for (const name of [...this.#running.keys()]) this.clear(name)
  }
}

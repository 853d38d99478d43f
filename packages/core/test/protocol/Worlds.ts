/**
 * Drivers of the two machines for tests: each owes the facts of its machine's commands, keeps its timers, its lock and
 * whether its state is open, and checks at every command what must hold then.
 */
import * as Incumbent from "@handoff/core/protocol/Incumbent"
import type { Message } from "@handoff/core/protocol/Message"
import * as Successor from "@handoff/core/protocol/Successor"
import { expect } from "vitest"
import * as Machines from "./Machines.ts"

/** What two processes share: the data lock, and who answers on the handoff socket's path. */
export interface Machine {
  lock: "O" | "N" | undefined
  path: "O" | "N"
}

/** What each command leads to: the facts a driver may report for it. */
const incumbentResults: Readonly<Record<string, ReadonlyArray<string>>> = {
  Drain: ["Drained", "Drained", "Drained", "DrainFailed"],
  Seal: ["Sealed", "Progressed", "Sealed", "SealFailed"],
  ReleaseLock: ["LockReleased"],
  AcquireLock: ["LockAcquired", "LockHeld"],
  ProbePath: ["path answers: nobody", "itself", "path answers: another"],
  Resume: ["Resumed", "ResumeFailed"]
}

/** An incumbent driven at random: it owes the facts of its commands, and its timers and its lock are kept. */
export class IncumbentWorld {
  state = Incumbent.initial(Machines.incumbentOptions)
  locked = true
  pending: string | undefined = undefined
  stateOpen = true
  readonly timers = new Set<Incumbent.Timer>()
  readonly sent: Array<Message> = []
  exited = false
  private readonly machine: Machine | undefined

  constructor(machine?: Machine) {
    this.machine = machine
    if (machine !== undefined) machine.lock = "O"
  }

  send(event: Incumbent.Event): void {
    const { state, commands, violation } = Incumbent.step(this.state, event)
    expect(violation?._tag, `${this.state.phase} ${event._tag}`).not.toBe("UnexpectedFact")
    for (const command of commands) this.carryOut(command)
    this.state = state
    expect([...this.timers].includes("relock") && state.phase !== "relocking").toBe(false)
  }

  private carryOut(command: Incumbent.Command): void {
    if (command._tag === "SetTimer") this.timers.add(command.timer)
    if (command._tag === "ClearTimer") this.timers.delete(command.timer)
    if (incumbentResults[command._tag] !== undefined) {
      expect(this.pending, `${command._tag} while another runs`).toBeUndefined()
      this.pending = command._tag
    }
    if (command._tag === "Seal" || command._tag === "ReleaseLock" || command._tag === "Resume") {
      expect(this.locked, `${command._tag} without the lock`).toBe(true)
    }
    if (command._tag === "ReleaseLock") expect(this.stateOpen, "released before the seal was durable").toBe(false)
    if (command._tag === "Exit") {
      this.exited = true
      if (this.locked) this.unlock()
    }
    if (command._tag !== "Send") return
    this.sent.push(command.message)
    if (command.message._tag === "SealComplete") expect(this.locked).toBe(false)
    if (command.message._tag === "SealFailed") expect(this.locked && this.stateOpen).toBe(true)
  }

  /** Reports one of the facts that are owed. */
  report(choice: number): boolean {
    const results = incumbentResults[this.pending ?? ""]
    const label = this.observed() ?? results?.[choice % results.length]
    const found = Machines.incumbentFacts.find(([name]) => name === label)
    if (found === undefined) return false
    const [name, event] = found
    if (name !== "Progressed") this.pending = undefined
    if (name === "LockReleased") this.unlock()
    if (name === "LockAcquired") {
      this.locked = true
      if (this.machine !== undefined) this.machine.lock = "O"
    }
    if (name === "Sealed") this.stateOpen = false
    if (name === "Resumed") this.stateOpen = true
    this.send(event)
    return true
  }

  private unlock(): void {
    this.locked = false
    if (this.machine?.lock === "O") this.machine.lock = undefined
  }

  /** What the shared machine decides, where there is one. */
  private observed(): string | undefined {
    if (this.machine === undefined) return undefined
    if (this.pending === "AcquireLock") return this.machine.lock === undefined ? "LockAcquired" : "LockHeld"
    if (this.pending !== "ProbePath") return undefined
    return this.machine.path === "O" ? "itself" : "path answers: another"
  }

  fire(choice: number): boolean {
    const timer = [...this.timers][choice % Math.max(1, this.timers.size)]
    if (timer === undefined) return false
    this.timers.delete(timer)
    this.send({ _tag: "TimerFired", timer, at: 0 })
    return true
  }
}

const successorResults: Readonly<Record<string, ReadonlyArray<string>>> = {
  TakeListeners: ["ListenersTaken", "ListenersTaken", "ListenersFailed"],
  AcquireLock: ["LockAcquired", "LockHeld"],
  Open: ["Opened", "Opened", "OpenFailed"],
  PrepareSocket: ["SocketPrepared", "SocketPrepared", "SocketFailed"],
  Publish: ["Published", "PublishFailed"],
  Close: ["Closed"]
}

/** A successor driven at random, whose lock and open state are kept. */
export class SuccessorWorld {
  state = Successor.initial(Machines.successorOptions)
  locked = false
  opened = false
  accepting = false
  /** It let the lock go while it lived. */
  released = false
  readonly pending: Array<string> = []
  readonly timers = new Set<Successor.Timer>()
  readonly sent: Array<Message> = []
  exited = false
  private readonly healthy: boolean
  private readonly machine: Machine | undefined

  constructor(healthy: boolean, machine?: Machine) {
    this.healthy = healthy
    this.machine = machine
    this.send({ _tag: "Started", at: 0 })
  }

  send(event: Successor.Event): void {
    const { state, commands, violation } = Successor.step(this.state, event)
    expect(violation?._tag, `${this.state.phase} ${event._tag}`).not.toBe("UnexpectedFact")
    const waited = ["greeting", "waiting"].includes(this.state.phase)
    for (const command of commands) {
      if (command._tag === "SetTimer") this.timers.add(command.timer)
      if (command._tag === "ClearTimer") this.timers.delete(command.timer)
      if (successorResults[command._tag] !== undefined) this.pending.push(command._tag)
      if (command._tag === "AcquireLock" || command._tag === "Open") expect(waited).toBe(false)
      if (command._tag === "Open") expect(this.locked).toBe(true)
      if (command._tag === "Accept") {
        expect(this.locked && this.opened && this.healthy).toBe(true)
        this.accepting = true
      }
      if (command._tag === "ReleaseLock") {
        expect(this.pending.includes("Open") || this.opened || this.accepting, "released under a hook").toBe(false)
        this.released = true
        this.unlock()
      }
      if (command._tag === "Exit") {
        expect(this.accepting).toBe(false)
        this.die()
      }
      if (command._tag === "Send") this.sent.push(command.message)
      if (command._tag === "Send" && command.message._tag === "Ready") expect(this.locked && this.opened).toBe(true)
    }
    this.state = state
  }

  report(choice: number): boolean {
    const asked = this.pending.shift()
    const results = successorResults[asked ?? ""]
    const taken = asked === "AcquireLock" && this.machine?.lock !== undefined
    const free = asked === "AcquireLock" && this.machine !== undefined && !taken
    const label = taken ? "LockHeld" : free ? "LockAcquired" : results?.[choice % results.length]
    const found = Machines.successorFacts.find(([name]) => name === label)
    if (found === undefined) return false
    const [name, event] = found
    if (name === "LockAcquired") {
      this.locked = true
      if (this.machine !== undefined) this.machine.lock = "N"
    }
    if (name === "Published" && this.machine !== undefined) this.machine.path = "N"
    if (name === "Opened") this.opened = true
    if (name === "Closed") this.opened = false
    this.send(event._tag === "Opened" ? { ...event, healthy: this.healthy } : event)
    return true
  }

  /** The process is gone, and with it everything it held. */
  die(): void {
    this.exited = true
    this.opened = false
    this.accepting = false
    this.pending.length = 0
    this.unlock()
  }

  private unlock(): void {
    this.locked = false
    if (this.machine?.lock === "N") this.machine.lock = undefined
  }

  fire(choice: number): boolean {
    const timer = [...this.timers][choice % Math.max(1, this.timers.size)]
    if (timer === undefined) return false
    this.timers.delete(timer)
    this.send({ _tag: "TimerFired", timer, at: 0 })
    return true
  }
}

/** The supervision machine driven by hand, for the tests of its modes. */
import type { Message } from "@handoff/core/protocol/Message"
import * as Document from "@handoff/core/swap/Document"
import * as Recovery from "@handoff/core/swap/Recovery"
import * as Sealed from "@handoff/core/swap/Sealed"
import * as Supervision from "@handoff/core/swap/Supervision"

export const options: Supervision.Options = {
  ...Supervision.defaults,
  backoff: { ...Supervision.defaults.backoff, maxMs: 1_000 },
  listeners: 1,
  historyLimit: 5,
  mode: "overlap",
  instance: "test"
}

/** The name on the wire of every sealed swap here. */
export const HANDOFF = "6f0d2c5e-9a1b-4c3d-8e7f-102132435465"

export type Body = Supervision.Event extends infer E ? (E extends unknown ? Omit<E, "at"> : never) : never

/** Drives the machine by hand: remembers commands, keeps the timers that are set. */
export class Driver {
  state: Supervision.State
  at = 1_000
  readonly timers = new Map<string, number>()
  readonly log: Array<Supervision.Action> = []
  readonly events: Array<Supervision.Event> = []
  readonly perEvent: Array<ReadonlyArray<Supervision.Action>> = []

  constructor(change: Partial<Supervision.Options> = {}, argv: ReadonlyArray<string> = ["v1"]) {
    this.state = Supervision.initial({ ...options, ...change }, { argv })
  }

  send(body: Body): ReadonlyArray<Supervision.Action> {
    const event = { ...body, at: this.at } as Supervision.Event
    const { state, commands } = Supervision.step(this.state, event)
    this.state = state
    this.events.push(event)
    this.perEvent.push(commands)
    for (const command of commands) {
      this.log.push(command)
      if (command._tag === "SetTimer") this.timers.set(command.timer, this.at + command.delayMs)
      if (command._tag === "ClearTimer") this.timers.delete(command.timer)
    }
    return commands
  }

  /** Lets time pass; timers fire at their moment, in order. */
  pass(milliseconds: number): void {
    const until = this.at + milliseconds
    for (;;) {
      const due = [...this.timers].filter(([, at]) => at <= until).sort((a, b) => a[1] - b[1])[0]
      if (due === undefined) break
      this.timers.delete(due[0])
      this.at = Math.max(this.at, due[1])
      this.send({ _tag: "TimerFired", timer: due[0] })
    }
    this.at = until
  }

  launched(generation: number): void {
    const pid = 100 + generation
    this.send({ _tag: "Launched", generation, pid, identity: { pid, startTime: pid, bootId: "boot" } })
  }

  /** Starts the first generation and makes it serve. */
  serving(): this {
    this.send({ _tag: "StartRequested", request: 1 })
    this.launched(1)
    this.send({ _tag: "Notified", generation: 1 })
    return this
  }

  swap(request: number, argv: ReadonlyArray<string> = ["v2"]): ReadonlyArray<Supervision.Action> {
    return this.send({ _tag: "SwapRequested", handoffId: HANDOFF, request, command: { argv } })
  }

  end(generation: number, status: { code: number } = { code: 0 }): void {
    this.send({ _tag: "Exited", generation, status: { _tag: "Exited", code: status.code } })
    this.send({ _tag: "Gone", generation })
  }

  answer(request: number): Supervision.Answer | undefined {
    for (const command of this.log) if (command._tag === "Answer" && command.request === request) return command.answer
    return undefined
  }

  record(request: number): Supervision.SwapRecord {
    const answer = this.answer(request)
    if (answer?._tag !== "SwapEnded") throw new Error(`request ${request} was answered ${JSON.stringify(answer)}`)
    return answer.record
  }

  signals(generation: number): ReadonlyArray<string> {
    return this.log.flatMap((command) =>
      command._tag === "Signal" && command.generation === generation ? [`${command.signal} ${command.to}`] : []
    )
  }

  /** Something that happened on the channels of the running swap. */
  handoff(event: Supervision.HandoffEvent): ReadonlyArray<Supervision.Action> {
    return this.send({ _tag: "Handoff", swap: this.state.swap?.id ?? 0, event })
  }

  hear(from: Sealed.Party, message: Message): ReadonlyArray<Supervision.Action> {
    return this.handoff({ _tag: "Received", from, message })
  }

  /** What takes a sealed swap to its next phase, when all goes well. */
  advance(): void {
    const { swap } = this.state
    if (swap === undefined) throw new Error("no swap is running")
    const [incumbent, successor] = [100 + (swap.from ?? 0), 100 + (swap.to ?? 0)]
    switch (swap.handoff?.phase) {
      case "connecting":
        this.handoff({ _tag: "Connected", pid: incumbent, member: true })
        return
      case "greeting-incumbent":
        this.hear("incumbent", hello("Incumbent", incumbent))
        return
      case "launching":
        return this.launched(swap.to ?? 0)
      case "greeting-successor":
        this.hear("successor", hello("Successor", successor))
        return
      case "draining":
        this.hear("incumbent", { _tag: "Drained", openConnsRemaining: 0, acceptClosed: true })
        return
      case "sealing":
        this.hear("incumbent", {
          _tag: "SealComplete",
          handoffId: HANDOFF,
          lastRevisionPerShard: [7n],
          dataDirFingerprint: new Uint8Array(32)
        })
        return
      case "opening":
        this.hear("successor", ready())
        return
      case "publishing":
        this.handoff({ _tag: "PathAnswered", pid: successor, hello: true })
        return
      case "resuming":
        this.handoff({ _tag: "PathAnswered", pid: incumbent, hello: true })
        return
      default:
        throw new Error(`a sealed swap that is ${swap.handoff?.phase} goes on by itself`)
    }
  }

  /** Takes a sealed swap as far as this phase. */
  until(phase: Sealed.Phase): void {
    for (let step = 0; this.state.swap?.handoff?.phase !== phase; step++) {
      if (step === Sealed.phases.length) throw new Error(`${phase} is never reached`)
      this.advance()
    }
  }

  /** A kernel and an incumbent that do what they are asked: who was told to end ends, who was asked to resume resumes. */
  obey(): void {
    for (let round = 0; round < 20; round++) {
      const ending = this.state.generations.find((one) => one.phase === "draining" || one.phase === "rejected")
      if (this.state.swap?.handoff?.phase === "resuming") this.advance()
      else if (ending === undefined) return
      else if (ending.pid === undefined) this.launched(ending.id)
      else if (ending.exit === undefined) this.end(ending.id)
      else this.send({ _tag: "Gone", generation: ending.id })
    }
    throw new Error("it does not come to rest")
  }

  launches(): ReadonlyArray<string> {
    return this.log.flatMap((one) =>
      one._tag === "Launch"
        ? [`${one.generation} ${one.command.argv.join(" ")}${one.successor ? ", successor" : ""}`]
        : []
    )
  }
}

export const hello = (role: "Incumbent" | "Successor", pid: number): Message => ({
  _tag: "Hello",
  role,
  pid,
  buildId: new Uint8Array(0),
  protoMin: 1,
  protoMax: 1,
  capabilities: { reserved: 0n }
})

export const ready = (healthzOk = true): Message => ({
  _tag: "Ready",
  handoffId: HANDOFF,
  listeningOn: [],
  healthzOk,
  advertisedRevisionPerShard: [7n]
})

/** The supervisor after the one that the driver is: it finds these alive, and goes on from what was written down. */
export const after = (
  before: Driver,
  alive: Readonly<Record<number, Partial<Recovery.Sighting>>>,
  change: Partial<Supervision.Options> = {}
): Driver => {
  const document = Document.of(before.state, {
    name: "default",
    supervisor: { pid: 1, version: "0", instance: "before" },
    handoffSocket: "/run/handoff.sock",
    listeners: []
  })
  const sightings = new Map(
    Object.entries(alive).map(([id, sighting]) => [
      Number(id),
      { alive: true, holdsLock: false, answers: false, ...sighting }
    ])
  )
  const read = JSON.parse(JSON.stringify(document)) as Document.Document
  const limits = { ...options, ...before.state.options, ...change }
  const decision = Recovery.decide(read, sightings, limits, before.at, false)
  if (decision._tag === "Wait") throw new Error("it waits")
  const next = new Driver(limits, ["of the command line"])
  next.at = before.at + 500
  next.send({ _tag: "StartRequested", request: 1, recovered: decision.recovered })
  return next
}

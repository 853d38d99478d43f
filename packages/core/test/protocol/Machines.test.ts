import { readFileSync } from "node:fs"
import * as Incumbent from "@handoff/core/protocol/Incumbent"
import { handoffIdOf, type Message } from "@handoff/core/protocol/Message"
import * as Successor from "@handoff/core/protocol/Successor"
import * as Violation from "@handoff/core/protocol/Violation"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import * as Machines from "./Machines.ts"
import { IncumbentWorld, SuccessorWorld } from "./Worlds.ts"

const { id, otherId } = Machines

const tableIn = (file: string): ReadonlyArray<string> => {
  const source = readFileSync(new URL(`../../src/protocol/${file}.ts`, import.meta.url), "utf8")
  const [, table] = /Transitions:\n \*\n([\s\S]*?)\n \*\n \* Timers:/.exec(source) ?? []
  return (table ?? "").split("\n").map((line) => line.slice(" *   ".length))
}

describe("the table in the file is the table of the code", () => {
  it("incumbent", () => expect(tableIn("Incumbent")).toEqual(Machines.incumbentTable()))
  it("successor", () => expect(tableIn("Successor")).toEqual(Machines.successorTable()))
})

const tags = (commands: ReadonlyArray<{ readonly _tag: string }>): ReadonlyArray<string> =>
  commands.map((one) => one._tag).filter((tag) => !tag.endsWith("Timer"))

const withId = (message: Message, handoffId: string): Message =>
  "handoffId" in message ? { ...message, handoffId } : message

describe("violations: typed, the session closed, the phase's own recovery", () => {
  it("every message in every phase of the incumbent: a row, or a violation that recovers as a lost S", () => {
    let violations = 0
    for (const phase of Incumbent.phases) {
      if (phase === "serving" || phase === "exiting") continue
      const state = { ...Incumbent.initial(Machines.incumbentOptions), phase, session: true, handoffId: id }
      const gone = Incumbent.step(state, { _tag: "Disconnected", at: 0 })
      for (const message of Machines.messages.flatMap((one) => [one, withId(one, otherId)])) {
        const { state: next, commands, violation } = Incumbent.step(state, { _tag: "Received", message, at: 0 })
        const received = handoffIdOf(message)
        if (phase !== "greeting" && received === otherId && message._tag !== "HelloAck") {
          expect(violation).toEqual({ _tag: "WrongHandoffId", phase, message: message._tag, expected: id, received })
        }
        if (violation === undefined) continue
        violations++
        expect(next).toEqual(gone.state)
        expect(commands).toEqual([{ _tag: "CloseSession" }, ...gone.commands])
        expect(Violation.explain(violation)).toContain(message._tag)
      }
    }
    expect(violations).toBeGreaterThan(200)
  })

  it("every message in every phase of the successor likewise", () => {
    let violations = 0
    for (const phase of Successor.phases) {
      if (phase === "exiting") continue
      const { opened } = Machines
      const state = { ...Successor.initial(Machines.successorOptions), phase, handoffId: id, opened }
      const gone = Successor.step(state, { _tag: "Disconnected", at: 0 })
      for (const message of Machines.messages.flatMap((one) => [one, withId(one, otherId)])) {
        const { state: next, commands, violation } = Successor.step(state, { _tag: "Received", message, at: 0 })
        if (violation === undefined) continue
        violations++
        expect(next.phase).toBe(gone.state.phase)
        expect(next.channel).toBe(false)
        expect(tags(commands)).toEqual(["CloseChannel", ...tags(gone.commands)])
      }
    }
    expect(violations).toBeGreaterThan(200)
  })

  it("a version that was not offered ends the session, naming the ranges", () => {
    const message: Message = { _tag: "HelloAck", protoVersionChosen: 2, handoffId: id }
    const greeting = Incumbent.step(Incumbent.initial(Machines.incumbentOptions), { _tag: "Connected", at: 0 }).state
    const incumbent = Incumbent.step(greeting, { _tag: "Received", message, at: 0 })
    expect(incumbent.state.phase).toBe("serving")
    expect(incumbent.violation).toEqual({
      _tag: "VersionMismatch",
      ours: { min: 1, max: 1 },
      theirs: { min: 2, max: 2 }
    })
    const successor = Successor.step(Successor.initial(Machines.successorOptions), { _tag: "Received", message, at: 0 })
    expect(successor.state.phase).toBe("exiting")
    expect(successor.violation?._tag).toBe("VersionMismatch")
  })

  it("a fact nobody asked for changes nothing and blames the driver, not the peer", () => {
    const state = Incumbent.initial(Machines.incumbentOptions)
    expect(Incumbent.step(state, { _tag: "LockReleased", at: 0 })).toEqual({
      state,
      commands: [],
      violation: { _tag: "UnexpectedFact", phase: "serving", fact: "LockReleased" }
    })
  })

  it("a deadline of 2^64 - 1 ms is not a timer that fires at once", () => {
    const state = { ...Incumbent.initial(Machines.incumbentOptions), phase: "acquainted" as const, session: true }
    const max = (1n << 64n) - 1n
    const message: Message = {
      _tag: "PrepareHandoff",
      handoffId: "",
      successorPid: 2,
      deadlineMs: max,
      drainGraceMs: max
    }
    const { commands } = Incumbent.step(state, { _tag: "Received", message, at: 0 })
    expect(commands).toContainEqual({ _tag: "SetTimer", timer: "deadline", delayMs: 2 ** 31 - 1 })
    expect(commands).toContainEqual({ _tag: "Drain", withinMs: 2 ** 31 - 1 })
  })
})

/** Mostly what a good run is made of: a walk of equal chances never gets to the end of a swap. */
const moves = fc.array(
  fc.record({
    kind: fc.oneof(
      { weight: 12, arbitrary: fc.constant("fact" as const) },
      { weight: 6, arbitrary: fc.constant("likely" as const) },
      { weight: 2, arbitrary: fc.constant("timer" as const) },
      { weight: 1, arbitrary: fc.constantFrom("any" as const, "gone" as const) }
    ),
    choice: fc.nat(1_000)
  }),
  { minLength: 10, maxLength: 60, size: "max" }
)

const byTag = (tag: string): Message => {
  const found = Machines.messages.find((one) => one._tag === tag)
  if (found === undefined) throw new Error(tag)
  return found
}

const any = (choice: number): Message => {
  const message = Machines.messages[choice % Machines.messages.length] ?? byTag("Heartbeat")
  return choice % 5 === 0 ? withId(message, otherId) : message
}

describe("random runs", () => {
  /** What a supervisor would say next, mostly. */
  const next: Partial<Record<Incumbent.Phase, ReadonlyArray<string>>> = {
    greeting: ["HelloAck"],
    acquainted: ["PrepareHandoff"],
    drained: ["SealRequest", "SealRequest", "ResumeAfterAbort"],
    sealed: ["Commit", "ResumeAfterAbort"],
    draining: ["Heartbeat", "Abort"],
    sealing: ["Heartbeat", "Abort"]
  }

  it("the incumbent: one hook at a time, no writer without the lock, and it always comes back or is replaced", () => {
    const reached = new Set<string>()
    fc.assert(
      fc.property(moves, (all) => {
        const world = new IncumbentWorld()
        for (const { kind, choice } of all) {
          reached.add(world.state.phase)
          if (world.state.phase === "exiting") break
          if (world.state.phase === "serving") world.send({ _tag: "Connected", at: 0 })
          else if (kind === "fact") world.report(choice)
          else if (kind === "timer") world.fire(choice)
          else if (kind === "gone") world.send({ _tag: "Disconnected", at: 0 })
          else if (kind === "any") world.send({ _tag: "Received", message: any(choice), at: 0 })
          else {
            const say = next[world.state.phase] ?? ["Heartbeat"]
            world.send({ _tag: "Received", message: byTag(say[choice % say.length] ?? "Heartbeat"), at: 0 })
          }
        }
        // S falls silent for good and everything that was asked for succeeds: only timers and facts remain.
        world.send({ _tag: "Disconnected", at: 0 })
        for (let turn = 0; turn < 20 && !["serving", "exiting"].includes(world.state.phase); turn++) {
          if (!world.report(0)) world.fire(0)
        }
        expect(["serving", "exiting"]).toContain(world.state.phase)
        if (world.state.phase === "serving") {
          expect(world.locked && world.stateOpen).toBe(true)
          expect([...world.timers]).toEqual([])
        }
      }),
      { numRuns: 3_000, seed: 11 }
    )
    expect([...reached].sort()).toEqual([...Incumbent.phases].sort())
  })

  it("O resumes by itself when S sleeps past its own deadline, from every phase of the swap", () => {
    for (const phase of ["draining", "drained", "sealing", "releasing", "sealed"] as const) {
      const seal = { revisions: [], fingerprint: new Uint8Array(32) }
      const base = Incumbent.initial(Machines.incumbentOptions)
      let { state } = Incumbent.step(
        { ...base, phase, session: true, handoffId: id, seal },
        { _tag: "TimerFired", timer: "deadline", at: 0 }
      )
      expect(state.session).toBe(false)
      for (const [name, event] of Machines.incumbentFacts) {
        if (["Drained", "Sealed", "LockReleased", "LockAcquired", "Resumed"].includes(name)) {
          const step = Incumbent.step(state, event)
          if (step.violation === undefined) state = step.state
        }
      }
      expect(state.phase).toBe("serving")
    }
  })
})

describe("random runs of the successor", () => {
  it("nothing touched before Begin, nothing accepted before the word, and it always serves or leaves", () => {
    const reached = new Set<string>()
    fc.assert(
      fc.property(moves, fc.integer({ min: 0, max: 3 }), (all, health) => {
        const world = new SuccessorWorld(health > 0)
        for (const { kind, choice } of all) {
          reached.add(world.state.phase)
          if (world.state.phase === "exiting") break
          if (kind === "fact") world.report(choice)
          else if (kind === "timer") world.fire(choice)
          else if (kind === "gone") world.send({ _tag: "Disconnected", at: 0 })
          else if (kind === "any") world.send({ _tag: "Received", message: any(choice), at: 0 })
          else if (world.state.phase === "greeting") {
            world.send({ _tag: "Received", message: byTag("HelloAck"), at: 0 })
          } else if (world.state.phase === "waiting") {
            world.send({ _tag: "Received", message: byTag("Begin"), at: 0 })
          } else world.send({ _tag: "Received", message: byTag(choice % 30 === 0 ? "Abort" : "Heartbeat"), at: 0 })
        }
        reached.add(world.state.phase)
        world.send({ _tag: "Disconnected", at: 0 })
        for (let turn = 0; turn < 20 && !["serving", "exiting"].includes(world.state.phase); turn++) {
          if (!world.report(0)) world.fire(0)
        }
        expect(["serving", "exiting"]).toContain(world.state.phase)
        expect(world.state.phase === "serving").toBe(world.accepting)
      }),
      { numRuns: 3_000, seed: 12 }
    )
    expect([...reached].sort()).toEqual([...Successor.phases].sort())
  })

  it("silence after Ready: a healthy one serves, an unhealthy one gives everything back", () => {
    const run = (healthy: boolean): SuccessorWorld => {
      const world = new SuccessorWorld(healthy)
      world.send({ _tag: "Received", message: byTag("HelloAck"), at: 0 })
      world.send({ _tag: "Received", message: byTag("Begin"), at: 0 })
      while (world.state.phase !== "announced") expect(world.report(0)).toBe(true)
      expect([...world.timers]).toEqual(["word"])
      world.send({ _tag: "Received", message: byTag("Heartbeat"), at: 0 })
      expect(world.state.phase).toBe("announced")
      world.fire(0)
      while (world.report(0));
      return world
    }
    expect(run(true).state.phase).toBe("serving")
    const left = run(false)
    expect([left.state.phase, left.state.why, left.locked, left.opened]).toEqual(["exiting", "unhealthy", false, false])
  })

  it("a hung open hook does not keep a rejected successor: it ends with the process, the lock with it", () => {
    const world = new SuccessorWorld(true)
    world.send({ _tag: "Received", message: byTag("HelloAck"), at: 0 })
    world.send({ _tag: "Received", message: byTag("Begin"), at: 0 })
    while (world.state.phase !== "opening") world.report(0)
    world.send({ _tag: "Disconnected", at: 0 })
    expect(world.state.phase).toBe("cancelling")
    expect(world.locked).toBe(true)
    world.fire([...world.timers].indexOf("leave"))
    expect(world.state).toMatchObject({ phase: "exiting", why: "supervisor-gone" })
    expect([world.exited, world.released]).toEqual([true, false])
  })
})

import type { Wish } from "@handoff/core/swap/Mode"
import * as Supervision from "@handoff/core/swap/Supervision"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { after, Driver, HANDOFF, options, ready } from "./Driver.ts"

describe("starting", () => {
  it("serves once the first generation said READY=1, and answers how long it took", () => {
    const driver = new Driver()
    driver.send({ _tag: "StartRequested", request: 1 })
    driver.launched(1)
    driver.pass(40)
    driver.send({ _tag: "Notified", generation: 1 })
    expect(driver.answer(1)).toEqual({ _tag: "Started", generation: 1, durationMs: 40 })
    expect(driver.state).toMatchObject({ phase: "serving", serving: 1 })
    expect([...driver.timers.keys()]).toEqual(["stable"])
  })

  it("ends with the reason when the first generation exits before it is ready", () => {
    const driver = new Driver()
    driver.send({ _tag: "StartRequested", request: 1 })
    driver.launched(1)
    driver.end(1, { code: 3 })
    expect(driver.answer(1)).toMatchObject({
      _tag: "StartFailed",
      failure: { _tag: "Exited", status: { _tag: "Exited", code: 3 } }
    })
    expect(driver.state.phase).toBe("failed")
    expect(driver.log.at(-1)).toEqual({ _tag: "Finish" })
  })

  it("ends with the detail when the first launch fails", () => {
    const driver = new Driver()
    driver.send({ _tag: "StartRequested", request: 1 })
    driver.send({ _tag: "LaunchFailed", generation: 1, detail: "ENOENT" })
    expect(driver.answer(1)).toMatchObject({ _tag: "StartFailed", failure: { _tag: "LaunchFailed", detail: "ENOENT" } })
    expect(driver.log.at(-1)).toEqual({ _tag: "Finish" })
  })

  it("counts the settle time from the launch, however long that took", () => {
    const driver = new Driver({ listeners: 0 })
    driver.send({ _tag: "StartRequested", request: 1 })
    driver.pass(1_000)
    driver.launched(1)
    driver.pass(249)
    expect(driver.answer(1)).toBeUndefined()
    driver.pass(1)
    expect(driver.answer(1)).toEqual({ _tag: "Started", generation: 1, durationMs: 1_250 })
  })

  it("claims to have seen nobody accept where there is no listener", () => {
    const driver = new Driver({ listeners: 0 })
    driver.send({ _tag: "StartRequested", request: 1 })
    driver.launched(1)
    driver.send({ _tag: "Observed", generation: 1, accepting: true, waiting: false, connections: 0 })
    driver.pass(250)
    const ready = driver.log.find((one) => one._tag === "Tell" && one.notice._tag === "GenerationReady")
    expect(ready).toMatchObject({ notice: { evidence: "settled" } })
  })

  it("kills what was launched after it had been given up", () => {
    const driver = new Driver()
    driver.send({ _tag: "StartRequested", request: 1 })
    driver.send({ _tag: "StopRequested", request: 2 })
    driver.launched(1)
    expect(driver.signals(1)).toEqual(["SIGKILL group"])
    driver.end(1)
    expect(driver.answer(1)).toMatchObject({ _tag: "StartFailed", failure: { _tag: "Stopping" } })
    expect(driver.answer(2)).toEqual({ _tag: "Stopped" })
  })
})

describe("an overlap swap", () => {
  it("commits when the new generation is ready, and only then asks the old one to stop", () => {
    const driver = new Driver().serving()
    driver.swap(2)
    driver.launched(2)
    expect(driver.signals(1)).toEqual([])
    driver.pass(30)
    driver.send({ _tag: "Notified", generation: 2 })
    expect(driver.record(2)).toMatchObject({ outcome: "committed", from: 1, to: 2, durationMs: 30, serving: 2 })
    expect(driver.signals(1)).toEqual(["SIGTERM process"])
    expect(driver.state.command).toEqual({ argv: ["v2"] })
  })

  it("kills the old generation's group after the grace, not before", () => {
    const driver = new Driver().serving()
    driver.swap(2)
    driver.launched(2)
    driver.send({ _tag: "Notified", generation: 2 })
    driver.pass(24_999)
    expect(driver.signals(1)).toEqual(["SIGTERM process"])
    driver.pass(1)
    expect(driver.signals(1)).toEqual(["SIGTERM process", "SIGKILL group"])
  })

  it("keeps waiting for a child that outlived the leader of a draining group", () => {
    const driver = new Driver().serving()
    driver.swap(2)
    driver.launched(2)
    driver.send({ _tag: "Notified", generation: 2 })
    driver.send({ _tag: "Exited", generation: 1, status: { _tag: "Exited", code: 0 } })
    expect(driver.state.generations.map((one) => one.id)).toEqual([1, 2])
    driver.pass(25_000)
    expect(driver.signals(1)).toEqual(["SIGTERM process", "SIGKILL group"])
    driver.send({ _tag: "Gone", generation: 1 })
    expect(driver.state.generations.map((one) => one.id)).toEqual([2])
  })

  it("rolls back when the new generation exits, and gives the verdict only when its group is empty", () => {
    const driver = new Driver().serving()
    driver.swap(2)
    driver.launched(2)
    driver.pass(5)
    driver.send({ _tag: "Exited", generation: 2, status: { _tag: "Exited", code: 7 } })
    expect(driver.answer(2)).toBeUndefined()
    driver.send({ _tag: "Gone", generation: 2 })
    expect(driver.record(2)).toMatchObject({
      outcome: "rolled-back",
      serving: 1,
      failure: { _tag: "Exited", status: { code: 7 }, afterMs: 5 }
    })
    expect(driver.signals(1)).toEqual([])
    expect(driver.state.command).toEqual({ argv: ["v1"] })
  })

  it("rolls back when the launch fails", () => {
    const driver = new Driver().serving()
    driver.swap(2)
    driver.send({ _tag: "LaunchFailed", generation: 2, detail: "execve = ENOENT" })
    expect(driver.record(2)).toMatchObject({
      outcome: "rolled-back",
      failure: { detail: "execve = ENOENT" },
      serving: 1
    })
  })

  it("ends for certain a version that hangs and ignores the stop signal", () => {
    const driver = new Driver().serving()
    driver.swap(2)
    driver.launched(2)
    driver.pass(30_000)
    expect(driver.signals(2)).toEqual(["SIGTERM process"])
    driver.pass(2_000)
    expect(driver.signals(2)).toEqual(["SIGTERM process", "SIGKILL group"])
    driver.send({ _tag: "Exited", generation: 2, status: { _tag: "Signaled", signal: "SIGKILL", coreDumped: false } })
    driver.send({ _tag: "Gone", generation: 2 })
    expect(driver.record(2)).toMatchObject({
      outcome: "rolled-back",
      killed: true,
      cut: 0,
      durationMs: 32_000,
      failure: { _tag: "NotReady", afterMs: 30_000, expected: "READY=1" }
    })
  })

  it("gives a version that accepted and then failed the whole grace, and says what was cut", () => {
    const driver = new Driver().serving()
    driver.swap(2)
    driver.launched(2)
    driver.send({ _tag: "Observed", generation: 2, accepting: true, waiting: true, connections: 4 })
    driver.pass(30_000)
    driver.pass(24_000)
    expect(driver.signals(2)).toEqual(["SIGTERM process"])
    driver.send({ _tag: "Observed", generation: 2, accepting: false, waiting: false, connections: 3 })
    driver.pass(1_000)
    expect(driver.signals(2)).toEqual(["SIGTERM process", "SIGKILL group"])
    driver.end(2)
    expect(driver.record(2)).toMatchObject({ killed: true, cut: 3 })
  })

  it("cuts nothing when the failed version drained to its end", () => {
    const driver = new Driver().serving()
    driver.swap(2)
    driver.launched(2)
    driver.send({ _tag: "Observed", generation: 2, accepting: true, waiting: true, connections: 4 })
    driver.pass(30_000)
    driver.end(2)
    expect(driver.record(2)).toMatchObject({ killed: false, cut: 0 })
  })

  it("demands READY=1 of the successor of a generation that sent it: accepting is not enough", () => {
    const driver = new Driver().serving()
    driver.swap(2)
    driver.launched(2)
    driver.send({ _tag: "Observed", generation: 2, accepting: true, waiting: true, connections: 0 })
    driver.pass(29_000)
    expect(driver.answer(2)).toBeUndefined()
    driver.pass(1_000)
    driver.end(2)
    expect(driver.record(2).failure).toMatchObject({ _tag: "NotReady", accepting: true })
  })

  it("lets a command with a policy of its own come after one that sent READY=1", () => {
    const driver = new Driver().serving()
    driver.send({
      _tag: "SwapRequested",
      handoffId: "",
      request: 2,
      command: { argv: ["quiet"], readiness: "accepting" }
    })
    driver.launched(2)
    driver.send({ _tag: "Observed", generation: 2, accepting: true, waiting: true, connections: 0 })
    expect(driver.record(2)).toMatchObject({ outcome: "committed", evidence: "accepting" })
  })

  it("rolls back to a version that never sent READY=1 without demanding it", () => {
    const driver = new Driver()
    driver.send({ _tag: "StartRequested", request: 1 })
    driver.launched(1)
    driver.send({ _tag: "Observed", generation: 1, accepting: true, waiting: true, connections: 0 })
    driver.pass(250)
    driver.swap(2)
    driver.launched(2)
    driver.send({ _tag: "Notified", generation: 2 })
    driver.end(1)
    driver.send({ _tag: "RollbackRequested", handoffId: "", request: 3 })
    driver.launched(3)
    driver.send({ _tag: "Observed", generation: 3, accepting: true, waiting: true, connections: 0 })
    driver.pass(250)
    expect(driver.record(3)).toMatchObject({ outcome: "committed", kind: "rollback", command: { argv: ["v1"] } })
  })

  it("refuses a second swap while one runs, naming it and since when", () => {
    const driver = new Driver().serving()
    driver.swap(2)
    driver.pass(70)
    driver.swap(3)
    expect(driver.answer(3)).toEqual({ _tag: "Refused", refusal: { _tag: "AlreadySwapping", swap: 1, sinceMs: 70 } })
  })

  it("refuses to roll back when there was no version before", () => {
    const driver = new Driver().serving()
    driver.send({ _tag: "RollbackRequested", handoffId: "", request: 2 })
    expect(driver.answer(2)).toEqual({ _tag: "Refused", refusal: { _tag: "NoPrevious" } })
  })

  it("waits for the oldest draining generation at the limit, says for whom, and goes on when it is gone", () => {
    const driver = new Driver({ generationLimit: 2 }).serving()
    driver.swap(2)
    driver.launched(2)
    driver.send({ _tag: "Notified", generation: 2 })
    const commands = driver.swap(3, ["v3"])
    expect(commands.some((command) => command._tag === "Launch")).toBe(false)
    expect(driver.state.swap?.waitingFor).toEqual({ generation: 1, why: "draining" })
    driver.end(1)
    expect(driver.state.swap).toMatchObject({ phase: "running", to: 3 })
  })

  it("aborts a running swap: the new generation is ended and the old one serves on", () => {
    const driver = new Driver().serving()
    driver.swap(2)
    driver.launched(2)
    driver.send({ _tag: "AbortRequested", request: 3 })
    expect(driver.answer(3)).toEqual({ _tag: "Aborting", swap: 1 })
    driver.end(2)
    expect(driver.record(2)).toMatchObject({ outcome: "rolled-back", failure: { _tag: "Aborted" }, serving: 1 })
  })

  it("aborts a waiting swap without having started anything", () => {
    const driver = new Driver({ generationLimit: 2 }).serving()
    driver.swap(2)
    driver.launched(2)
    driver.send({ _tag: "Notified", generation: 2 })
    driver.swap(3)
    driver.send({ _tag: "AbortRequested", request: 4 })
    expect(driver.record(3)).toMatchObject({ outcome: "rolled-back", to: undefined, failure: { _tag: "Aborted" } })
  })

  it("does not start the old command beside a swap that is about to replace it", () => {
    const driver = new Driver().serving()
    driver.swap(2)
    driver.launched(2)
    driver.end(1, { code: 1 })
    expect(driver.state).toMatchObject({ phase: "recovering", serving: undefined })
    expect(driver.timers.has("restart")).toBe(false)
    driver.send({ _tag: "Notified", generation: 2 })
    expect(driver.record(2)).toMatchObject({ outcome: "committed", serving: 2 })
    expect(driver.state.phase).toBe("serving")
  })

  it("starts the old command again when the old generation died and the new one failed", () => {
    const driver = new Driver().serving()
    driver.swap(2)
    driver.launched(2)
    driver.end(1, { code: 1 })
    driver.end(2, { code: 1 })
    expect(driver.record(2)).toMatchObject({ outcome: "rolled-back", serving: undefined })
    driver.pass(100)
    expect(driver.log.filter((command) => command._tag === "Launch").at(-1)).toMatchObject({
      generation: 3,
      command: { argv: ["v1"] }
    })
    driver.launched(3)
    driver.send({ _tag: "Notified", generation: 3 })
    expect(driver.state).toMatchObject({ phase: "serving", serving: 3 })
  })
})

describe("a crash of the serving generation", () => {
  it("restarts with a delay that doubles up to its bound, and counts from the start again once stable", () => {
    const driver = new Driver().serving()
    const delays: Array<number> = []
    for (let generation = 1; generation <= 6; generation++) {
      driver.end(generation, { code: 1 })
      const due = driver.timers.get("restart")
      delays.push((due ?? Number.NaN) - driver.at)
      driver.pass(delays.at(-1) ?? 0)
      driver.launched(generation + 1)
      driver.send({ _tag: "Notified", generation: generation + 1 })
    }
    expect(delays).toEqual([100, 200, 400, 800, 1_000, 1_000])
    driver.pass(60_000)
    driver.end(7)
    expect((driver.timers.get("restart") ?? 0) - driver.at).toBe(100)
  })

  it("goes on trying when the restarted generation fails too", () => {
    const driver = new Driver().serving()
    driver.end(1)
    driver.pass(100)
    driver.launched(2)
    driver.end(2, { code: 1 })
    expect((driver.timers.get("restart") ?? 0) - driver.at).toBe(200)
  })

  it("kills what is left of its group, which would answer for a version that is gone", () => {
    const driver = new Driver().serving()
    driver.send({ _tag: "Exited", generation: 1, status: { _tag: "Exited", code: 1 } })
    expect(driver.signals(1)).toEqual(["SIGKILL group"])
  })

  it("lets a swap take the place of the restart that is being waited for", () => {
    const driver = new Driver().serving()
    driver.end(1)
    driver.swap(2)
    expect(driver.timers.has("restart")).toBe(false)
    driver.launched(2)
    driver.send({ _tag: "Notified", generation: 2 })
    expect(driver.record(2)).toMatchObject({ outcome: "committed", from: undefined, serving: 2 })
  })

  it("lets a swap wait for a restart that is under way", () => {
    const driver = new Driver().serving()
    driver.end(1)
    driver.pass(100)
    driver.launched(2)
    driver.swap(2)
    expect(driver.state.swap?.waitingFor).toEqual({ generation: 2, why: "starting" })
    driver.send({ _tag: "Notified", generation: 2 })
    expect(driver.state.swap).toMatchObject({ phase: "running", from: 2, to: 3 })
  })
})

describe("stopping", () => {
  it("drains everything, answers when all are gone, and finishes", () => {
    const driver = new Driver().serving()
    driver.swap(2)
    driver.launched(2)
    driver.send({ _tag: "StopRequested", request: 3 })
    expect(driver.signals(1)).toEqual(["SIGTERM process"])
    expect(driver.signals(2)).toEqual(["SIGTERM process"])
    driver.end(2)
    expect(driver.record(2)).toMatchObject({ outcome: "rolled-back", failure: { _tag: "Stopping" } })
    expect(driver.answer(3)).toBeUndefined()
    driver.end(1)
    expect(driver.answer(3)).toEqual({ _tag: "Stopped" })
    expect(driver.log.at(-1)).toEqual({ _tag: "Finish" })
  })

  it("kills at once when asked twice", () => {
    const driver = new Driver().serving()
    driver.send({ _tag: "StopRequested", request: 2 })
    driver.send({ _tag: "StopRequested", request: 3 })
    expect(driver.signals(1)).toEqual(["SIGTERM process", "SIGKILL group"])
    driver.end(1)
    expect(driver.answer(2)).toEqual({ _tag: "Stopped" })
    expect(driver.answer(3)).toEqual({ _tag: "Stopped" })
  })

  it("does not restart a generation that exits because it was told to", () => {
    const driver = new Driver().serving()
    driver.send({ _tag: "StopRequested", request: 2 })
    driver.end(1)
    expect(driver.timers.size).toBe(0)
    expect(driver.state.phase).toBe("stopped")
  })

  it("stops while a restart is being waited for", () => {
    const driver = new Driver().serving()
    driver.end(1)
    driver.send({ _tag: "StopRequested", request: 2 })
    expect(driver.answer(2)).toEqual({ _tag: "Stopped" })
    driver.pass(10_000)
    expect(driver.log.filter((command) => command._tag === "Launch")).toHaveLength(1)
  })
})

/** What the channels of a sealed swap may bring that does not take it on. */
const disturbed = (driver: Driver): ReadonlyArray<() => void> =>
  driver.state.swap?.handoff === undefined
    ? []
    : [
        () => driver.handoff({ _tag: "Lost", from: "incumbent", detail: "closed" }),
        () => driver.handoff({ _tag: "Lost", from: "successor", detail: "closed" }),
        () => driver.handoff({ _tag: "ConnectFailed", detail: "ECONNREFUSED" }),
        () => driver.handoff({ _tag: "PathAnswered", pid: undefined, hello: true }),
        () => driver.hear("successor", ready(false)),
        () => driver.hear("incumbent", { _tag: "Heartbeat", tsMs: 0n })
      ]

/** One thing that takes it on, as a kernel and daemons do that work well. */
const goOn = (driver: Driver): void => {
  const { swap, generations, serving } = driver.state
  const upcoming = generations.find((one) => one.phase === "launching" || one.phase === "starting")
  const phase = swap?.handoff?.phase
  if (swap?.phase === "deciding") {
    driver.send({ _tag: "HandoffSocketSeen", generation: serving ?? 0, served: (serving ?? 0) % 2 === 0 })
  } else if (phase !== undefined && phase !== "reverting" && phase !== "ended") driver.advance()
  else if (upcoming !== undefined && upcoming.pid === undefined) driver.launched(upcoming.id)
  else if (upcoming !== undefined) driver.send({ _tag: "Notified", generation: upcoming.id })
  else {
    const ending = generations.find((one) => one.phase === "draining" || one.phase === "rejected")
    if (ending === undefined) driver.pass(1_000)
    else if (ending.pid === undefined) driver.launched(ending.id)
    else if (ending.exit === undefined) {
      driver.send({ _tag: "Exited", generation: ending.id, status: { _tag: "Exited", code: 0 } })
    } else driver.send({ _tag: "Gone", generation: ending.id })
  }
}

const modes = ["overlap", "sealed", "exclusive", "auto"] as const

/** Plays a kernel, and daemons, that answer commands in any order the seed says. */
const wander = (seed: ReadonlyArray<readonly [kind: number, choice: number]>, mode: Wish, onlyThat = false): Driver => {
  const driver = new Driver({ generationLimit: 3, mode })
  driver.send({ _tag: "StartRequested", request: 0 })
  let request = 0
  const swap = (wish?: Wish) => () =>
    driver.send({
      _tag: "SwapRequested",
      handoffId: HANDOFF,
      request: ++request,
      command: { argv: [`v${request}`] },
      ...(wish === undefined ? {} : { mode: wish })
    })
  const moves = (): ReadonlyArray<() => void> => [
    swap(),
    ...(onlyThat ? [] : modes.map(swap)),
    () => driver.send({ _tag: "RollbackRequested", handoffId: HANDOFF, request: ++request }),
    () => driver.send({ _tag: "AbortRequested", request: ++request }),
    () => driver.pass(40_000),
    () => driver.pass(90),
    ...disturbed(driver),
    ...driver.state.generations.flatMap((one): ReadonlyArray<() => void> => {
      const { id: generation } = one
      if (one.pid === undefined) {
        return [
          () => driver.launched(generation),
          () => driver.send({ _tag: "LaunchFailed", generation, detail: "ENOENT" })
        ]
      }
      if (one.exit !== undefined) return [() => driver.send({ _tag: "Gone", generation })]
      return [
        () => driver.send({ _tag: "Notified", generation }),
        () => driver.send({ _tag: "Observed", generation, accepting: true, waiting: true, connections: 1 }),
        () => driver.send({ _tag: "HandoffSocketSeen", generation, served: generation % 2 === 0 }),
        () => driver.send({ _tag: "Exited", generation, status: { _tag: "Exited", code: 1 } })
      ]
    })
  ]
  for (const [kind, choice] of seed) {
    if (driver.state.phase === "failed") break
    const possible = moves()
    if (kind < 6) goOn(driver)
    else possible[choice % possible.length]?.()
  }
  return driver
}

/** Long ones: what is rare takes many steps. */
const histories = fc.array(fc.tuple(fc.nat(9), fc.nat(1_000)), { minLength: 1, maxLength: 80, size: "max" })

/** Whoever is asked to end ends, whatever is awaited comes: in the end one serves, and nothing else is there. */
const comesToRest = (driver: Driver): void => {
  for (let round = 0; round < 40 && driver.state.phase !== "failed"; round++) {
    driver.obey()
    goOn(driver)
  }
  if (driver.state.phase === "failed") return
  expect(driver.state).toMatchObject({ phase: "serving", swap: undefined })
  expect(driver.state.generations.map((one) => one.id)).toEqual([driver.state.serving])
  expect([...driver.timers.keys()].filter((timer) => timer !== "stable")).toEqual([])
}

describe.each(modes)("any order of events, by default %s", (mode) => {
  const all = (check: (driver: Driver) => void, onlyThat = false) =>
    fc.assert(
      fc.property(histories, (seed) => check(wander(seed, mode, onlyThat))),
      { numRuns: 300 }
    )

  it("keeps one generation serving at most, stays within the limit, and signals only what was launched", () =>
    all((driver) => {
      const { generations, serving, options: limits } = driver.state
      expect(generations.filter((one) => one.phase === "serving").map((one) => one.id)).toEqual(
        serving === undefined ? [] : [serving]
      )
      expect(
        generations.filter((one) => one.exit === undefined && one.phase !== "rejected").length
      ).toBeLessThanOrEqual(limits.generationLimit)
      const launched = new Set(driver.events.flatMap((event) => (event._tag === "Launched" ? [event.generation] : [])))
      for (const command of driver.log) if (command._tag === "Signal") expect(launched).toContain(command.generation)
    }))

  it("always has somebody who serves, starts, or is due to start", () =>
    all(({ state }) => {
      if (state.phase === "failed") return
      // A rejected one counts: its end is certain, and the restart is scheduled then; so does one that is waited for.
      const alive = state.generations.some((one) => one.phase !== "draining" || mode === "exclusive")
      const leaving = state.swap !== undefined || state.startRequest !== undefined
      expect(alive || leaving || state.restarts.nextAt !== undefined).toBe(true)
    }))

  it("has no timer but of what is there", () =>
    all((driver) => {
      const { state, timers } = driver
      for (const timer of timers.keys()) {
        const [kind, id] = timer.split(":")
        const generation = state.generations.find((one) => one.id === Number(id))
        if (kind === "handoff") expect(state.swap?.handoff, timer).toBeDefined()
        else if (kind === "stable") expect(state.serving, timer).toBeDefined()
        else if (kind === "restart") expect(state.restarts.nextAt, timer).toBeDefined()
        else if (kind === "grace") expect(["draining", "rejected"], timer).toContain(generation?.phase)
        else expect(["launching", "starting"], timer).toContain(generation?.phase)
      }
    }))

  it("comes to rest: whoever is asked to end ends, and a swap has its verdict", () => all(comesToRest))

  it("is gone on with by the next supervisor from wherever the last one died, and whoever lives then", () =>
    fc.assert(
      fc.property(histories, fc.nat(63), fc.nat(4), (seed, alive, lock) => {
        const before = wander(seed, mode)
        if (before.state.phase === "failed") return
        const living = before.state.generations.filter((_, index) => (alive & (1 << index)) !== 0)
        const seen = Object.fromEntries(living.map(({ id }, index) => [id, { holdsLock: index === lock }]))
        const driver = after(before, seen)
        expect(driver.state.generations.map((one) => one.id)).toEqual(
          expect.arrayContaining(living.filter((one) => one.identity !== undefined).map((one) => one.id))
        )
        comesToRest(driver)
        expect(driver.answer(1)?._tag).toMatch(/^Start(ed|Failed)$/)
      }),
      { numRuns: 300 }
    ))

  it("answers every request exactly once after a stop, finishes once, and leaves no timer", () =>
    all((driver) => {
      const failed = driver.state.phase === "failed"
      driver.send({ _tag: "StopRequested", request: 99_999 })
      driver.obey()
      const asked = driver.events.flatMap((event) => ("request" in event ? [event.request] : []))
      const answered = driver.log.flatMap((command) => (command._tag === "Answer" ? [command.request] : []))
      expect([...answered].sort()).toEqual([...asked].sort())
      if (!failed) expect(driver.log.filter((command) => command._tag === "Finish")).toHaveLength(1)
      expect([...driver.timers.keys()]).toEqual([])
      expect(driver.state).toMatchObject({ phase: "stopped", generations: [], swap: undefined })
    }))

  it("gives the same commands when its events are replayed", () =>
    all((driver) => {
      const start = Supervision.initial({ ...options, generationLimit: 3, mode }, { argv: ["v1"] })
      expect(Supervision.replay(start, driver.events)).toEqual(driver.perEvent)
    }))
})

/** After every event of histories in which all swaps are of one mode. */
const always = (
  mode: Wish,
  check: (before: Supervision.State, after: Supervision.State, commands: ReadonlyArray<Supervision.Action>) => void
) =>
  fc.assert(
    fc.property(histories, (seed) => {
      const driver = wander(seed, mode, true)
      let state = Supervision.initial(driver.state.options, { argv: ["v1"] })
      for (const event of driver.events) {
        const next = Supervision.step(state, event)
        check(state, next.state, next.commands)
        state = next.state
      }
    }),
    { numRuns: 300 }
  )

it("a program that must not run twice never does when all its swaps are exclusive", () =>
  always("exclusive", (_, { generations }) => expect(generations.length).toBeLessThanOrEqual(1)))

it("nothing is started beside the two of a sealed swap", () =>
  always("sealed", (before, after, commands) => {
    if (before.swap?.handoff === undefined || after.swap?.id !== before.swap.id) return
    for (const command of commands) if (command._tag === "Launch") expect(command.successor).toBe(true)
  }))

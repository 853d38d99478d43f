import type * as Sealed from "@handoff/core/swap/Sealed"
import { describe, expect, it } from "vitest"
import { after, Driver, HANDOFF, ready } from "./Driver.ts"

const looks = (driver: Driver): ReadonlyArray<number> =>
  driver.log.flatMap((one) => (one._tag === "LookForHandoffSocket" ? [one.generation] : []))

const seen = (driver: Driver, generation: number, served: boolean) =>
  driver.send({ _tag: "HandoffSocketSeen", generation, served })

/** `rolled-back Exited, 1 serves`: a verdict in short. */
const verdict = (driver: Driver, request: number): string => {
  const answer = driver.answer(request)
  if (answer?._tag !== "SwapEnded") return answer?._tag ?? "no answer"
  const { outcome, failure, serving } = answer.record
  const why = failure?._tag === "HandoffFailed" ? failure.reason._tag : failure?._tag
  return `${outcome}${why === undefined ? "" : ` ${why}`}, ${serving === undefined ? "nobody" : serving} serves`
}

/** Nothing runs but what serves, and no timer but the one of its stability. */
const atRest = (driver: Driver): void => {
  const { generations, serving, swap } = driver.state
  expect(swap).toBeUndefined()
  expect(generations.map((one) => one.id)).toEqual(serving === undefined ? [] : [serving])
  expect([...driver.timers.keys()]).toEqual(serving === undefined ? [] : ["stable"])
}

const auto = () => new Driver({ mode: "auto" }).serving()

describe("auto", () => {
  it("looks once when a generation serves, and is sealed when its handoff socket was seen", () => {
    const driver = auto()
    expect(looks(driver)).toEqual([1])
    seen(driver, 1, true)
    driver.swap(2)
    expect(looks(driver)).toEqual([1])
    expect(driver.state.swap).toMatchObject({ mode: "sealed", phase: "running", handoff: { phase: "connecting" } })
  })

  it.each([
    ["none was seen before", false],
    ["nobody has looked yet", undefined]
  ])("looks again where %s, and is overlap when there is none", (_, before) => {
    const driver = auto()
    if (before !== undefined) seen(driver, 1, before)
    driver.swap(2)
    expect(driver.state.swap).toMatchObject({ mode: undefined, phase: "deciding" })
    expect(looks(driver)).toEqual([1, 1])
    expect(driver.launches()).toEqual(["1 v1"])
    seen(driver, 1, false)
    expect(driver.state.swap).toMatchObject({ mode: "overlap", phase: "running", to: 2 })
  })

  it("is sealed for a daemon that took its time to serve a handoff socket", () => {
    const driver = auto()
    seen(driver, 1, false)
    driver.swap(2)
    seen(driver, 1, true)
    expect(driver.state.swap).toMatchObject({ mode: "sealed" })
  })

  it("never forgets a handoff socket: a daemon gone silent is an error, and nothing is started beside it", () => {
    const driver = auto()
    seen(driver, 1, true)
    seen(driver, 1, false)
    driver.swap(2)
    driver.handoff({ _tag: "ConnectFailed", detail: "ECONNREFUSED" })
    expect(verdict(driver, 2)).toBe("rolled-back Unreachable, 1 serves")
    expect(driver.record(2)).toMatchObject({ mode: "sealed", handoffId: HANDOFF, to: undefined })
    expect(driver.launches()).toEqual(["1 v1"])
    atRest(driver)
  })

  it("is an error too when the daemon takes the connection and says nothing", () => {
    const driver = auto()
    seen(driver, 1, true)
    driver.swap(2)
    driver.advance()
    driver.pass(5_000)
    expect(verdict(driver, 2)).toBe("rolled-back TimedOut, 1 serves")
    expect(driver.launches()).toEqual(["1 v1"])
    atRest(driver)
  })

  it("knows of a successor that it serves one", () => {
    const driver = auto()
    seen(driver, 1, true)
    driver.swap(2)
    driver.until("publishing")
    driver.advance()
    expect(looks(driver)).toEqual([1])
    driver.obey()
    driver.swap(3, ["v3"])
    expect(driver.state.swap).toMatchObject({ mode: "sealed", from: 2 })
  })

  it("is decided anew when the generation dies that was looked at", () => {
    const driver = auto()
    driver.swap(2)
    driver.end(1)
    expect(driver.state.swap).toMatchObject({ mode: "overlap", phase: "running", from: undefined })
    seen(driver, 1, true)
    expect(driver.state.swap).toMatchObject({ mode: "overlap" })
  })

  it.each(["AbortRequested", "StopRequested"] as const)("ends undecided by %s", (_tag) => {
    const driver = auto()
    driver.swap(2)
    driver.send({ _tag, request: 3 })
    expect(verdict(driver, 2)).toMatch(/^rolled-back (Aborted, 1 serves|Stopping, nobody serves)$/)
    expect(driver.record(2)).toMatchObject({ mode: undefined, to: undefined })
    seen(driver, 1, true)
    driver.obey()
    expect(driver.launches()).toEqual(["1 v1"])
  })

  it("does not look where the mode is given", () => {
    const driver = new Driver({ mode: "sealed" }).serving()
    driver.send({ _tag: "SwapRequested", request: 2, handoffId: HANDOFF, mode: "overlap" })
    expect(driver.state.swap).toMatchObject({ mode: "overlap" })
    expect(looks(driver)).toEqual([])
  })
})

const sealed = (phase: Sealed.Phase) => {
  const driver = new Driver({ mode: "sealed" }).serving()
  driver.swap(2)
  driver.until(phase)
  return driver
}

const phases: ReadonlyArray<Sealed.Phase> = [
  "connecting",
  "greeting-incumbent",
  "launching",
  "greeting-successor",
  "draining",
  "sealing",
  "opening",
  "publishing"
]

/** Goes on to the end of a sealed swap with whoever is left. */
const finish = (driver: Driver): void => {
  for (let step = 0; step < 20 && driver.state.swap !== undefined; step++) {
    const phase = driver.state.swap.handoff?.phase
    if (phase === "reverting") driver.obey()
    else driver.advance()
  }
  driver.obey()
}

describe("a sealed swap", () => {
  it("commits: the old generation is told by the protocol, not by a signal, and gets its grace", () => {
    const driver = sealed("publishing")
    driver.advance()
    expect(driver.record(2)).toMatchObject({
      outcome: "committed",
      mode: "sealed",
      evidence: "handoff",
      from: 1,
      to: 2
    })
    expect(driver.signals(1)).toEqual([])
    expect(driver.state).toMatchObject({
      serving: 2,
      command: { argv: ["v2"] },
      previous: { command: { argv: ["v1"] } }
    })
    driver.pass(24_999)
    expect(driver.signals(1)).toEqual([])
    driver.pass(1)
    expect(driver.signals(1)).toEqual(["SIGKILL group"])
    driver.obey()
    atRest(driver)
  })

  it("neither watches its successor nor takes READY=1 for its Ready", () => {
    const driver = sealed("opening")
    driver.send({ _tag: "Notified", generation: 2 })
    driver.send({ _tag: "Observed", generation: 2, accepting: true, waiting: true, connections: 0 })
    expect(driver.answer(2)).toBeUndefined()
    expect(driver.log.some((one) => one._tag === "Watch" && one.generation === 2)).toBe(false)
  })

  const rows = (fault: (driver: Driver, phase: Sealed.Phase) => void, expected: Readonly<Record<string, string>>) =>
    it.each(phases)("while %s", (phase) => {
      const driver = sealed(phase)
      fault(driver, phase)
      finish(driver)
      expect(`${verdict(driver, 2)}`).toBe(expected[phase] ?? expected.otherwise)
      if (driver.state.phase === "serving") atRest(driver)
      else if (driver.state.phase === "recovering") {
        expect(driver.timers.size).toBe(1)
        driver.pass(100)
        expect(driver.launches().at(-1)).toMatch(/^\d v1$/)
      } else expect(driver.timers.size).toBe(0)
    })

  describe("the incumbent dies", () => {
    const committed = "committed, 2 serves"
    rows((driver) => driver.end(1, { code: 1 }), {
      opening: committed,
      publishing: committed,
      otherwise: "rolled-back Lost, nobody serves"
    })
  })

  describe("the successor dies (or is not there yet, and the launch fails)", () => {
    rows(
      (driver, phase) => {
        driver.until(phase === "connecting" || phase === "greeting-incumbent" ? "launching" : phase)
        const to = driver.state.swap?.to ?? 0
        if (driver.state.swap?.handoff?.phase === "launching") {
          driver.send({ _tag: "LaunchFailed", generation: to, detail: "ENOENT" })
        } else driver.end(to, { code: 3 })
      },
      {
        connecting: "rolled-back LaunchFailed, 1 serves",
        "greeting-incumbent": "rolled-back LaunchFailed, 1 serves",
        launching: "rolled-back LaunchFailed, 1 serves",
        otherwise: "rolled-back Exited, 1 serves"
      }
    )
  })

  describe("both die", () => {
    rows(
      (driver, phase) => {
        driver.end(1, { code: 1 })
        if (phases.indexOf(phase) > phases.indexOf("launching")) driver.end(2, { code: 1 })
      },
      {
        opening: "rolled-back Exited, nobody serves",
        publishing: "rolled-back Exited, nobody serves",
        otherwise: "rolled-back Lost, nobody serves"
      }
    )
  })

  describe("abort is requested", () => {
    rows((driver) => driver.send({ _tag: "AbortRequested", request: 3 }), {
      publishing: "committed, 2 serves",
      otherwise: "rolled-back Aborted, 1 serves"
    })

    it("too late once the new version was told to serve, and says so", () => {
      const driver = sealed("publishing")
      driver.send({ _tag: "AbortRequested", request: 3 })
      expect(driver.answer(3)).toEqual({ _tag: "Refused", refusal: { _tag: "TooLate", swap: 1 } })
    })

    it("twice: the first one counts", () => {
      const driver = sealed("sealing")
      driver.send({ _tag: "AbortRequested", request: 3 })
      driver.send({ _tag: "AbortRequested", request: 4 })
      expect(driver.answer(4)).toEqual({ _tag: "Aborting", swap: 1 })
      finish(driver)
      expect(verdict(driver, 2)).toBe("rolled-back Aborted, 1 serves")
    })
  })

  describe("stop is requested", () => {
    it("after the word to serve: the swap has committed, whatever is stopped after it", () => {
      const driver = sealed("publishing")
      driver.send({ _tag: "StopRequested", request: 3 })
      driver.advance()
      expect(verdict(driver, 2)).toBe("committed, nobody serves")
      // A supervisor that dies before the stop is done leaves the command of the version that has the data.
      expect(driver.state.command.argv).toEqual(["v2"])
      driver.obey()
      expect(driver.answer(3)).toEqual({ _tag: "Stopped" })
    })

    it.each(phases)("while %s: everything ends, and every request is answered", (phase) => {
      const driver = sealed(phase)
      driver.send({ _tag: "StopRequested", request: 3 })
      driver.obey()
      expect(verdict(driver, 2)).toMatch(/^rolled-back (Stopping|Exited), nobody serves$/)
      expect(driver.answer(3)).toEqual({ _tag: "Stopped" })
      expect(driver.state).toMatchObject({ phase: "stopped", generations: [], swap: undefined })
      expect([...driver.timers.keys()]).toEqual([])
      expect(driver.log.at(-1)).toEqual({ _tag: "Finish" })
    })
  })

  it("that is reverting waits for the end of the successor, and for the incumbent to serve, before its verdict", () => {
    const driver = sealed("opening")
    driver.hear("successor", ready(false))
    expect(driver.signals(2)).toEqual(["SIGKILL group"])
    expect(driver.state.swap).toMatchObject({ phase: "rolling-back" })
    driver.end(2)
    expect(driver.answer(2)).toBeUndefined()
    expect(driver.state.swap?.handoff?.phase).toBe("resuming")
    driver.advance()
    expect(verdict(driver, 2)).toBe("rolled-back Unhealthy, 1 serves")
  })

  it("kills an incumbent that comes back to nothing, and starts its command again", () => {
    const driver = sealed("sealing")
    driver.send({ _tag: "AbortRequested", request: 9 })
    driver.end(2)
    expect(driver.state.swap?.handoff?.phase).toBe("resuming")
    driver.pass(29_000)
    expect(driver.signals(1)).toEqual([])
    driver.pass(1_000)
    expect(driver.signals(1)).toEqual(["SIGKILL group"])
    expect(driver.answer(2)).toBeUndefined()
    driver.end(1)
    expect(verdict(driver, 2)).toBe("rolled-back Aborted, nobody serves")
    driver.pass(100)
    expect(driver.launches().at(-1)).toBe("3 v1")
  })

  it("does not start the old command while the successor may still get the data", () => {
    const driver = sealed("opening")
    driver.end(1, { code: 1 })
    driver.pass(5_000)
    expect(driver.launches()).toEqual(["1 v1", "2 v2, successor"])
  })

  it("does not start the old command while the successor that failed may still hold the data", () => {
    const driver = sealed("opening")
    driver.hear("successor", ready(false))
    driver.end(1, { code: 1 })
    driver.pass(5_000)
    expect(driver.launches()).toEqual(["1 v1", "2 v2, successor"])
    driver.end(2)
    driver.pass(5_000)
    expect(driver.launches().at(-1)).toBe("3 v1")
  })

  it("ignores what comes late of a swap that has ended", () => {
    const driver = sealed("opening")
    driver.send({ _tag: "AbortRequested", request: 3 })
    finish(driver)
    driver.swap(4, ["v3"])
    const before = driver.state
    driver.send({ _tag: "Handoff", swap: 1, event: { _tag: "PathAnswered", pid: 102, hello: true } })
    driver.send({ _tag: "Handoff", swap: 1, event: { _tag: "Lost", from: "incumbent", detail: "closed" } })
    expect(driver.state).toEqual(before)
  })

  it("whose caller asked to roll back is sealed too, and puts the commands back", () => {
    const driver = sealed("publishing")
    driver.advance()
    driver.obey()
    driver.send({ _tag: "RollbackRequested", request: 3, handoffId: HANDOFF })
    driver.until("publishing")
    driver.advance()
    driver.obey()
    expect(driver.record(3)).toMatchObject({ kind: "rollback", mode: "sealed", command: { argv: ["v1"] } })
    atRest(driver)
  })
})

const exclusive = () => {
  const driver = new Driver({ mode: "exclusive" }).serving()
  driver.swap(2)
  return driver
}

const ready2 = (driver: Driver, generation: number) => {
  driver.launched(generation)
  driver.send({ _tag: "Notified", generation })
}

describe("an exclusive swap", () => {
  it("stops the old generation, and starts the new one only when nobody of its group is left", () => {
    const driver = exclusive()
    expect(driver.signals(1)).toEqual(["SIGTERM process"])
    expect(driver.state).toMatchObject({ serving: undefined, phase: "recovering", swap: { phase: "clearing" } })
    driver.send({ _tag: "Exited", generation: 1, status: { _tag: "Exited", code: 0 } })
    driver.pass(10_000)
    expect(driver.launches()).toEqual(["1 v1"])
    driver.send({ _tag: "Gone", generation: 1 })
    expect(driver.launches()).toEqual(["1 v1", "2 v2"])
    ready2(driver, 2)
    expect(driver.record(2)).toMatchObject({ outcome: "committed", mode: "exclusive", from: 1, to: 2, serving: 2 })
    atRest(driver)
  })

  it("kills an old generation that does not end, after the grace", () => {
    const driver = exclusive()
    driver.pass(25_000)
    expect(driver.signals(1)).toEqual(["SIGTERM process", "SIGKILL group"])
    driver.end(1)
    expect(driver.launches()).toEqual(["1 v1", "2 v2"])
  })

  it("lets the old generation serve while others drain from an earlier overlap swap", () => {
    const driver = new Driver().serving()
    driver.swap(2)
    ready2(driver, 2)
    driver.send({ _tag: "SwapRequested", request: 3, handoffId: HANDOFF, mode: "exclusive", command: { argv: ["v3"] } })
    expect(driver.signals(2)).toEqual([])
    expect(driver.state).toMatchObject({ serving: 2, swap: { phase: "waiting" } })
    driver.end(1)
    expect(driver.signals(2)).toEqual(["SIGTERM process"])
    expect(driver.launches()).toEqual(["1 v1", "2 v2"])
    driver.end(2)
    expect(driver.launches()).toEqual(["1 v1", "2 v2", "3 v3"])
  })

  it("asked for when what served has crashed waits for the rest of its group", () => {
    const driver = new Driver({ mode: "exclusive" }).serving()
    driver.send({ _tag: "Exited", generation: 1, status: { _tag: "Exited", code: 1 } })
    driver.swap(2)
    driver.pass(10_000)
    expect(driver.launches()).toEqual(["1 v1"])
    driver.send({ _tag: "Gone", generation: 1 })
    ready2(driver, 2)
    expect(driver.record(2)).toMatchObject({ outcome: "committed", from: undefined, serving: 2 })
    atRest(driver)
  })

  it("does not restart beside the rest of a crashed generation's group", () => {
    const driver = new Driver({ mode: "exclusive" }).serving()
    driver.send({ _tag: "Exited", generation: 1, status: { _tag: "Exited", code: 1 } })
    driver.pass(10_000)
    expect(driver.launches()).toEqual(["1 v1"])
    driver.send({ _tag: "Gone", generation: 1 })
    driver.pass(1_000)
    expect(driver.launches()).toEqual(["1 v1", "2 v1"])
  })

  it("that can't be written down ends before the old generation is touched", () => {
    const driver = new Driver({ mode: "exclusive" }).serving()
    driver.send({ _tag: "SwapRequested", request: 2, handoffId: HANDOFF, unsaved: "state.json: ENOSPC" })
    expect(verdict(driver, 2)).toBe("rolled-back LaunchFailed, 1 serves")
    expect(driver.record(2).failure).toMatchObject({ detail: expect.stringContaining("ENOSPC") })
    expect(driver.signals(1)).toEqual([])
    atRest(driver)
  })

  const failures: ReadonlyArray<readonly [string, string, (driver: Driver) => void]> = [
    ["exits", "Exited", (driver) => driver.end(2, { code: 3 })],
    ["is not ready in time", "NotReady", (driver) => driver.pass(30_000)],
    ["is aborted", "Aborted", (driver) => void driver.send({ _tag: "AbortRequested", request: 3 })]
  ]
  it.each(failures)("whose new version %s starts the old command again", (_, why, fault) => {
    const driver = exclusive()
    driver.end(1)
    driver.launched(2)
    fault(driver)
    driver.obey()
    expect(driver.answer(2)).toBeUndefined()
    expect(driver.launches()).toEqual(["1 v1", "2 v2", "3 v1"])
    ready2(driver, 3)
    expect(verdict(driver, 2)).toBe(`rolled-back ${why}, 3 serves`)
    expect(driver.state.command.argv).toEqual(["v1"])
    atRest(driver)
  })

  it("whose launch fails starts the old command again", () => {
    const driver = exclusive()
    driver.end(1)
    driver.send({ _tag: "LaunchFailed", generation: 2, detail: "ENOENT" })
    ready2(driver, 3)
    expect(verdict(driver, 2)).toBe("rolled-back LaunchFailed, 3 serves")
    atRest(driver)
  })

  it("aborted while the old one ends starts its command again, not the new one", () => {
    const driver = exclusive()
    driver.send({ _tag: "AbortRequested", request: 3 })
    expect(driver.answer(2)).toBeUndefined()
    driver.end(1)
    expect(driver.launches()).toEqual(["1 v1", "2 v1"])
    ready2(driver, 2)
    expect(verdict(driver, 2)).toBe("rolled-back Aborted, 2 serves")
    atRest(driver)
  })

  it("aborted while the old command starts again goes on with that", () => {
    const driver = exclusive()
    driver.end(1)
    driver.launched(2)
    driver.end(2)
    driver.send({ _tag: "AbortRequested", request: 3 })
    ready2(driver, 3)
    expect(verdict(driver, 2)).toBe("rolled-back Exited, 3 serves")
  })

  it("that can't start the old command either gives its verdict, and restarts follow", () => {
    const driver = exclusive()
    driver.end(1)
    driver.launched(2)
    driver.end(2)
    driver.launched(3)
    driver.end(3)
    expect(verdict(driver, 2)).toBe("rolled-back Exited, nobody serves")
    driver.pass(100)
    ready2(driver, 4)
    expect(driver.state).toMatchObject({ phase: "serving", serving: 4, command: { argv: ["v1"] } })
    atRest(driver)
  })

  it("back to a version that never sent READY=1 does not demand it", () => {
    const driver = new Driver({ mode: "exclusive" })
    driver.send({ _tag: "StartRequested", request: 1 })
    driver.launched(1)
    driver.send({ _tag: "Observed", generation: 1, accepting: true, waiting: true, connections: 0 })
    driver.pass(250)
    driver.swap(2)
    driver.end(1)
    ready2(driver, 2)
    driver.send({ _tag: "RollbackRequested", request: 3, handoffId: HANDOFF })
    driver.end(2)
    driver.launched(3)
    driver.send({ _tag: "Observed", generation: 3, accepting: true, waiting: true, connections: 0 })
    driver.pass(250)
    expect(verdict(driver, 3)).toBe("committed, 3 serves")
  })

  const stops: ReadonlyArray<readonly [string, (driver: Driver) => void]> = [
    ["the old one ends", () => undefined],
    ["the new one is launched", (driver) => driver.end(1)],
    [
      "the new one starts",
      (driver) => {
        driver.end(1)
        driver.launched(2)
      }
    ],
    [
      "the new one is ended",
      (driver) => {
        driver.end(1)
        driver.launched(2)
        driver.pass(30_000)
      }
    ],
    [
      "the old command starts again",
      (driver) => {
        driver.end(1)
        driver.launched(2)
        driver.end(2)
        driver.launched(3)
      }
    ]
  ]
  it.each(stops)("is stopped while %s: everything ends, and every request is answered", (_, reach) => {
    const driver = exclusive()
    reach(driver)
    const launches = driver.launches()
    driver.send({ _tag: "StopRequested", request: 3 })
    driver.obey()
    expect(verdict(driver, 2)).toMatch(/^rolled-back /)
    expect(driver.answer(3)).toEqual({ _tag: "Stopped" })
    expect(driver.launches()).toEqual(launches)
    expect([...driver.timers.keys()]).toEqual([])
  })
})

describe("a supervisor that follows one that died", () => {
  it("serves at once with what serves, by the command it runs, and looks for its handoff socket", () => {
    const driver = after(auto(), { 1: {} })
    expect(driver.answer(1)).toEqual({ _tag: "Started", generation: 1, durationMs: 500 })
    expect(driver.state).toMatchObject({ phase: "serving", serving: 1, command: { argv: ["v1"] }, mustNotify: true })
    expect(driver.launches()).toEqual([])
    expect(looks(driver)).toEqual([1])
    driver.pass(60_000)
    driver.end(1)
    driver.pass(100)
    expect(driver.launches()).toEqual(["2 v1"])
  })

  it("waits for one that was starting, with all its time", () => {
    const before = new Driver()
    before.send({ _tag: "StartRequested", request: 1 })
    before.launched(1)
    const driver = after(before, { 1: {} })
    expect(driver.state.phase).toBe("starting")
    driver.pass(29_999)
    expect(driver.answer(1)).toBeUndefined()
    driver.send({ _tag: "Notified", generation: 1 })
    expect(driver.answer(1)).toMatchObject({ _tag: "Started", generation: 1 })
  })

  it("restarts in the place of one that was starting and failed", () => {
    const before = new Driver()
    before.send({ _tag: "StartRequested", request: 1 })
    before.launched(1)
    const driver = after(before, { 1: {} })
    driver.end(1)
    expect(driver.answer(1)).toBeUndefined()
    driver.pass(100)
    ready2(driver, 2)
    expect(driver.answer(1)).toMatchObject({ _tag: "Started", generation: 2 })
  })

  it("hears at once that what it took for living has ended", () => {
    const driver = after(auto(), { 1: {} })
    driver.end(1)
    expect(driver.state.phase).toBe("recovering")
    driver.pass(100)
    expect(driver.launches()).toEqual(["2 v1"])
  })

  it("fails like a first start when nothing lives and the command fails", () => {
    const driver = after(auto(), {})
    expect(driver.launches()).toEqual(["2 v1"])
    driver.launched(2)
    driver.end(2)
    expect(driver.answer(1)).toMatchObject({ _tag: "StartFailed", generation: 2 })
    expect(driver.log.at(-1)).toEqual({ _tag: "Finish" })
  })

  it("whose start fails waits for those that still drain, and a stop does not cut them", () => {
    const before = new Driver().serving()
    before.swap(2)
    ready2(before, 2)
    const driver = after(before, { 1: {} })
    driver.launched(3)
    driver.end(3)
    expect(driver.answer(1)).toMatchObject({ _tag: "StartFailed" })
    driver.send({ _tag: "StopRequested", request: 2 })
    expect(driver.signals(1)).toEqual(["SIGTERM process"])
    expect(driver.log.some((one) => one._tag === "Finish")).toBe(false)
    driver.obey()
    expect(driver.answer(2)).toEqual({ _tag: "Stopped" })
    expect(driver.log.filter((one) => one._tag === "Finish")).toHaveLength(1)
  })

  describe("and found one that must be gone first", () => {
    const waiting = () => {
      const before = exclusive()
      expect(before.state.swap?.phase).toBe("clearing")
      return after(before, { 1: {} })
    }

    it("starts nothing before that, and then the old command", () => {
      const driver = waiting()
      driver.pass(20_000)
      expect(driver.launches()).toEqual([])
      driver.end(1)
      driver.pass(100)
      expect(driver.launches()).toEqual(["2 v1"])
      ready2(driver, 2)
      expect(driver.answer(1)).toMatchObject({ _tag: "Started", generation: 2 })
      atRest(driver)
    })

    it("lets a swap wait for it, and counts as started when the swap has committed", () => {
      const driver = waiting()
      driver.swap(2)
      expect(driver.state.swap?.waitingFor).toEqual({ generation: 1, why: "draining" })
      driver.end(1)
      expect(driver.launches()).toEqual(["2 v2"])
      ready2(driver, 2)
      expect(verdict(driver, 2)).toBe("committed, 2 serves")
      expect(driver.answer(1)).toMatchObject({ _tag: "Started", generation: 2 })
    })

    it("kills it after the grace", () => {
      const driver = waiting()
      driver.pass(25_000)
      expect(driver.signals(1)).toEqual(["SIGTERM process", "SIGKILL group"])
    })

    it("is stopped: the start is answered too", () => {
      const driver = waiting()
      driver.send({ _tag: "StopRequested", request: 2 })
      driver.obey()
      expect(driver.answer(1)).toEqual({ _tag: "Refused", refusal: { _tag: "Stopping" } })
      expect(driver.answer(2)).toEqual({ _tag: "Stopped" })
      expect([...driver.timers.keys()]).toEqual([])
    })
  })

  it("does not signal again what was asked to stop, and kills it when its grace is over", () => {
    const before = new Driver().serving()
    before.swap(2)
    ready2(before, 2)
    expect(before.signals(1)).toEqual(["SIGTERM process"])
    const unsure = after(before, { 1: {}, 2: {} })
    expect(unsure.signals(1)).toEqual(["SIGTERM process"])
    before.send({ _tag: "Asked", generation: 1 })
    const driver = after(before, { 1: {}, 2: {} })
    driver.pass(24_999)
    expect(driver.signals(1)).toEqual([])
    driver.pass(1)
    expect(driver.signals(1)).toEqual(["SIGKILL group"])
  })

  it("tells the swap that was cut short, and counts on", () => {
    const before = sealed("sealing")
    const driver = after(before, { 1: {}, 2: {} })
    expect(driver.log.flatMap((one) => (one._tag === "Tell" ? [one.notice._tag] : [])).slice(0, 3)).toEqual([
      "SwapEnded",
      "GenerationAdopted",
      "GenerationAdopted"
    ])
    expect(driver.state.history).toMatchObject([{ id: 1, outcome: "rolled-back", failure: { _tag: "SupervisorDied" } }])
    driver.obey()
    driver.swap(2, ["v3"])
    expect(driver.state.swap).toMatchObject({ id: 2, mode: "sealed" })
    driver.until("launching")
    expect(driver.state.swap).toMatchObject({ to: 3 })
  })
})

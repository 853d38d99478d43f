import { readFileSync } from "node:fs"
import * as Sealed from "@handoff/core/swap/Sealed"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { events, id, N, O, otherId, ready, stateIn, table, timers } from "./SealedTable.ts"

const tableInFile = (): ReadonlyArray<string> => {
  const source = readFileSync(new URL("../../src/swap/Sealed.ts", import.meta.url), "utf8")
  const [, text] = /Transitions \(O: incumbent, N: successor\):\n \*\n([\s\S]*?)\n \*\n \* Timers:/.exec(source) ?? []
  return (text ?? "").split("\n").map((line) => line.slice(" *   ".length))
}

it("the table in the file is the table of the code", () => expect(tableInFile()).toEqual(table()))

const received = (
  from: Sealed.Party,
  message: Parameters<typeof ready> extends never ? never : ReturnType<typeof ready>
) => ({ _tag: "Received", from, message, at: 1 }) as const

const sent = (commands: ReadonlyArray<Sealed.Command>): ReadonlyArray<string> =>
  commands.flatMap((one) => (one._tag === "Send" ? [`${one.to} ${one.message._tag}`] : []))

describe("what a Ready must be", () => {
  const judge = (healthy: boolean, sealed: ReadonlyArray<string>, advertised: ReadonlyArray<bigint>) =>
    Sealed.step(stateIn("opening", { revisions: sealed }), received("successor", ready(healthy, advertised))).state

  it("healthy, and no shard behind what was sealed", () => {
    expect(judge(true, ["7", "9"], [7n, 10n]).phase).toBe("publishing")
    expect(judge(true, [], []).phase).toBe("publishing")
    expect(judge(false, ["7"], [7n]).failure).toEqual({ _tag: "Unhealthy" })
    expect(judge(true, ["7", "9"], [7n, 8n]).failure).toEqual({
      _tag: "RevisionBehind",
      shard: 1,
      sealed: "9",
      advertised: "8"
    })
    expect(judge(true, ["7", "9"], [7n]).failure).toMatchObject({ _tag: "RevisionBehind", advertised: "nothing" })
  })

  it("compared exactly, beyond 2^53", () => {
    const most = (1n << 64n) - 1n
    expect(judge(true, [String(most)], [most - 1n]).failure?._tag).toBe("RevisionBehind")
    expect(judge(true, [String(most)], [most]).phase).toBe("publishing")
  })

  it("without revisions it is judged by its health alone", () => {
    expect(judge(true, ["7"], []).phase).toBe("publishing")
  })
})

describe("violations", () => {
  it("a message of another handoff ends the swap, whoever sends it", () => {
    const drained = { ...ready(true, []), handoffId: otherId }
    for (const phase of ["draining", "sealing", "opening"] as const) {
      const { state, commands } = Sealed.step(stateIn(phase), received("successor", drained))
      expect(state.phase).toBe("reverting")
      expect(state.failure).toMatchObject({ _tag: "Violation", party: "successor" })
      expect(Sealed.explain(state.failure ?? { _tag: "Unhealthy" })).toContain(otherId)
      expect(commands.map((one) => one._tag)).toContain("Kill")
    }
  })

  it("a version that is not ours is refused, naming the ranges", () => {
    const hello = {
      _tag: "Hello",
      role: "Incumbent",
      pid: O,
      buildId: new Uint8Array(0),
      protoMin: 2,
      protoMax: 3,
      capabilities: { reserved: 0n }
    } as const
    const { state } = Sealed.step(stateIn("greeting-incumbent"), {
      _tag: "Received",
      from: "incumbent",
      message: hello,
      at: 1
    })
    expect(state.phase).toBe("ended")
    expect(Sealed.explain(state.failure ?? { _tag: "Unhealthy" })).toContain("1 to 1, the other 2 to 3")
  })
})

it("the exit of a successor replaces its lost channel as the reason", () => {
  const lost = Sealed.step(stateIn("opening"), { _tag: "Lost", from: "successor", detail: "closed", at: 1 }).state
  const status = { _tag: "Exited", code: 3 } as const
  const exited = Sealed.step(lost, { _tag: "SuccessorExited", status, at: 2 }).state
  expect(exited.failure).toEqual({ _tag: "Exited", status })
})

it("bytes that are no frame stay the reason, though we end who sent them", () => {
  const garbled = Sealed.step(stateIn("opening"), { _tag: "Garbled", from: "successor", detail: "too large", at: 1 })
  expect(garbled.commands.map(({ _tag }) => _tag)).toContain("Kill")
  const status = { _tag: "Signaled", signal: "SIGKILL", coreDumped: false } as const
  const { failure } = Sealed.step(garbled.state, { _tag: "SuccessorExited", status, at: 2 }).state
  expect(failure).toEqual({ _tag: "Violation", party: "successor", detail: "too large" })
})

describe("a supervisor that slept past its deadline", () => {
  const late = Sealed.step(stateIn("opening"), { _tag: "TimerFired", timer: "deadline", at: 60_000 })

  it("looks at the path before it ends anybody", () => {
    expect(late.commands).toEqual([{ _tag: "Probe", hello: false }])
    expect(Sealed.step(late.state, { _tag: "TimerFired", timer: "liveness", at: 60_001 }).commands).toEqual([])
  })

  it("commits to a successor that serves by itself", () => {
    const found = Sealed.step(late.state, { _tag: "PathAnswered", pid: N, hello: true, at: 60_002 })
    expect(found.state.phase).toBe("publishing")
    expect(Sealed.step(found.state, { _tag: "PathAnswered", pid: N, hello: true, at: 60_003 }).state).toMatchObject({
      phase: "ended",
      failure: undefined
    })
  })

  it("takes no look that heard no greeting for the incumbent's return", () => {
    const resuming = stateIn("resuming")
    const seen = Sealed.step(resuming, { _tag: "PathAnswered", pid: O, hello: false, at: 2 })
    expect(seen.state.phase).toBe("resuming")
    expect(seen.commands.map(({ _tag }) => _tag)).toEqual(["SetTimer"])
    const greeted = Sealed.step(resuming, { _tag: "PathAnswered", pid: O, hello: true, at: 2 })
    expect(greeted.state.phase).toBe("ended")
  })

  it("ends one that does not, and says that it was late", () => {
    const { state, commands } = Sealed.step(late.state, { _tag: "PathAnswered", pid: O, hello: true, at: 60_002 })
    expect(state.failure).toEqual({ _tag: "TimedOut", party: "successor", waitedFor: "Ready", afterMs: 60_000 })
    expect(commands.map(({ _tag }) => _tag)).toContain("Kill")
  })
})

it("what is left of the deadline is what the incumbent is told", () => {
  const state = stateIn("greeting-successor")
  const hello = events.find(([name]) => name === "N Hello")?.[1]
  const { commands } = Sealed.step(state, { ...(hello ?? { _tag: "Started" }), at: 12_500.7 })
  const prepare = commands.find((one) => one._tag === "Send" && one.message._tag === "PrepareHandoff")
  expect(prepare).toMatchObject({ message: { successorPid: N, deadlineMs: 47_499n, drainGraceMs: 25_000n } })
})

it("random runs: nobody begins before the seal, nobody resumes before the successor is gone, and it always ends", () => {
  const reached = new Set<string>()
  const likely = new Map(Sealed.phases.map((phase) => [phase, events.filter(([, event]) => moves(phase, event))]))
  const walk = fc.array(fc.tuple(fc.nat(9), fc.nat(1_000)), { minLength: 5, maxLength: 40 })
  fc.assert(
    fc.property(walk, (steps) => {
      let state = Sealed.initial(Sealed.defaults, id, 0)
      let [sealed, begun, launched, gone, judged] = [false, false, false, false, false]
      let killed = false
      const set = new Set<string>()
      const take = (event: Sealed.Event) => {
        const before = state.phase
        const next = Sealed.step(state, event)
        const ended = event._tag === "SuccessorGone" || event._tag === "LaunchFailed"
        if (ended && before === "reverting") gone = true
        sealed ||= before === "sealing" && event._tag === "Received" && event.message._tag === "SealComplete"
        judged ||= next.state.phase === "publishing"
        for (const command of next.commands) {
          if (command._tag === "Launch") launched = true
          if (command._tag === "KillIncumbent") killed = true
          if (command._tag === "SetTimer") set.add(command.timer)
          if (command._tag === "ClearTimer") set.delete(command.timer)
          if (command._tag === "Commit") expect(judged).toBe(true)
          if (command._tag === "RollBack")
            expect(!launched || gone || command.failure._tag === "LaunchFailed").toBe(true)
        }
        for (const message of sent(next.commands)) {
          if (message === "successor Begin") begun = true
          if (message === "successor Begin") expect(sealed).toBe(true)
          if (message === "incumbent ResumeAfterAbort") expect(gone).toBe(true)
          if (message === "incumbent Commit") expect(begun && judged).toBe(true)
        }
        state = next.state
        reached.add(state.phase)
      }
      take({ _tag: "Started", at: 0 })
      for (const [kind, choice] of steps) {
        const among = kind < 8 ? (likely.get(state.phase) ?? []) : events
        const event = among[choice % Math.max(1, among.length)]?.[1]
        if (event !== undefined) take(event)
      }
      for (let turn = 0; turn < 20 && state.phase !== "ended"; turn++) {
        const [timer] = set
        if (killed) take({ _tag: "IncumbentExited", at: 2 })
        else if (state.phase === "reverting") take({ _tag: "SuccessorGone", at: 2 })
        else if (state.late !== undefined) take({ _tag: "PathAnswered", pid: undefined, hello: true, at: 2 })
        else if (state.phase === "launching") take({ _tag: "LaunchFailed", detail: "", at: 2 })
        else if (timer !== undefined) {
          set.delete(timer)
          const known = timers.find((one) => one === timer)
          if (known !== undefined) take({ _tag: "TimerFired", timer: known, at: 2 })
        }
      }
      expect(state.phase).toBe("ended")
      expect([...set]).toEqual([])
    }),
    { numRuns: 3_000, seed: 21 }
  )
  expect([...reached].sort()).toEqual([...Sealed.phases].sort())
})

const moves = (phase: Sealed.Phase, event: Sealed.Event): boolean => {
  if (phase === "ended" || event._tag === "TimerFired" || event._tag === "AbortRequested") return false
  const next = Sealed.step(stateIn(phase), event).state
  return next.phase !== phase && (next.failure === undefined || phase === "reverting" || phase === "resuming")
}

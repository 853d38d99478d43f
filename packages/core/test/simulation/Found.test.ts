/**
 * What the explorer found in the machines, each as the shortest history that showed it.
 */
import * as Supervision from "@handoff/core/swap/Supervision"
import { expect, it } from "vitest"

const options: Supervision.Options = {
  ...Supervision.defaults,
  listeners: 1,
  mode: "exclusive",
  instance: "test"
}

type Body = Supervision.Event extends infer E ? (E extends unknown ? Omit<E, "at"> : never) : never

/** The commands of each event. */
const run = (mode: Supervision.Options["mode"], ...events: ReadonlyArray<Body>) => {
  let state = Supervision.initial({ ...options, mode }, { argv: ["v1"] })
  const commands = events.map((event) => {
    const step = Supervision.step(state, { ...event, at: 0 } as Supervision.Event)
    state = step.state
    return step.commands
  })
  return { state, commands, last: commands.at(-1) ?? [] }
}

const launched = (generation: number): Body => ({ _tag: "Launched", generation, pid: 100 + generation })

it("a program that is ready before its start is known serves", () => {
  const { state } = run(
    "overlap",
    { _tag: "StartRequested", request: 1 },
    { _tag: "Notified", generation: 1 },
    launched(1)
  )
  expect(state.serving).toBe(1)
  expect(state.mustNotify).toBe(true)
})

it("a program that must not run twice is not started beside one that was given up", () => {
  const history: ReadonlyArray<Body> = [
    { _tag: "StartRequested", request: 1 },
    launched(1),
    { _tag: "Notified", generation: 1 },
    { _tag: "Exited", generation: 1, status: { _tag: "Unknown" } },
    { _tag: "Gone", generation: 1 },
    { _tag: "SwapRequested", request: 2, command: { argv: ["v2"] }, handoffId: "" },
    launched(2),
    { _tag: "AbortRequested", request: 3 }
  ]
  const timers = (commands: ReadonlyArray<Supervision.Action>) =>
    commands.flatMap((one) => (one._tag === "SetTimer" ? [one.timer] : []))
  expect(timers(run("exclusive", ...history).last)).not.toContain("restart")
  const gone = run("exclusive", ...history, { _tag: "Gone", generation: 2 })
  expect(timers(gone.last)).toContain("restart")
  // Any other program need not wait: clients do.
  expect(timers(run("overlap", ...history).last)).toContain("restart")
})

it("a sealed swap waits for the end of the incumbent before the last: it would take the lock in the gap", () => {
  const history: ReadonlyArray<Body> = [
    { _tag: "StartRequested", request: 1 },
    launched(1),
    { _tag: "Notified", generation: 1 },
    { _tag: "HandoffSocketSeen", generation: 1, served: true },
    { _tag: "SwapRequested", request: 2, command: { argv: ["v2"] }, handoffId: "a", mode: "overlap" },
    launched(2),
    { _tag: "HandoffSocketSeen", generation: 2, served: true },
    { _tag: "Notified", generation: 2 },
    { _tag: "SwapRequested", request: 3, command: { argv: ["v3"] }, handoffId: "b" }
  ]
  const waiting = run("auto", ...history)
  expect(waiting.state.serving).toBe(2)
  expect(waiting.state.swap?.waitingFor).toEqual({ generation: 1, why: "draining" })
  const { last, state } = run("auto", ...history, { _tag: "Gone", generation: 1 })
  expect(state.swap?.mode).toBe("sealed")
  expect(last.some((one) => one._tag === "Handoff" && one.command._tag === "Connect")).toBe(true)
})

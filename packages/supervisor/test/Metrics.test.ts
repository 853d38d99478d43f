import * as Metrics from "@handoff/supervisor/Metrics"
import type { Status, SupervisorEvent } from "@handoff/supervisor/Supervisor"
import { expect, it } from "vitest"
import * as FakeSupervisor from "./FakeSupervisor.ts"

const status: Status = {
  name: "kv",
  pid: 1,
  version: "0",
  phase: "serving",
  mode: "auto",
  startedAt: 0,
  serving: 1,
  listeners: [],
  generations: [],
  swap: undefined,
  swaps: [],
  restarts: { failures: 0, total: 0, nextAt: undefined },
  canRollBack: false
}

const sampleOf = (text: string, name: string): number => Number(new RegExp(`^${name} (.+)$`, "m").exec(text)?.[1])

it("counts sealed swaps under the names of the Rust crate, with the time of each phase that was left for the next", () => {
  const phases = (start: number, names: ReadonlyArray<string>): ReadonlyArray<SupervisorEvent> =>
    names.map((phase, index) => ({ _tag: "HandoffPhase", swap: 1, phase, at: start + index * 100 }) as SupervisorEvent)
  const committed = FakeSupervisor.record({ mode: "sealed", durationMs: 700 })
  const failure = {
    _tag: "HandoffFailed",
    phase: "sealing",
    reason: { _tag: "SealFailed", error: "no space", partialState: "" },
    afterMs: 300
  } as const
  const failed = FakeSupervisor.record({ mode: "sealed", outcome: "rolled-back", durationMs: 300, failure })
  const events: ReadonlyArray<SupervisorEvent> = [
    ...phases(0, ["greeting-incumbent", "draining", "sealing", "opening", "publishing", "ended"]),
    { _tag: "SwapEnded", record: committed, at: 600 },
    ...phases(1_000, ["draining", "sealing", "reverting", "resuming", "ended"]),
    { _tag: "SwapEnded", record: failed, at: 1_500 },
    { _tag: "SwapEnded", record: FakeSupervisor.record({ mode: "overlap" }), at: 2_000 }
  ]
  const text = Metrics.format(status, events.reduce(Metrics.count, Metrics.noCounts))
  expect(sampleOf(text, "handoff_handoffs_total")).toBe(2)
  expect(sampleOf(text, "handoff_failures_total")).toBe(1)
  expect(sampleOf(text, "handoff_rolled_back_total")).toBe(1)
  expect(sampleOf(text, "handoff_seal_failures_total")).toBe(1)
  expect(sampleOf(text, "handoff_duration_seconds_sum")).toBe(1)
  expect(sampleOf(text, "handoff_drain_seconds_count")).toBe(2)
  expect(sampleOf(text, "handoff_drain_seconds_sum")).toBe(0.2)
  expect(sampleOf(text, "handoff_seal_seconds_count")).toBe(1)
  expect(sampleOf(text, "handoff_begin_to_ready_seconds_sum")).toBe(0.1)
})

import type { Failure, SwapRecord } from "@handoff/core/swap/Supervision"
import { formatFailure, SwapError } from "@handoff/supervisor/SupervisorError"
import { describe, expect, it } from "vitest"

const record: SwapRecord = {
  id: 7,
  outcome: "rolled-back",
  kind: "swap",
  mode: "exclusive",
  from: 4,
  to: 5,
  command: { argv: ["server"] },
  requestedAt: 0,
  durationMs: 1500,
  evidence: undefined,
  failure: { _tag: "Exited", status: { _tag: "Exited", code: 3 }, afterMs: 200 },
  cut: 0,
  killed: false,
  serving: 4
}

const message = (change: Partial<SwapRecord>): string =>
  new SwapError({ reason: { _tag: "RolledBack", report: { record: { ...record, ...change }, lastLines: [] } } }).message

describe("a swap that was rolled back", () => {
  const why = "it exited with status 3 200 ms after its start, before it was ready"

  it("leaves the old generation serving", () => {
    expect(message({})).toBe(`rolled back after 1.5 s, generation 4 keeps serving: generation 5 was rejected: ${why}`)
  })

  it("does not say of an old command started again that it kept serving", () => {
    expect(message({ serving: 6 })).toBe(
      `rolled back after 1.5 s, generation 6 serves, with the command of generation 4: generation 5 was rejected: ${why}`
    )
  })

  it("names no generation when none was started", () => {
    const failure: Failure = {
      _tag: "HandoffFailed",
      phase: "connecting",
      reason: { _tag: "Unreachable", detail: "/run/handoff.sock: connect = ENOENT" },
      afterMs: 3
    }
    expect(message({ mode: "sealed", to: undefined, failure })).toBe(
      "rolled back after 1.5 s, generation 4 keeps serving: the serving generation's handoff socket could not be reached, and a sealed swap needs one: /run/handoff.sock: connect = ENOENT (connecting, after 3 ms)"
    )
  })
})

it("a server that was not seen accepting is told of what can't be seen", () => {
  const failure = { _tag: "NotReady", afterMs: 30_000, expected: "it to accept", accepting: false } as const
  expect(formatFailure(failure)).toContain("--ready settle:2s")
  expect(formatFailure({ ...failure, accepting: true })).toContain("(waited for it to accept; it was seen accepting)")
  expect(formatFailure({ ...failure, expected: "READY=1" })).toContain("(waited for READY=1)")
})

/**
 * The explorer on models small enough to be counted by hand.
 */
import * as Explorer from "@handoff/core/testing/Explorer"
import { expect, it } from "vitest"

type Move = "up" | "down" | "jump"

/** A number from 0 to 9 that goes up by itself, down by a fault, and may jump into a pit. */
const counter = (change: Partial<Explorer.Model<number, Move>> = {}): Explorer.Model<number, Move> => ({
  initial: 0,
  next: (at) => [
    ...(at < 9 ? [{ move: "up" as const, next: at + 1, fair: true }] : []),
    ...(at > 0 ? [{ move: "down" as const, next: at - 1, fair: false }] : [])
  ],
  key: (at) => [at],
  check: () => undefined,
  settled: (at) => at === 9,
  name: (move) => move,
  ...change
})

it("counts states, transitions and the deepest path", () => {
  const result = Explorer.explore(counter())
  expect(result).toMatchObject({ states: 10, transitions: 18, depth: 9, settled: 1, complete: true, broken: undefined })
})

it("finds a shortest way to a broken property", () => {
  const check = (at: number) => (at === 4 ? { property: "not four", detail: "it is" } : undefined)
  const { broken } = Explorer.explore(counter({ check }))
  expect(broken).toMatchObject({ property: "not four", trace: ["up", "up", "up", "up"] })
})

it("finds the state from which no fair transition leads home", () => {
  const next = (at: number) => [
    ...counter().next(at),
    ...(at === 3 ? [{ move: "jump" as const, next: 100, fair: false }] : [])
  ]
  const pit = counter({
    next: (at) => (at === 100 ? [{ move: "down", next: 99, fair: false }] : at === 99 ? [] : next(at))
  })
  expect(Explorer.explore(pit).broken).toMatchObject({ property: "liveness", trace: ["up", "up", "up", "jump"] })
})

it("does not take a cycle that leads nowhere for a way home", () => {
  const next = (at: number) =>
    at < 3 ? counter().next(at) : [{ move: "jump" as const, next: at === 3 ? 4 : 3, fair: true }]
  expect(Explorer.explore(counter({ next })).broken?.property).toBe("liveness")
})

it("says when it was stopped at its bound, and judges no liveness then", () => {
  const endless = counter({ next: (at) => [{ move: "up", next: at + 1, fair: true }], settled: () => false })
  expect(Explorer.explore(endless, { maxStates: 100 })).toMatchObject({ complete: false, broken: undefined })
})

it("takes keys as texts too", () => {
  expect(Explorer.explore(counter({ key: String })).states).toBe(10)
})

it("tells a million states apart", () => {
  const wide: Explorer.Model<number, Move> = {
    ...counter(),
    next: (at) =>
      at < 1 << 19
        ? [
            { move: "up", next: at * 2 + 1, fair: true },
            { move: "down", next: at * 2 + 2, fair: true }
          ]
        : [],
    key: (at) => [at & 0xff, (at >> 8) & 0xff, at >> 16],
    settled: (at) => at >= 1 << 19
  }
  expect(Explorer.explore(wide)).toMatchObject({ states: (1 << 20) + 1, broken: undefined })
})

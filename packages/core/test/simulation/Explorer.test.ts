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

it.each([
  ["gave 0.25 at 0: a key is", (at: number) => [at / 4 + 0.25]],
  ["gave NaN at 1: a key is", () => [0, Number.NaN]],
  ["gave 4294967296 at 0: a key is", () => [2 ** 32]],
  ["gave undefined at 0: a key is", () => [undefined]],
  ["gave 7; a key is", () => 7],
  ["gave undefined; a key is", () => undefined],
  ["gave an object; a key is", (at: number) => ({ at })]
])("refuses a key by which states cannot be told apart: it %s", (text, key) => {
  expect(() => Explorer.explore(counter({ key: key as unknown as (at: number) => Explorer.Key }))).toThrow(
    `the model's key ${text}`
  )
})

it.each([0, -1, Number.NaN, "9"])("refuses %j for the most states", (maxStates) => {
  expect(() => Explorer.explore(counter(), { maxStates: maxStates as number })).toThrow(
    `Explorer.explore: maxStates: ${maxStates} is not a positive number`
  )
})

it("refuses transitions that are no array", () => {
  const next = () => new Set() as unknown as ReturnType<ReturnType<typeof counter>["next"]>
  expect(() => Explorer.explore(counter({ next }))).toThrow("the model's next() gave a Set, not an array")
})

it("names the step at which a model does something else the second time", () => {
  const check = (at: number) => (at === 4 ? { property: "not four", detail: "it is" } : undefined)
  let calls = 0
  const forgetful = counter({ check, next: (at) => (calls++ < 5 || at < 2 ? counter().next(at) : []) })
  expect(() => Explorer.explore(forgetful)).toThrow(
    'does not give the same transitions twice: after step 2, "up", there were 1 or more, and now there are 0; ' +
      "next() or a hook reads a clock, a random number or a variable outside"
  )
  calls = 0
  const drifting = counter({ check, next: (at) => [{ move: "up", next: calls++ < 4 ? at + 1 : at + 2, fair: true }] })
  expect(() => Explorer.explore(drifting)).toThrow('twice: step 1, "up", leads elsewhere now; next() or a hook')
})

it("says why the end of a history may not last, if the model does", () => {
  const stuck = counter({ settled: () => false, unsettled: (at) => `it is ${at}` })
  const detail = "from step 0 on no way leads to a state that may last; in the end: it is 9"
  expect(Explorer.explore(stuck).broken?.detail).toBe(detail)
})

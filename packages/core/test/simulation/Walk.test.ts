import * as Explorer from "@handoff/core/testing/Explorer"
import * as Walk from "@handoff/core/testing/Walk"
import * as World from "@handoff/core/testing/World"
import { expect, it } from "vitest"
import { hastyReplace } from "./Wrong.ts"

const BOUNDS = { faults: 40, swaps: 10, aborts: 5, writes: 6 }

it.each(["sealed", "overlap", "exclusive"] as const)(
  "ten %s swaps with many faults, from seeds",
  { timeout: 120_000 },
  (mode) => {
    const model = World.make({ mode, ...BOUNDS })
    let steps = 0
    for (let seed = 1; seed <= 40; seed++) {
      const walked = Walk.walk(model, { seed, steps: 1_000 })
      steps += walked.steps
      expect(walked.broken === undefined ? "" : `seed ${seed}\n${Explorer.explain(walked.broken)}`).toBe("")
      expect(walked.rests).toBeGreaterThan(0)
    }
    expect(steps).toBeGreaterThan(5_000)
  }
)

it("the same seed gives the same history", () => {
  const take = (seed: number) => {
    const model = World.make({ mode: "sealed", ...BOUNDS })
    const names: Array<string> = []
    const check = (world: World.World) => {
      names.push(String(model.key(world)))
      return model.check(world)
    }
    const spy = { ...model, check }
    Walk.walk(spy, { seed, steps: 300 })
    return names
  }
  expect(take(7)).toEqual(take(7))
  expect(take(7)).not.toEqual(take(8))
})

it("a failure far out shrinks to a few moves that a person can read", { timeout: 120_000 }, () => {
  const backend = { ...World.linux, replace: hastyReplace }
  const model = World.make({ mode: "overlap", ...BOUNDS, backend })
  const found = Array.from({ length: 100 }, (_, seed) => seed)
    .map((seed) => Walk.walk(model, { seed, steps: 1_000 }))
    .find((one) => one.steps > 60 && one.broken?.property === "7 what was told stays true")
  expect(found?.broken?.trace.length).toBeLessThan(20)
  const text = found?.broken === undefined ? "" : Explorer.explain(found.broken)
  expect(text.split("\n")[0]).toMatch(
    /^7 what was told stays true: v2 was told to be in place, v1 is what a restart starts$/
  )
  expect(text).toMatch(/swap to v2[\s\S]*answer: committed[\s\S]*power cut/)
})

it("shrinks to a history in which the property is broken, not to one that will break it", () => {
  type Move = "jump" | "up"
  const model: Explorer.Model<number, Move> = {
    initial: 0,
    next: (at) => {
      if (at === 0) return [{ move: "jump", next: 100, fair: false }]
      return at < 104 ? [{ move: "up", next: at + 1, fair: true }] : []
    },
    key: String,
    check: (at) => (at === 104 ? { property: "not 104", detail: "it is" } : undefined),
    settled: (at) => at === 0,
    name: (move) => move
  }
  const history: ReadonlyArray<Move> = ["jump", "up", "up", "up", "up"]
  const { trace } = Walk.shrink(model, history, { property: "not 104", detail: "" })
  expect(model.check(Explorer.replay(model, trace).state)?.property).toBe("not 104")
})

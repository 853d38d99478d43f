/**
 * Planning 10, 1,000 and 10,000 placements: how long, and whether ten times more take ten times as long.
 *
 * Three shapes a planner may find hard: one long cycle, a chain that must be emptied from its far end, and a random
 * permutation. The slowest counts.
 */
import * as Placement from "@handoff/core/Placement"
import * as PlacementPlan from "@handoff/core/PlacementPlan"
import * as Result from "effect/Result"
import type { Row } from "./launch.ts"
import { median } from "./Measure.ts"

const FIRST = 3
const ROUNDS = 15

/** A permutation that is the same in every run. */
const shuffled = (count: number): ReadonlyArray<number> => {
  const order = Array.from({ length: count }, (_, index) => index)
  let seed = 42
  for (let last = count - 1; last > 0; last -= 1) {
    seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648
    const other = seed % (last + 1)
    const [a = 0, b = 0] = [order[last], order[other]]
    order[last] = b
    order[other] = a
  }
  return order
}

const shapes = (count: number): ReadonlyArray<ReadonlyArray<Placement.Placement>> => {
  const at = (move: (index: number) => number) =>
    Array.from({ length: count }, (_, index) => Placement.move(FIRST + move(index), FIRST + index))
  const order = shuffled(count)
  return [at((index) => (index + 1) % count), at((index) => index + 1), at((index) => order[index] ?? 0)]
}

const timeOfPlan = (placements: ReadonlyArray<Placement.Placement>): number => {
  const times: Array<number> = []
  for (let round = 0; round < ROUNDS; round += 1) {
    const from = performance.now()
    Result.getOrThrow(PlacementPlan.direct(placements))
    times.push(performance.now() - from)
  }
  return median(times)
}

const slowest = (count: number): number => Math.max(...shapes(count).map(timeOfPlan))

export const run = async (): Promise<ReadonlyArray<Row>> => {
  slowest(1_000)
  const name = "planning 10,000 placements"
  const [small, thousand, tenThousand, hundredThousand] = [10, 1_000, 10_000, 100_000].map(slowest)
  return [
    { name: "planning 10 placements", value: small ?? Number.NaN, unit: "ms" },
    { name: "planning 1,000 placements", value: thousand ?? Number.NaN, unit: "ms" },
    { name, value: tenThousand ?? Number.NaN, unit: "ms", goal: "at most 10" },
    {
      name: "100,000 / 10,000 placements",
      value: (hundredThousand ?? Number.NaN) / (tenThousand ?? Number.NaN),
      unit: "times",
      goal: "about 10: at most 20",
      ratioTo: name
    }
  ]
}

import * as World from "@handoff/core/testing/World"
import { expect, it } from "vitest"
import { holds } from "./Exhaustive.ts"

/** The ways of a swap through the tables of swap/Overlap.ts and swap/Exclusive.ts. */
const ways = {
  overlap: [
    "rolling-back -> ended: rolled-back",
    "running -> ended: committed",
    "running -> ended: rolled-back",
    "running -> rolling-back"
  ],
  exclusive: [
    "clearing -> ended: rolled-back",
    "clearing -> restoring",
    "clearing -> running",
    "restoring -> ended: rolled-back",
    "rolling-back -> ended: rolled-back",
    "rolling-back -> restoring",
    "running -> ended: committed",
    "running -> restoring",
    "running -> rolling-back"
  ]
}

for (const mode of ["overlap", "exclusive"] as const) {
  const models = [
    World.make({ mode, faults: 1, swaps: 2 }),
    World.make({ mode, faults: 2, swaps: 1 }),
    World.make({ mode, faults: 1, swaps: 1, stops: 1 })
  ] as const
  holds(`${mode}, two swaps, one fault`, models[0])
  holds(`${mode}, one swap, two faults`, models[1])
  holds(`${mode}, one swap, one stop, one fault`, models[2])

  it(`every way of the ${mode} table was taken, and no other`, () => {
    const taken = new Set(models.flatMap(({ rows }) => [...rows]))
    const of = [...taken].filter((row) => row.startsWith(`${mode} `)).map((row) => row.slice(mode.length + 1))
    expect(of.sort()).toEqual(ways[mode])
  })
}

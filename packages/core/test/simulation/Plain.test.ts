import * as World from "@handoff/core/testing/World"
import { holds } from "./Exhaustive.ts"

for (const mode of ["overlap", "exclusive"] as const) {
  holds(`${mode}, two swaps, one fault`, World.make({ mode, faults: 1, swaps: 2 }))
  holds(`${mode}, one swap, two faults`, World.make({ mode, faults: 2, swaps: 1 }))
  holds(`${mode}, one swap, one stop, one fault`, World.make({ mode, faults: 1, swaps: 1, stops: 1 }))
}

import * as World from "@handoff/core/testing/World"
import { FAILURES } from "@handoff/core/testing/world/Moves"
import { expect, it } from "vitest"
import { incumbentTable, successorTable } from "../protocol/Machines.ts"
import { table } from "../swap/SealedTable.ts"
import { holds, missing } from "./Exhaustive.ts"

const models = [
  World.make({ mode: "sealed", faults: 1, swaps: 2 }),
  World.make({ mode: "sealed", faults: 2, swaps: 1 })
] as const

holds(
  "sealed, one swap, a frame cut anywhere",
  World.make({ mode: "sealed", faults: 1, kinds: ["cut"], cuts: "anywhere" })
)
// With every other fault, an abort and a write it takes a minute: `npm run explore -- --mode sealed --stops 1`.
holds(
  "sealed, one swap, one stop, one death",
  World.make({ mode: "sealed", faults: 1, kinds: ["kill", "crash", "power"], aborts: 0, writes: 0, stops: 1 })
)
holds("sealed, two swaps, one fault", models[0])
holds("sealed, one swap, two faults", models[1])

it("every row of the incumbent's table was taken, but for these", () => {
  expect(missing("incumbent", incumbentTable(), models)).toEqual([
    // The supervisor says so only to an incumbent that it had told to prepare.
    "acquainted ResumeAfterAbort",
    // The driver releases the lock and reports it in one go: nothing comes in between.
    "releasing Abort",
    "releasing ResumeAfterAbort",
    "releasing gone",
    "releasing timer deadline",
    "releasing timer heartbeat",
    // A supervisor gives a swap up once, by one message, and closes.
    "drain-abandoned Abort",
    "drain-abandoned ResumeAfterAbort",
    "seal-abandoned Abort",
    "seal-abandoned ResumeAfterAbort",
    // As for releasing.
    "release-abandoned Abort",
    "release-abandoned ResumeAfterAbort",
    "release-abandoned gone",
    "release-abandoned LockReleased",
    // It is told to resume when the successor is gone: with two faults the first try finds the lock free.
    "relocking Abort",
    "relocking ResumeAfterAbort"
  ])
})

it("every row of the successor's table was taken, but for these", () => {
  expect(missing("successor", successorTable(), models)).toEqual([
    // The word by silence, a rename that fails then, and a supervisor that was only slow: more faults than two.
    "publishing Abort",
    // Given up once: an Abort and the end of the channel, of which one has led here.
    "cancelling Abort"
  ])
})

it("every call that may fail has failed", () => {
  const failed = (call: string) => models.some((model) => model.rows.has(`call ${call}`))
  expect(FAILURES.map(({ call }) => call).filter((call) => !failed(call))).toEqual([])
})

it("every row of the supervisor's table was taken, but for these", () => {
  expect(missing("sealed", table(), models)).toEqual([
    // Nobody but generations of this supervisor listens at the path here.
    "connecting connected to a stranger",
    // It is dead, then: the path answers with nobody.
    "resuming path answers: N"
  ])
})

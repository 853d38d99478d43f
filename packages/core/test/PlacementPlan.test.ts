import * as Placement from "@handoff/core/Placement"
import * as PlacementPlan from "@handoff/core/PlacementPlan"
import * as Seal from "@handoff/core/Seal"
import * as Result from "effect/Result"
import { describe, expect, it } from "vitest"
import { plans, tableOf, visible } from "./PlanCases.ts"

const { move } = Placement
const lines = (plan: PlacementPlan.PlacementPlan) => PlacementPlan.explain(plan).split("\n")
const refusal = (placements: ReadonlyArray<Placement.Placement>, descriptorLimit?: number) => {
  const options = descriptorLimit === undefined ? {} : { descriptorLimit }
  return Result.getOrThrow(Result.flip(PlacementPlan.direct(placements, options)))
}
const seen = (placements: ReadonlyArray<Placement.Placement>, ...open: ReadonlyArray<number>) => {
  const { direct, staged } = plans(placements)
  const table = tableOf(64, open)
  const result = Object.fromEntries(Result.getOrThrow(visible(direct, table)))
  expect(Object.fromEntries(Result.getOrThrow(visible(staged, table)))).toEqual(result)
  return result
}

describe("hazards", () => {
  it("a swap costs one scratch descriptor, close-on-exec, above everything", () => {
    const swap = [move(3, 4), move(4, 3)]
    expect(lines(plans(swap).direct)).toEqual(["F_DUPFD_CLOEXEC 4 -> a (>= 5)", "dup2 3 -> 4", "dup2 a -> 3"])
    expect(seen(swap, 3, 4)).toEqual({ 3: "d4", 4: "d3" })
  })

  it("a swap that also feeds a third needs no scratch descriptor", () => {
    const placements = [move(3, 4), move(4, 3), move(3, 5)]
    expect(lines(plans(placements).direct)).toEqual(["dup2 3 -> 5", "dup2 4 -> 3", "dup2 5 -> 4"])
    expect(seen(placements, 3, 4)).toEqual({ 3: "d4", 4: "d3", 5: "d3" })
  })

  it.each([2, 3, 5, 17])("a rotation of %i costs one operation more than it has members", (n) => {
    const sources = Array.from({ length: n }, (_, index) => 3 + ((index + 1) % n))
    expect(plans(Placement.contiguous(sources)).direct.operations.length).toBe(n + 1)
    seen(Placement.contiguous(sources), ...sources)
  })

  it("two cycles at once do not share their scratch descriptors", () => {
    const swaps = [move(3, 4), move(4, 3), move(5, 6), move(6, 5)]
    expect(seen(swaps, 3, 4, 5, 6)).toEqual({ 3: "d4", 4: "d3", 5: "d6", 6: "d5" })
  })

  it("a source already at its target still loses close-on-exec, which dup2(n, n) would leave", () => {
    expect(plans([move(3, 3)]).direct.operations).toEqual([{ _tag: "ClearCloseOnExec", fd: 3 }])
    expect(seen([move(3, 3)], 3)).toEqual({ 3: "d3" })
  })

  it("one source feeds many targets", () => {
    expect(seen([move(7, 1), move(7, 2), move(7, 7), move(7, 0)], 7)).toEqual({ 0: "d7", 1: "d7", 2: "d7", 7: "d7" })
  })

  it("stdio targets, swapped and with sources among them", () => {
    expect(seen([move(1, 0), move(0, 1), move(9, 2)], 0, 1, 2, 9)).toEqual({ 0: "d1", 1: "d0", 2: "d9" })
  })

  it("a source inside the target range is read before it is overwritten", () => {
    expect(lines(plans([move(4, 3), move(9, 4)]).direct)).toEqual(["dup2 4 -> 3", "dup2 9 -> 4"])
    expect(lines(plans([move(9, 4), move(4, 3)]).direct)).toEqual(["dup2 4 -> 3", "dup2 9 -> 4"])
  })

  it("the gaps between sparse targets and the tail are sealed", () => {
    const table = tableOf(64, [0, 3, 4, 5, 20, 21, 40], () => true)
    const plan = plans([move(3, 4), move(5, 20)]).direct
    expect(Object.fromEntries(Result.getOrThrow(visible(plan, table)))).toEqual({ 4: "d3", 20: "d5" })
    const seal = Seal.operations([20, 4], { closeRange: true }) ?? []
    expect(PlacementPlan.explain({ operations: seal }).split("\n")).toEqual([
      "close_range 0-3 close-on-exec",
      "close_range 5-19 close-on-exec",
      "close_range 21-max close-on-exec"
    ])
  })

  it("without close_range what is open is closed one by one, and one that is gone already is no failure", () => {
    const seal = Seal.operations([4], { closeRange: false, openDescriptors: [0, 4, 9, 11] }) ?? []
    expect(PlacementPlan.explain({ operations: seal }).split("\n")).toEqual(["close 0", "close 9", "close 11"])
    const after = Result.getOrThrow(PlacementPlan.simulate({ operations: seal }, tableOf(64, [0, 4, 11])))
    expect([...after.entries.keys()]).toEqual([4])
    expect(Seal.operations([4], { closeRange: false })).toBeUndefined()
  })

  it("staged places a contiguous block by copies above it: F_DUPFD, dup2, close", () => {
    expect(lines(plans(Placement.contiguous([4, 9])).staged)).toEqual([
      "F_DUPFD 4 -> a (>= 5)",
      "F_DUPFD 9 -> b (>= 5)",
      "dup2 a -> 3",
      "dup2 b -> 4",
      "close a",
      "close b"
    ])
  })
})

describe("failures at the right operation", () => {
  const failure = (plan: PlacementPlan.PlacementPlan, limit: number, open: ReadonlyArray<number>) => {
    const { step, errno } = Result.getOrThrow(Result.flip(PlacementPlan.simulate(plan, tableOf(limit, open))))
    return [step, errno]
  }

  it("staging at the limit is EINVAL, with none free EMFILE", () => {
    const two = plans(Placement.contiguous([4, 3])).staged
    expect(failure(two, 5, [3, 4])).toEqual([0, "EINVAL"])
    expect(failure(two, 6, [3, 4])).toEqual([1, "EMFILE"])
    expect(failure(two, 7, [3, 4, 5])).toEqual([1, "EMFILE"])
    expect(failure(plans([move(3, 4), move(4, 3)]).direct, 5, [3, 4])).toEqual([0, "EINVAL"])
    expect(failure(plans([move(3, 4), move(4, 3)]).direct, 6, [3, 4, 5])).toEqual([0, "EMFILE"])
  })

  it("a closed source is EBADF, named in the message", () => {
    const plan = plans([move(3, 5), move(4, 6)]).direct
    expect(failure(plan, 64, [3])).toEqual([1, "EBADF"])
    const error = Result.getOrThrow(Result.flip(PlacementPlan.simulate(plan, tableOf(64, [3]))))
    expect(error.message).toBe("operation 1 failed: dup2 4 -> 6 = EBADF")
  })

  it("a staging copy that lands on a closed source's number is taken for it; direct and verify notice", () => {
    const placements = [move(0, 1), move(5, 2)]
    const { direct, staged } = plans(placements)
    expect(failure(direct, 64, [0])).toEqual([1, "EBADF"])
    expect(Result.isSuccess(PlacementPlan.simulate(staged, tableOf(64, [0])))).toBe(true)
    expect(Result.getOrThrow(Result.flip(PlacementPlan.verify(staged, tableOf(64, [0])))).reason).toEqual({
      _tag: "WrongDescription",
      target: 2,
      expected: undefined,
      actual: "d0"
    })
  })

  it("verify tells a wrong description, a flag left set, and a leaked copy apart", () => {
    const verdict = (operations: ReadonlyArray<PlacementPlan.FdOperation>) => {
      const plan: PlacementPlan.PlacementPlan = { strategy: "direct", placements: [move(3, 4)], operations }
      return Result.getOrThrow(Result.flip(PlacementPlan.verify(plan, tableOf(64, [3, 4])))).reason
    }
    expect(verdict([])).toMatchObject({ _tag: "WrongDescription", target: 4, expected: "d3", actual: "d4" })
    expect(verdict([{ _tag: "Close", fd: 9 }])).toMatchObject({ _tag: "OperationFailed" })
    expect(
      verdict([
        { _tag: "Close", fd: 4 },
        { _tag: "Duplicate", from: 3, atLeast: 4, closeOnExec: true, slot: 0 }
      ])
    ).toEqual({ _tag: "CloseOnExecSet", target: 4 })
    expect(
      verdict([
        { _tag: "Dup2", from: 3, to: 4 },
        { _tag: "Duplicate", from: 3, atLeast: 9, closeOnExec: false, slot: 0 }
      ])
    ).toEqual({ _tag: "Leaked", fd: 9 })
  })
})

describe("placements that planning refuses, naming the culprit", () => {
  it.each([
    [[move(3, 4), move(5, 4)], "descriptor 4 is the target of two placements, of 3 and of 5"],
    [[move(3, 4), move(3, 4)], "descriptor 4 is the target of two placements, of 3 and of 3"],
    [[move(3, 3), move(-1, 4)], "placement 1: the source -1 is not a descriptor number"],
    [[move(3, 1.5)], "placement 0: the target 1.5 is not a descriptor number"],
    [[move(Number.NaN, 3)], "placement 0: the source NaN is not a descriptor number"],
    [[move(3, 2 ** 31)], "placement 0: the target 2147483648 is not a descriptor number"]
  ])("%j", (placements, message) => {
    expect(refusal(placements).message).toBe(message)
    expect(Result.isFailure(PlacementPlan.staged(placements))).toBe(true)
  })

  it("numbers at the descriptor limit, and scratch descriptors that the limit does not allow", () => {
    expect(refusal([move(3, 64)], 64).message).toBe("the target 64 is at or over the descriptor limit of 64")
    expect(refusal([move(64, 3)], 64).message).toBe("the source 64 is at or over the descriptor limit of 64")
    expect(refusal([move(3, 4), move(4, 3)], 5).reason).toEqual({ _tag: "ScratchOverLimit", needed: 5, limit: 5 })
    expect(Result.isSuccess(PlacementPlan.direct([move(3, 4), move(4, 3)], { descriptorLimit: 6 }))).toBe(true)
  })
})

it("slots are written a to z, then a1", () => {
  expect([0, 25, 26, 53].map(PlacementPlan.formatSlot)).toEqual(["a", "z", "a1", "b2"])
})

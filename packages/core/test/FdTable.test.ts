import type { ErrnoName } from "@handoff/core/Errno"
import * as FdTable from "@handoff/core/FdTable"
import * as FdTableDraft from "@handoff/core/FdTableDraft"
import * as Result from "effect/Result"
import fc from "fast-check"
import { describe, expect, it } from "vitest"

const table = (limit: number, ...fds: ReadonlyArray<number>) =>
  FdTable.make(
    limit,
    fds.map((fd) => [fd, { description: `d${fd}`, closeOnExec: true }] as const)
  )

const failure = <A>(result: Result.Result<A, ErrnoName>) => Result.getOrThrow(Result.flip(result))
const success = Result.getOrThrow

describe("errno in the order in which Linux checks", () => {
  const four = table(8, 3, 4)

  it("dup2: EBADF for a closed source, and for a target at the limit even if the source is open", () => {
    expect(failure(FdTable.dup2(four, 5, 6))).toBe("EBADF")
    expect(failure(FdTable.dup2(four, 3, 8))).toBe("EBADF")
    expect(failure(FdTable.dup2(four, 5, 5))).toBe("EBADF")
  })

  it("dup2(n, n) leaves the flag set, dup3(n, n) is EINVAL", () => {
    expect(FdTable.equals(success(FdTable.dup2(four, 3, 3)), four)).toBe(true)
    expect(failure(FdTable.dup3(four, 3, 3))).toBe("EINVAL")
    expect(failure(FdTable.dup3(four, 9, 9))).toBe("EINVAL")
  })

  it("dup3 chooses the flag", () => {
    expect(success(FdTable.dup3(four, 3, 5, true)).entries.get(5)).toEqual({ description: "d3", closeOnExec: true })
    expect(success(FdTable.dup3(four, 3, 4)).entries.get(4)).toEqual({ description: "d3", closeOnExec: false })
  })

  it("F_DUPFD: EBADF before EINVAL, EINVAL for a minimum at the limit, EMFILE when none is free below it", () => {
    expect(failure(FdTable.duplicate(four, 5, 8, true))).toBe("EBADF")
    expect(failure(FdTable.duplicate(four, 3, 8, true))).toBe("EINVAL")
    expect(failure(FdTable.duplicate(table(5, 3, 4), 3, 3, true))).toBe("EMFILE")
    expect(success(FdTable.duplicate(four, 4, 3, false)).fd).toBe(5)
  })

  it("open takes the lowest free number, or EMFILE", () => {
    expect(success(FdTable.open(table(8, 0, 2), "x")).fd).toBe(1)
    expect(failure(FdTable.open(table(2, 0, 1), "x"))).toBe("EMFILE")
  })

  it("close and F_SETFD: EBADF", () => {
    expect(failure(FdTable.close(four, 5))).toBe("EBADF")
    expect(failure(FdTable.setCloseOnExec(four, 5, false))).toBe("EBADF")
  })

  it("close_range: EINVAL for an empty range, closed numbers passed over, both modes, the last number included", () => {
    const before = table(64, 0, 3, 5, 9)
    expect(failure(FdTable.closeRange(before, 4, 3, "close"))).toBe("EINVAL")
    expect(FdTable.numbers(success(FdTable.closeRange(before, 3, 5, "close")))).toEqual([0, 9])
    expect(FdTable.numbers(success(FdTable.closeRange(before, 4, "max", "close")))).toEqual([0, 3])
    const open = success(FdTable.setCloseOnExec(success(FdTable.setCloseOnExec(before, 3, false)), 9, false))
    const marked = success(FdTable.closeRange(open, 4, 100, "close-on-exec"))
    expect(FdTable.numbers(FdTable.exec(marked))).toEqual([3])
  })

  it("a lower limit closes nothing, and neither lets anything new be opened over it", () => {
    const low = FdTable.setLimit(four, 4)
    expect(FdTable.numbers(low)).toEqual([3, 4])
    expect(failure(FdTable.dup2(low, 4, 5))).toBe("EBADF")
    expect(success(FdTable.dup2(low, 4, 3)).entries.get(3)?.description).toBe("d4")
  })
})

describe("a draft", () => {
  type Step =
    | { readonly _tag: "open" }
    | { readonly _tag: "duplicate"; readonly from: number; readonly atLeast: number }
    | { readonly _tag: "dup"; readonly from: number; readonly to: number }
    | { readonly _tag: "close"; readonly fd: number }
    | { readonly _tag: "range"; readonly first: number; readonly length: number }

  const fd = fc.integer({ min: 0, max: 13 })
  const step: fc.Arbitrary<Step> = fc.oneof(
    fc.constant({ _tag: "open" as const }),
    fc.record({ _tag: fc.constant("duplicate" as const), from: fd, atLeast: fd }),
    fc.record({ _tag: fc.constant("dup" as const), from: fd, to: fd }),
    fc.record({ _tag: fc.constant("close" as const), fd }),
    fc.record({ _tag: fc.constant("range" as const), first: fd, length: fc.integer({ min: 0, max: 3 }) })
  )

  const lowest = (entries: ReadonlyMap<number, unknown>, atLeast: number): number => {
    let found = atLeast
    while (entries.has(found)) found++
    return found
  }

  it("finds the lowest free number after whatever was opened and closed before", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const draft = FdTableDraft.make(table(12, 0, 1, 2))
        for (const one of steps) {
          const expected = lowest(draft.entries, one._tag === "duplicate" ? one.atLeast : 0)
          switch (one._tag) {
            case "open":
              expect(FdTableDraft.open(draft, "x", true)).toBe(expected < 12 ? expected : "EMFILE")
              break
            case "duplicate": {
              const wanted = one.atLeast >= 12 ? "EINVAL" : expected < 12 ? expected : "EMFILE"
              const source = draft.entries.has(one.from)
              expect(FdTableDraft.duplicate(draft, one.from, one.atLeast, true)).toBe(source ? wanted : "EBADF")
              break
            }
            case "dup":
              FdTableDraft.dup2(draft, one.from, one.to)
              break
            case "close":
              FdTableDraft.close(draft, one.fd)
              break
            case "range":
              FdTableDraft.closeRange(draft, one.first, one.first + one.length, "close")
          }
        }
      })
    )
  })

  it("leaves the table it was made from, and what was frozen, untouched", () => {
    const before = table(8, 3)
    const draft = FdTableDraft.make(before)
    FdTableDraft.dup2(draft, 3, 4)
    const frozen = FdTableDraft.freeze(draft)
    FdTableDraft.close(draft, 3)
    expect([FdTable.numbers(before), FdTable.numbers(frozen)]).toEqual([[3], [3, 4]])
  })
})

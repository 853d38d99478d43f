import type * as FdTable from "@handoff/core/FdTable"
import * as Placement from "@handoff/core/Placement"
import * as PlacementPlan from "@handoff/core/PlacementPlan"
import * as Result from "effect/Result"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { permutation, plans, type Scene, sameMap, scene, tableOf, visible, wanted } from "./PlanCases.ts"

const snapshot = (table: FdTable.FdTable) => JSON.stringify([table.limit, ...table.entries])

const obeys = ({ table, placements }: Scene): void => {
  const before = snapshot(table)
  const { direct, staged } = plans(placements)
  for (const plan of [direct, staged]) {
    expect(Result.getOrThrow(visible(plan, table))).toEqual(wanted(placements))
    const after = Result.getOrThrow(PlacementPlan.verify(plan, table))
    for (const { target } of placements) expect(after.entries.get(target)?.closeOnExec).toBe(false)
  }
  expect(snapshot(table)).toBe(before)
}

describe("laws of both strategies", () => {
  it("hold over arbitrary tables and placements: targets refer to their sources, nothing else is inherited", () => {
    fc.assert(fc.property(scene, obeys), { numRuns: 500 })
  })

  it("hold over permutations, where every description is in the way of another", () => {
    fc.assert(fc.property(permutation, obeys), { numRuns: 300 })
  })

  it("no sources, no operations", () => {
    expect(plans([]).direct.operations).toEqual([])
    expect(plans([]).staged.operations).toEqual([])
  })
})

const TARGETS = 6

/** Calls `visit` with every list of at most `most` placements among descriptors 0 to 5. */
const everyPlacement = (most: number, visit: (placements: ReadonlyArray<Placement.Placement>) => void): void => {
  const chosen: Array<Placement.Placement> = []
  const extend = (target: number): void => {
    visit(chosen)
    if (chosen.length === most) return
    for (let next = target; next < TARGETS; next++) {
      for (let source = 0; source < TARGETS; source++) {
        chosen.push(Placement.move(source, next))
        extend(next + 1)
        chosen.pop()
      }
    }
  }
  extend(0)
}

describe("every placement of up to four descriptors in every table of up to six", () => {
  // Open are the first 0 to 6 numbers: a source over them is closed, which must be found out.
  const tables = Array.from({ length: TARGETS + 1 }, (_, size) => {
    const fds = Array.from({ length: size }, (_, fd) => fd)
    return [tableOf(32, fds), tableOf(32, fds, (fd) => fd % 2 === 0)]
  }).flat()

  const violation = (both: ReturnType<typeof plans>, table: FdTable.FdTable): string | undefined => {
    const { direct, staged } = both
    const { placements } = direct
    const closed = placements.some(({ source }) => !table.entries.has(source))
    for (const plan of [direct, staged]) {
      const seen = visible(plan, table)
      if (Result.isFailure(seen)) {
        if (closed && seen.failure.errno === "EBADF") continue
        return `${plan.strategy}: ${seen.failure.message}`
      }
      if (closed) {
        // A staging copy can land on the very number of a closed source and be taken for it: verify must find it out.
        if (plan.strategy === "staged" && Result.isFailure(PlacementPlan.verify(plan, table))) continue
        return `${plan.strategy}: a closed source went unnoticed`
      }
      if (!sameMap(seen.success, wanted(placements))) return `${plan.strategy}: ${JSON.stringify([...seen.success])}`
      const verified = PlacementPlan.verify(plan, table)
      if (Result.isFailure(verified)) return `${plan.strategy}: ${verified.failure.message}`
    }
    return undefined
  }

  it("ends as wished with both strategies, or fails with EBADF for a closed source", { timeout: 120_000 }, () => {
    const before = tables.map(snapshot)
    let cases = 0
    everyPlacement(4, (placements) => {
      const both = plans(placements)
      for (const table of tables) {
        cases++
        const problem = violation(both, table)
        if (problem !== undefined) expect.fail(`${JSON.stringify(placements)} on ${snapshot(table)}: ${problem}`)
      }
    })
    expect(tables.map(snapshot)).toEqual(before)
    console.log(`placements checked exhaustively: ${cases}, with two strategies each`)
    // The number of ways to choose up to four of six targets with a source for each, in 14 tables.
    expect(cases).toBe((1 + 6 * 6 + 15 * 6 ** 2 + 20 * 6 ** 3 + 15 * 6 ** 4) * tables.length)
  })
})

describe("the number of operations of `direct`", () => {
  const FDS = 4
  const EMPTY = 2 * FDS

  /**
   * The least number of calls for every placement among four descriptors that are open and close-on-exec, found by
   * trying all sequences: from any descriptor to any other, with the flag set or clear (more than dup2 and F_DUPFD can
   * do), or F_SETFD; two more numbers are free for scratch copies. A state is a digit for each number: 2 * description +
   * flag, or empty.
   */
  const search = (): ReadonlyMap<string, number> => {
    const start = [1, 3, 5, 7, EMPTY, EMPTY]
    const best = new Map<string, number>()
    const seen = new Set([start.join("")])
    let frontier = [start]
    for (let distance = 0; frontier.length > 0; distance++) {
      const next: Array<Array<number>> = []
      const visit = (state: ReadonlyArray<number>, at: number, value: number) => {
        const changed = state.with(at, value)
        const key = changed.join("")
        if (!seen.has(key)) next.push(changed)
        seen.add(key)
      }
      for (const state of frontier) {
        // A clear flag makes a number a target: each state fulfils exactly one wish.
        const key = state
          .slice(0, FDS)
          .map((value) => (value % 2 === 0 ? String(value / 2) : "-"))
          .join("")
        if (!best.has(key)) best.set(key, distance)
        for (const [from, value] of state.entries()) {
          if (value === EMPTY) continue
          const description = value - (value % 2)
          if (from < FDS) visit(state, from, description)
          for (let to = 0; to < FDS + 2; to++) {
            if (to === from) continue
            // A scratch copy that is not close-on-exec helps nobody.
            if (to < FDS) visit(state, to, description)
            visit(state, to, description + 1)
          }
        }
      }
      frontier = next
    }
    return best
  }

  it("is that of the best of all sequences, for every placement among four descriptors", { timeout: 120_000 }, () => {
    const best = search()
    expect(best.size).toBe((FDS + 1) ** FDS)
    for (const [key, least] of best) {
      const placements = [...key].flatMap((source, target) =>
        source === "-" ? [] : [Placement.move(Number(source), target)]
      )
      const { operations } = plans(placements).direct
      if (operations.length !== least) {
        expect.fail(`${JSON.stringify(placements)} takes ${operations.length} operations, ${least} would do`)
      }
    }
  })

  it("is one a placement, and one more for a cycle that feeds nothing outside itself", () => {
    fc.assert(
      fc.property(permutation, ({ placements }) => {
        const sourceOf = new Map(placements.map(({ source, target }) => [target, source]))
        let cycles = 0
        for (const { target, source } of placements) {
          if (!sourceOf.has(target) || source === target) continue
          let at: number | undefined = target
          while (at !== undefined && sourceOf.has(at)) {
            const next = sourceOf.get(at)
            sourceOf.delete(at)
            at = next
          }
          cycles++
        }
        expect(plans(placements).direct.operations.length).toBe(placements.length + cycles)
      })
    )
  })

  it("grows linearly: 10,000 placements in a ring take 10,001 operations, staged 30,000", () => {
    const sources = Array.from({ length: 10_000 }, (_, index) => 3 + ((index + 1) % 10_000))
    const { direct, staged } = plans(Placement.contiguous(sources))
    expect([direct.operations.length, staged.operations.length]).toEqual([10_001, 30_000])
    const table = tableOf(30_000, sources)
    expect(Result.isSuccess(PlacementPlan.verify(direct, table))).toBe(true)
    expect(Result.isSuccess(PlacementPlan.verify(staged, table))).toBe(true)
  })
})

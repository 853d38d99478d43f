/** What the tests of plans share: tables, expectations computed from the wish alone, and arbitraries. */
import * as FdTable from "@handoff/core/FdTable"
import * as Placement from "@handoff/core/Placement"
import * as PlacementPlan from "@handoff/core/PlacementPlan"
import * as Seal from "@handoff/core/Seal"
import * as Result from "effect/Result"
import fc from "fast-check"

/** A table in which every descriptor has a description of its own, `d3` at 3. */
export const tableOf = (limit: number, fds: Iterable<number>, inheritable: (fd: number) => boolean = () => false) =>
  FdTable.make(
    limit,
    Array.from(fds, (fd) => [fd, { description: `d${fd}`, closeOnExec: !inheritable(fd) }] as const)
  )

/** What the program sees if the plan does what the placements say and is sealed: from the wish alone. */
export const wanted = (placements: ReadonlyArray<Placement.Placement>): ReadonlyMap<number, string> =>
  new Map(placements.map(({ source, target }) => [target, `d${source}`]))

/** What a program sees after the plan, the seal and exec. */
export const visible = (plan: PlacementPlan.PlacementPlan, table: FdTable.FdTable) => {
  const targets = plan.placements.map(({ target }) => target)
  const seal = Seal.operations(targets, { closeRange: true }) ?? []
  const after = PlacementPlan.simulate({ operations: [...plan.operations, ...seal] }, table)
  return Result.map(after, (child) => {
    const seen = FdTable.exec(child).entries
    return new Map(Array.from(seen, ([fd, entry]) => [fd, String(entry.description)] as const))
  })
}

export const sameMap = (left: ReadonlyMap<number, string>, right: ReadonlyMap<number, string>): boolean => {
  if (left.size !== right.size) return false
  for (const [key, value] of left) if (right.get(key) !== value) return false
  return true
}

export const plans = (placements: ReadonlyArray<Placement.Placement>) => ({
  direct: Result.getOrThrow(PlacementPlan.direct(placements)),
  staged: Result.getOrThrow(PlacementPlan.staged(placements))
})

export interface Scene {
  readonly table: FdTable.FdTable
  readonly placements: ReadonlyArray<Placement.Placement>
}

const HIGHEST = 40

/** Any table of descriptors up to 40 under a roomy limit, and placements of its open descriptors in any order. */
export const scene: fc.Arbitrary<Scene> = fc
  .uniqueArray(fc.tuple(fc.integer({ min: 0, max: HIGHEST }), fc.boolean()), {
    minLength: 1,
    maxLength: 20,
    selector: ([fd]) => fd
  })
  .chain((open) => {
    const flags = new Map(open)
    const fds = [...flags.keys()]
    // Few targets near the sources, so that chains and cycles are common.
    const target = fc.oneof(fc.constantFrom(...fds), fc.integer({ min: 0, max: HIGHEST }))
    return fc.record({
      table: fc.constant(tableOf(256, fds, (fd) => flags.get(fd) === true)),
      placements: fc
        .uniqueArray(fc.tuple(fc.constantFrom(...fds), target), { maxLength: 24, selector: ([, to]) => to })
        .map((pairs) => pairs.map(([source, to]) => Placement.move(source, to)))
    })
  })

/** A permutation of many descriptors: nothing but cycles and fixed points. */
export const permutation: fc.Arbitrary<Scene> = fc.integer({ min: 1, max: 30 }).chain((size) => {
  const fds = Array.from({ length: size }, (_, index) => index + 3)
  return fc.shuffledSubarray(fds, { minLength: size, maxLength: size }).map((sources) => ({
    table: tableOf(256, fds),
    placements: Placement.contiguous(sources)
  }))
})

import * as Explorer from "@handoff/core/testing/Explorer"
import * as World from "@handoff/core/testing/World"
import { expect, it } from "vitest"
import { wrong } from "./Wrong.ts"

/** The explorer must be able to fail, and to say what is broken. */
it.each(wrong)("catches that $name", { timeout: 120_000 }, ({ breaks, settings }) => {
  const model = World.make({ faults: 1, ...settings })
  const { broken, states } = Explorer.explore(model, { maxStates: 600_000 })
  expect(broken?.property, `${states} states; ${broken === undefined ? "" : Explorer.explain(broken)}`).toBe(breaks)
  expect(broken?.trace.length).toBeGreaterThan(0)
})

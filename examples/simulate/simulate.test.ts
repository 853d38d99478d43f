import * as Explorer from "@handoff/core/testing/Explorer"
import * as World from "@handoff/core/testing/World"
import { expect, it } from "vitest"
import * as Backend from "./backend.ts"
import { explore, hasty, patient } from "./simulate.ts"

it("finds the write that a daemon loses which seals before it has drained", () => {
  const { broken } = explore(hasty)
  expect(broken?.property).toBe("3 no acknowledged write is lost")
  const text = broken === undefined ? "" : Explorer.explain(broken)
  expect(text).toContain("write 0 is not on the disk")
  expect(text.indexOf("accepts write 0")).toBeLessThan(text.indexOf("reads PrepareHandoff"))
  expect(text.indexOf("seal ends")).toBeLessThan(text.indexOf("works on 0"))
})

it("finds nothing in one that waits for its requests", () => {
  const { broken, complete, settled } = explore(patient)
  expect(broken).toBeUndefined()
  expect(complete && settled > 0).toBe(true)
})

it("finds the promise that a backend breaks which does not sync", () => {
  const { broken } = Backend.explore(Backend.hasty)
  expect(broken?.property).toBe("7 what was told stays true")
  const text = broken === undefined ? "" : Explorer.explain(broken)
  expect(text).toMatch(/answer: committed[\s\S]*power cut/)
})

it("finds nothing in the shipped one", () => {
  const { broken, complete } = Backend.explore(World.linux)
  expect(broken).toBeUndefined()
  expect(complete).toBe(true)
})

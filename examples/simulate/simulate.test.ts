import * as Explorer from "@handoff/core/testing/Explorer"
import { expect, it } from "vitest"
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

/**
 * The command line of the explorer: a search for something else than was meant looks like one that found nothing.
 */
import { spawnSync } from "node:child_process"
import { fileURLToPath } from "node:url"
import { expect, it } from "vitest"

const explore = (...args: ReadonlyArray<string>) => {
  const script = fileURLToPath(new URL("explore.ts", import.meta.url))
  const { status, stdout, stderr } = spawnSync(process.execPath, ["--conditions=@handoff/source", script, ...args], {
    encoding: "utf8"
  })
  return { status, stdout, stderr }
}

it.each([
  [["--mode", "foo"], '--mode: "foo" is none of sealed, overlap, exclusive'],
  [["--kinds", "kill,nonsense"], '--kinds: "nonsense" is none of kill, crash, '],
  [["--faults", "1.5"], '--faults: "1.5" is not a whole number from 0'],
  [["--faults", "-1"], '--faults: "-1" is not a whole number from 0'],
  [["--states", "x"], '--states: "x" is not a whole number from 1'],
  [["--writes", "9"], '--writes: "9" is not a whole number from 0 to 8'],
  [["--fautls", "1"], "unknown option --fautls; options are --mode, "],
  [["sealed"], "sealed is no option; options are --mode, "]
])("refuses %j in one line, with status 2", (args, text) => {
  const { status, stdout, stderr } = explore(...args)
  expect({ status, stdout }).toEqual({ status: 2, stdout: "" })
  expect(stderr).toContain(`explore: ${text}`)
  expect(stderr.trimEnd()).not.toContain("\n")
})

it("explores one mode within the bounds that are given, and says so", () => {
  const { status, stdout } = explore("--mode", "overlap", "--faults", "0")
  expect(status).toBe(0)
  expect(stdout).toMatch(/^overlap, 1 swap\(s\), 0 fault\(s\): \d+ states/)
})

it("tells its options", () => {
  expect(explore("--help").stdout).toMatch(/--kinds A,B[\s\S]*status 2/)
})

import { describe, expect, it } from "vitest"
import { VERSION } from "../../src/Version.ts"
import { handoff } from "./Harness.ts"

describe("wrong usage", () => {
  it.each([
    [["run", "--listen", "foo", "--", "x"], '--listen "foo"'],
    [["run", "-l", "http=:99999", "--", "x"], '--listen "http=:99999"'],
    [["run", "--listen"], "--listen needs a value"],
    [["run", "-l", "a=:1", "-l", "a=:2", "--", "x"], "--listen a is given twice"],
    [["run", "--mode", "sideways", "--", "x"], '--mode "sideways"'],
    [["swap", "--mode", "sideways"], '--mode "sideways"'],
    [["run", "--drain-grace", "10", "--", "x"], '--drain-grace "10"'],
    [["run", "--deadline", "soon", "--", "x"], '--deadline "soon"'],
    [["run", "--control-socket", "", "--", "x"], "--control-socket"],
    [["run", "--ready", "soon", "--", "x"], '--ready "soon"'],
    [["run", "--ready-timeout", "10", "--", "x"], '--ready-timeout "10"'],
    [["run", "--grace", "soon", "--", "x"], '--grace "soon"'],
    [["run", "--grace", "1s", "--grace", "2s", "--", "x"], "--grace is given more than once"],
    [["run", "--stop-signal", "KILL", "--", "x"], '--stop-signal "KILL"'],
    [["run", "--output", "pipe", "--", "x"], '--output "pipe"'],
    [["run", "--generations", "1", "--", "x"], '--generations "1"'],
    [["run", "--env", "FOO", "--", "x"], '--env "FOO"'],
    [["run", "--name", "../x", "--", "x"], '--name "../x"'],
    [["run", "--bogus", "--", "x"], "--bogus"],
    [["run"], "no program given"],
    [["plan"], "no program given"],
    [["run", "node", "server.js", "-p", "3"], "-p"],
    [["swap", "--env", "A=1"], "--env"],
    [["swap", "--grace", "1s"], "--grace"],
    [["status", "extra"], '"extra"'],
    [["swop"], '"swop"']
  ])("%j exits 2, names the culprit in one line and gives a hint", async (argv, culprit) => {
    const { code, stdout, stderr } = await handoff(...argv)
    expect(code).toBe(2)
    expect(stdout).toBe("")
    const [line = "", hint = "", ...rest] = stderr.trimEnd().split("\n")
    expect(line).toMatch(/^handoff/)
    expect(line).toContain(culprit)
    expect(hint).toContain("--help")
    expect(rest).toEqual([])
  })

  it("suggests what was meant", async () => {
    expect((await handoff("rollbak")).stderr).toContain("did you mean rollback?")
  })

  it("shows help on stderr when no command is given, on stdout when asked", async () => {
    expect(await handoff()).toMatchObject({ code: 2, stdout: "", stderr: expect.stringContaining("SUBCOMMANDS") })
    expect(await handoff("swap", "--help")).toMatchObject({ code: 0, stdout: expect.stringContaining("3 rolled back") })
  })

  it("takes options of the program as the program's", async () => {
    expect((await handoff("status", "--", "--json")).stdout).toBe("")
  })

  it("prints its version", async () => {
    expect(await handoff("--version")).toMatchObject({ code: 0, stdout: `handoff ${VERSION}\n` })
  })
})

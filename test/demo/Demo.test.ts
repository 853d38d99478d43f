import { expect, it } from "vitest"
import { ROOT } from "../support/Build.ts"
import { managedProcesses } from "../support/ManagedProcesses.ts"

it("the demo fails no request, loses no write, puts broken versions back, and leaves no process", {
  timeout: 120_000
}, async () => {
  await using processes = managedProcesses()
  const { code, stdout, stderr } = await processes.run("npm", ["run", "--silent", "demo", "--", "--json"], {
    cwd: ROOT,
    timeoutMs: 110_000
  })
  const summary = JSON.parse(stdout.trim().split("\n").at(-1) ?? "null")
  expect(summary, stderr).toMatchObject({
    failed: 0,
    swaps: [
      { outcome: "committed" },
      { outcome: "rolled-back", killed: false },
      { outcome: "rolled-back", killed: true },
      { outcome: "committed" }
    ],
    slowRequest: { ok: true, version: "v1" },
    sealed: {
      failed: 0,
      lostWrites: 0,
      secondWriters: 0,
      swaps: [
        { outcome: "committed" },
        { outcome: "rolled-back", reason: expect.stringContaining("could not seal its data: disk I/O error") },
        { outcome: "rolled-back", reason: expect.stringContaining("SIGKILL") },
        { outcome: "committed" }
      ]
    }
  })
  expect(summary.sealed.writes).toBeGreaterThan(100)
  expect(Object.keys(summary.byVersion).sort()).toEqual(["v1", "v2", "v5"])
  expect(code).toBe(0)
  expect(processes.alive()).toEqual([])
})

import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import * as StateDirectory from "../../src/cli/StateDirectory.ts"
import * as FakeSupervisor from "../FakeSupervisor.ts"
import { handoff, withSupervisors } from "./Harness.ts"

type Outcome = ReturnType<FakeSupervisor.Fake["swap"]>

const swapWith = (outcome: Outcome | undefined, ...argv: ReadonlyArray<string>) => {
  let ran: ReturnType<typeof handoff> | undefined
  return withSupervisors(["web"], async (directory, [fake]) => {
    if (fake !== undefined && outcome !== undefined) fake.swap = () => outcome
    ran = handoff("swap", "--state-dir", directory, ...argv)
    await ran
  }).then(() => ran ?? Promise.reject(new Error("did not run")))
}

describe("the exit status of swap", () => {
  it("is 0 when it committed, with the verdict in one line", async () => {
    const { code, stdout } = await swapWith(undefined)
    expect(code).toBe(0)
    expect(stdout).toBe("committed in 1.2 s: generation 2 serves (it sent READY=1), generation 1 drains\n")
  })

  it("is 3 when it was rolled back and the old version serves, with the last lines of the new one", async () => {
    const { code, stdout } = await swapWith(Effect.fail(FakeSupervisor.rolledBack()))
    expect(code).toBe(3)
    expect(stdout).toContain("rolled back after 1.2 s, generation 1 keeps serving")
    expect(stdout).toContain("exited with status 7")
    expect(stdout).toContain("  | reading config\n  | no such table\n")
  })

  it("is 6 when it was rolled back and nothing serves", async () => {
    expect((await swapWith(Effect.fail(FakeSupervisor.rolledBack({ serving: undefined })))).code).toBe(6)
  })

  it.each([
    [{ _tag: "AlreadySwapping", swap: 4, sinceMs: 1000 }, 5],
    [{ _tag: "NotRunning" }, 6],
    [{ _tag: "Starting" }, 6],
    [{ _tag: "Stopping" }, 6],
    [{ _tag: "NoPrevious" }, 1]
  ] as const)("of a refusal %j is %d", async (refusal, expected) => {
    const { code, stdout, stderr } = await swapWith(Effect.fail(FakeSupervisor.refused(refusal)))
    expect(code).toBe(expected)
    expect(stdout).toBe("")
    expect(stderr).toMatch(/^handoff: .+\n$/)
  })

  it("comes with the verdict as one JSON object on stdout with --json", async () => {
    const good = await swapWith(undefined, "--json")
    expect(JSON.parse(good.stdout)).toMatchObject({ _tag: "SwapEnded", record: { outcome: "committed" } })
    const bad = await swapWith(Effect.fail(FakeSupervisor.refused({ _tag: "NotRunning" })), "--json")
    expect([bad.code, JSON.parse(bad.stdout)]).toMatchObject([6, { _tag: "SwapRefused" }])
  })

  it("is 130 on Ctrl-C, and the swap goes on", () =>
    withSupervisors(["web"], async (directory, [fake]) => {
      if (fake === undefined) throw new Error("no fake")
      const go = await Effect.runPromise(Deferred.make<void>())
      const done = await Effect.runPromise(Deferred.make<void>())
      const usual = fake.swap
      fake.swap = (command, kind) =>
        Effect.gen(function* () {
          yield* fake.tell({ _tag: "SwapRequested", swap: 1, kind, command: { argv: ["node"] } })
          // The test's process is the command's: this is its Ctrl-C.
          yield* Effect.sync(() => setTimeout(() => process.emit("SIGINT"), 50))
          yield* Deferred.await(go)
          const report = yield* usual(command, kind)
          yield* Deferred.succeed(done, undefined)
          return report
        })
      const { code, stderr } = await handoff("swap", "--state-dir", directory)
      expect(code).toBe(130)
      expect(stderr).toContain("the swap goes on without us")
      await Effect.runPromise(Effect.andThen(Deferred.succeed(go, undefined), Deferred.await(done)))
    }))
})

describe("the other commands", () => {
  it("pass a command with its variables and directory on", () =>
    withSupervisors(["web"], async (directory, [fake]) => {
      await handoff("swap", "--state-dir", directory, "--env", "A=1", "-C", "/tmp/x", "--", "node", "v2.js", "--json")
      expect(fake?.swaps).toEqual([
        { argv: ["node", "v2.js", "--json"], environment: { A: "1" }, workingDirectory: "/tmp/x" }
      ])
    }))

  it("pass the mode of a swap on, with a command and without", () =>
    withSupervisors(["web"], async (directory, [fake]) => {
      await handoff("swap", "--state-dir", directory, "--mode", "exclusive")
      await handoff("swap", "--state-dir", directory, "--mode", "sealed", "--", "node", "v2.js")
      await handoff("swap", "--state-dir", directory)
      expect(fake?.swaps).toEqual([undefined, { argv: ["node", "v2.js"] }, undefined])
      expect(fake?.modes).toEqual(["exclusive", "sealed", undefined])
    }))

  it("roll back with the same verdicts", () =>
    withSupervisors(["web"], async (directory, [fake]) => {
      expect((await handoff("rollback", "--state-dir", directory)).code).toBe(0)
      if (fake !== undefined) fake.swap = () => Effect.fail(FakeSupervisor.refused({ _tag: "NoPrevious" }))
      expect(await handoff("rollback", "--state-dir", directory)).toMatchObject({
        code: 1,
        stderr: expect.stringContaining("no version before")
      })
    }))

  it("show the status to a person and to a program", () =>
    withSupervisors(["web"], async (directory) => {
      const { code, stdout } = await handoff("status", "--state-dir", directory)
      expect(code).toBe(0)
      expect(stdout).toMatch(
        /^web \(process \d+, up .+\): generation 1 serves\n {2}http=127.0.0.1:8080 \(backlog 4096\)/
      )
      expect(stdout).toMatch(/\n {2}mode auto\n/)
      expect(stdout).toMatch(/\n1 {11}serving {2}4242/)
      const json = await handoff("status", "--state-dir", directory, "--json")
      expect(JSON.parse(json.stdout)).toMatchObject({ name: "web", serving: 1, mode: "auto" })
    }))

  it("abort, or say that nothing runs", () =>
    withSupervisors(["web"], async (directory, [fake]) => {
      expect(await handoff("abort", "--state-dir", directory)).toMatchObject({
        code: 1,
        stderr: "handoff: no swap is running\n"
      })
      if (fake !== undefined) fake.abort = Effect.succeed(3)
      expect(await handoff("abort", "--state-dir", directory)).toMatchObject({ code: 0 })
    }))

  it("stop and wait for the end", () =>
    withSupervisors(["web"], async (directory, [fake]) => {
      const stopping = handoff("stop", "--state-dir", directory)
      while (fake?.stops === 0) await new Promise((resolve) => setTimeout(resolve, 5))
      if (fake !== undefined) await Effect.runPromise(fake.finish)
      expect(await stopping).toMatchObject({ code: 0, stdout: "web stopped\n" })
    }))
})

describe("finding the supervisor", () => {
  it("exits 4 when none runs, stale leftovers or not", () =>
    withSupervisors([], async (directory) => {
      mkdirSync(join(directory, "dead"))
      writeFileSync(join(directory, "dead", "admin.sock"), "")
      for (const argv of [["status"], ["swap"], ["rollback"], ["abort"], ["stop"], ["swap", "--name", "dead"]]) {
        const { code, stderr } = await handoff(...argv, "--state-dir", directory)
        expect([argv, code]).toEqual([argv, 4])
        expect(stderr).toContain(directory)
      }
    }))

  it("exits 2 and lists the names when there are several", () =>
    withSupervisors(["api", "web"], async (directory) => {
      const { code, stderr } = await handoff("status", "--state-dir", directory)
      expect(code).toBe(2)
      expect(stderr).toContain("2 supervisors run: api, web")
      expect((await handoff("status", "--state-dir", directory, "--name", "web")).stdout).toMatch(/^web /)
    }))

  it("exits 4 for a name that does not run, and names those that do", () =>
    withSupervisors(["api"], async (directory) => {
      const { code, stdout, stderr } = await handoff("status", "--state-dir", directory, "--name", "web", "--json")
      expect(code).toBe(4)
      expect(stderr).toContain('no supervisor named "web" runs')
      expect(stderr).toContain("there is api")
      expect(JSON.parse(stdout)).toMatchObject({ error: { code: 4 } })
    }))

  it("looks where it is told, then in the environment, then where the user's files are", () => {
    const facts = { environment: {}, uid: 1000, temporary: "/tmp" }
    const withEnvironment = (environment: Record<string, string>, uid = 1000) => ({ ...facts, environment, uid })
    const both = { HANDOFF_STATE_DIR: "/e", XDG_RUNTIME_DIR: "/run/user/1000" }
    expect(StateDirectory.resolve("/flag", withEnvironment(both))).toBe("/flag")
    expect(StateDirectory.resolve(undefined, withEnvironment(both))).toBe("/e")
    expect(StateDirectory.resolve(undefined, withEnvironment(both, 0))).toBe("/e")
    expect(StateDirectory.resolve(undefined, withEnvironment({ XDG_RUNTIME_DIR: "/run/user/1000" }))).toBe(
      "/run/user/1000/handoff"
    )
    expect(StateDirectory.resolve(undefined, withEnvironment({ XDG_RUNTIME_DIR: "/x" }, 0))).toBe("/run/handoff")
    expect(StateDirectory.resolve(undefined, facts)).toBe("/tmp/handoff-1000")
  })
})

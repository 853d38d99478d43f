import { spawn } from "node:child_process"
import { once } from "node:events"
import { closeSync, openSync, readFileSync, realpathSync, writeFileSync } from "node:fs"
import { LaunchError } from "@handoff/core/backend/Launcher"
import * as Launch from "@handoff/core/Launch"
import * as Placement from "@handoff/core/Placement"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Result from "effect/Result"
import { describe, expect, it } from "vitest"
import { temporaryDirectory } from "../../../test/support/TemporaryDirectory.ts"
import { requireRoot } from "../../../test/support/Tools.ts"
import * as FfiLauncher from "../src/Launcher.ts"
import * as Platform from "../src/Platform.ts"
import { type Call, children, execute, exitOf, failureOf, launch, launcher, outputOf, shell } from "./fixtures/Child.ts"

const root = requireRoot()
const TRUE = execute("/bin/true", ["true"])
const SLEEP = execute("/bin/sleep", ["sleep", "60"])

const status = (name: string) => `sed -n 's/^${name}:[[:space:]]*//p' /proc/self/status`

describe("every call takes effect in the child", () => {
  it("descriptors: duplicated above, placed, staged copies closed, the tail sealed", async () => {
    const fd = openSync("/etc/hostname", "r")
    const before = openSync("/dev/zero", "r")
    try {
      const { output } = await shell(
        [
          { _tag: "Duplicate", from: fd, atLeast: 200, closeOnExec: false, slot: 5 },
          { _tag: "Dup2", from: { slot: 5 }, to: 7 },
          { _tag: "Dup2", from: { slot: 5 }, to: 9 },
          { _tag: "Close", fd: { slot: 5 } },
          { _tag: "Close", fd: 8, tolerate: ["EBADF"] },
          { _tag: "CloseRange", first: 10, last: "max", how: "close-on-exec" },
          { _tag: "CloseRange", first: 3, last: 6, how: "close" },
          { _tag: "CloseRange", first: 8, last: 8, how: "close" }
        ],
        "for fd in 3 4 5 6 7 8 9 10 200; do readlink /proc/$$/fd/$fd && echo $fd; done"
      )
      expect(output).toBe("/etc/hostname\n7\n/etc/hostname\n9")
    } finally {
      closeSync(fd)
      closeSync(before)
    }
  })

  it("a descriptor keeps its number and loses close-on-exec", async () => {
    const fd = openSync("/etc/hostname", "r")
    try {
      const { output } = await shell([{ _tag: "ClearCloseOnExec", fd }], `readlink /proc/self/fd/${fd}`)
      expect(output).toBe("/etc/hostname")
    } finally {
      closeSync(fd)
    }
  })

  it("group, umask, limits, working directory, no_new_privs, LISTEN_PID", async () => {
    using directory = temporaryDirectory()
    const { output, pid } = await shell(
      [
        { _tag: "SetProcessGroup" },
        { _tag: "SetUmask", mask: 0o027 },
        { _tag: "SetResourceLimit", resource: "NOFILE", soft: 77, hard: 99 },
        { _tag: "SetResourceLimit", resource: "CORE", soft: 0, hard: "unlimited" },
        { _tag: "ChangeDirectory", path: directory.path },
        { _tag: "SetNoNewPrivileges" },
        { _tag: "StampPid" }
      ],
      `ps -o pgid= -p $$ | tr -d ' '; umask; ulimit -Sn; ulimit -Hn; ulimit -Hc; pwd -P; ${status("NoNewPrivs")}; echo $LISTEN_PID $AFTER`,
      { LISTEN_PID: "placeholder", AFTER: "é" }
    )
    const expected = [pid, "0027", 77, 99, "unlimited", realpathSync(directory.path), 1, `${pid} é`]
    expect(output.split("\n")).toEqual(expected.map(String))
  })

  it("a session of its own, and a signal for the parent's death", async () => {
    const { output, pid } = await shell(
      [{ _tag: "SetSession" }, { _tag: "SetParentDeathSignal", signal: "SIGUSR1" }],
      "ps -o sid= -p $$ | tr -d ' '"
    )
    expect(output).toBe(String(pid))
  })

  it.skipIf(!root.available)(`groups, gid and uid of another user${root.reason}`, async () => {
    const calls: ReadonlyArray<Call> = [
      { _tag: "SetGroups", groups: [1234, 5678] },
      { _tag: "SetGid", gid: 4321 },
      { _tag: "SetUid", uid: 65534 }
    ]
    expect((await shell(calls, "id -u; id -g; id -G")).output).toBe("65534\n4321\n4321 1234 5678")
    expect((await shell([{ _tag: "SetGroups", groups: [] }, ...calls.slice(1)], "id -G")).output).toBe("4321")
  })

  it("default dispositions and an empty mask; without the calls the parent's own, never the clone's full mask", async () => {
    // Not through a shell, which empties its mask by itself.
    const sed = execute("/bin/sed", ["sed", "-n", "s/^Sig\\(Blk\\|Ign\\):[^0-9a-f]*//p", "/proc/self/status"])
    const own = readFileSync("/proc/self/status", "utf8")
    const blocked = /^SigBlk:\s*(\w+)/m.exec(own)?.[1]
    // Node itself ignores SIGPIPE and SIGXFSZ, and exec hands that on.
    const ignored = /^SigIgn:\s*(\w+)/m.exec(own)?.[1]
    const none = "0".repeat(16)
    const reset: Call = { _tag: "DefaultSignals", signals: [1, 2, 3, 13, 15, 17, 25, 34, 64] }
    const empty: Call = { _tag: "EmptySignalMask" }
    expect(ignored).not.toBe(none)
    expect((await outputOf([reset, empty], sed)).output).toBe(`${none}\n${none}`)
    expect((await outputOf([empty], sed)).output).toBe(`${none}\n${ignored}`)
    expect((await outputOf([reset], sed)).output).toBe(`${blocked}\n${none}`)
    expect((await outputOf([], sed)).output).toBe(`${blocked}\n${ignored}`)
  })

  it("a plan as planned, 1,000 descriptors of it", async () => {
    const facts = await Effect.runPromise(launcher.facts)
    const placements = Array.from({ length: 1000 }, (_, index) => Placement.move(index % 3, 3 + index))
    const spec = { program: "/bin/sh", argv: ["sh", "-c", "test -e /proc/self/fd/1002"], environment: {}, placements }
    const plan = Result.getOrThrow(Launch.plan(spec, facts))
    const process = await Effect.runPromise(launcher.launch(plan))
    expect(await exitOf(process)).toEqual({ _tag: "Exited", code: 0 })
  })
})

describe("a step that fails is named", () => {
  const named = async (calls: ReadonlyArray<Call>, step: number, errno: string) => {
    const call = Launch.formatCall(calls[step] ?? TRUE)
    expect(await failureOf(calls)).toEqual({ _tag: "StepFailed", step, call, errno })
    expect(children()).toEqual([])
  }

  it("EBADF of a closed source, after signals that take many records", () =>
    named([{ _tag: "DefaultSignals", signals: [1, 2, 3] }, { _tag: "Dup2", from: 19_000, to: 5 }, TRUE], 1, "EBADF"))
  it("EINVAL of a signal that has no disposition, with the step of the whole list", () =>
    named([{ _tag: "DefaultSignals", signals: [1, 9, 2] }, TRUE], 0, "EINVAL"))
  it("EINVAL of a minimum over the limit", () =>
    named([{ _tag: "Duplicate", from: 0, atLeast: 10_000_000, closeOnExec: true, slot: 0 }, TRUE], 0, "EINVAL"))
  it("EMFILE with no free descriptor below the limit", () =>
    named(
      [
        { _tag: "SetResourceLimit", resource: "NOFILE", soft: 31, hard: 31 },
        { _tag: "Dup2", from: 0, to: 30 },
        { _tag: "Duplicate", from: 0, atLeast: 30, closeOnExec: false, slot: 1 },
        TRUE
      ],
      2,
      "EMFILE"
    ))
  it("an errno that is not the tolerated one", () =>
    named([{ _tag: "Close", fd: 19_000, tolerate: ["EINTR", "EHWPOISON"] }, TRUE], 0, "EBADF"))
  it("ENOENT of a working directory", () => named([{ _tag: "ChangeDirectory", path: "/no/such" }, TRUE], 0, "ENOENT"))
  it("ENOENT of a program", () => named([{ _tag: "SetProcessGroup" }, execute("/no/such", ["x"])], 1, "ENOENT"))
  it("EACCES of a directory", () => named([execute("/", ["x"])], 0, "EACCES"))
  it("E2BIG of an argument over the kernel's limit, in an arena that had to grow", () =>
    named([execute("/bin/true", ["true", "x".repeat(300_000)])], 0, "E2BIG"))
  it("ENOEXEC of a text without an interpreter", async () => {
    using directory = temporaryDirectory()
    const path = directory.file("text")
    writeFileSync(path, "just text\n", { mode: 0o755 })
    await named([execute(path, ["text"])], 0, "ENOEXEC")
  })
  it.skipIf(!root.available)(`EPERM of becoming root again${root.reason}`, () =>
    named([{ _tag: "SetUid", uid: 65534 }, { _tag: "SetUid", uid: 0 }, TRUE], 1, "EPERM")
  )
})

describe("refused before anything is started", () => {
  it("a plan that needs what the launcher lacks", async () => {
    const machine = Result.getOrThrow(Platform.machine())
    const capabilities = FfiLauncher.capabilitiesOf({ pidStamp: false })
    const limited = FfiLauncher.make(machine, capabilities)
    const calls: ReadonlyArray<Call> = [{ _tag: "SetProcessGroup" }, { _tag: "StampPid" }, TRUE]
    const error = await Effect.runPromise(Effect.flip(limited.launch({ version: 1, calls })))
    expect(error).toBeInstanceOf(LaunchError)
    expect(error.reason).toEqual({ _tag: "CapabilityMissing", capability: "pid-stamp", step: 1 })
  })

  it.each<[string, ReadonlyArray<Call>, RegExp]>([
    ["no Execute", [{ _tag: "SetSession" }], /not Execute/],
    ["calls after Execute", [TRUE, { _tag: "SetSession" }], /calls follow/],
    ["an Execute that tolerates", [{ ...TRUE, tolerate: ["ENOENT"] }], /tolerates/],
    ["NUL in an argument", [execute("/bin/true", ["a\0b"])], /NUL/],
    ["= in a variable's name", [execute("/bin/true", ["true"], { "A=B": "" })], /A=B/],
    ["an unfilled slot", [{ _tag: "Close", fd: { slot: 3 } }, TRUE], /slot 3/],
    ["a fraction", [{ _tag: "SetUmask", mask: 1.5 }, TRUE], /1\.5/],
    ["an unknown errno", [{ _tag: "Close", fd: 3, tolerate: ["ENONSENSE"] }, TRUE], /ENONSENSE/]
  ])("%s", async (_, calls, pattern) => {
    const reason = await failureOf(calls)
    expect(reason._tag === "PlanInvalid" ? reason.detail : reason._tag).toMatch(pattern)
  })
})

describe("a process", () => {
  const start = async (...calls: ReadonlyArray<Call>) => Result.getOrThrow(await launch(calls))

  it("tells its exit to everybody who waits, and to those who come later", async () => {
    const process = await start(execute("/bin/sh", ["sh", "-c", "exit 7"]))
    const both = await Promise.all([exitOf(process), exitOf(process)])
    expect([...both, await exitOf(process)]).toEqual(Array(3).fill({ _tag: "Exited", code: 7 }))
    expect(await Effect.runPromise(process.signal("SIGTERM"))).toBe(false)
  })

  it("is signalled alone, or with its group", async () => {
    const alone = await start(SLEEP)
    expect(await Effect.runPromise(alone.signal("SIGKILL"))).toBe(true)
    expect(await exitOf(alone)).toEqual({ _tag: "Signaled", signal: "SIGKILL", coreDumped: false })
    const leader = await start({ _tag: "SetProcessGroup" }, execute("/bin/sh", ["sh", "-c", "sleep 60 & sleep 60"]))
    expect(await Effect.runPromise(leader.signalGroup("SIGTERM"))).toBe(true)
    expect(await exitOf(leader)).toMatchObject({ signal: "SIGTERM" })
    // Nobody is in the group of a child that leads none.
    const follower = await start(SLEEP)
    expect(await Effect.runPromise(follower.signalGroup("SIGTERM"))).toBe(false)
    await Effect.runPromise(follower.signal("SIGKILL"))
    await exitOf(follower)
  })

  it("waiting can be given up without losing the child", async () => {
    const process = await start(SLEEP)
    const fiber = Effect.runFork(process.exit)
    await Effect.runPromise(Fiber.interrupt(fiber))
    await Effect.runPromise(process.signal("SIGKILL"))
    expect(await exitOf(process)).toMatchObject({ signal: "SIGKILL" })
  })

  it("does not take the exit status of another module's child, nor lose its own beside it", async () => {
    const foreign = spawn("/bin/sh", ["-c", "exit 5"])
    const foreignEnd = once(foreign, "exit")
    const own = await Promise.all(Array.from({ length: 20 }, () => start(execute("/bin/sh", ["sh", "-c", "exit 3"]))))
    const statuses = await Promise.all(own.map(exitOf))
    expect(statuses).toEqual(Array(20).fill({ _tag: "Exited", code: 3 }))
    expect((await foreignEnd)[0]).toBe(5)
  })
})

describe("facts and probe", () => {
  it("tell the limits and what the machine has", async () => {
    const facts = await Effect.runPromise(launcher.facts)
    expect(facts.descriptorLimit.soft).toBeGreaterThan(0)
    expect(facts.descriptorLimit.hard).toBeGreaterThanOrEqual(facts.descriptorLimit.soft)
    const report = Platform.probe()
    expect(report.supported).toBe(true)
    expect(JSON.parse(JSON.stringify(report))).toEqual(report)
  })
})

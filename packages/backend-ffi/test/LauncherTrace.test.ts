import { readFileSync } from "node:fs"
import { join } from "node:path"
import type { LaunchPlan, SystemCall } from "@handoff/core/Launch"
import { expect, it } from "vitest"
import { managedProcesses } from "../../../test/support/ManagedProcesses.ts"
import { temporaryDirectory } from "../../../test/support/TemporaryDirectory.ts"
import { requireTool } from "../../../test/support/Tools.ts"

const strace = requireTool("strace")

/** System calls of the child up to its first execve that returned, as strace printed them with `-f -o`. */
const callsOf = (trace: string, pid: number): ReadonlyArray<string> => {
  const calls: Array<string> = []
  for (const line of trace.split("\n")) {
    const [, of, call] = /^(\d+)\s+(.*)$/.exec(line) ?? []
    if (Number(of) !== pid || call === undefined || /^(<\.\.\.|---|\+\+\+)/.test(call)) continue
    calls.push(call)
    if (call.startsWith("execve(")) return calls
  }
  return calls
}

const tracedCalls = async (calls: ReadonlyArray<SystemCall>): Promise<ReadonlyArray<string>> => {
  using directory = temporaryDirectory()
  await using processes = managedProcesses()
  const plan: LaunchPlan = { version: 1, calls }
  const output = directory.file("trace")
  const fixture = join(import.meta.dirname, "fixtures", "launchOne.ts")
  const ended = await processes.run(strace.path ?? "", [
    ...["-f", "-o", output, process.execPath, "--conditions=@handoff/source", fixture, JSON.stringify(plan)]
  ])
  const pid = Number(ended.stdout.trim())
  if (!(pid > 0)) throw new Error(`nothing was launched: ${ended.stdout}${ended.stderr}`)
  return callsOf(readFileSync(output, "utf8"), pid)
}

const EXECUTE: SystemCall = { _tag: "Execute", path: "/bin/true", argv: ["true"], environment: { LISTEN_PID: "" } }

it.skipIf(!strace.available)(
  `between clone and exec only the planned calls occur, in their order${strace.reason}`,
  { timeout: 60_000 },
  async () => {
    const calls = await tracedCalls([
      { _tag: "SetResourceLimit", resource: "NOFILE", soft: 512, hard: 512 },
      { _tag: "Duplicate", from: 2, atLeast: 300, closeOnExec: true, slot: 0 },
      { _tag: "Dup2", from: { slot: 0 }, to: 7 },
      { _tag: "ClearCloseOnExec", fd: 1 },
      { _tag: "Close", fd: { slot: 0 } },
      { _tag: "Close", fd: 400, tolerate: ["EBADF"] },
      { _tag: "CloseRange", first: 8, last: "max", how: "close-on-exec" },
      { _tag: "SetProcessGroup" },
      { _tag: "SetUmask", mask: 0o22 },
      { _tag: "SetGroups", groups: [], tolerate: ["EPERM"] },
      { _tag: "ChangeDirectory", path: "/" },
      { _tag: "SetNoNewPrivileges" },
      { _tag: "SetParentDeathSignal", signal: "SIGTERM" },
      { _tag: "StampPid" },
      { _tag: "DefaultSignals", signals: [1, 15] },
      { _tag: "EmptySignalMask" },
      EXECUTE
    ])
    const expected = [
      /^prlimit64\(0, RLIMIT_NOFILE, \{rlim_cur=512, rlim_max=512\}, NULL\) = 0/,
      /^fcntl\(2, F_DUPFD_CLOEXEC, 300\) = 300/,
      /^dup3\(300, 7, 0\) = 7/,
      /^fcntl\(1, F_SETFD, 0\) = 0/,
      /^close\(300\) = 0/,
      /^close\(400\) = -1 EBADF/,
      /^close_range\(8, 4294967295, CLOSE_RANGE_CLOEXEC\) = 0/,
      /^setpgid\(0, 0\) = 0/,
      /^umask\(022\) = /,
      /^setgroups\(0, \[?.*\]?\) = /,
      /^chdir\("\/"\) = 0/,
      /^prctl\(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0\) = 0/,
      /^prctl\(PR_SET_PDEATHSIG, SIGTERM\) = 0/,
      /^readlinkat\(AT_FDCWD, "\/proc\/self", "\d+", 20\) = \d/,
      /^rt_sigaction\(SIGHUP, \{sa_handler=SIG_DFL, .*\}, NULL, 8\) = 0/,
      /^rt_sigaction\(SIGTERM, \{sa_handler=SIG_DFL, .*\}, NULL, 8\) = 0/,
      /^rt_sigprocmask\(SIG_SETMASK, \[\], NULL, 8\) = 0/,
      /^execve\("\/bin\/true", \["true"\], /
    ].map((pattern) => expect.stringMatching(pattern))
    expect(calls.map((call) => call.replace(/\s+= /, " = "))).toEqual(expected)
  }
)

it.skipIf(!strace.available)(
  `a plan silent about signals gets the parent's mask back, and no handler is left to run before exec${strace.reason}`,
  { timeout: 60_000 },
  async () => {
    const calls = await tracedCalls([EXECUTE])
    expect(calls.at(-1)).toMatch(/^execve/)
    expect(calls.at(-2)).toMatch(/^rt_sigprocmask\(SIG_SETMASK, \[\], NULL, 8\)/)
    const reset = calls.slice(0, -2)
    expect(reset.length).toBeGreaterThan(0)
    for (const call of reset) expect(call).toMatch(/^rt_sigaction\(SIG\w+, \{sa_handler=SIG_DFL/)
    expect(reset.join("\n")).toContain("SIGCHLD")
  }
)

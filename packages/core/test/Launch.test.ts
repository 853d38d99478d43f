import type { LaunchFacts } from "@handoff/core/backend/Launcher"
import * as Launch from "@handoff/core/Launch"
import * as Placement from "@handoff/core/Placement"
import * as Result from "effect/Result"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { scene, tableOf } from "./PlanCases.ts"

const { move } = Placement

const facts: LaunchFacts = { descriptorLimit: { soft: 1024, hard: 4096 }, closeRange: true }
const minimal: Launch.LaunchSpec = { program: "/bin/true", argv: ["true"], environment: {}, placements: [] }
const everything: Launch.LaunchSpec = {
  program: "/usr/bin/node",
  argv: ["node", "server.js"],
  environment: { PATH: "/bin", LISTEN_FDS: "1" },
  workingDirectory: "/srv",
  placements: [move(7, 3), move(8, 2)],
  leads: "session",
  umask: 0o22,
  limits: { CORE: { soft: 0, hard: "unlimited" } },
  identity: { uid: 1000, gid: 1001, groups: [5, 6] },
  noNewPrivileges: true,
  parentDeathSignal: "SIGTERM",
  stampListenPid: true
}

const plan = (spec: Partial<Launch.LaunchSpec> = {}, known: LaunchFacts = facts) =>
  Result.getOrThrow(Launch.plan({ ...minimal, ...spec }, known))
const refusal = (spec: Partial<Launch.LaunchSpec>, known: LaunchFacts = facts) =>
  Result.getOrThrow(Result.flip(Launch.plan({ ...minimal, ...spec }, known)))
const tags = (one: Launch.LaunchPlan) => one.calls.map((call) => call._tag)
const lines = (one: Launch.LaunchPlan) => Launch.explain(one).split("\n")

describe("the order of a launch", () => {
  it("is the one that each step needs, with everything asked for", () => {
    expect(lines(plan(everything))).toEqual([
      "dup3(7, 3, 0)",
      "dup3(8, 2, 0)",
      "close_range(0, 1, CLOSE_RANGE_CLOEXEC)",
      "close_range(4, ~0, CLOSE_RANGE_CLOEXEC)",
      "setsid()",
      "umask(0022)",
      "prlimit64(0, RLIMIT_CORE, {rlim_cur=0, rlim_max=RLIM_INFINITY}, NULL)",
      "setgroups(2, [5, 6])",
      "setgid(1001)",
      "setuid(1000)",
      'chdir("/srv")',
      "prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)",
      "prctl(PR_SET_PDEATHSIG, SIGTERM)",
      'readlink("/proc/self", LISTEN_PID, ...)',
      "rt_sigaction(1-8,10-18,20-64, {sa_handler=SIG_DFL}, NULL, 8)",
      "rt_sigprocmask(SIG_SETMASK, [], NULL, 8)",
      'execve("/usr/bin/node", ["node", "server.js"], /* 3 variables */)'
    ])
  })

  it("is short when nothing is asked for: seal, own group, signals, exec", () => {
    expect(tags(plan())).toEqual(["CloseRange", "SetProcessGroup", "DefaultSignals", "EmptySignalMask", "Execute"])
    expect(tags(plan({ seal: false, leads: "none", resetSignals: false }))).toEqual(["Execute"])
  })

  it("drops the parent's groups for a new user, tolerating that without privilege it can't", () => {
    expect(lines(plan({ identity: { uid: 5 } }))).toContain("setgroups(0, []) /* or EPERM */")
    expect(lines(plan({ identity: {} })).some((line) => line.startsWith("setg"))).toBe(false)
  })

  it("leaves LISTEN_PID empty for the stamp, and takes the wish's environment as it is otherwise", () => {
    expect(plan({ stampListenPid: true }).calls.at(-1)).toMatchObject({ environment: { LISTEN_PID: "" } })
    expect(plan({ environment: { A: "1" } }).calls.at(-1)).toMatchObject({ environment: { A: "1" } })
  })

  it("without close_range closes what is open one by one, and refuses if that is not known", () => {
    const known = { ...facts, closeRange: false, openDescriptors: [0, 3, 9] }
    expect(lines(plan({ placements: [move(9, 3)] }, known)).slice(0, 3)).toEqual([
      "dup3(9, 3, 0)",
      "close(0) /* or EBADF */",
      "close(9) /* or EBADF */"
    ])
    expect(refusal({}, { ...facts, closeRange: false }).reason._tag).toBe("SealImpossible")
  })
})

describe("the descriptor limit", () => {
  const limits = (one: Launch.LaunchPlan) =>
    one.calls.flatMap((call, step) =>
      call._tag === "SetResourceLimit" ? [[step, call.resource, call.soft, call.hard]] : []
    )

  it("is raised before a target that needs it, and set back after the seal", () => {
    const high = plan({ placements: [move(7, 1024)] })
    expect(limits(high)).toEqual([
      [0, "NOFILE", 4096, 4096],
      [5, "NOFILE", 1024, 4096]
    ])
    expect(limits(plan({ placements: [move(7, 1023)] }))).toEqual([])
  })

  it("is raised for a scratch descriptor over it", () => {
    expect(limits(plan({ placements: [move(1022, 1023), move(1023, 1022)] })).length).toBe(2)
    expect(limits(plan({ placements: [move(7, 1000)], strategy: "staged" }))).toEqual([])
  })

  it("becomes what the parent was started with, whether or not it had to be raised", () => {
    const known = { ...facts, childDescriptorLimit: { soft: 256, hard: 4096 } }
    expect(limits(plan({}, known)).map((limit) => limit.slice(1))).toEqual([["NOFILE", 256, 4096]])
    const both = limits(plan({ placements: [move(7, 2000)] }, known)).map((limit) => limit.slice(1))
    expect(both).toEqual([
      ["NOFILE", 4096, 4096],
      ["NOFILE", 256, 4096]
    ])
    expect(limits(plan({}, { ...facts, childDescriptorLimit: facts.descriptorLimit }))).toEqual([])
    expect(limits(plan({ restoreDescriptorLimit: false }, known))).toEqual([])
  })

  it("that was asked for by value wins", () => {
    const known = { ...facts, childDescriptorLimit: { soft: 256, hard: 4096 } }
    const asked = plan({ limits: { NOFILE: { soft: 99, hard: 99 } } }, known)
    expect(limits(asked).map((limit) => limit.slice(1))).toEqual([["NOFILE", 99, 99]])
  })

  it("refuses a target at the hard limit", () => {
    expect(refusal({ placements: [move(7, 4096)] }).message).toBe(
      "the target 4096 is at or over the descriptor limit of 4096"
    )
  })
})

describe("wishes that planning refuses, naming the culprit", () => {
  it.each<[Partial<Launch.LaunchSpec>, string]>([
    [{ program: "/bin/\0sh" }, "program contains a NUL byte"],
    [{ argv: ["a", "b\0"] }, "argv[1] contains a NUL byte"],
    [{ argv: [] }, "the argument vector is empty"],
    [{ environment: { A: "\0" } }, "environment.A contains a NUL byte"],
    [{ environment: { "A=B": "" } }, '"A=B" can not be the name of an environment variable'],
    [{ environment: { "": "x" } }, '"" can not be the name'],
    [{ environment: { "A\0": "x" } }, "can not be the name"],
    [{ workingDirectory: "/a\0" }, "workingDirectory contains a NUL byte"],
    [{ workingDirectory: "srv" }, 'the workingDirectory "srv" is not an absolute path'],
    [{ program: "node" }, 'the program "node" is not an absolute path'],
    [{ umask: 0o1000 }, "umask is 512"],
    [{ umask: -1 }, "umask is -1"],
    [{ identity: { uid: -1 } }, "identity.uid is -1"],
    [{ identity: { gid: 2 ** 32 - 1 } }, "identity.gid is 4294967295"],
    [{ identity: { groups: [1, 1.5] } }, "identity.groups[1] is 1.5"],
    [{ limits: { CPU: { soft: 2, hard: 1 } } }, "the soft limit of CPU (2) is over the hard one (1)"],
    [{ limits: { AS: { soft: "unlimited", hard: 1 } } }, "the soft limit of AS (unlimited)"],
    [{ limits: { AS: { soft: Number.NaN, hard: 1 } } }, "limits.AS.soft is NaN"],
    [{ placements: [move(1, 3), move(2, 3)] }, "descriptor 3 is the target of two placements"]
  ])("%j", (spec, message) => {
    expect(refusal(spec).message).toContain(message)
  })
})

describe("fitting a wish to a launcher", () => {
  const all = Launch.CAPABILITIES
  const fit = (spec: Launch.LaunchSpec, ...capabilities: ReadonlyArray<Launch.LaunchCapability>) =>
    Launch.forCapabilities(spec, new Set(capabilities))

  it("drops nothing that can be had", () => {
    const { spec, dropped } = fit(everything, ...all)
    expect(dropped).toEqual([])
    expect(Launch.equals(plan(spec), plan(everything))).toBe(true)
  })

  it.each([
    ["group", ["group"], "group", []],
    ["group", ["session"], "session", ["group"]],
    ["group", [], "none", ["group"]],
    ["session", ["group"], "group", ["session"]],
    ["session", [], "none", ["session"]],
    ["none", [], "none", []]
  ] as const)("leads %s with %j becomes %s", (leads, capabilities, becomes, gone) => {
    const fitted = fit({ ...minimal, leads }, "seal", "signals", "limits", ...capabilities)
    expect(fitted.spec.leads).toBe(becomes)
    expect(fitted.dropped).toEqual(gone)
  })

  it("drops preferences, names them, and keeps what was asked for by value for the launcher to refuse", () => {
    const { spec, dropped } = fit(everything)
    expect([...dropped].sort()).toEqual(["limits", "pid-stamp", "seal", "session", "signals"])
    const needs = Launch.requirements(plan(spec)).map(({ capability }) => capability)
    expect(needs).toEqual([
      "placement",
      "umask",
      "limits",
      "groups",
      "identity",
      "working-directory",
      "no-new-privileges",
      "parent-death-signal"
    ])
  })

  it("a launcher with no capability at all can run the plainest plan", () => {
    const known = { ...facts, childDescriptorLimit: { soft: 256, hard: 4096 } }
    expect(Launch.requirements(plan(fit(minimal).spec, known))).toEqual([])
  })

  it("requirements name the first step that needs each", () => {
    const needs = Launch.requirements(plan({ placements: [move(7, 3)], strategy: "staged", identity: { uid: 5 } }))
    expect(needs).toEqual([
      { capability: "placement", step: 0 },
      { capability: "seal", step: 3 },
      { capability: "group", step: 5 },
      { capability: "identity", step: 6 },
      { capability: "signals", step: 8 }
    ])
  })
})

describe("a plan as JSON", () => {
  const problem = (input: unknown) => Result.getOrThrow(Result.flip(Launch.fromJson(input))).message
  const withCall = (call: unknown) => ({ version: 1, calls: [call] })

  it("comes back equal, whatever the placements", () => {
    fc.assert(
      fc.property(scene, fc.constantFrom("direct" as const, "staged" as const), ({ placements }, strategy) => {
        const before = plan({ ...everything, placements, strategy })
        const after = Result.getOrThrow(Launch.fromJson(Launch.toJson(before)))
        expect(after).toEqual(before)
        expect(Launch.equals(after, before)).toBe(true)
      }),
      { numRuns: 50 }
    )
  })

  it("differs when one argument does", () => {
    expect(Launch.equals(plan({ umask: 0 }), plan({ umask: 1 }))).toBe(false)
    expect(Launch.equals(plan({ argv: ["a"] }), plan({ argv: ["a", "b"] }))).toBe(false)
    expect(Launch.equals(plan({ environment: { A: "1" } }), plan({ environment: { B: "1" } }))).toBe(false)
    expect(Launch.equals(plan({ environment: { A: "1", B: "2" } }), plan({ environment: { B: "2", A: "1" } }))).toBe(
      true
    )
  })

  it.each([
    ["{", "the launch plan is not an object"],
    [null, "the launch plan is not an object"],
    [{ calls: [] }, "version is not there"],
    [{ version: 2, calls: [] }, "version is not 1"],
    [{ version: 1 }, "calls is not there"],
    [{ version: 1, calls: {} }, "calls is not an array"],
    [{ version: 1, calls: [], more: 1 }, "more is not a known field"],
    [withCall(7), "calls[0] is not an object"],
    [withCall({ _tag: "Fork" }), "calls[0]._tag is not one of"],
    [withCall({ _tag: "toString" }), "calls[0]._tag is not one of"],
    [withCall({ _tag: "Dup2", from: 3 }), "calls[0].to is not there"],
    [withCall({ _tag: "Dup2", from: -3, to: 4 }), "calls[0].from is not a descriptor number"],
    [withCall({ _tag: "Dup2", from: 3, to: 4, flags: 0 }), "calls[0].flags is not a known field"],
    [
      withCall({ _tag: "Dup2", from: 3, to: 4, tolerate: ["EBADF", "no"] }),
      "calls[0].tolerate[1] is not an errno name"
    ],
    [withCall({ _tag: "Close", fd: { slot: 0 } }), "calls[0].fd is not a slot that an earlier call fills"],
    [withCall({ _tag: "CloseRange", first: 3, last: "end", how: "close" }), "calls[0].last is not a descriptor number"],
    [withCall({ _tag: "SetResourceLimit", resource: "COFFEE", soft: 1, hard: 1 }), "calls[0].resource is not one of"],
    [withCall({ _tag: "SetParentDeathSignal", signal: "TERM" }), "calls[0].signal is not a signal name"],
    [withCall({ _tag: "DefaultSignals", signals: [1, 65] }), "calls[0].signals[1] is not a signal number"],
    [
      withCall({ _tag: "Execute", path: "/a", argv: ["\0"], environment: {} }),
      "calls[0].argv[0] is not a string without"
    ],
    [withCall({ _tag: "Execute", path: "/a", argv: [], environment: { "=": "" } }), "is not a variable name"],
    [
      withCall({ _tag: "Execute", path: "/a", argv: [], environment: { A: 1 } }),
      "calls[0].environment.A is not a string"
    ]
  ])("%j is refused by name", (input, message) => {
    expect(problem(input)).toContain(message)
  })
})

describe("the picture of a plan", () => {
  it("shows each descriptor before and after, and where it came from", () => {
    const table = tableOf(64, [0, 3, 4, 7])
    expect(Launch.picture(plan({ placements: [move(3, 4), move(4, 3), move(7, 0)] }), table).split("\n")).toEqual([
      "fd  before        after exec",
      " 0  d0 (cloexec)  d7          from 7",
      " 3  d3 (cloexec)  d4          from 4",
      " 4  d4 (cloexec)  d3          from 3",
      " 7  d7 (cloexec)  -"
    ])
  })

  it("stops at the call that would fail, and names it", () => {
    const text = Launch.picture(plan({ placements: [move(5, 3)] }), tableOf(64, [0]))
    expect(text.split("\n").at(-1)).toBe("step 0: dup3(5, 3, 0) = EBADF")
  })
})

import * as Launch from "@handoff/core/Launch"
import * as Placement from "@handoff/core/Placement"
import type * as Signal from "@handoff/core/Signal"
import * as Arbitraries from "@handoff/core/testing/Arbitraries"
import * as FileTree from "@handoff/core/testing/FileTree"
import * as Program from "@handoff/core/testing/Program"
import * as ProgramMachine from "@handoff/core/testing/ProgramMachine"
import * as SimulatedKernel from "@handoff/core/testing/SimulatedKernel"
import * as SimulatedLaunch from "@handoff/core/testing/SimulatedLaunch"
import * as SimulatedProcess from "@handoff/core/testing/SimulatedProcess"
import * as Result from "effect/Result"
import { describe, expect, it } from "vitest"

const SELF = 100
const USER = { uid: 1000, gid: 1000, groups: [] }
const ADDRESS = { _tag: "Tcp", host: "127.0.0.1", port: 80 } as const
const LISTEN = { address: ADDRESS, backlog: 2, nonBlocking: false, mode: 0o666 }

const boot = (self: Partial<SimulatedProcess.SimulatedProcess> = {}) =>
  SimulatedKernel.make({
    processes: [SimulatedProcess.make({ pid: SELF, ...self })],
    files: FileTree.add(FileTree.empty, {
      "/bin/app": FileTree.file("", 0o755),
      "/bin/text": FileTree.file("", 0o644),
      "/private": FileTree.directory(0o700),
      "/private/inner": FileTree.directory(),
      "/tmp": FileTree.directory(0o777)
    })
  })

const done = <A>(outcome: SimulatedKernel.Done<A> | string): SimulatedKernel.Done<A> => {
  if (typeof outcome === "string") throw new Error(outcome)
  return outcome
}

const execute: Launch.SystemCall = { _tag: "Execute", path: "/bin/app", argv: ["app"], environment: {} }

const run = (kernel: SimulatedKernel.Kernel, ...calls: ReadonlyArray<Launch.SystemCall>) =>
  SimulatedLaunch.run(kernel, SELF, { version: 1, calls: [...calls, execute] })

/** The step and errno of a failure, or "ok". */
const outcome = (kernel: SimulatedKernel.Kernel, ...calls: ReadonlyArray<Launch.SystemCall>) => {
  const result = run(kernel, ...calls)
  return Result.isSuccess(result) ? "ok" : `${result.failure.step}: ${result.failure.errno}`
}

const launched = (kernel: SimulatedKernel.Kernel, ...calls: ReadonlyArray<Launch.SystemCall>) =>
  Result.getOrThrow(run(kernel, ...calls))

describe("SimulatedKernel", () => {
  it("a launch changes neither the kernel it is given nor the parent", () => {
    const { kernel } = done(SimulatedKernel.listen(boot(), SELF, LISTEN))
    const before = structuredClone(kernel)
    const after = launched(kernel, { _tag: "SetUmask", mask: 0 }, { _tag: "Close", fd: 0 }).kernel
    expect(kernel).toEqual(before)
    expect(after.processes.get(SELF)).toEqual(before.processes.get(SELF))
  })

  it("a listener lives as long as anybody holds it: its address is free after the last close", () => {
    const { kernel, value: fd } = done(SimulatedKernel.listen(boot(), SELF, LISTEN))
    const child = launched(kernel, { _tag: "Dup2", from: fd, to: 3 })
    const closed = done(SimulatedKernel.close(child.kernel, SELF, fd)).kernel
    expect(SimulatedKernel.listen(closed, SELF, LISTEN)).toBe("EADDRINUSE")
    const ended = SimulatedKernel.end(closed, child.pid, { _tag: "Exited", code: 0 })
    expect(typeof SimulatedKernel.listen(ended, SELF, LISTEN)).toBe("object")
  })

  it("a wildcard and a host address on one port collide, different ports do not", () => {
    const { kernel } = done(SimulatedKernel.listen(boot(), SELF, LISTEN))
    const at = (host: string, port: number) =>
      SimulatedKernel.listen(kernel, SELF, { ...LISTEN, address: { _tag: "Tcp", host, port } })
    expect(at("", 80)).toBe("EADDRINUSE")
    expect(at("0.0.0.0", 80)).toBe("EADDRINUSE")
    expect(typeof at("", 81)).toBe("object")
  })

  it("a lock passes with its description to a child and is released by the last close only", () => {
    const opened = done(SimulatedKernel.open(boot(), SELF, "/tmp/lock", "append"))
    const locked = done(SimulatedKernel.lock(opened.kernel, SELF, opened.value))
    const child = launched(locked.kernel, { _tag: "ClearCloseOnExec", fd: opened.value })
    const closed = done(SimulatedKernel.close(child.kernel, SELF, opened.value)).kernel
    const again = done(SimulatedKernel.open(closed, SELF, "/tmp/lock", "append"))
    expect(SimulatedKernel.lock(again.kernel, SELF, again.value)).toBe("EWOULDBLOCK")
    const ended = SimulatedKernel.end(again.kernel, child.pid, { _tag: "Exited", code: 0 })
    expect(typeof SimulatedKernel.lock(ended, SELF, again.value)).toBe("object")
  })

  it("no free number under the limit is EMFILE", () => {
    const full = boot({ limits: { ...SimulatedProcess.defaultLimits(), NOFILE: { soft: 1, hard: 1 } } })
    const { kernel } = done(SimulatedKernel.open(full, SELF, "/bin/app", "read"))
    expect(SimulatedKernel.open(kernel, SELF, "/bin/app", "read")).toBe("EMFILE")
  })

  it("a zombie's child becomes init's, and a zombie holds nothing", () => {
    const child = launched(boot())
    const grandchild = { ...SimulatedProcess.make({ pid: 900 }), parent: child.pid, group: child.pid }
    const kernel = SimulatedKernel.withProcess(child.kernel, grandchild)
    expect(SimulatedKernel.descendants(kernel, SELF)).toEqual([SELF, child.pid, 900])
    const ended = SimulatedKernel.end(kernel, child.pid, { _tag: "Exited", code: 0 })
    expect(SimulatedKernel.descendants(ended, SELF)).toEqual([SELF])
    expect(ended.processes.get(900)?.parent).toBe(SimulatedProcess.INIT)
    expect(SimulatedKernel.groupMembers(ended, child.pid)).toEqual([900])
    expect(SimulatedKernel.reap(ended, child.pid).processes.has(child.pid)).toBe(false)
  })
})

describe("signals", () => {
  const TARGET = 200
  const USER_TOO = 300

  const withTarget = (fields: Partial<SimulatedProcess.SimulatedProcess> = {}) =>
    SimulatedKernel.make({
      processes: [
        SimulatedProcess.make({ pid: SELF }),
        SimulatedProcess.make({ pid: TARGET, parent: SELF, ...fields }),
        SimulatedProcess.make({ pid: USER_TOO, identity: USER })
      ]
    })

  const send = (kernel: SimulatedKernel.Kernel, ...names: ReadonlyArray<Signal.SignalName>) =>
    names.reduce((now, name) => done(SimulatedKernel.kill(now, SELF, TARGET, name)).kernel, kernel)

  const catching = (kernel: SimulatedKernel.Kernel, ...names: ReadonlyArray<Signal.SignalName>) =>
    names.reduce((now, name) => done(SimulatedKernel.handle(now, TARGET, name)).kernel, kernel)

  const taken = (kernel: SimulatedKernel.Kernel) => done(SimulatedKernel.takeSignals(kernel, TARGET)).value

  /** How the target is: "running", "stopped", or what ended it. */
  const condition = (kernel: SimulatedKernel.Kernel) => {
    const one = kernel.processes.get(TARGET)
    if (one?.ended?._tag === "Signaled") return `${one.ended.signal}${one.ended.coreDumped ? ", dumped" : ""}`
    return one?.stopped === true ? "stopped" : "running"
  }

  it.each<readonly [Signal.SignalName, string]>([
    ["SIGTERM", "SIGTERM"],
    ["SIGKILL", "SIGKILL"],
    ["SIGPIPE", "SIGPIPE"],
    ["SIGQUIT", "SIGQUIT, dumped"],
    ["SIGABRT", "SIGABRT, dumped"],
    ["SIGSEGV", "SIGSEGV, dumped"],
    ["SIGSTOP", "stopped"],
    ["SIGTSTP", "stopped"],
    ["SIGTTIN", "stopped"],
    ["SIGTTOU", "stopped"],
    ["SIGCONT", "running"],
    ["SIGCHLD", "running"],
    ["SIGURG", "running"],
    ["SIGWINCH", "running"]
  ])("%s by default: %s", (name, wanted) => expect(condition(send(withTarget(), name))).toBe(wanted))

  it("no core is dumped under a limit of 0", () => {
    const limits = { ...SimulatedProcess.defaultLimits(), CORE: { soft: 0, hard: 0 } }
    expect(condition(send(withTarget({ limits }), "SIGABRT"))).toBe("SIGABRT")
  })

  it("are sent by root, by the same user, and SIGCONT within a session", () => {
    const kill = (sender: number, target: number, name: Signal.SignalName = "SIGTERM", kernel = withTarget()) => {
      const sent = SimulatedKernel.kill(kernel, sender, target, name)
      return typeof sent === "string" ? sent : "sent"
    }
    expect(kill(SELF, USER_TOO)).toBe("sent")
    expect(kill(USER_TOO, USER_TOO)).toBe("sent")
    expect(kill(USER_TOO, TARGET)).toBe("EPERM")
    expect(kill(USER_TOO, TARGET, "SIGCONT")).toBe("EPERM")
    expect(kill(USER_TOO, TARGET, "SIGCONT", withTarget({ session: USER_TOO }))).toBe("sent")
    expect(kill(SELF, 999)).toBe("ESRCH")
    expect(kill(999, SELF)).toBe("ESRCH")
  })

  it("do nothing to a zombie, which is still there for its parent", () => {
    const ended = SimulatedKernel.end(withTarget(), TARGET, { _tag: "Exited", code: 3 })
    expect(send(ended, "SIGKILL", "SIGCONT").processes.get(TARGET)?.ended).toEqual({ _tag: "Exited", code: 3 })
    expect(SimulatedKernel.takeSignals(ended, TARGET)).toBe("ESRCH")
    expect(SimulatedKernel.handle(ended, TARGET, "SIGTERM")).toBe("ESRCH")
  })

  it("that are caught wait until they are taken, each once and in their order", () => {
    const sent = send(catching(withTarget(), "SIGTERM", "SIGHUP"), "SIGTERM", "SIGHUP", "SIGTERM")
    expect([condition(sent), taken(sent)]).toEqual(["running", ["SIGTERM", "SIGHUP"]])
    expect(taken(done(SimulatedKernel.takeSignals(sent, TARGET)).kernel)).toEqual([])
  })

  it("SIGKILL and SIGSTOP are neither caught, ignored nor blocked", () => {
    for (const name of ["SIGKILL", "SIGSTOP"] as const) {
      expect(SimulatedKernel.handle(withTarget(), TARGET, name)).toBe("EINVAL")
      expect(SimulatedKernel.ignore(withTarget(), TARGET, name)).toBe("EINVAL")
    }
    const blocked = withTarget({ signals: { blocked: [9, 19], ignored: [9, 19], caught: [] } })
    expect([condition(send(blocked, "SIGKILL")), condition(send(blocked, "SIGSTOP"))]).toEqual(["SIGKILL", "stopped"])
  })

  it("that are ignored leave nothing, not even one that had waited", () => {
    const ignoring = done(SimulatedKernel.ignore(withTarget(), TARGET, "SIGTERM")).kernel
    expect(condition(send(ignoring, "SIGTERM"))).toBe("running")
    const waiting = send(catching(withTarget(), "SIGTERM", "SIGHUP"), "SIGTERM", "SIGHUP")
    expect(taken(done(SimulatedKernel.ignore(waiting, TARGET, "SIGTERM")).kernel)).toEqual(["SIGHUP"])
    expect(taken(send(catching(ignoring, "SIGTERM"), "SIGTERM"))).toEqual(["SIGTERM"])
  })

  it("that are blocked wait, also if they are ignored, and are not taken", () => {
    const blocked = withTarget({ signals: { blocked: [15, 17], ignored: [15], caught: [] } })
    const sent = send(blocked, "SIGTERM", "SIGCHLD", "SIGTERM")
    expect(sent.processes.get(TARGET)?.pending).toEqual(["SIGTERM", "SIGCHLD"])
    expect([condition(sent), taken(sent)]).toEqual(["running", []])
  })

  it("wait for a stopped process to go on, except SIGKILL", () => {
    const stopped = send(catching(withTarget(), "SIGHUP"), "SIGSTOP", "SIGHUP")
    expect(taken(stopped)).toEqual([])
    expect(taken(send(stopped, "SIGCONT"))).toEqual(["SIGHUP"])
    const doomed = send(stopped, "SIGTERM")
    expect(condition(doomed)).toBe("stopped")
    expect(condition(send(doomed, "SIGCONT"))).toBe("SIGTERM")
    expect(condition(send(doomed, "SIGKILL"))).toBe("SIGKILL")
  })

  it("SIGCONT takes back a stop signal that waits, and the other way round; an ignored one still wakes", () => {
    const waiting = send(catching(withTarget(), "SIGTSTP", "SIGCONT"), "SIGTSTP")
    expect(taken(send(waiting, "SIGCONT"))).toEqual(["SIGCONT"])
    expect(taken(send(waiting, "SIGCONT", "SIGTTIN", "SIGCONT"))).toEqual(["SIGCONT"])
    expect(taken(send(waiting, "SIGCONT", "SIGTSTP"))).toEqual(["SIGTSTP"])
    expect(condition(send(withTarget(), "SIGSTOP", "SIGTSTP", "SIGCONT"))).toBe("running")
    const ignoring = withTarget({ signals: { blocked: [18], ignored: [18], caught: [] } })
    expect(condition(send(ignoring, "SIGSTOP", "SIGCONT"))).toBe("running")
  })

  it("come to a child at its parent's end if it asked for one, and to its children in turn", () => {
    const child = { parent: TARGET, parentDeathSignal: 15 }
    const kernel = [
      SimulatedProcess.make({ pid: 201, ...child }),
      SimulatedProcess.make({ pid: 202, parent: 201, parentDeathSignal: 9 }),
      SimulatedProcess.make({ pid: 203, parent: TARGET }),
      SimulatedProcess.make({ pid: 204, ...child, signals: { blocked: [], ignored: [], caught: [15] } })
    ].reduce(SimulatedKernel.withProcess, withTarget())
    const after = send(kernel, "SIGKILL")
    const pids = SimulatedKernel.living(after).map(({ pid }) => pid)
    expect(pids).toEqual([SELF, USER_TOO, 203, 204])
    expect(after.processes.get(204)?.pending).toEqual(["SIGTERM"])
  })
})

describe("wait", () => {
  const family = SimulatedKernel.make({
    processes: [
      SimulatedProcess.make({ pid: SELF }),
      SimulatedProcess.make({ pid: 201, parent: SELF }),
      SimulatedProcess.make({ pid: 202, parent: SELF })
    ]
  })

  it("gives each child's end once, and then ECHILD", () => {
    expect(SimulatedKernel.wait(family, SELF)).toBe("EAGAIN")
    expect(SimulatedKernel.wait(family, 201)).toBe("ECHILD")
    expect(SimulatedKernel.wait(family, 999)).toBe("ESRCH")
    const one = SimulatedKernel.end(family, 202, { _tag: "Exited", code: 7 })
    const first = done(SimulatedKernel.wait(one, SELF))
    expect(first.value).toEqual({ pid: 202, status: { _tag: "Exited", code: 7 } })
    expect(SimulatedKernel.wait(first.kernel, SELF)).toBe("EAGAIN")
    const killed = done(SimulatedKernel.kill(first.kernel, SELF, 201, "SIGKILL")).kernel
    const second = done(SimulatedKernel.wait(killed, SELF))
    expect(second.value).toMatchObject({ pid: 201, status: { _tag: "Signaled", signal: "SIGKILL" } })
    expect(SimulatedKernel.wait(second.kernel, SELF)).toBe("ECHILD")
  })

  it("is not for the children of a child, which init takes when that ends", () => {
    const grandchild = SimulatedKernel.withProcess(family, SimulatedProcess.make({ pid: 203, parent: 202 }))
    const zombie = SimulatedKernel.end(grandchild, 203, { _tag: "Exited", code: 0 })
    expect(SimulatedKernel.wait(zombie, SELF)).toBe("EAGAIN")
    const orphaned = SimulatedKernel.end(zombie, 202, { _tag: "Exited", code: 0 })
    expect(orphaned.processes.has(203)).toBe(false)
  })
})

describe("SimulatedLaunch", () => {
  it("gives up privilege in the order of the calls: uid before gid and groups is EPERM", () => {
    const uid: Launch.SystemCall = { _tag: "SetUid", uid: 1000 }
    const gid: Launch.SystemCall = { _tag: "SetGid", gid: 1000 }
    const groups: Launch.SystemCall = { _tag: "SetGroups", groups: [5] }
    expect(outcome(boot(), groups, gid, uid)).toBe("ok")
    expect(outcome(boot(), uid, gid)).toBe("1: EPERM")
    expect(outcome(boot(), uid, groups)).toBe("1: EPERM")
    expect(outcome(boot({ identity: USER }), uid)).toBe("ok")
    expect(outcome(boot({ identity: USER }), { ...groups, tolerate: ["EPERM"] })).toBe("ok")
  })

  it("a uid change clears the parent-death signal that was set before it, not one set after it", () => {
    const death: Launch.SystemCall = { _tag: "SetParentDeathSignal", signal: "SIGTERM" }
    const uid: Launch.SystemCall = { _tag: "SetUid", uid: 1000 }
    expect(launched(boot(), death, uid).view.parentDeathSignal).toBe(0)
    expect(launched(boot(), uid, death).view.parentDeathSignal).toBe(15)
  })

  it("a directory is entered with the rights the child has by then", () => {
    const change = (path: string): Launch.SystemCall => ({ _tag: "ChangeDirectory", path })
    const uid: Launch.SystemCall = { _tag: "SetUid", uid: 1000 }
    expect(outcome(boot(), change("/private/inner"), uid)).toBe("ok")
    expect(outcome(boot(), uid, change("/private"))).toBe("1: EACCES")
    expect(outcome(boot(), uid, change("/private/inner"))).toBe("1: EACCES")
    expect(outcome(boot(), change("/bin/app"))).toBe("0: ENOTDIR")
    expect(outcome(boot(), change("/bin/app/x"))).toBe("0: ENOTDIR")
    expect(outcome(boot(), change("/bin/../nowhere"))).toBe("0: ENOENT")
  })

  it("a session leader can't found a group, a group leader can't found a session", () => {
    const group: Launch.SystemCall = { _tag: "SetProcessGroup" }
    const session: Launch.SystemCall = { _tag: "SetSession" }
    expect(outcome(boot(), session, group)).toBe("1: EPERM")
    expect(outcome(boot(), group, session)).toBe("1: EPERM")
  })

  it("limits: soft over hard is EINVAL, a hard limit is raised only with CAP_SYS_RESOURCE", () => {
    const limit = (soft: number, hard: number): Launch.SystemCall => ({
      _tag: "SetResourceLimit",
      resource: "NOFILE",
      soft,
      hard
    })
    expect(outcome(boot(), limit(20, 10))).toBe("0: EINVAL")
    expect(outcome(boot(), limit(10, 5000))).toBe("ok")
    expect(outcome(boot({ identity: USER }), limit(10, 5000))).toBe("0: EPERM")
    expect(outcome(boot({ posixCapabilities: new Set() }), limit(10, 5000))).toBe("0: EPERM")
    const { kernel, value: fd } = done(SimulatedKernel.open(boot(), SELF, "/bin/app", "read"))
    const far: Launch.SystemCall = { _tag: "Dup2", from: fd, to: 3000 }
    expect(outcome(kernel, far)).toBe("0: EBADF")
    expect(outcome(kernel, limit(4096, 4096), far)).toBe("ok")
  })

  it("execve: a missing program, a file without x, a directory, a string over 128 KiB", () => {
    const path = (program: string, argument = ""): Launch.SystemCall => ({
      ...execute,
      path: program,
      argv: ["x", argument]
    })
    expect(outcome(boot(), path("/bin/none"))).toBe("0: ENOENT")
    expect(outcome(boot(), path("/bin/text"))).toBe("0: EACCES")
    expect(outcome(boot(), path("/bin"))).toBe("0: EACCES")
    expect(outcome(boot(), path("/bin/app", "x".repeat(131_072)))).toBe("0: E2BIG")
    expect(outcome(boot(), path("/bin/app", "x".repeat(131_071)))).toBe("ok")
  })

  it("what was ignored stays ignored and what was caught does not, unless both are reset", () => {
    const kernel = boot({ signals: { blocked: [15], ignored: [1], caught: [2] } })
    const kept = launched(kernel).view
    expect([kept.blockedSignals, kept.ignoredSignals]).toEqual([[15], [1]])
    const reset = launched(kernel, { _tag: "DefaultSignals", signals: [1, 2, 15] }, { _tag: "EmptySignalMask" }).view
    expect([reset.blockedSignals, reset.ignoredSignals]).toEqual([[], []])
    expect(outcome(kernel, { _tag: "DefaultSignals", signals: [9] })).toBe("0: EINVAL")
  })
})

describe("ProgramMachine", () => {
  const start = (program: Program.Program) => {
    const listening = done(SimulatedKernel.listen(boot(), SELF, LISTEN))
    const plan = Launch.plan(
      {
        program: "/bin/app",
        argv: ["app"],
        environment: { LISTEN_FDS: "1" },
        placements: [Placement.move(listening.value, 3)]
      },
      { descriptorLimit: { soft: 1024, hard: 4096 }, closeRange: true }
    )
    const { kernel, pid } = Result.getOrThrow(SimulatedLaunch.run(listening.kernel, SELF, Result.getOrThrow(plan)))
    return { pid, machine: ProgramMachine.start(ProgramMachine.make(kernel), pid, program, 0) }
  }

  const signal = (machine: ProgramMachine.ProgramMachine, pid: number, name: Signal.SignalName, now: number) => {
    const { kernel } = done(SimulatedKernel.kill(machine.kernel, SELF, pid, name))
    return ProgramMachine.advance({ ...machine, kernel }, now)
  }

  it("a stopped process does nothing until it continues, and then catches up", () => {
    const { pid, machine } = start(Program.exits(4, { afterMs: 10 }))
    const stopped = ProgramMachine.advance(signal(machine, pid, "SIGSTOP", 5), 1000)
    expect(ProgramMachine.nextDue(stopped)).toBeUndefined()
    expect(SimulatedKernel.alive(stopped.kernel, pid)?.stopped).toBe(true)
    const continued = ProgramMachine.advance(signal(stopped, pid, "SIGCONT", 1000), 1000)
    expect(continued.kernel.processes.get(pid)?.ended).toEqual({ _tag: "Exited", code: 4 })
  })

  it("SIGTERM to a stopped process waits for SIGCONT, SIGKILL does not", () => {
    const { pid, machine } = start(Program.hangs())
    const stopped = signal(signal(machine, pid, "SIGSTOP", 0), pid, "SIGTERM", 0)
    expect(SimulatedKernel.alive(stopped.kernel, pid)).toBeDefined()
    const killed = signal(stopped, pid, "SIGKILL", 0)
    expect(killed.kernel.processes.get(pid)?.ended).toMatchObject({ signal: "SIGKILL" })
    const continued = signal(stopped, pid, "SIGCONT", 0)
    expect(continued.kernel.processes.get(pid)?.ended).toMatchObject({ signal: "SIGTERM" })
  })

  it("a handler replaces what was to come, and what is sent through the kernel reaches the program", () => {
    const { pid, machine } = start({ ...Program.server({ drainMs: 50, exitsAfterMs: 20 }) })
    const draining = ProgramMachine.advance(signal(machine, pid, "SIGTERM", 10), 59)
    expect(SimulatedKernel.alive(draining.kernel, pid)).toBeDefined()
    expect(ProgramMachine.advance(draining, 60).kernel.processes.get(pid)?.ended).toEqual({ _tag: "Exited", code: 0 })
  })

  it("a program that ignores a signal does, until SIGKILL, and a process that was killed accepts nothing", () => {
    const { pid, machine } = start(Program.server({ ignoresStop: true }))
    const ignored = signal(machine, pid, "SIGTERM", 0)
    expect(ProgramMachine.connect(ignored, ADDRESS).value).toBe("accepted")
    const killed = signal(ignored, pid, "SIGKILL", 0)
    expect(killed.lives.get(pid)).toMatchObject({ pending: [], accepting: [], connections: new Map() })
    expect(ProgramMachine.connect(killed, ADDRESS).value).toBe("queued")
  })

  it("a wrapper's child has the wrapper's ignored signals, and none of its handlers", () => {
    const inner = Program.hangs()
    const fork = { afterMs: 0, action: { _tag: "Fork", program: inner } } as const
    const { pid, machine } = start({ actions: [fork], signals: { SIGHUP: "ignore", SIGTERM: [] } })
    const forked = ProgramMachine.advance(machine, 0)
    const child = [...forked.lives.keys()].find((one) => one !== pid) ?? 0
    expect(forked.kernel.processes.get(child)?.signals).toEqual({ blocked: [], ignored: [1], caught: [] })
    const ended = signal(forked, child, "SIGTERM", 1)
    // The wrapper waits for it.
    expect(ended.kernel.processes.has(child)).toBe(false)
  })

  it("clients wait in the queue up to the backlog, are dropped over it, and accepted later", () => {
    const { pid, machine } = start(Program.server({ readyAfterMs: 10 }))
    let now = machine
    const answers = Array.from({ length: 5 }, () => {
      const connected = ProgramMachine.connect(now, ADDRESS)
      now = connected.machine
      return connected.value
    })
    expect(answers).toEqual(["queued", "queued", "queued", "dropped", "dropped"])
    now = ProgramMachine.advance(now, 10)
    expect([...(now.lives.get(pid)?.connections.values() ?? [])]).toEqual([3])
    expect(ProgramMachine.connect(now, ADDRESS).value).toBe("accepted")
    expect(ProgramMachine.connect(now, { ...ADDRESS, port: 81 }).value).toBe("refused")
  })
})

describe("Arbitraries", () => {
  it("a seed gives the same values each time, and another seed others", () => {
    const draw = (seed: number) => {
      const next = Arbitraries.random(seed)
      const options = {
        program: "/p",
        argv: ["p"],
        sources: [5, 6],
        below: 40,
        directories: ["/"],
        root: true
      } as const
      return JSON.stringify([...Arbitraries.table(next, 8, 20).entries, Arbitraries.launchSpec(next, options)])
    }
    expect(draw(1)).toBe(draw(1))
    expect(draw(1)).not.toBe(draw(2))
  })

  it("placements never have two sources for a target", () => {
    const next = Arbitraries.random(3)
    for (let count = 0; count < 2000; count++) {
      const placements = Arbitraries.placements(next, [0, 1, 7], 10, 30)
      expect(Result.isSuccess(Placement.validate(placements))).toBe(true)
    }
  })
})

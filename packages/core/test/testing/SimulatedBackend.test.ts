import { describe, expect, it } from "@effect/vitest"
import { Files } from "@handoff/core/backend/Files"
import { Launcher } from "@handoff/core/backend/Launcher"
import { Locks } from "@handoff/core/backend/Locks"
import { Notifications } from "@handoff/core/backend/Notifications"
import { Processes } from "@handoff/core/backend/Processes"
import { Sockets } from "@handoff/core/backend/Sockets"
import * as Launch from "@handoff/core/Launch"
import * as Placement from "@handoff/core/Placement"
import * as FileTree from "@handoff/core/testing/FileTree"
import * as Program from "@handoff/core/testing/Program"
import * as SimulatedBackend from "@handoff/core/testing/SimulatedBackend"
import * as SimulatedFiles from "@handoff/core/testing/SimulatedFiles"
import * as SimulatedKernel from "@handoff/core/testing/SimulatedKernel"
import { Simulation } from "@handoff/core/testing/Simulation"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import * as TestClock from "effect/testing/TestClock"

const programs = {
  "/srv/good": Program.server({ readyAfterMs: 200, notify: true, drainMs: 50, output: ["listening"] }),
  "/srv/stubborn": Program.server({ ignoresStop: true }),
  "/srv/bad": Program.exits(3, { afterMs: 20, output: ["no config", "giving up"] }),
  "/srv/wrapped": Program.wrapper(Program.server({ readyAfterMs: 10 }))
}

const backend = SimulatedBackend.layer({ programs, files: { "/data": FileTree.directory(0o700, 0, 0) } })

const start = Effect.fnUntraced(function* (program: string, change: Partial<Launch.LaunchSpec> = {}) {
  const launcher = yield* Launcher
  const spec = { program, argv: [program], environment: {}, placements: [], ...change }
  const plan = yield* Effect.fromResult(Launch.plan(spec, yield* launcher.facts))
  return yield* launcher.launch(plan)
})

const tcp = { address: { _tag: "Tcp", host: "127.0.0.1", port: 0 } } as const

const serve = Effect.fnUntraced(function* (program: string, environment: Readonly<Record<string, string>> = {}) {
  const sockets = yield* Sockets
  const listener = yield* sockets.listen(tcp)
  const child = yield* start(program, {
    environment: { LISTEN_FDS: "1", LISTEN_FDNAMES: "http", ...environment },
    placements: [Placement.move(listener.fd, 3)],
    stampListenPid: true
  })
  return { child, listener }
})

describe("SimulatedBackend", () => {
  it.effect("a child sees its listener at 3, its own pid in LISTEN_PID, and nothing else that was open", () =>
    Effect.gen(function* () {
      const simulation = yield* Simulation
      const { child, listener } = yield* serve("/srv/good")
      const view = yield* simulation.child(child.pid)
      expect(view?.descriptors).toEqual({ 3: `socket:[${listener.inode}]` })
      expect(view?.environment).toEqual({ LISTEN_FDS: "1", LISTEN_FDNAMES: "http", LISTEN_PID: String(child.pid) })
      expect(view?.group).toBe(child.pid)
    }).pipe(Effect.provide(backend))
  )

  it.effect("readiness comes when the clock says so, not before, and takes no real time", () =>
    Effect.gen(function* () {
      const notifications = yield* Notifications
      const processes = yield* Processes
      const notify = yield* notifications.open("/run/notify")
      const { child, listener } = yield* serve("/srv/good", { NOTIFY_SOCKET: "/run/notify" })
      const ready = yield* Effect.forkChild(Effect.zip(notify.take, Clock.currentTimeMillis))
      yield* TestClock.adjust(199)
      expect((yield* processes.observe(child.pid, [listener])).waitingOn).toEqual([])
      yield* TestClock.adjust(1000)
      const [message, at] = yield* Fiber.join(ready)
      expect({ at, fields: message.fields, pid: message.pid }).toEqual({
        at: 200,
        fields: { READY: "1" },
        pid: child.pid
      })
      expect((yield* processes.observe(child.pid, [listener])).waitingOn).toEqual([listener.inode])
    }).pipe(Effect.provide(backend))
  )

  it.effect("SIGTERM drains: the exit comes after the drain, connections wait in the queue meanwhile", () =>
    Effect.gen(function* () {
      const simulation = yield* Simulation
      const { child, listener } = yield* serve("/srv/good")
      expect(yield* simulation.connect(listener.address)).toBe("queued")
      yield* TestClock.adjust(200)
      expect(yield* simulation.connect(listener.address)).toBe("accepted")
      const ended = yield* Effect.forkChild(Effect.zip(child.exit, Clock.currentTimeMillis))
      expect(yield* child.signal("SIGTERM")).toBe(true)
      expect(yield* simulation.connect(listener.address)).toBe("queued")
      yield* TestClock.adjust(1000)
      expect(yield* Fiber.join(ended)).toEqual([{ _tag: "Exited", code: 0 }, 250])
      expect(yield* child.exit).toEqual({ _tag: "Exited", code: 0 })
      expect(yield* child.signal("SIGTERM")).toBe(false)
      expect(yield* simulation.output(child.pid)).toEqual(["listening"])
    }).pipe(Effect.provide(backend))
  )

  it.effect("a program that ignores SIGTERM ends of SIGKILL, one that fails keeps its last lines", () =>
    Effect.gen(function* () {
      const simulation = yield* Simulation
      const stubborn = yield* start("/srv/stubborn")
      const bad = yield* start("/srv/bad")
      yield* stubborn.signal("SIGTERM")
      yield* TestClock.adjust(1000)
      expect(yield* bad.exit).toEqual({ _tag: "Exited", code: 3 })
      expect(yield* simulation.output(bad.pid)).toEqual(["no config", "giving up"])
      expect(yield* stubborn.signalGroup("SIGKILL")).toBe(true)
      expect(yield* stubborn.exit).toEqual({ _tag: "Signaled", signal: "SIGKILL", coreDumped: false })
      expect(yield* stubborn.signalGroup("SIGKILL")).toBe(false)
    }).pipe(Effect.provide(backend))
  )

  it.effect("killing only a wrapper leaves its child in the group, holding the listener", () =>
    Effect.gen(function* () {
      const processes = yield* Processes
      const simulation = yield* Simulation
      const { child, listener } = yield* serve("/srv/wrapped")
      const seen = yield* processes.observe(child.pid, [listener])
      expect(seen.pids.length).toBe(2)
      yield* child.signal("SIGKILL")
      yield* child.exit
      expect((yield* processes.observe(child.pid, [listener])).pids).toEqual([])
      expect((yield* processes.groupMembers(child.pid)).length).toBe(1)
      yield* child.signalGroup("SIGKILL")
      expect(yield* processes.groupMembers(child.pid)).toEqual([])
      expect((yield* simulation.machine).kernel.processes.size).toBe(1)
    }).pipe(Effect.provide(backend))
  )

  it.effect("an inherited SIGTERM block makes a child deaf, which resetting signals prevents", () =>
    Effect.gen(function* () {
      const deaf = yield* start("/srv/good", { resetSignals: false })
      const hearing = yield* start("/srv/good")
      yield* deaf.signal("SIGTERM")
      yield* hearing.signal("SIGTERM")
      yield* TestClock.adjust(1000)
      const processes = yield* Processes
      expect((yield* processes.observe(deaf.pid, [])).pids).toEqual([deaf.pid])
      expect((yield* processes.observe(hearing.pid, [])).pids).toEqual([])
    }).pipe(
      Effect.provide(
        SimulatedBackend.layer({ programs, self: { signals: { blocked: [15], ignored: [], caught: [] } } })
      )
    )
  )

  it.effect("a failed launch names its step and leaves nothing", () =>
    Effect.gen(function* () {
      const simulation = yield* Simulation
      const before = (yield* simulation.machine).kernel
      const reasonOf = (change: Partial<Launch.LaunchSpec>, program = "/srv/good") =>
        Effect.map(Effect.flip(start(program, change)), (error) =>
          error._tag === "LaunchError" && error.reason._tag === "StepFailed"
            ? `${error.reason.call} = ${error.reason.errno}`
            : error.message
        )
      expect(yield* reasonOf({ workingDirectory: "/nowhere" })).toBe('chdir("/nowhere") = ENOENT')
      expect(yield* reasonOf({ workingDirectory: "/data", identity: { uid: 1000 } })).toBe('chdir("/data") = EACCES')
      expect(yield* reasonOf({ placements: [Placement.move(77, 3)] })).toBe("dup3(77, 3, 0) = EBADF")
      expect(yield* reasonOf({}, "/srv/none")).toMatch(/^execve\("\/srv\/none".* = ENOENT$/)
      yield* simulation.failNext("SetUmask", "EIO")
      expect(yield* reasonOf({ umask: 0o77 })).toMatch(/^umask\(0+77\) = EIO$/)
      const after = (yield* simulation.machine).kernel
      expect(after.processes).toEqual(before.processes)
      expect(after.descriptions).toEqual(before.descriptions)
    }).pipe(Effect.provide(backend))
  )

  it.effect("a lock is held until its scope closes, and the holder is named", () =>
    Effect.gen(function* () {
      const locks = yield* Locks
      const { self } = yield* Simulation
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* locks.acquire("/run/lock")
          const refused = yield* Effect.flip(Effect.scoped(locks.acquire("/run/lock")))
          expect(refused.reason).toEqual({ _tag: "Held", holder: self })
        })
      )
      yield* Effect.scoped(locks.acquire("/run/lock"))
    }).pipe(Effect.provide(backend))
  )

  it.effect("what a child writes to a placed file is read through FileSystem while it grows", () =>
    Effect.gen(function* () {
      const files = yield* FileSystem.FileSystem
      const child = yield* start("/srv/bad", { placements: [Placement.move(1, 2)] })
      yield* TestClock.adjust(20)
      yield* child.exit
      expect(yield* files.readFileString("/dev/null")).toBe("no config\ngiving up\n")
    }).pipe(Effect.provide(backend))
  )

  it.effect("a file that was replaced is there after a power cut, one that was only written is not", () =>
    Effect.gen(function* () {
      const fileSystem = yield* FileSystem.FileSystem
      yield* Files.use((files) => files.replace("/data/state", "new"))
      yield* fileSystem.writeFileString("/data/log", "lines")
      const cut = SimulatedFiles.powerCut((yield* (yield* Simulation).machine).kernel)
      expect(cut.files.get("/data/state")).toMatchObject({ content: "new", mode: 0o600 })
      expect([...cut.files.keys()].filter((path) => path.startsWith("/data/"))).toEqual(["/data/state"])
    }).pipe(Effect.provide(backend))
  )

  it.effect("a replacement without a free descriptor fails, and is not begun", () =>
    Effect.gen(function* () {
      const { self, update, machine } = yield* Simulation
      const files = yield* Files
      yield* files.replace("/data/state", "old")
      yield* update((kernel) => {
        const one = kernel.processes.get(self)
        if (one === undefined) throw new Error("the simulation has lost its own process")
        return SimulatedKernel.withProcess(kernel, { ...one, table: { ...one.table, limit: 3 } })
      })
      expect(yield* Effect.flip(files.replace("/data/state", "new"))).toMatchObject({ errno: "EMFILE" })
      const { kernel } = yield* machine
      expect(kernel.files.get("/data/state")).toMatchObject({ content: "old" })
      expect(kernel.files.has("/data/state.new")).toBe(false)
    }).pipe(Effect.provide(backend))
  )

  it.effect("FileSystem gives the errors of the kernel's calls", () =>
    Effect.gen(function* () {
      const files = yield* FileSystem.FileSystem
      const tagOf = <A>(effect: Effect.Effect<A, { readonly reason: { readonly _tag: string } }>) =>
        Effect.map(Effect.flip(effect), ({ reason }) => reason._tag)
      expect(yield* tagOf(files.writeFileString("/missing/file", ""))).toBe("NotFound")
      expect(yield* tagOf(files.writeFileString("/data", ""))).toBe("BadResource")
      expect(yield* tagOf(files.rename("/data/none", "/data/some"))).toBe("NotFound")
      expect(yield* tagOf(files.remove("/data"))).toBe("BadResource")
      yield* files.writeFileString("/data/one", "one")
      yield* files.rename("/data/one", "/data/two")
      expect(yield* files.readFileString("/data/two")).toBe("one")
      yield* files.remove("/data", { recursive: true })
      expect([yield* files.exists("/data/two"), yield* files.exists("/data")]).toEqual([false, false])
    }).pipe(Effect.provide(backend))
  )
})

import { describe, expect, it } from "@effect/vitest"
import { FileError, Files } from "@handoff/core/backend/Files"
import * as FileTree from "@handoff/core/testing/FileTree"
import * as Program from "@handoff/core/testing/Program"
import * as SimulatedBackend from "@handoff/core/testing/SimulatedBackend"
import { Simulation } from "@handoff/core/testing/Simulation"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import { type Options, Supervisor } from "../src/Supervisor.ts"

const programs = {
  "/srv/good": Program.server({ readyAfterMs: 200, notify: true, drainMs: 400 }),
  "/srv/next": Program.server({ readyAfterMs: 200, notify: true, drainMs: 400 }),
  "/srv/quiet": Program.server({ readyAfterMs: 100, drainMs: 50 }),
  "/srv/exits": Program.exits(3, { afterMs: 20, output: ["no config", "giving up"] }),
  "/srv/hangs": Program.hangs({ ignoresStop: true, output: ["thinking"] }),
  "/srv/half": Program.server({ readyAfterMs: 50, ignoresStop: true }),
  "/srv/crashes": Program.server({ readyAfterMs: 10, notify: true, exitsAfterMs: 1_000, exitCode: 7 }),
  "/srv/stubborn": Program.server({ readyAfterMs: 10, notify: true, ignoresStop: true })
}

const supervisor = (options: Partial<Options>) =>
  Supervisor.layer({
    listeners: { http: "127.0.0.1:8080" },
    command: ["/srv/good"],
    workingDirectory: "/tmp",
    stateDirectory: "/run/handoff",
    onOutput: () => undefined,
    ...options
  })

const supervised = (options: Partial<Options> = {}, backend: SimulatedBackend.Options = {}) =>
  supervisor(options).pipe(Layer.provideMerge(SimulatedBackend.layer({ programs, ...backend })))

/** A disk that can be full. */
const disk = { full: false, text: "" }
const onDisk = Layer.effect(
  Files,
  Effect.map(Files, (files) =>
    Files.of({
      ...files,
      replace: (path, text) =>
        disk.full
          ? Effect.fail(new FileError({ path, errno: "ENOSPC" }))
          : Effect.sync(() => {
              disk.text = text
            })
    })
  )
).pipe(Layer.provideMerge(SimulatedBackend.layer({ programs })))

/** Lets simulated time pass in small steps, so that what is forked meanwhile gets its turn, until the effect has ended. */
const settle = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const fiber = yield* Effect.forkChild(effect)
    for (let step = 0; step < 4_000 && fiber.pollUnsafe() === undefined; step++) yield* TestClock.adjust(25)
    return yield* Fiber.join(fiber)
  })

const started = Effect.gen(function* () {
  const supervisor = yield* Supervisor
  yield* settle(supervisor.start)
  return supervisor
})

const swapTo = (program: string) =>
  Effect.flatMap(Supervisor, (supervisor) => settle(Effect.flip(supervisor.swap({ argv: [program] }))))

const failureOf = (program: string) =>
  Effect.map(swapTo(program), (error) =>
    error.reason._tag === "RolledBack" ? error.reason.report : { record: undefined, lastLines: [] }
  )

/** Takes a program away. What runs it goes on. */
const removed = (path: string) =>
  Effect.flatMap(Simulation, (simulation) =>
    simulation.update((kernel) => ({ ...kernel, files: FileTree.remove(kernel.files, path) }))
  )

/** Stops with simulated time passing, which a scope's finalizer has not. */
const stopped = Effect.flatMap(Supervisor, (supervisor) => settle(supervisor.stop))

describe("a supervisor on a simulated kernel", () => {
  it.effect("gives a child its listener at 3, its pid in LISTEN_PID, a notify socket, and nothing else", () =>
    Effect.gen(function* () {
      yield* started
      const simulation = yield* Simulation
      const [child] = yield* simulation.launched
      expect(Object.keys(child?.descriptors ?? {})).toEqual(["0", "1", "2", "3"])
      expect(child?.descriptors[3]).toMatch(/^socket:/)
      expect(child?.environment).toMatchObject({
        LISTEN_FDS: "1",
        LISTEN_FDNAMES: "http",
        NOTIFY_SOCKET: "/run/handoff/notify-1.sock"
      })
      yield* stopped
    }).pipe(Effect.provide(supervised()))
  )

  it.effect("commits when the new version says READY=1, and the old one is gone after its drain", () =>
    Effect.gen(function* () {
      const supervisor = yield* started
      const { record } = yield* settle(supervisor.swap({ argv: ["/srv/good", "2"] }))
      expect(record).toMatchObject({ outcome: "committed", evidence: "notified", from: 1, to: 2 })
      expect(record.durationMs).toBeGreaterThanOrEqual(200)
      yield* TestClock.adjust(1_000)
      expect((yield* supervisor.status).generations.map((one) => one.id)).toEqual([2])
      yield* stopped
    }).pipe(Effect.provide(supervised()))
  )

  it.effect("observes a program that knows nothing of us, and adds the settle time", () =>
    Effect.gen(function* () {
      const supervisor = yield* started
      expect((yield* supervisor.status).generations[0]?.evidence).toBe("accepting")
      yield* stopped
    }).pipe(Effect.provide(supervised({ command: ["/srv/quiet"] })))
  )

  it.effect("rolls back a version that exits at its start, with its status and last lines", () =>
    Effect.gen(function* () {
      yield* started
      const { record, lastLines } = yield* failureOf("/srv/exits")
      expect(record).toMatchObject({ serving: 1, failure: { _tag: "Exited", status: { code: 3 } } })
      expect(lastLines).toEqual(["no config", "giving up"])
      yield* stopped
    }).pipe(Effect.provide(supervised()))
  )

  it.effect("rolls back and kills a version that hangs and ignores SIGTERM", () =>
    Effect.gen(function* () {
      yield* started
      const { record } = yield* failureOf("/srv/hangs")
      expect(record).toMatchObject({ serving: 1, killed: true, cut: 0, failure: { _tag: "NotReady", afterMs: 30_000 } })
      yield* stopped
    }).pipe(Effect.provide(supervised()))
  )

  it.effect("says how many connections were cut of a version that accepted and never became ready", () =>
    Effect.gen(function* () {
      const supervisor = yield* started
      const simulation = yield* Simulation
      const swap = yield* Effect.forkChild(Effect.flip(supervisor.swap({ argv: ["/srv/half"] })))
      yield* TestClock.adjust(1_000)
      const [, child] = yield* simulation.launched
      const machine = yield* simulation.machine
      const inode = Number(/\d+/.exec(child?.descriptors[3] ?? "")?.[0])
      expect(machine.kernel.processes.has(child?.pid ?? 0)).toBe(true)
      yield* simulation.setConnections(child?.pid ?? 0, inode, 3)
      const error = yield* settle(Fiber.join(swap))
      expect(error.reason).toMatchObject({ report: { record: { cut: 3, killed: true, serving: 1 } } })
      expect(error.message).toContain("3 connections were cut")
      yield* stopped
    }).pipe(Effect.provide(supervised()))
  )

  it.effect("rolls back when a step of the launch fails, naming the step and the errno", () =>
    Effect.gen(function* () {
      yield* started
      const simulation = yield* Simulation
      yield* simulation.failNext("ChangeDirectory", "EACCES")
      const { record } = yield* failureOf("/srv/good")
      expect(record?.failure).toMatchObject({ _tag: "LaunchFailed" })
      expect(JSON.stringify(record?.failure)).toMatch(/chdir\(.*EACCES/)
      yield* stopped
    }).pipe(Effect.provide(supervised()))
  )

  it.effect("rolls back when the program does not exist", () =>
    Effect.gen(function* () {
      yield* started
      expect((yield* swapTo("/srv/missing")).message).toContain('"/srv/missing"')
      yield* stopped
    }).pipe(Effect.provide(supervised()))
  )

  it.effect("demands READY=1 of the successor of a version that sent it", () =>
    Effect.gen(function* () {
      yield* started
      const { record } = yield* failureOf("/srv/quiet")
      expect(record?.failure).toMatchObject({ _tag: "NotReady", expected: "READY=1", accepting: true })
      yield* stopped
    }).pipe(Effect.provide(supervised()))
  )

  it.effect("aborts a swap by request", () =>
    Effect.gen(function* () {
      const supervisor = yield* started
      const swap = yield* Effect.forkChild(Effect.flip(supervisor.swap({ argv: ["/srv/hangs"] })))
      yield* TestClock.adjust(100)
      expect(yield* settle(supervisor.abort)).toBe(1)
      const error = yield* settle(Fiber.join(swap))
      expect(error.reason).toMatchObject({ report: { record: { failure: { _tag: "Aborted" }, serving: 1 } } })
      yield* stopped
    }).pipe(Effect.provide(supervised()))
  )

  it.effect("refuses a second swap while one runs, and a rollback when there is nothing before", () =>
    Effect.gen(function* () {
      const supervisor = yield* started
      const none = yield* settle(Effect.flip(supervisor.rollback))
      expect(none.reason).toEqual({ _tag: "Refused", refusal: { _tag: "NoPrevious" } })
      const swap = yield* Effect.forkChild(Effect.exit(supervisor.swap({ argv: ["/srv/hangs"] })))
      yield* TestClock.adjust(100)
      const second = yield* settle(Effect.flip(supervisor.swap()))
      expect(second.reason).toMatchObject({ refusal: { _tag: "AlreadySwapping", swap: 1 } })
      yield* settle(Fiber.join(swap))
      yield* stopped
    }).pipe(Effect.provide(supervised()))
  )

  it.effect("leaves a swap running whose caller was interrupted", () =>
    Effect.gen(function* () {
      const supervisor = yield* started
      const caller = yield* Effect.forkChild(supervisor.swap({ argv: ["/srv/good", "2"] }))
      yield* TestClock.adjust(50)
      yield* Fiber.interrupt(caller)
      yield* TestClock.adjust(1_000)
      expect((yield* supervisor.status).swaps).toMatchObject([{ outcome: "committed", to: 2 }])
      yield* stopped
    }).pipe(Effect.provide(supervised()))
  )

  it.effect("restarts a crashed generation again and again, with growing delays", () =>
    Effect.gen(function* () {
      const supervisor = yield* started
      yield* Effect.forEach(Array.from({ length: 400 }), () => TestClock.adjust(25), { discard: true })
      const { restarts } = yield* supervisor.status
      expect(restarts.total).toBeGreaterThan(3)
      const simulation = yield* Simulation
      expect((yield* simulation.launched).length).toBeGreaterThan(3)
      yield* stopped
    }).pipe(Effect.provide(supervised({ command: ["/srv/crashes"] })))
  )

  it.effect("kills a stubborn old generation's group after the grace", () =>
    Effect.gen(function* () {
      const supervisor = yield* started
      yield* settle(supervisor.swap({ argv: ["/srv/good"] }))
      yield* TestClock.adjust(24_000)
      expect((yield* supervisor.status).generations.map((one) => one.phase)).toEqual(["draining", "serving"])
      yield* TestClock.adjust(2_000)
      expect((yield* supervisor.status).generations.map((one) => one.id)).toEqual([2])
      yield* stopped
    }).pipe(Effect.provide(supervised({ command: ["/srv/stubborn"] })))
  )

  it.effect("gives up a first start that never becomes ready", () =>
    Effect.gen(function* () {
      const supervisor = yield* Supervisor
      const error = yield* settle(Effect.flip(supervisor.start))
      expect(error.message).toContain("was not ready 30.0 s after its start")
      yield* supervisor.finished
    }).pipe(Effect.provide(supervised({ command: ["/srv/hangs"] })))
  )

  it.effect("replaces a program that must not run twice: the old one is gone before the new one starts", () =>
    Effect.gen(function* () {
      const supervisor = yield* started
      const simulation = yield* Simulation
      const swap = yield* Effect.forkChild(supervisor.swap({ argv: ["/srv/good", "2"] }))
      yield* TestClock.adjust(200)
      expect((yield* simulation.launched).length).toBe(1)
      expect((yield* supervisor.status).generations).toMatchObject([{ id: 1, phase: "draining" }])
      const { record } = yield* settle(Fiber.join(swap))
      expect(record).toMatchObject({ outcome: "committed", mode: "exclusive", from: 1, to: 2, serving: 2 })
      // 400 ms of drain, then 200 ms to be ready.
      expect(record.durationMs).toBeGreaterThanOrEqual(600)
      expect((yield* supervisor.status).generations.map((one) => one.id)).toEqual([2])
      yield* stopped
    }).pipe(Effect.provide(supervised({ mode: "exclusive" })))
  )

  it.effect("starts the old command again when the new version of such a program fails", () =>
    Effect.gen(function* () {
      const supervisor = yield* started
      const { record, lastLines } = yield* failureOf("/srv/exits")
      expect(record).toMatchObject({ mode: "exclusive", serving: 3, failure: { _tag: "Exited", status: { code: 3 } } })
      expect(lastLines).toEqual(["no config", "giving up"])
      const { generations, serving } = yield* supervisor.status
      expect(generations).toMatchObject([{ id: 3, phase: "serving", command: ["/srv/good"] }])
      expect(serving).toBe(3)
      yield* stopped
    }).pipe(Effect.provide(supervised({ mode: "exclusive" })))
  )

  it.effect("stops nobody for an exclusive swap to a program that is not there", () =>
    Effect.gen(function* () {
      const supervisor = yield* started
      const error = yield* Effect.flip(supervisor.swap({ argv: ["/no/such/program"] }))
      expect(error.message).toContain("/no/such/program")
      expect((yield* supervisor.status).generations.map((one) => [one.id, one.phase])).toEqual([[1, "serving"]])
      yield* stopped
    }).pipe(Effect.provide(supervised({ mode: "exclusive" })))
  )

  it.effect(
    "stops nobody for an exclusive rollback to a program that is gone, nor to start its own anew without it",
    () =>
      Effect.gen(function* () {
        const supervisor = yield* started
        yield* settle(supervisor.swap({ argv: ["/srv/next"] }))
        yield* removed("/srv/good")
        const rollback = yield* settle(Effect.flip(supervisor.rollback))
        expect(rollback.reason).toMatchObject({ _tag: "Refused", refusal: { _tag: "NoProgram" } })
        expect(rollback.message).toBe('the program "/srv/good" was not found (tried /srv/good)')
        yield* removed("/srv/next")
        const anew = yield* settle(Effect.flip(supervisor.swap()))
        expect(anew.message).toContain('"/srv/next" was not found')
        const { generations, serving, canRollBack } = yield* supervisor.status
        expect(generations.map(({ id, phase }) => [id, phase])).toEqual([[2, "serving"]])
        expect([serving, canRollBack]).toEqual([2, true])
        yield* stopped
      }).pipe(Effect.provide(supervised({ mode: "exclusive" })))
  )

  it.effect("looks for no program of an exclusive swap that is refused anyway", () =>
    Effect.gen(function* () {
      const supervisor = yield* started
      expect((yield* settle(Effect.flip(supervisor.rollback))).reason).toMatchObject({
        refusal: { _tag: "NoPrevious" }
      })
      const swap = yield* Effect.forkChild(supervisor.swap({ argv: ["/srv/next"] }))
      yield* TestClock.adjust(100)
      const second = yield* settle(Effect.flip(supervisor.swap({ argv: ["/no/such/program"] })))
      expect(second.reason).toMatchObject({ refusal: { _tag: "AlreadySwapping" } })
      yield* settle(Fiber.join(swap))
      yield* stopped
    }).pipe(Effect.provide(supervised({ mode: "exclusive" })))
  )

  it.effect("stops in the middle of an exclusive swap, and starts nothing more", () =>
    Effect.gen(function* () {
      const supervisor = yield* started
      const simulation = yield* Simulation
      const swap = yield* Effect.forkChild(Effect.flip(supervisor.swap({ argv: ["/srv/good", "2"] })))
      yield* TestClock.adjust(100)
      yield* stopped
      const error = yield* settle(Fiber.join(swap))
      expect(error.reason).toMatchObject({ report: { record: { failure: { _tag: "Stopping" }, serving: undefined } } })
      expect(error.message).toContain("nothing serves")
      expect((yield* simulation.launched).length).toBe(1)
      expect((yield* supervisor.status).generations).toEqual([])
    }).pipe(Effect.provide(supervised({ mode: "exclusive" })))
  )

  it.effect("refuses a swap that can't be written down, and writes what it knows when the disk has room again", () =>
    Effect.gen(function* () {
      disk.full = false
      const supervisor = yield* started
      expect(JSON.parse(disk.text)).toMatchObject({ serving: 1, nextSwap: 1 })
      disk.full = true
      const error = yield* settle(Effect.flip(supervisor.swap({ argv: ["/srv/good", "2"] })))
      expect(error.message).toContain("ENOSPC")
      expect((yield* supervisor.status).generations.map((one) => [one.id, one.phase])).toEqual([[1, "serving"]])
      const before = disk.text
      yield* TestClock.adjust(2_500)
      expect(disk.text).toBe(before)
      disk.full = false
      yield* TestClock.adjust(1_000)
      expect(JSON.parse(disk.text)).toMatchObject({ serving: 1, nextSwap: 2, swap: null })
      const { record } = yield* settle(supervisor.swap({ argv: ["/srv/good", "2"] }))
      expect(record.outcome).toBe("committed")
      yield* stopped
    }).pipe(Effect.provide(supervisor({}).pipe(Layer.provideMerge(onDisk))))
  )

  it.effect("says that it is stopping when it is started after a stop", () =>
    Effect.gen(function* () {
      const supervisor = yield* Supervisor
      yield* settle(supervisor.stop)
      const error = yield* settle(Effect.flip(supervisor.start))
      expect(error).toMatchObject({ _tag: "StartError", generation: undefined, failure: { _tag: "Stopping" } })
      expect(error.message).toBe("nothing was started: the supervisor was told to stop")
      const simulation = yield* Simulation
      expect(yield* simulation.launched).toEqual([])
    }).pipe(Effect.provide(supervised()))
  )

  it.effect("says that it is stopping when it is stopped before its first generation serves", () =>
    Effect.gen(function* () {
      const supervisor = yield* Supervisor
      const start = yield* Effect.forkChild(Effect.flip(supervisor.start))
      yield* TestClock.adjust(50)
      yield* stopped
      const error = yield* settle(Fiber.join(start))
      expect(error).toMatchObject({ _tag: "StartError", generation: 1, failure: { _tag: "Stopping" } })
    }).pipe(Effect.provide(supervised()))
  )

  it.effect("refuses a bad option before anything is bound or started", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Layer.build(supervised({ generationLimit: 1 })))
      expect(error.message).toContain("generationLimit")
      const address = yield* Effect.flip(Layer.build(supervised({ listeners: { http: "127.0.0.1" } })))
      expect(address.message).toContain('listener "http"')
    })
  )
})

import { describe, expect, it } from "@effect/vitest"
import type * as Address from "@handoff/core/Address"
import { Channels } from "@handoff/core/backend/Channels"
import { Launcher } from "@handoff/core/backend/Launcher"
import { Processes } from "@handoff/core/backend/Processes"
import { Sockets } from "@handoff/core/backend/Sockets"
import * as Launch from "@handoff/core/Launch"
import * as Placement from "@handoff/core/Placement"
import * as FileTree from "@handoff/core/testing/FileTree"
import * as Program from "@handoff/core/testing/Program"
import * as SimulatedBackend from "@handoff/core/testing/SimulatedBackend"
import * as SimulatedKernel from "@handoff/core/testing/SimulatedKernel"
import * as SimulatedProcess from "@handoff/core/testing/SimulatedProcess"
import * as SimulatedStreams from "@handoff/core/testing/SimulatedStreams"
import { Simulation } from "@handoff/core/testing/Simulation"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"
import fc from "fast-check"

const PATH = "/run/daemon.sock"
const backend = SimulatedBackend.layer({ programs: { "/srv/daemon": Program.hangs() } })

const bytes = (text: string) => new TextEncoder().encode(text)
const text = (chunk: Uint8Array) => new TextDecoder().decode(chunk)

/** A process that alone holds a listener at {@link PATH}, at descriptor 3. The path stays, as after a restart. */
const daemon = Effect.fnUntraced(function* (change: Partial<Launch.LaunchSpec> = {}, backlog = 4) {
  const launcher = yield* Launcher
  const simulation = yield* Simulation
  const { files } = (yield* simulation.machine).kernel
  const started = yield* Effect.scoped(
    Effect.gen(function* () {
      const { fd, inode } = yield* Sockets.use((sockets) =>
        sockets.listen({ address: { _tag: "Unix", path: PATH }, backlog })
      )
      const spec = { program: "/srv/daemon", argv: ["daemon"], environment: {}, ...change }
      const plan = yield* Effect.fromResult(
        Launch.plan({ ...spec, placements: [Placement.move(fd, 3)] }, yield* launcher.facts)
      )
      return { child: yield* launcher.launch(plan), inode }
    })
  )
  const node = { ...FileTree.file(), _tag: "Socket", inode: started.inode } as const
  yield* simulation.update((kernel) => ({ ...kernel, files: FileTree.add(files, { [PATH]: node }) }))
  return started
})

const connect = Channels.use((channels) => channels.connect(PATH))

/** The daemon's end of the next connection. */
const accept = (pid: number) =>
  Effect.flatMap(Simulation, (simulation) =>
    simulation
      .call((kernel) => SimulatedStreams.accept(kernel, pid, 3))
      .pipe(
        Effect.flatMap((fd) =>
          typeof fd === "string" ? Effect.die(new Error(fd)) : simulation.channelsOf(pid).open(fd)
        )
      )
  )

describe("simulated channels", () => {
  it.effect("connect to a path where a simulated process listens, and a test speaks for it", () =>
    Effect.gen(function* () {
      const { child } = yield* daemon()
      const client = yield* connect
      yield* client.write(bytes("hello"), 1000)
      // Something else closes meanwhile: what waits at the listener stays open.
      yield* Effect.scoped(Sockets.use((sockets) => sockets.pair))
      const server = yield* accept(child.pid)
      expect(text(yield* server.read)).toBe("hello")
      yield* server.write(bytes("answer"), 1000)
      expect(text(yield* client.read)).toBe("answer")
      expect([client.peer.pid, server.peer.pid]).toEqual([(yield* Simulation).self, (yield* Simulation).self])
    }).pipe(Effect.provide(backend))
  )

  it.effect("end when the process that accepted, or never did, is killed", () =>
    Effect.gen(function* () {
      const { child } = yield* daemon()
      const [accepted, waiting] = [yield* connect, yield* connect]
      yield* accept(child.pid)
      const readers = yield* Effect.forkChild(Effect.all([accepted.read, waiting.read], { concurrency: 2 }), {
        startImmediately: true
      })
      yield* child.signal("SIGKILL")
      expect((yield* Fiber.join(readers)).map((chunk) => chunk.length)).toEqual([0, 0])
      expect((yield* Effect.flip(accepted.write(bytes("x"), 10))).reason).toMatchObject({ errno: "EPIPE" })
      expect((yield* Effect.flip(connect)).reason).toMatchObject({ errno: "ECONNREFUSED" })
    }).pipe(Effect.provide(backend))
  )

  it.effect("time writes that nobody reads by the clock", () =>
    Effect.gen(function* () {
      yield* daemon()
      const client = yield* connect
      const full = new Uint8Array(SimulatedStreams.BUFFER_BYTES)
      yield* client.write(full, 1000)
      const writing = yield* Effect.forkChild(Effect.flip(client.write(bytes("more"), 1000)), {
        startImmediately: true
      })
      yield* TestClock.adjust("999 millis")
      expect(writing.pollUnsafe()).toBeUndefined()
      yield* TestClock.adjust("1 millis")
      expect((yield* Fiber.join(writing)).reason).toEqual({ _tag: "WriteTimedOut", withinMs: 1000 })
    }).pipe(Effect.provide(backend))
  )

  it.effect("wait for room in a full queue, a try each 20 ms", () =>
    Effect.gen(function* () {
      const { child } = yield* daemon({}, 0)
      const first = yield* connect
      const second = yield* Effect.forkChild(connect, { startImmediately: true })
      yield* TestClock.adjust("1 second")
      expect(second.pollUnsafe()).toBeUndefined()
      yield* (yield* accept(child.pid)).write(bytes("first"), 1000)
      expect(text(yield* first.read)).toBe("first")
      yield* TestClock.adjust("20 millis")
      yield* Fiber.join(second)
    }).pipe(Effect.provide(backend))
  )
})

describe("simulated streams", () => {
  const SERVER = 10
  const CLIENT = 20
  const ADDRESS = { _tag: "Tcp", host: "127.0.0.1", port: 8080 } as const
  const done = <A>(outcome: SimulatedKernel.Done<A> | string): SimulatedKernel.Done<A> => {
    if (typeof outcome === "string") throw new Error(outcome)
    return outcome
  }
  const boot = SimulatedKernel.make({
    processes: [
      SimulatedProcess.make({ pid: SERVER }),
      SimulatedProcess.make({ pid: CLIENT, identity: { uid: 1000, gid: 1000, groups: [] } })
    ],
    files: FileTree.add(FileTree.empty, { "/run": FileTree.directory(), "/run/file": FileTree.file("", 0o666) })
  })
  const listening = (address: Address.Address = ADDRESS, backlog = 1, mode = 0o666) =>
    done(SimulatedKernel.listen(boot, SERVER, { address, backlog, mode, nonBlocking: true }))
  const connected = (kernel: SimulatedKernel.Kernel, to: string | Address.Address = ADDRESS) =>
    done(SimulatedStreams.connect(kernel, CLIENT, to))

  it("go to a TCP address too, whichever way it is named, and never to another", () => {
    for (const host of ["127.0.0.1", "0.0.0.0", "::", ""]) {
      const { kernel, value: listener } = listening({ ...ADDRESS, host })
      const client = connected(kernel)
      const server = done(SimulatedStreams.accept(client.kernel, SERVER, listener))
      const sent = done(SimulatedStreams.send(server.kernel, SERVER, server.value, bytes("hello"))).kernel
      expect(text(done(SimulatedStreams.receive(sent, CLIENT, client.value)).value)).toBe("hello")
      expect(SimulatedStreams.connect(kernel, CLIENT, { ...ADDRESS, port: 81 })).toBe("ECONNREFUSED")
    }
    expect(SimulatedStreams.connect(boot, CLIENT, ADDRESS)).toBe("ECONNREFUSED")
    expect(SimulatedStreams.connect(boot, 999, ADDRESS)).toBe("ESRCH")
  })

  it("go to a unix path only as its mode, and what is there, allow", () => {
    const at = (path: string) => ({ _tag: "Unix", path }) as const
    const { kernel } = listening(at("/run/open"))
    expect(typeof SimulatedStreams.connect(kernel, CLIENT, at("/run/open"))).toBe("object")
    expect(SimulatedStreams.connect(listening(at("/run/shut"), 1, 0o600).kernel, CLIENT, "/run/shut")).toBe("EACCES")
    expect(SimulatedStreams.connect(kernel, CLIENT, "/run/none")).toBe("ENOENT")
    expect(SimulatedStreams.connect(kernel, CLIENT, "/run/file")).toBe("ECONNREFUSED")
    expect(SimulatedStreams.connect(kernel, CLIENT, "/run/file/below")).toBe("ENOTDIR")
    const bound = done(SimulatedKernel.bindDatagram(boot, SERVER, "/run/datagram")).kernel
    expect(SimulatedStreams.connect(bound, CLIENT, "/run/datagram")).toBe("EPROTOTYPE")
  })

  it("wait up to one over the backlog, and then EAGAIN; an accept makes room", () => {
    const { kernel, value: listener } = listening()
    const full = connected(connected(kernel).kernel).kernel
    expect(SimulatedStreams.connect(full, CLIENT, ADDRESS)).toBe("EAGAIN")
    const accepted = done(SimulatedStreams.accept(full, SERVER, listener)).kernel
    expect(typeof SimulatedStreams.connect(accepted, CLIENT, ADDRESS)).toBe("object")
    expect(SimulatedStreams.accept(kernel, SERVER, listener)).toBe("EAGAIN")
  })

  it("are read in whatever slices the reader asks for", () => {
    const { kernel, value: ends } = done(SimulatedStreams.pair(boot, SERVER))
    fc.assert(
      fc.property(
        fc.array(fc.string({ maxLength: 6 }), { maxLength: 8 }),
        fc.array(fc.nat(5), { maxLength: 12 }),
        (texts, limits) => {
          let now = kernel
          for (const one of texts) now = done(SimulatedStreams.send(now, SERVER, ends[0], bytes(one))).kernel
          now = done(SimulatedKernel.close(now, SERVER, ends[0])).kernel
          const read: Array<number> = []
          for (const limit of [...limits, Number.POSITIVE_INFINITY]) {
            const { kernel: next, value } = done(SimulatedStreams.receive(now, SERVER, ends[1], limit))
            expect(value.length).toBeLessThanOrEqual(limit)
            read.push(...value)
            now = next
          }
          expect(text(Uint8Array.from(read))).toBe(text(bytes(texts.join(""))))
          expect(done(SimulatedStreams.receive(now, SERVER, ends[1])).value.length).toBe(0)
        }
      )
    )
  })

  it("take what there is room for, then nothing, until the other end has read", () => {
    const { kernel, value: ends } = done(SimulatedStreams.pair(boot, SERVER))
    const half = done(SimulatedStreams.send(kernel, SERVER, ends[0], new Uint8Array(SimulatedStreams.BUFFER_BYTES - 3)))
    const rest = done(SimulatedStreams.send(half.kernel, SERVER, ends[0], bytes("hello")))
    expect(rest.value).toBe(3)
    expect(SimulatedStreams.send(rest.kernel, SERVER, ends[0], bytes("lo"))).toBe("EAGAIN")
    const read = done(SimulatedStreams.receive(rest.kernel, SERVER, ends[1], 2)).kernel
    expect(done(SimulatedStreams.send(read, SERVER, ends[0], bytes("lo!"))).value).toBe(2)
  })

  it("are only where a stream is open", () => {
    const { kernel, value: listener } = listening()
    const { kernel: now, value: file } = done(SimulatedKernel.open(kernel, SERVER, "/run/file", "read"))
    const calls = (fd: number) => [
      SimulatedStreams.accept(now, SERVER, fd),
      SimulatedStreams.send(now, SERVER, fd, bytes("x")),
      SimulatedStreams.receive(now, SERVER, fd)
    ]
    expect(calls(77)).toEqual(["EBADF", "EBADF", "EBADF"])
    expect(calls(file)).toEqual(["ENOTSOCK", "ENOTSOCK", "ENOTSOCK"])
    expect(calls(listener)).toEqual(["EAGAIN", "ENOTCONN", "ENOTCONN"])
  })
})

describe("simulated processes", () => {
  const other = { identity: { uid: 1000, gid: 1000, groups: [] } }

  it.effect("of another user give no copy, and are not found by their environment", () =>
    Effect.gen(function* () {
      const processes = yield* Processes
      const { child, inode } = yield* daemon({ environment: { MARK: "1" } })
      expect((yield* processes.startedWith("MARK", "1")).map(({ pid }) => pid)).toEqual([child.pid])
      const simulation = yield* Simulation
      yield* simulation.update((kernel) => {
        const self = kernel.processes.get(simulation.self)
        if (self === undefined) throw new Error("the simulation has lost its own process")
        return { ...kernel, processes: new Map(kernel.processes).set(self.pid, { ...self, ...other }) }
      })
      const { reason } = yield* Effect.flip(processes.copySocket(child.pid, inode))
      expect(reason).toMatchObject({ _tag: "NotPermitted", missing: expect.stringContaining("uid 0") })
      expect(yield* processes.startedWith("MARK", "1")).toEqual([])
    }).pipe(Effect.provide(backend))
  )

  it.effect("without a capability answer as a kernel without it", () =>
    Effect.gen(function* () {
      const processes = yield* Processes
      const { child, inode } = yield* daemon({ environment: { MARK: "1" } })
      const identity = { pid: child.pid, startTime: 0, bootId: (yield* (yield* Simulation).machine).kernel.bootId }
      expect((yield* Effect.flip(processes.copySocket(child.pid, inode))).reason).toEqual({
        _tag: "CallFailed",
        call: "pidfd_getfd",
        errno: "ENOSYS"
      })
      expect(yield* processes.adopt(identity)).toBeUndefined()
      expect(yield* processes.startedWith("MARK", "1")).toEqual([])
      expect(yield* processes.holdsLock(child.pid, "lock")).toBe(false)
    }).pipe(
      Effect.provide(
        SimulatedBackend.layer({ programs: { "/srv/daemon": Program.hangs() }, processCapabilities: new Set() })
      )
    )
  )

  it.effect("that were adopted end for their adopter in the moment they end", () =>
    Effect.gen(function* () {
      const processes = yield* Processes
      const { child } = yield* daemon()
      const identity = yield* processes.identify(child.pid)
      const adopted = identity === undefined ? undefined : yield* processes.adopt(identity)
      const exit = yield* Effect.forkChild(adopted?.exit ?? Effect.never, { startImmediately: true })
      yield* TestClock.adjust("1 hour")
      expect(exit.pollUnsafe()).toBeUndefined()
      yield* (yield* Simulation).end(child.pid, { _tag: "Exited", code: 3 })
      expect(yield* Fiber.join(exit)).toEqual({ _tag: "Unknown" })
      expect(yield* child.exit).toEqual({ _tag: "Exited", code: 3 })
    }).pipe(Effect.provide(backend))
  )
})

import { join } from "node:path"
import * as ProcessTree from "@handoff/backend-ffi/ProcessTree"
import * as ProcessView from "@handoff/backend-ffi/ProcessView"
import * as FfiSockets from "@handoff/backend-ffi/Sockets"
import type { Address } from "@handoff/core/Address"
import { Processes, type ProcessObservation } from "@handoff/core/backend/Processes"
import { type ListeningSocket, Sockets } from "@handoff/core/backend/Sockets"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { describe, expect, it } from "vitest"
import { client, eventually, python, runner, start, tempDir } from "./support/Harness.ts"

const run = runner(Layer.mergeAll(FfiSockets.layer, ProcessView.layer))

const NODE_SERVER = `require("net").createServer((c) => c.on("error", () => {})).listen({ fd: 3 }, () => console.log("up"))`
const PYTHON_ACCEPTS = `import socket
s=socket.socket(fileno=3)
print("up",flush=True)
held=[]
while True: held.append(s.accept())`
const PYTHON_EPOLL_OFF = `import select,socket,sys
s=socket.socket(fileno=3);e=select.epoll();e.register(s,select.EPOLLOUT)
print("up",flush=True)
sys.stdin.read()`
const HOLDS_ONLY = `import sys
print("up",flush=True)
sys.stdin.read()`

const loopback: Address = { _tag: "Tcp", host: "127.0.0.1", port: 0 }
const wildcard: Address = { _tag: "Tcp", host: "", port: 0 }
const listen = (address: Address) => Sockets.use((sockets) => sockets.listen({ address }))

/** Looks until what is seen is as it should be. */
const seen = (pid: number, listeners: ReadonlyArray<ListeningSocket>, good: (seen: ProcessObservation) => boolean) =>
  Processes.use((processes) =>
    Effect.promise(() => eventually(() => Effect.runPromise(processes.observe(pid, listeners)), good))
  )

const connectAll = (socket: ListeningSocket, count: number) =>
  Effect.promise(async () => {
    const { address } = socket
    const where =
      address._tag === "Unix"
        ? { path: address.path }
        : { host: address.host === "::" ? "127.0.0.1" : address.host, port: address.port }
    const clients = await Promise.all(Array.from({ length: count }, () => client(where)))
    return clients.map((one) => {
      if (typeof one === "string") throw new Error(one)
      return one
    })
  })

describe("waiting on a listener", () => {
  it.each([
    ["a Node server in epoll_wait", process.execPath, ["-e", NODE_SERVER]],
    ["a server that sleeps in accept", "python3", ["-c", PYTHON_ACCEPTS]]
  ])("is seen of %s, for the listener it waits on and no other", (_, command, args) =>
    run(
      Effect.gen(function* () {
        const socket = yield* listen(loopback)
        const other = yield* listen(loopback)
        const server = start(command, args, [socket.fd, other.fd])
        const { waitingOn, pids } = yield* seen(server.pid, [socket, other], (now) => now.waitingOn.length > 0)
        expect(waitingOn).toEqual([socket.inode])
        expect(pids).toEqual([server.pid])
      })
    )
  )

  it.each([
    ["only holds the descriptor", HOLDS_ONLY],
    ["has it in an epoll set that asks for no input", PYTHON_EPOLL_OFF]
  ])("is not seen of a process that %s", (_, script) =>
    run(
      Effect.gen(function* () {
        const socket = yield* listen(loopback)
        const holder = python(script, [socket.fd])
        yield* Effect.promise(() => holder.line())
        expect(yield* Processes.use((processes) => processes.observe(holder.pid, [socket]))).toEqual({
          pids: [holder.pid],
          waitingOn: [],
          connections: 0
        })
      })
    )
  )

  it("is seen of a grandchild behind two wrappers", () =>
    run(
      Effect.gen(function* () {
        const socket = yield* listen(loopback)
        const script = `sh -c 'python3 -c "$0" & echo $!; wait' "$0" & wait`
        const wrapper = start("sh", ["-c", script, PYTHON_ACCEPTS], [socket.fd])
        const grandchild = Number(yield* Effect.promise(() => wrapper.line()))
        const { pids } = yield* seen(wrapper.pid, [socket], (now) => now.waitingOn.includes(socket.inode))
        expect(pids[0]).toBe(wrapper.pid)
        expect(pids).toContain(grandchild)
        expect(pids).toHaveLength(3)
        process.kill(grandchild, "SIGKILL")
      })
    ))

  it("ends with the process", () =>
    run(
      Effect.gen(function* () {
        const socket = yield* listen(loopback)
        const server = python(PYTHON_ACCEPTS, [socket.fd])
        yield* seen(server.pid, [socket], (now) => now.waitingOn.length > 0)
        server.child.kill("SIGKILL")
        yield* Effect.promise(() => server.ended)
        const after = yield* Processes.use((processes) => processes.observe(server.pid, [socket]))
        expect(after).toEqual({ pids: [], waitingOn: [], connections: 0 })
      })
    ))
})

describe("connections", () => {
  it.each([
    ["IPv4", () => loopback],
    ["a dual stack wildcard, from IPv4", () => wildcard],
    ["a unix path", (): Address => ({ _tag: "Unix", path: join(tempDir(), "app.sock") })]
  ])("through %s are counted until they end", (_, address) =>
    run(
      Effect.gen(function* () {
        const socket = yield* listen(address())
        const server = start(process.execPath, ["-e", NODE_SERVER], [socket.fd])
        yield* Effect.promise(() => server.line())
        const clients = yield* connectAll(socket, 3)
        yield* seen(server.pid, [socket], (now) => now.connections === 3)
        clients[0]?.destroy()
        yield* seen(server.pid, [socket], (now) => now.connections === 2)
        yield* connectAll(socket, 1)
        yield* seen(server.pid, [socket], (now) => now.connections === 3)
      })
    )
  )

  it("that wait in the queue, or belong to another listener or process, are not counted", () =>
    run(
      Effect.gen(function* () {
        const [queued, other] = [yield* listen(loopback), yield* listen(loopback)]
        const holder = python(HOLDS_ONLY, [queued.fd])
        const server = python(PYTHON_ACCEPTS, [other.fd])
        yield* Effect.promise(() => holder.line())
        yield* connectAll(queued, 2)
        yield* connectAll(other, 2)
        yield* seen(server.pid, [other], (now) => now.connections === 2)
        yield* seen(server.pid, [queued], (now) => now.connections === 0)
        const observed = yield* Processes.use((processes) => processes.observe(holder.pid, [queued, other]))
        expect(observed.connections).toBe(0)
      })
    ))
})

describe("identity", () => {
  it("stays the same and differs between processes", () =>
    run(
      Effect.gen(function* () {
        const processes = yield* Processes
        const child = python(HOLDS_ONLY)
        yield* Effect.promise(() => child.line())
        const [own, first, second] = [
          yield* processes.identify(process.pid),
          yield* processes.identify(child.pid),
          yield* processes.identify(child.pid)
        ]
        expect(first).toEqual(second)
        expect(first?.bootId).toMatch(/^[0-9a-f-]{36}$/)
        expect(first?.bootId).toBe(own?.bootId)
        expect(first?.startTime).toBeGreaterThan(own?.startTime ?? Number.POSITIVE_INFINITY)
      })
    ))

  it("is not given to a zombie or to a process that is gone", () =>
    run(
      Effect.gen(function* () {
        const processes = yield* Processes
        const parent = python(`import os,sys
pid=os.fork()
if pid==0: os._exit(0)
os.waitid(os.P_PID,pid,os.WEXITED|os.WNOWAIT)
print(pid,flush=True)
sys.stdin.read()
os.waitpid(pid,0)`)
        const zombie = Number(yield* Effect.promise(() => parent.line()))
        expect(ProcessTree.statOf(zombie)?.state).toBe("Z")
        expect(yield* processes.identify(zombie)).toBeUndefined()
        expect((yield* processes.observe(parent.pid, [])).pids).toEqual([parent.pid])
        expect((yield* processes.observe(zombie, [])).pids).toEqual([])
        parent.child.stdin?.end()
        yield* Effect.promise(() => parent.ended)
        expect(yield* processes.identify(zombie)).toBeUndefined()
      })
    ))

  it("is read past a program's name that holds blanks and parentheses", () => {
    const stat = `7 (a) b (c) S 1 5 ${Array.from({ length: 30 }, (_, index) => index).join(" ")}`
    expect(ProcessTree.parseStat(7, stat)).toEqual({ pid: 7, state: "S", parent: 1, group: 5, startTime: 16 })
  })
})

describe("a process group", () => {
  it("loses its members as they end, also when its leader ends first", () =>
    run(
      Effect.gen(function* () {
        const processes = yield* Processes
        const leader = start("sh", ["-c", "sleep 1000 & echo $!; read -r line"], [], { detached: true })
        const member = Number(yield* Effect.promise(() => leader.line()))
        const members = () => Effect.runPromise(processes.groupMembers(leader.pid))
        expect((yield* Effect.promise(members)).toSorted()).toEqual([leader.pid, member].toSorted())
        leader.child.stdin?.end()
        yield* Effect.promise(() => leader.ended)
        expect(yield* Effect.promise(members)).toEqual([member])
        process.kill(member, "SIGKILL")
        yield* Effect.promise(() => eventually(members, (now) => now.length === 0))
      })
    ))
})

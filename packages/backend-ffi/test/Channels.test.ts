import { readdirSync, readlinkSync } from "node:fs"
import { createServer } from "node:net"
import { join } from "node:path"
import * as FfiChannels from "@handoff/backend-ffi/Channels"
import * as FfiSockets from "@handoff/backend-ffi/Sockets"
import { type Channel, Channels } from "@handoff/core/backend/Channels"
import { Sockets } from "@handoff/core/backend/Sockets"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { requireTool } from "../../../test/support/Tools.ts"
import { atEnd, eventually, fdCount, python, runner, start, tempDir } from "./support/Harness.ts"

const python3 = requireTool("python3")
const run = runner(Layer.mergeAll(FfiSockets.layer, FfiChannels.layer))

const connect = (path: string) => Channels.use((channels) => channels.connect(path))
const bytes = (text: string) => Buffer.from(text)
const text = (chunk: Uint8Array) => Buffer.from(chunk).toString()

/** A listener in another process; `then` has it as `s`. */
const listener = (path: string, backlog: number, then: string) =>
  python(`import socket,sys,time
s=socket.socket(socket.AF_UNIX,socket.SOCK_STREAM);s.bind(${JSON.stringify(path)}.replace("@","\\0"));s.listen(${backlog})
print("up",flush=True)
${then}
sys.stdin.read()`)

const line = (running: { readonly line: () => Promise<string> }) => Effect.promise(() => running.line())

/** Names in a descriptor directory that refer to this. */
const descriptors = (directory: string, link: string) =>
  readdirSync(directory).filter((fd) => {
    try {
      return readlinkSync(join(directory, fd)) === link
    } catch {
      return false
    }
  })

const settled = (before: number) =>
  Effect.promise(() =>
    eventually(
      async () => fdCount(),
      (now) => now <= before
    )
  )

describe.skipIf(!python3.available)(`a channel to another process${python3.reason}`, () => {
  const crashes: Array<unknown> = []
  const note = (error: unknown) => crashes.push(error)
  beforeEach(() => {
    crashes.length = 0
    process.on("uncaughtException", note)
  })
  afterEach(() => {
    process.off("uncaughtException", note)
    expect(crashes).toEqual([])
  })

  it.each([
    ["a path", () => join(tempDir(), "socket")],
    ["an abstract name", () => `@handoff-channel-${process.pid}`]
  ])("at %s names the process that listens, and carries bytes", (_, where) =>
    run(
      Effect.gen(function* () {
        const path = where()
        const server = listener(path, 5, "c,_=s.accept()\nc.sendall(c.recv(100).upper())")
        yield* line(server)
        const channel = yield* connect(path)
        expect(channel.peer).toMatchObject({ pid: server.pid, uid: process.getuid?.() })
        yield* channel.write(bytes("hello"), 5000)
        expect(text(yield* channel.read)).toBe("HELLO")
      })
    )
  )

  it("waits for room in a full queue, and is made once there is some", () =>
    run(
      Effect.gen(function* () {
        const path = join(tempDir(), "socket")
        const server = listener(
          path,
          0,
          `sys.stdin.readline()\nfor i in range(2):\n  c,_=s.accept();c.sendall(b"%d"%i);c.close()`
        )
        yield* line(server)
        const first = yield* connect(path)
        const second = yield* Effect.forkChild(connect(path), { startImmediately: true })
        yield* Effect.sleep(100)
        expect(second.pollUnsafe()).toBeUndefined()
        server.child.stdin?.write("go\n")
        expect(text(yield* first.read)).toBe("0")
        expect(text(yield* (yield* Fiber.join(second)).read)).toBe("1")
      })
    ))

  it("reads ahead no more than a buffer while nobody reads, and loses none of it", () =>
    run(
      Effect.gen(function* () {
        const path = join(tempDir(), "socket")
        // It sends as much as is taken, until nothing was taken for half a second.
        const server = listener(
          path,
          1,
          `c,_=s.accept();c.settimeout(0.5)
n=0
try:
  while n<8000000: n+=c.send(b"x"*4096)
except OSError: pass
print(n,flush=True);c.close()`
        )
        yield* line(server)
        const channel = yield* connect(path)
        const sent = Number(yield* line(server))
        // What the kernel holds of it is bounded by the sender's buffer, 212,992 bytes unless the machine is tuned.
        expect(sent).toBeLessThan(1_000_000)
        expect(sent).toBeGreaterThan(0)
        let count = 0
        for (;;) {
          const chunk = yield* channel.read
          if (chunk.length === 0) break
          expect(chunk.length).toBeLessThanOrEqual(65_536)
          count += chunk.length
        }
        expect(count).toBe(sent)
      })
    ))

  it("still reads the last words of a peer that closed, when a write has failed before", () =>
    run(
      Effect.gen(function* () {
        const path = join(tempDir(), "socket")
        const script = `c,_=s.accept();c.sendall(b"first");sys.stdin.readline();c.sendall(b"last words");c.close()
print("closed",flush=True)`
        const server = listener(path, 5, script)
        yield* line(server)
        const channel = yield* connect(path)
        // The first words are read ahead, so that Node reads no more by itself.
        yield* Effect.sleep(100)
        server.child.stdin?.write("\n")
        yield* line(server)
        const error = yield* Effect.flip(channel.write(bytes("too late"), 5000))
        expect(error.reason).toEqual({ _tag: "CallFailed", call: "write", errno: "EPIPE" })
        let received = ""
        for (;;) {
          const chunk = yield* channel.read
          if (chunk.length === 0) break
          received += text(chunk)
        }
        expect(received).toBe("firstlast words")
      })
    ))

  it.each([
    ["is killed", `sys.stdin.readline()`],
    ["closes with bytes unread", `c,_=s.accept();print("accepted",flush=True);time.sleep(0.1);c.close()`]
  ])("fails or ends when the peer %s, and the process goes on", (what, then) =>
    run(
      Effect.gen(function* () {
        const path = join(tempDir(), "socket")
        const server = listener(path, 5, then)
        yield* line(server)
        const channel = yield* connect(path)
        yield* channel.write(bytes("unread"), 5000)
        if (what === "is killed") server.child.kill("SIGKILL")
        const ending = yield* Effect.match(channel.read, {
          onFailure: ({ reason }) => (reason._tag === "CallFailed" ? reason.errno : reason._tag),
          onSuccess: (chunk) => chunk.length
        })
        expect(["ECONNRESET", 0]).toContain(ending)
        const error = yield* Effect.flip(Effect.forever(channel.write(bytes("more"), 5000)))
        expect(error.reason).toMatchObject({ _tag: "CallFailed" })
        yield* Effect.ignore(channel.read)
      })
    )
  )
})

describe("channels", () => {
  it("leave no descriptor behind, made, refused or interrupted", async () => {
    const directory = tempDir()
    const path = join(directory, "socket")
    const server = createServer((socket) => socket.on("error", () => {}).resume()).listen(path)
    atEnd(() => void server.close())
    await new Promise((resolve) => server.once("listening", resolve))
    const round = Effect.gen(function* () {
      const channel = yield* connect(path)
      yield* channel.write(bytes("x"), 5000)
      yield* Effect.flip(connect(join(directory, "none")))
      const early = yield* Effect.forkChild(connect(path), { startImmediately: true })
      yield* Fiber.interrupt(early)
      const [left] = yield* Sockets.use((sockets) => sockets.pair)
      const pair = yield* Channels.use((channels) => channels.open(left))
      const reading = yield* Effect.forkChild(pair.read, { startImmediately: true })
      yield* Fiber.interrupt(reading)
    })
    await run(Effect.scoped(round))
    await Effect.runPromise(settled(fdCount()))
    const before = fdCount()
    for (let index = 0; index < 50; index++) await run(Effect.scoped(round))
    await Effect.runPromise(settled(before))
  })

  it("have descriptors of their own, which no child inherits", () =>
    run(
      Effect.gen(function* () {
        const [left] = yield* Sockets.use((sockets) => sockets.pair)
        yield* Channels.use((channels) => channels.open(left))
        const link = readlinkSync(`/proc/self/fd/${left}`)
        const held = descriptors(`/proc/self/fd`, link)
        expect(held).toHaveLength(2)
        const child = start("sleep", ["1000"])
        expect(descriptors(`/proc/${child.pid}/fd`, link)).toEqual([])
      })
    ))

  it("that are read and written by several fibers keep whole messages in order", () =>
    run(
      Effect.gen(function* () {
        const [left, right] = yield* Sockets.use((sockets) => sockets.pair)
        const channels = yield* Channels
        const [writer, reader]: readonly [Channel, Channel] = [yield* channels.open(left), yield* channels.open(right)]
        const messages = Array.from(
          { length: 200 },
          (_, index) => `${String(index).padStart(3, "0")}${"x".repeat(5000)}`
        )
        const writing = yield* Effect.forkChild(
          Effect.forEach(messages, (message) => writer.write(bytes(message), 5000), { concurrency: "unbounded" }),
          { startImmediately: true }
        )
        let received = ""
        while (received.length < 200 * 5003) received += text(yield* reader.read)
        yield* Fiber.join(writing)
        expect(received).toBe(messages.join(""))
      })
    ))
})

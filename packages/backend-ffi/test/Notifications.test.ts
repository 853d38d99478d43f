import { chmodSync, readdirSync, readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as Libc from "@handoff/backend-ffi/Libc"
import * as FfiNotifications from "@handoff/backend-ffi/Notifications"
import { type Notification, Notifications } from "@handoff/core/backend/Notifications"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { describe, expect, it } from "vitest"
import { fdCount, python, runner, start, tempDir } from "./support/Harness.ts"

const run = runner(FfiNotifications.layer)

const open = (path: string, options?: { readonly uid?: number }) =>
  Notifications.use((notifications) => notifications.open(path, options))

const isRoot = process.getuid?.() === 0
const O_ASYNC = 0o20000

const connectTo = (path: string) =>
  `import socket,sys,os,array\ns=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM);s.connect(${JSON.stringify(path)})\n`

const flagsOf = (fd: number | string): number =>
  Number.parseInt(/flags:\s*([0-7]+)/.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8"))?.[1] ?? "", 8)

/** The descriptor that asks for SIGIO. */
const asyncFd = (): number => {
  for (const fd of readdirSync("/proc/self/fdinfo")) {
    try {
      if ((flagsOf(fd) & O_ASYNC) !== 0) return Number(fd)
    } catch {
      // The directory's own descriptor is gone by now.
    }
  }
  return -1
}

describe("notify sockets", () => {
  it("lose none of 2,000 datagrams from four senders to two sockets at once", async () => {
    const directory = tempDir()
    const paths = [join(directory, "a"), join(directory, "b")]
    const received = await run(
      Effect.gen(function* () {
        const sockets = yield* Effect.forEach(paths, (path) => open(path))
        const senders = [0, 1, 2, 3].map((index) =>
          python(`${connectTo(paths[index % 2] ?? "")}for i in range(500): s.send(b"N=%d\\nFROM=${index}" % i)`)
        )
        const taken = yield* Effect.forEach(
          sockets,
          (socket) => Effect.all(Array.from({ length: 1000 }, () => socket.take)),
          { concurrency: 2 }
        )
        return { taken: taken.flat(), pids: senders.map((sender) => sender.pid) }
      })
    )
    for (const [index, pid] of received.pids.entries()) {
      const own = received.taken.filter((one) => one.fields.FROM === String(index))
      expect(own.map((one) => Number(one.fields.N))).toEqual(Array.from({ length: 500 }, (_, n) => n))
      expect(new Set(own.map((one) => one.pid))).toEqual(new Set([pid]))
    }
  })

  it("tell the sender of a datagram that ended before it was read", () =>
    run(
      Effect.gen(function* () {
        const path = join(tempDir(), "notify")
        const socket = yield* open(path)
        const sender = python(`${connectTo(path)}s.send(b"READY=1\\nSTATUS=up")`)
        yield* Effect.promise(() => sender.ended)
        expect(yield* socket.take).toEqual({
          pid: sender.pid,
          uid: process.getuid?.() ?? -1,
          fields: { READY: "1", STATUS: "up" }
        } satisfies Notification)
      })
    ))

  it("do not ask for signals any more once they are closed", async () => {
    const libc = Result.getOrThrow(Libc.open())
    let copy = -1
    await run(
      Effect.gen(function* () {
        yield* open(join(tempDir(), "notify"))
        const fd = asyncFd()
        expect(fd).toBeGreaterThanOrEqual(0)
        // A copy refers to the same open file description, as one in a forked child would.
        copy = libc.call("dup", "i32", ["i32"], [fd]).value
        expect(flagsOf(copy) & O_ASYNC).toBe(O_ASYNC)
      })
    )
    expect(flagsOf(copy) & O_ASYNC).toBe(0)
    libc.call("close", "i32", ["i32"], [copy])
    // A signal under way when the last socket closed still finds a listener.
    expect(process.listenerCount("SIGIO")).toBe(1)
  })

  it("share one listener and leave no descriptor or path behind", async () => {
    const directory = tempDir()
    const before = fdCount()
    await run(
      Effect.gen(function* () {
        for (let index = 0; index < 20; index++) yield* open(join(directory, String(index)))
        expect(process.listenerCount("SIGIO")).toBe(1)
        yield* Effect.flip(open(join(directory, "missing", "notify")))
        yield* Effect.flip(open(join(directory, "x".repeat(108))))
        yield* Effect.flip(open(join(directory, "0")))
      })
    )
    expect(fdCount()).toBe(before)
    expect(readdirSync(directory)).toEqual([])
  })

  it("do not take in descriptors that are sent along", () =>
    run(
      Effect.gen(function* () {
        const path = join(tempDir(), "notify")
        const socket = yield* open(path)
        const before = fdCount()
        const sender = python(
          `${connectTo(path)}fds=array.array("i",[0,1])\ns.sendmsg([b"FDSTORE=1"],[(socket.SOL_SOCKET,socket.SCM_RIGHTS,fds)])`
        )
        expect((yield* socket.take).fields).toEqual({ FDSTORE: "1" })
        yield* Effect.promise(() => sender.ended)
        expect(fdCount()).toBeLessThanOrEqual(before)
      })
    ))

  it("drop a datagram that is too long and read the next", () =>
    run(
      Effect.gen(function* () {
        const path = join(tempDir(), "notify")
        const socket = yield* open(path)
        python(`${connectTo(path)}s.send(b"READY=1\\nX="+b"x"*5000)\ns.send(b"SECOND=1")`)
        expect((yield* socket.take).fields).toEqual({ SECOND: "1" })
      })
    ))

  it.skipIf(!isRoot)("drop what a foreign uid sends, but not the generation's own (needs root)", () =>
    run(
      Effect.gen(function* () {
        const directory = tempDir()
        chmodSync(directory, 0o755)
        const path = join(directory, "notify")
        const socket = yield* open(path, { uid: 12_345 })
        expect(statSync(path).mode & 0o777).toBe(0o666)
        const send = (uid: number) =>
          python(`import socket,os\nos.setuid(${uid})\n${connectTo(path)}s.send(b"FROM=${uid}")`).ended
        yield* Effect.promise(() => send(54_321))
        yield* Effect.promise(() => send(12_345))
        expect(yield* socket.take).toMatchObject({ uid: 12_345, fields: { FROM: "12345" } })
      })
    )
  )

  it("do not keep a process alive that has nothing else to do", async () => {
    const fixture = fileURLToPath(new URL("./fixtures/notify.ts", import.meta.url))
    const child = start(process.execPath, ["--conditions=@handoff/source", fixture, join(tempDir(), "notify")])
    expect(await child.line()).toBe("open")
    await child.ended
    expect(child.child.exitCode).toBe(13)
  })
})

describe("send", () => {
  it("reaches a socket in the file system", () =>
    run(
      Effect.gen(function* () {
        const path = join(tempDir(), "notify")
        const socket = yield* open(path)
        expect(Result.isSuccess(FfiNotifications.send(path, "READY=1"))).toBe(true)
        expect(yield* socket.take).toMatchObject({ pid: process.pid, fields: { READY: "1" } })
      })
    ))

  it("reaches an abstract socket", () =>
    run(
      Effect.gen(function* () {
        const name = `@handoff-notify-${process.pid}`
        const socket = yield* open(name)
        expect(Result.isSuccess(FfiNotifications.send(name, "READY=1"))).toBe(true)
        expect(yield* socket.take).toMatchObject({ fields: { READY: "1" } })
      })
    ))

  it("names the error and leaves nothing open", () => {
    const directory = tempDir()
    const before = fdCount()
    expect(FfiNotifications.send(join(directory, "none"), "READY=1")).toMatchObject({ failure: "ENOENT" })
    expect(FfiNotifications.send(join(directory, "x".repeat(108)), "READY=1")).toMatchObject({
      failure: "ENAMETOOLONG"
    })
    expect(FfiNotifications.send("", "READY=1")).toMatchObject({ failure: "EINVAL" })
    expect(fdCount()).toBe(before)
  })
})

import {
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync
} from "node:fs"
import type { Socket } from "node:net"
import { join } from "node:path"
import * as Libc from "@handoff/backend-ffi/Libc"
import * as SocketCalls from "@handoff/backend-ffi/SocketCalls"
import * as FfiSockets from "@handoff/backend-ffi/Sockets"
import * as UnixListener from "@handoff/backend-ffi/UnixListener"
import type { Address } from "@handoff/core/Address"
import { type ListenOptions, type SocketErrorReason, Sockets } from "@handoff/core/backend/Sockets"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { describe, expect, it } from "vitest"
import { client, fdCount, python, runner, start, tempDir } from "./support/Harness.ts"

const run = runner(FfiSockets.layer)

const listen = (options: ListenOptions) => Sockets.use((sockets) => sockets.listen(options))
const inspect = (fd: number) => Sockets.use((sockets) => sockets.inspect(fd))
const tcp = (host: string, port = 0): Address => ({ _tag: "Tcp", host, port })
const unix = (path: string): Address => ({ _tag: "Unix", path })
const portOf = (address: Address): number => (address._tag === "Tcp" ? address.port : 0)

const refusal = (options: ListenOptions): Promise<SocketErrorReason> =>
  run(Effect.map(Effect.flip(listen(options)), (error) => error.reason))

const flagsOf = (fd: number): number => {
  return Number.parseInt(/flags:\s*([0-7]+)/.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8"))?.[1] ?? "", 8)
}

/** A listener whose owner is gone: its path leads nowhere. */
const leaveStale = (path: string): void => {
  const libc = Result.getOrThrow(Libc.open())
  const options = { path, backlog: 1, nonBlocking: false, mode: 0o600 }
  closeSync(Result.getOrThrow(UnixListener.listen(SocketCalls.of(libc), options)).fd)
}

const reach = async (where: Parameters<typeof client>[0]): Promise<string> => {
  const answer = await client(where)
  return typeof answer === "string" ? answer : "connected"
}

describe("TCP listeners", () => {
  it("take IPv4 and IPv6 clients at the wildcard, on one port the kernel chose", () =>
    run(
      Effect.gen(function* () {
        const { address } = yield* listen({ address: tcp("") })
        expect(address).toMatchObject({ host: "::" })
        expect(portOf(address)).toBeGreaterThan(0)
        for (const host of ["127.0.0.1", "::1"]) {
          expect(yield* Effect.promise(() => reach({ host, port: portOf(address) }))).toBe("connected")
        }
      })
    ))

  it("refuse IPv4 clients when they were made for IPv6 only", () =>
    run(
      Effect.gen(function* () {
        const { address } = yield* listen({ address: tcp(""), ipv6Only: true })
        expect(yield* Effect.promise(() => reach({ host: "::1", port: portOf(address) }))).toBe("connected")
        expect(yield* Effect.promise(() => reach({ host: "127.0.0.1", port: portOf(address) }))).toBe("ECONNREFUSED")
      })
    ))

  it.each(["127.0.0.1", "::1", "localhost"])("bind %s and tell what the kernel made of it", (host) =>
    run(
      Effect.gen(function* () {
        const socket = yield* listen({ address: tcp(host) })
        const facts = yield* inspect(socket.fd)
        expect(facts).toMatchObject({ listening: true, address: socket.address, inode: socket.inode })
        expect(facts.nonBlocking).toBe(false)
        expect(socket.address).toMatchObject({ host: host === "localhost" ? expect.any(String) : host })
      })
    )
  )

  it("name the process that holds the port", async () => {
    const held = python(
      "import socket,sys\ns=socket.socket();s.bind(('127.0.0.1',0));s.listen()\nprint(s.getsockname()[1],flush=True)\nsys.stdin.read()"
    )
    const port = Number(await held.line())
    for (const host of ["127.0.0.1", ""]) {
      expect(await refusal({ address: tcp(host, port) })).toMatchObject({
        _tag: "AddressInUse",
        holder: { pid: held.pid, command: expect.stringContaining("python3 -c") }
      })
    }
  })

  it("are close-on-exec and blocking unless told otherwise", () =>
    run(
      Effect.gen(function* () {
        const O_CLOEXEC = 0o2000000
        const blocking = yield* listen({ address: tcp("127.0.0.1") })
        const nonBlocking = yield* listen({ address: tcp("127.0.0.1"), nonBlocking: true })
        expect(flagsOf(blocking.fd) & (O_CLOEXEC | SocketCalls.O_NONBLOCK)).toBe(O_CLOEXEC)
        expect((yield* inspect(nonBlocking.fd)).nonBlocking).toBe(true)
      })
    ))

  it("report the backlog that net.core.somaxconn leaves", () =>
    run(
      Effect.gen(function* () {
        const small = yield* listen({ address: tcp("127.0.0.1"), backlog: 7 })
        expect(small.backlog).toEqual({ requested: 7, effective: 7 })
        const large = yield* listen({ address: tcp("127.0.0.1"), backlog: 2 ** 30 })
        expect(large.backlog.effective).toBeLessThan(2 ** 30)
      })
    ))

  it("refuse what can't be an address before they open anything", async () => {
    const before = fdCount()
    expect(await refusal({ address: tcp("127.0.0.1", 65_536) })).toMatchObject({ _tag: "BadAddress" })
    expect(await refusal({ address: tcp("127.0.0.1"), backlog: -1 })).toMatchObject({ _tag: "BadAddress" })
    expect(await refusal({ address: tcp("no-such-host.invalid") })).toMatchObject({ _tag: "BadAddress" })
    expect(await refusal({ address: tcp("192.0.2.1") })).toEqual({
      _tag: "CallFailed",
      call: "bind",
      errno: "EADDRNOTAVAIL"
    })
    expect(fdCount()).toBe(before)
  })
})

describe("unix listeners", () => {
  it("replace a stale socket without a moment in which the path is missing", async () => {
    const path = join(tempDir(), "app.sock")
    leaveStale(path)
    const watcher = python(
      `import os,select,sys
print("watching",flush=True)
missing=looks=0
while not (looks%100==0 and select.select([sys.stdin],[],[],0)[0]):
    looks+=1
    try: os.lstat(${JSON.stringify(path)})
    except FileNotFoundError: missing+=1
print(missing,looks,flush=True)`
    )
    await watcher.line()
    for (let round = 0; round < 300; round++) leaveStale(path)
    watcher.child.stdin?.end()
    const [missing, looks] = (await watcher.line()).split(" ").map(Number)
    expect(looks).toBeGreaterThan(100)
    expect(missing).toBe(0)
    await run(
      Effect.gen(function* () {
        yield* listen({ address: unix(path) })
        expect(yield* Effect.promise(() => reach({ path }))).toBe("connected")
      })
    )
  })

  it("leave a live socket alone and name its process", async () => {
    const path = join(tempDir(), "app.sock")
    const program = `require("net").createServer((c) => c.end()).listen(process.argv[1], () => console.log("up"))`
    const server = start(process.execPath, ["-e", program, path])
    await server.line()
    const { ino } = lstatSync(path)
    expect(await refusal({ address: unix(path) })).toMatchObject({ _tag: "AddressInUse", holder: { pid: server.pid } })
    expect(lstatSync(path).ino).toBe(ino)
  })

  it("take a server whose queue is full for a live one", async () => {
    const path = join(tempDir(), "app.sock")
    const server = python(
      `import socket,sys
s=socket.socket(socket.AF_UNIX);s.bind(${JSON.stringify(path)});s.listen(0)
c=[]
try:
    while True:
        k=socket.socket(socket.AF_UNIX);k.setblocking(False);k.connect(${JSON.stringify(path)});c.append(k)
except BlockingIOError: print("full",flush=True)
sys.stdin.read()`
    )
    await server.line()
    expect(await refusal({ address: unix(path) })).toMatchObject({ _tag: "AddressInUse", holder: { pid: server.pid } })
  })

  it("do not replace a file or a directory", async () => {
    const directory = tempDir()
    writeFileSync(join(directory, "file"), "precious")
    mkdirSync(join(directory, "directory"))
    for (const what of ["file", "directory"] as const) {
      expect(await refusal({ address: unix(join(directory, what)) })).toEqual({ _tag: "PathOccupied", what })
    }
  })

  it("serve at a path of 107 bytes and refuse one of 108", async () => {
    const directory = tempDir()
    const path = join(directory, "x".repeat(107 - directory.length - 1))
    await run(
      Effect.gen(function* () {
        yield* listen({ address: unix(path) })
        expect(yield* Effect.promise(() => reach({ path }))).toBe("connected")
      })
    )
    expect(await refusal({ address: unix(`${path}x`) })).toEqual({ _tag: "PathTooLong", bytes: 108, limit: 107 })
  })

  it("have the wished mode whatever the umask is", () => {
    const directory = tempDir()
    const before = process.umask(0o077)
    return run(
      Effect.gen(function* () {
        yield* listen({ address: unix(join(directory, "open")) })
        yield* listen({ address: unix(join(directory, "closed")), mode: 0o600 })
        expect(statSync(join(directory, "open")).mode & 0o777).toBe(0o666)
        expect(statSync(join(directory, "closed")).mode & 0o777).toBe(0o600)
      })
    ).finally(() => process.umask(before))
  })

  it("remove their path with the scope, but not another socket that took it", async () => {
    const directory = tempDir()
    const [own, taken] = [join(directory, "own"), join(directory, "taken")]
    const program = `import socket,sys\ns=socket.socket(socket.AF_UNIX);s.bind(sys.argv[1]);s.listen()`
    await run(
      Effect.gen(function* () {
        yield* listen({ address: unix(own) })
        yield* listen({ address: unix(taken) })
        const other = start("python3", ["-c", program, `${taken}.new`])
        yield* Effect.promise(() => other.ended)
        renameSync(`${taken}.new`, taken)
      })
    )
    expect(existsSync(own)).toBe(false)
    expect(existsSync(taken)).toBe(true)
  })

  it("show the settled path in spite of the temporary name the kernel keeps", () => {
    const path = join(tempDir(), "app.sock")
    return run(
      Effect.gen(function* () {
        const socket = yield* listen({ address: unix(path) })
        expect(yield* inspect(socket.fd)).toMatchObject({ family: "unix", address: unix(path) })
      })
    )
  })

  it("leave nothing in the directory when they fail on the way", async () => {
    const path = join(tempDir(), "missing", "app.sock")
    expect(await refusal({ address: unix(path) })).toEqual({ _tag: "CallFailed", call: "bind", errno: "ENOENT" })
  })

  it("listen at an abstract name once", async () => {
    const address = unix(`@handoff-test-${process.pid}`)
    await run(
      Effect.gen(function* () {
        const socket = yield* listen({ address })
        expect(yield* inspect(socket.fd)).toMatchObject({ address })
        expect(yield* Effect.flip(listen({ address }))).toMatchObject({
          reason: { _tag: "AddressInUse", holder: { pid: process.pid } }
        })
      })
    )
  })
})

describe("descriptors", () => {
  it("are all closed with the scope, and after every failure", async () => {
    const directory = tempDir()
    writeFileSync(join(directory, "file"), "")
    const round = () =>
      run(
        Effect.gen(function* () {
          const sockets = yield* Sockets
          const first = yield* listen({ address: tcp("127.0.0.1") })
          yield* listen({ address: unix(join(directory, "a.sock")) })
          yield* listen({ address: unix(join(directory, "x".repeat(104 - directory.length))) })
          yield* sockets.pair
          yield* Effect.flip(listen({ address: first.address }))
          yield* Effect.flip(listen({ address: unix(join(directory, "a.sock")) }))
          yield* Effect.flip(listen({ address: unix(join(directory, "file")) }))
        })
      )
    await round()
    const before = fdCount()
    for (let index = 0; index < 10; index++) await round()
    expect(fdCount()).toBe(before)
  })

  it("of a pair are connected, close-on-exec, and name their maker", () =>
    run(
      Effect.gen(function* () {
        const sockets = yield* Sockets
        const [left] = yield* sockets.pair
        expect(yield* sockets.peerCredentials(left)).toEqual({
          pid: process.pid,
          uid: process.getuid?.(),
          gid: process.getgid?.()
        })
        expect(flagsOf(left) & 0o2000000).not.toBe(0)
        expect(yield* inspect(left)).toMatchObject({ listening: false, family: "unix", address: unix("") })
      })
    ))

  it("that are no listeners are refused with what they are", async () => {
    const file = openSync("/dev/null", "r")
    expect(FfiSockets.inspectListener(file)).toMatchObject({ failure: { _tag: "NotASocket", fd: file } })
    expect(await run(Effect.flip(inspect(file)))).toMatchObject({ reason: { _tag: "NotASocket" } })
    closeSync(file)
    expect(FfiSockets.inspectListener(file)).toMatchObject({ failure: { _tag: "NotOpen", fd: file } })
    expect(FfiSockets.inspectListener(-1)).toMatchObject({ failure: { _tag: "NotOpen" } })
    expect(FfiSockets.setCloseOnExec(file)).toMatchObject({ failure: "EBADF" })
    await run(
      Effect.gen(function* () {
        const [left] = yield* (yield* Sockets).pair
        expect(FfiSockets.inspectListener(left)).toMatchObject({ failure: { _tag: "NotListening" } })
        const socket = yield* listen({ address: tcp("127.0.0.1") })
        expect(FfiSockets.inspectListener(socket.fd)).toMatchObject({ success: { address: socket.address } })
        FfiSockets.setCloseOnExec(socket.fd, false)
        expect(flagsOf(socket.fd) & 0o2000000).toBe(0)
        FfiSockets.setCloseOnExec(socket.fd)
        expect(flagsOf(socket.fd) & 0o2000000).not.toBe(0)
      })
    )
  })

  it("reach a child that accepts on them, blocking", () =>
    run(
      Effect.gen(function* () {
        const socket = yield* listen({ address: tcp("127.0.0.1") })
        python("import socket\ns=socket.socket(fileno=3)\nc,_=s.accept()\nc.sendall(b'hello')\nc.close()", [socket.fd])
        const answer = yield* Effect.promise(() => client({ host: "127.0.0.1", port: portOf(socket.address) }))
        const text = yield* Effect.promise(
          () => new Promise<string>((resolve) => (answer as Socket).once("data", (data) => resolve(data.toString())))
        )
        expect(text).toBe("hello")
      })
    ))
})

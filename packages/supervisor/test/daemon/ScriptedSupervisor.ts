/**
 * A supervisor of the sealed handoff that a test plays by hand, message by message, against real daemon processes: the role
 * program of the fault tests, on a listener that the test holds.
 */
import { once } from "node:events"
import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs"
import { createConnection, createServer, type Server, type Socket } from "node:net"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import * as Libc from "@handoff/backend-ffi/Libc"
import * as SocketAddress from "@handoff/backend-ffi/SocketAddress"
import * as Calls from "@handoff/backend-ffi/SocketCalls"
import * as Frame from "@handoff/core/protocol/Frame"
import type { Message, Tag } from "@handoff/core/protocol/Message"
import * as Result from "effect/Result"
import { afterEach } from "vitest"
import {
  type ManagedProcess,
  type ManagedProcesses,
  managedProcesses
} from "../../../../test/support/ManagedProcesses.ts"
import { temporaryDirectory } from "../../../../test/support/TemporaryDirectory.ts"
import { descriptorOf } from "../../src/internal/NodeHandle.ts"
import { get } from "./Load.ts"

export const PROGRAM = fileURLToPath(new URL("../../../../test/fault/Daemon.ts", import.meta.url))
const CONDITION = "--conditions=@handoff/source"
export const ID = "6f0d2c5e-9a1b-4c3d-8e7f-102132435465"
const PATIENCE_MS = 15_000

export const until = async (what: string, condition: () => boolean): Promise<void> => {
  const deadline = Date.now() + PATIENCE_MS
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`waited in vain: ${what}`)
    await sleep(10)
  }
}

type Of<T extends Tag> = Extract<Message, { readonly _tag: T }>

/** The supervisor's end of a connection. */
export class Peer {
  readonly socket: Socket
  readonly heard: Array<Message> = []
  closed = false
  readonly #decoder = new Frame.Decoder()
  #read = 0

  constructor(socket: Socket) {
    this.socket = socket
    socket.on("data", (bytes: Buffer) => {
      for (const frame of this.#decoder.push(bytes)) this.heard.push(Result.getOrThrow(frame).message)
    })
    socket.on("error", () => undefined)
    for (const event of ["end", "close"]) {
      socket.once(event, () => {
        this.closed = true
      })
    }
  }

  send(message: Message, version = 1): void {
    this.socket.write(Result.getOrThrow(Frame.encode(message, version)))
  }

  /** The next message that is no heartbeat or progress; fails when it is another. */
  async next<T extends Tag>(tag: T): Promise<Of<T>> {
    const isNews = ({ _tag }: Message) => _tag === tag || (_tag !== "Heartbeat" && _tag !== "SealProgress")
    await until(`${tag} (heard ${this.heard.map(({ _tag }) => _tag)})`, () => {
      while (this.#read < this.heard.length && !isNews(this.heard[this.#read] as Message)) this.#read += 1
      return this.#read < this.heard.length || this.closed
    })
    const message = this.heard[this.#read]
    this.#read += 1
    if (message?._tag !== tag) throw new Error(`${tag} was expected, ${message?._tag ?? "the end"} came`)
    return message as Of<T>
  }

  async ended(): Promise<void> {
    await until("the end of the connection", () => this.closed)
    this.socket.destroy()
  }

  close(): void {
    this.socket.destroy()
  }

  async greet(id = ID): Promise<Of<"Hello">> {
    const hello = await this.next("Hello")
    this.send({ _tag: "HelloAck", protoVersionChosen: 1, handoffId: id })
    return hello
  }

  prepare({ deadlineMs = 20_000n, drainGraceMs = 5_000n, id = ID } = {}): void {
    this.send({ _tag: "PrepareHandoff", handoffId: id, successorPid: 1, deadlineMs, drainGraceMs })
  }

  say(_tag: "SealRequest" | "Begin" | "Commit" | "ResumeAfterAbort", id = ID): void {
    this.send({ _tag, handoffId: id })
  }

  /** Greeted, drained: what most tests begin with. */
  async drained(
    options: { readonly deadlineMs?: bigint; readonly drainGraceMs?: bigint } = {}
  ): Promise<Of<"Drained">> {
    await this.greet()
    this.prepare(options)
    return this.next("Drained")
  }

  async sealed(options: { readonly deadlineMs?: bigint } = {}): Promise<Of<"SealComplete">> {
    await this.drained(options)
    this.say("SealRequest")
    return this.next("SealComplete")
  }
}

const must = Result.getOrThrow

const bindListener = (): { readonly fd: number; readonly port: number } => {
  const calls = Calls.of(must(Libc.open()))
  const fd = must(calls.socket(SocketAddress.AF_INET, Calls.SOCK_STREAM | Calls.SOCK_CLOEXEC))
  must(calls.bind(fd, SocketAddress.encodeIp([127, 0, 0, 1], 0)))
  must(calls.listen(fd, 128))
  const name = must(calls.getsockname(fd))
  const address = SocketAddress.decode(name.bytes, name.length)
  if (address?._tag !== "Tcp") throw new Error("not bound")
  return { fd, port: address.port }
}

const closeDescriptor = (fd: number): void => {
  must(Libc.open()).call("close", "i32", ["i32"], [fd])
}

/** Two connected unix sockets. */
const socketPair = async (path: string): Promise<readonly [Socket, Socket]> => {
  const server: Server = createServer({ pauseOnConnect: true })
  server.listen(path)
  await once(server, "listening")
  const accepted = once(server, "connection")
  const theirs = createConnection(path)
  const [ours] = (await accepted) as [Socket]
  if (theirs.connecting) await once(theirs, "connect")
  server.close()
  rmSync(path, { force: true })
  return [ours, theirs]
}

export interface Daemon extends ManagedProcess {
  readonly marker: (name: string) => Promise<string>
  readonly hasMarker: (name: string) => boolean
}

export interface Successor extends Daemon {
  readonly peer: Peer
}

export interface World extends AsyncDisposable {
  readonly processes: ManagedProcesses
  readonly dataDir: string
  readonly control: string
  readonly port: number
  readonly file: (name: string) => string
  /** Starts a daemon on the listener, cold. `program`: another one than the role program. */
  readonly start: (env?: Record<string, string>, program?: string) => Daemon
  /** Starts one and waits until it serves. */
  readonly incumbent: (env?: Record<string, string>) => Promise<Daemon>
  readonly successor: (env?: Record<string, string>, program?: string) => Promise<Successor>
  readonly connect: () => Promise<Peer>
  readonly append: (text: string) => Promise<number>
  readonly servingPid: () => Promise<number>
  /** Lines of the log. */
  readonly log: () => ReadonlyArray<string>
}

const worlds = new Set<AsyncDisposable>()

// A test that ran out of time never leaves its block: what it started is ended here.
afterEach(async () => {
  for (const left of worlds) await left[Symbol.asyncDispose]()
})

export const world = (): World => {
  const processes = managedProcesses()
  const directory = temporaryDirectory()
  const listener = bindListener()
  const dataDir = directory.file("data")
  mkdirSync(dataDir)
  const control = directory.file("handoff.sock")
  let started = 0

  const launch = (extra: Record<string, string>, more: ReadonlyArray<number>, program = PROGRAM): Daemon => {
    started += 1
    const markers = directory.file(`markers-${started}`)
    mkdirSync(markers)
    const env = {
      LISTEN_FDS: "1",
      LISTEN_FDNAMES: "http",
      HANDOFF_CONTROL_SOCKET: control,
      HANDOFF_DATA_DIR: dataDir,
      HANDOFF_MARKER_DIR: markers,
      HANDOFF_CRASH_MARKER_DIR: markers,
      ...extra
    }
    const stdio = ["ignore", "pipe", "pipe", listener.fd, ...more] as const
    const started_ = processes.start(process.execPath, [CONDITION, program], { env, stdio: [...stdio] })
    const path = (name: string) => `${markers}/${name}.marker`
    return {
      ...started_,
      hasMarker: (name) => existsSync(path(name)),
      marker: async (name) => {
        await until(`marker ${name}: ${started_.output().stderr}`, () => existsSync(path(name)))
        return readFileSync(path(name), "utf8")
      }
    }
  }

  const append = async (text: string): Promise<number> => {
    const response = await fetch(`http://127.0.0.1:${listener.port}/append`, {
      method: "POST",
      body: text,
      headers: { connection: "close" }
    })
    if (response.status !== 200) throw new Error(`append: ${response.status}`)
    return Number(await response.text())
  }

  const made: World = {
    processes,
    dataDir,
    control,
    port: listener.port,
    file: (name) => directory.file(name),
    start: (env = {}, program) => launch(env, [], program),
    incumbent: async (env = {}) => {
      const daemon = launch(env, [])
      await daemon.marker("serving")
      return daemon
    },
    successor: async (env = {}, program) => {
      const [ours, theirs] = await socketPair(directory.file(`pair-${started}`))
      const daemon = launch(
        { HANDOFF_ROLE: "successor", HANDOFF_SOCK_FD: "4", ...env },
        [descriptorOf(theirs)],
        program
      )
      theirs.destroy()
      const peer = new Peer(ours)
      ours.resume()
      return { ...daemon, peer }
    },
    connect: async () => {
      const socket = createConnection(control)
      await once(socket, "connect")
      return new Peer(socket)
    },
    append,
    servingPid: async () => (await get(listener.port, "/", false)).pid,
    log: () => readFileSync(`${dataDir}/log`, "utf8").trim().split("\n"),
    [Symbol.asyncDispose]: async () => {
      if (!worlds.delete(made)) return
      await processes[Symbol.asyncDispose]()
      closeDescriptor(listener.fd)
      directory[Symbol.dispose]()
    }
  }
  worlds.add(made)
  return made
}

/** A new successor up to the open state. */
export const begun = async (it: World, env: Record<string, string> = {}): Promise<Successor> => {
  const n = await it.successor(env)
  await n.peer.greet()
  n.peer.say("Begin")
  return n
}

/** A whole handoff: the old process exits, the new one serves. */
export const handOver = async (it: World, old: Daemon, env: Record<string, string> = {}): Promise<Successor> => {
  const o = await it.connect()
  await o.greet()
  const n = await it.successor(env)
  await n.peer.greet()
  o.prepare()
  await o.next("Drained")
  o.say("SealRequest")
  await o.next("SealComplete")
  n.peer.say("Begin")
  await n.peer.next("Ready")
  n.peer.close()
  o.say("Commit")
  await old.ended
  o.close()
  await n.marker("successor-ready")
  return n
}

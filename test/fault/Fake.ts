/**
 * A daemon that breaks the handoff protocol, in the way named in FAKE_DOES: as a successor when it was started as one, else
 * as an incumbent, until the file FAKE_UNTIL is there; from then on it keeps the protocol. It answers every request with its
 * pid, holds the data lock as it should, and writes nothing.
 */
import { randomBytes } from "node:crypto"
import { existsSync } from "node:fs"
import { createServer } from "node:http"
import { Socket } from "node:net"
import * as Frame from "@handoff/core/protocol/Frame"
import * as HandoffId from "@handoff/core/protocol/HandoffId"
import type { Message, Role, Tag } from "@handoff/core/protocol/Message"
import * as Result from "effect/Result"
import { DataDirLock } from "../../packages/supervisor/src/daemon/DataDirLock.ts"
import { HandoffSocket } from "../../packages/supervisor/src/daemon/HandoffSocket.ts"
import * as Native from "../../packages/supervisor/src/daemon/internal/Native.ts"

export type Deed =
  | "is silent"
  | "sends half a frame"
  | "ends in the middle of a frame"
  | "sends garbage"
  | "names another pid"
  | "plays the other role"
  | "speaks an old version"
  | "answers for another handoff"
  | "speaks out of turn"

const { env } = process

/** One stream: frames out, messages in. */
class Wire {
  readonly #socket: Socket
  readonly #heard: Array<Message> = []
  #waiting: (() => void) | undefined
  handoffId = ""
  readonly closed: Promise<void>

  constructor(socket: Socket) {
    this.#socket = socket
    const decoder = new Frame.Decoder()
    socket.on("data", (bytes: Buffer) => {
      for (const frame of decoder.push(bytes)) this.#heard.push(Result.getOrThrow(frame).message)
      this.#waiting?.()
    })
    socket.on("error", () => undefined)
    this.closed = new Promise((resolve) => socket.once("close", () => resolve()))
    this.closed.then(() => this.#waiting?.())
    socket.resume()
  }

  send(message: Message): void {
    this.#socket.write(Result.getOrThrow(Frame.encode(message, 1)))
  }

  sendBytes(bytes: Uint8Array): void {
    this.#socket.write(bytes)
  }

  end(): void {
    this.#socket.end()
  }

  /** Waits for a message of this kind, and passes over what else comes; fails when the stream ends. */
  async heard(tag: Tag): Promise<void> {
    for (;;) {
      const message = this.#heard.shift()
      if (message?._tag === "HelloAck") this.handoffId = message.handoffId
      if (message?._tag === tag) return
      if (message !== undefined) continue
      if (this.#socket.destroyed) throw new Error(`the stream ended before ${tag}`)
      await new Promise<void>((resolve) => {
        this.#waiting = resolve
      })
    }
  }
}

const hello = (role: Role, change: Partial<Extract<Message, { readonly _tag: "Hello" }>> = {}): Message => ({
  _tag: "Hello",
  role,
  pid: process.pid,
  buildId: Buffer.from("fake"),
  protoMin: 1,
  protoMax: 1,
  capabilities: { reserved: 0n },
  ...change
})

const otherId = (): string => HandoffId.fromRandom(randomBytes(HandoffId.BYTES))

/** The deeds that come instead of a good Hello; true when this was one. */
const breakHello = (wire: Wire, role: Role, deed: Deed | undefined): boolean => {
  const frame = Result.getOrThrow(Frame.encode(hello(role), 1))
  switch (deed) {
    case "is silent":
      return true
    case "sends half a frame":
      wire.sendBytes(frame.subarray(0, frame.length / 2))
      return true
    case "ends in the middle of a frame":
      wire.sendBytes(frame.subarray(0, frame.length / 2))
      wire.end()
      return true
    case "sends garbage":
      wire.sendBytes(new Uint8Array(64).fill(0xff))
      return true
    case "names another pid":
      wire.send(hello(role, { pid: process.pid + 1 }))
      return true
    case "plays the other role":
      wire.send(hello(role === "Incumbent" ? "Successor" : "Incumbent"))
      return true
    case "speaks an old version":
      wire.send(hello(role, { protoMin: 0, protoMax: 0 }))
      return true
    default:
      return false
  }
}

const ready = (handoffId: string): Message => ({
  _tag: "Ready",
  handoffId,
  listeningOn: [],
  healthzOk: true,
  advertisedRevisionPerShard: []
})

const succeed = async (deed: Deed): Promise<void> => {
  const wire = new Wire(new Socket({ fd: Number(env.HANDOFF_SOCK_FD) }))
  if (breakHello(wire, "Successor", deed)) return
  wire.send(hello("Successor"))
  // At once: later it depends on how far the incumbent has come what it is out of turn with.
  if (deed === "speaks out of turn") return wire.send({ _tag: "Drained", openConnsRemaining: 0, acceptClosed: true })
  await wire.heard("HelloAck")
  await wire.heard("Begin")
  wire.send(ready(otherId()))
}

const sealComplete = (handoffId: string): Message => ({
  _tag: "SealComplete",
  handoffId,
  lastRevisionPerShard: [],
  dataDirFingerprint: new Uint8Array(32)
})

/** One session; with a deed it goes wrong, and the lock is still or again held afterwards. */
const session = async (wire: Wire, lock: DataDirLock, deed: Deed | undefined): Promise<void> => {
  if (breakHello(wire, "Incumbent", deed)) return
  wire.send(hello("Incumbent"))
  await wire.heard("HelloAck")
  await wire.heard("PrepareHandoff")
  if (deed === "speaks out of turn") return wire.send(sealComplete(wire.handoffId))
  wire.send({ _tag: "Drained", openConnsRemaining: 0, acceptClosed: true })
  await wire.heard("SealRequest")
  if (deed !== undefined) return wire.send(sealComplete(otherId()))
  lock.release()
  wire.send(sealComplete(wire.handoffId))
  await wire.heard("Commit")
  process.exit(0)
}

const serve = async (deed: Deed): Promise<void> => {
  Native.load()
  const lock = new DataDirLock(env.HANDOFF_DATA_DIR ?? ".")
  const refused = lock.tryAcquire()
  if (refused !== undefined) throw refused
  const socket = await HandoffSocket.prepare(env.HANDOFF_CONTROL_SOCKET ?? "")
  socket.publish()
  const server = createServer((_, response) => response.end(`${process.pid}\n`))
  server.listen({ fd: 3 })
  process.once("SIGTERM", () => {
    socket.close()
    lock.release()
    process.exit(0)
  })
  const take = (): void =>
    socket.take(async (stream) => {
      const wire = new Wire(stream)
      // Most connections are looks at the path, and end before anything is said.
      await session(wire, lock, existsSync(env.FAKE_UNTIL ?? "") ? undefined : deed).catch(() => undefined)
      await wire.closed
      // Given up after the seal.
      lock.tryAcquire()
      take()
    })
  take()
}

const deed = (env.FAKE_DOES ?? "is silent") as Deed
// Nothing else may keep a silent one alive.
setInterval(() => undefined, 60_000)
await (env.HANDOFF_ROLE === "successor" ? succeed(deed) : serve(deed))

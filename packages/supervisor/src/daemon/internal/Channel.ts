/**
 * One connection that carries frames of the handoff protocol: what comes is decoded, what goes is bounded in time.
 *
 * It ends once, whatever comes first: the peer's end, an error, bytes that are no frame, or a write that was not taken
 * within `WRITE_TIMEOUT_MS`; `ended` is told why, and nothing is received after it. `close` is this side's end and is not
 * told. Node ignores SIGPIPE, so that a write to a peer that is gone is an error event, which is heard here.
 */
import type { Socket } from "node:net"
import * as Frame from "@handoff/core/protocol/Frame"
import type { Message } from "@handoff/core/protocol/Message"
import * as Result from "effect/Result"

/** A peer that takes nothing for this long has died, or sleeps: milliseconds. */
const WRITE_TIMEOUT_MS = 10_000

export interface Ears {
  readonly received: (message: Message) => void
  readonly ended: (why: string) => void
}

export class Channel {
  readonly #socket: Socket
  readonly #decoder = new Frame.Decoder()
  readonly #ears: Ears
  #open = true
  #writing = 0
  #patience: NodeJS.Timeout | undefined

  constructor(socket: Socket, ears: Ears) {
    this.#socket = socket
    this.#ears = ears
    socket.on("data", (bytes: Buffer) => this.#read(bytes))
    socket.once("end", () => this.#endOfStream())
    socket.once("error", (error) => this.#end(error.message))
    socket.once("close", () => this.#end("closed"))
    socket.resume()
  }

  /** `sent` is called when the kernel has the frame. */
  send(message: Message, version: number, sent?: () => void): void {
    if (!this.#open) return
    const frame = Frame.encode(message, version)
    if (Result.isFailure(frame)) {
      this.#end(`${message._tag} could not be written: ${Frame.explain(frame.failure)}`)
      return
    }
    this.#writing += 1
    this.#patience ??= this.#waitForPeer()
    this.#socket.write(frame.success, (error) => {
      this.#writing -= 1
      clearTimeout(this.#patience)
      this.#patience = this.#writing > 0 && this.#open ? this.#waitForPeer() : undefined
      if (!error) sent?.()
    })
  }

  /** Ends the connection once what was sent is out. */
  close(): void {
    if (!this.#open) return
    this.#open = false
    this.#socket.destroySoon()
    setTimeout(() => this.#socket.destroy(), WRITE_TIMEOUT_MS).unref()
  }

  /** What was received keeps the process alive no longer. */
  unref(): void {
    this.#socket.unref()
  }

  #waitForPeer(): NodeJS.Timeout {
    return setTimeout(() => this.#end(`nothing was read for ${WRITE_TIMEOUT_MS} ms`), WRITE_TIMEOUT_MS)
  }

  #read(bytes: Buffer): void {
    for (const frame of this.#decoder.push(bytes)) {
      if (!this.#open) return
      if (Result.isFailure(frame)) this.#end(Frame.explain(frame.failure))
      else this.#ears.received(frame.success.message)
    }
  }

  #endOfStream(): void {
    const ended = this.#decoder.end()
    this.#end(Result.isFailure(ended) ? Frame.explain(ended.failure) : "closed by the supervisor")
  }

  #end(why: string): void {
    if (!this.#open) return
    this.#open = false
    clearTimeout(this.#patience)
    this.#socket.destroy()
    this.#ears.ended(why)
  }
}

/**
 * Frames: `u32 LE length` (of all that follows, 2 bytes to 1 MiB), `u16 LE version`, then one message as postcard.
 *
 * A stream gives bytes in whatever slices it likes, and a read may time out in the middle of a frame: {@link Decoder}
 * keeps what it has. It looks at a length as soon as its four bytes are there, and holds only bytes that really came: a
 * peer that announces 1 MiB and sends nothing costs nothing. Its buffer never exceeds {@link MAX_FRAME_BYTES}, and a frame
 * that lies whole in one slice is read in place.
 *
 * Limits. The first failure is the last word: framing is lost, or the peer does not speak this protocol, and the session
 * ends. The version of a frame is reported and not judged (the Rust crate never checks it; the first frames carry the
 * sender's highest). The values of a message are larger than its bytes: a frame full of u64 of two bytes each becomes
 * 16 MiB (measured, 26 at the peak of growing) for as long as the message is kept.
 */
import * as Result from "effect/Result"
import type { Message } from "./Message.ts"
import * as MessageCodec from "./MessageCodec.ts"
import * as Postcard from "./Postcard.ts"

/** The largest length a frame may announce, in bytes: version and payload, without the length itself. */
export const MAX_FRAME_BYTES = 1024 * 1024

/** The smallest: the version alone. */
export const MIN_FRAME_BYTES = 2

const LENGTH_BYTES = 4
const HEAD_BYTES = LENGTH_BYTES + MIN_FRAME_BYTES

/** Buffers up to this size are kept from frame to frame. */
const KEPT_BYTES = 4096

export interface Frame {
  readonly version: number
  readonly message: Message
}

/** The announced length is under {@link MIN_FRAME_BYTES}. */
export interface FrameMalformed {
  readonly _tag: "FrameMalformed"
  readonly length: number
}

/** The length is over {@link MAX_FRAME_BYTES}. */
export interface FrameTooLarge {
  readonly _tag: "FrameTooLarge"
  readonly length: number
}

/** The stream ended inside a frame, or where one was expected: `received` bytes of it had come. */
export interface UnexpectedEnd {
  readonly _tag: "UnexpectedEnd"
  readonly received: number
}

export type DecodeError = FrameMalformed | FrameTooLarge | Postcard.ReadError
export type EncodeError = FrameTooLarge | Postcard.WriteError

/**
 * A message as a frame, ready to be written.
 *
 * Fails for a value that its field cannot hold, and for a frame over {@link MAX_FRAME_BYTES}; nothing is cut or rounded.
 *
 * @param version the negotiated version, or before that the sender's highest: a u16
 * @example
 * Frame.encode({ _tag: "Heartbeat", tsMs: 5n }, 1) // 04000000 0100 0d05
 */
export const encode = (message: Message, version: number): Result.Result<Uint8Array, EncodeError> => {
  if (!Number.isInteger(version) || version < 0 || version > 0xffff) {
    return Result.fail({ _tag: "OutOfRange", field: "Frame.version", type: "u16", value: `${version}` })
  }
  const writer = new Postcard.Writer(LENGTH_BYTES + MAX_FRAME_BYTES, HEAD_BYTES)
  MessageCodec.write(writer, message)
  if (writer.failure !== undefined) return Result.fail(writer.failure)
  const length = writer.length - LENGTH_BYTES
  if (length > MAX_FRAME_BYTES) return Result.fail({ _tag: "FrameTooLarge", length })
  const bytes = writer.take()
  const view = new DataView(bytes.buffer, bytes.byteOffset)
  view.setUint32(0, length, true)
  view.setUint16(LENGTH_BYTES, version, true)
  return Result.succeed(bytes)
}

/** Reads the body of a frame, which is all of it but its length. */
const decodeBody = (body: Uint8Array): Result.Result<Frame, DecodeError> => {
  const message = MessageCodec.decode(body.subarray(MIN_FRAME_BYTES))
  if (Result.isFailure(message)) return Result.fail(message.failure)
  return Result.succeed({ version: (body[0] ?? 0) | ((body[1] ?? 0) << 8), message: message.success })
}

/**
 * The receiving end of one stream. It has one owner, who pushes what arrives and asks at the end whether the stream
 * stopped between frames. A slice may be reused as soon as `push` returns.
 *
 * @example
 * const decoder = new Frame.Decoder()
 * for (const frame of decoder.push(bytes)) {
 *   if (Result.isFailure(frame)) return endSession(Frame.explain(frame.failure))
 *   yield* handle(frame.success.message)
 * }
 */
export class Decoder {
  private buffer = new Uint8Array(0)
  /** Bytes of the body that came so far. */
  private filled = 0
  /** Bytes of the length that came so far, and their value. */
  private lengthBytes = 0
  private length = 0
  private error: DecodeError | undefined = undefined

  /** True inside a frame: some of it has come, not all. */
  get hasPartial(): boolean {
    return this.lengthBytes > 0
  }

  /** The failure that ended it, if any. Every later push gives it again. */
  get failure(): DecodeError | undefined {
    return this.error
  }

  /** Bytes of memory held between pushes; at most {@link MAX_FRAME_BYTES}. */
  get heldBytes(): number {
    return this.buffer.length
  }

  /** The frames that these bytes complete, in order. A failure is always the last, and ends the decoder. */
  push(bytes: Uint8Array): ReadonlyArray<Result.Result<Frame, DecodeError>> {
    if (this.error !== undefined) return [Result.fail(this.error)]
    const frames: Array<Result.Result<Frame, DecodeError>> = []
    let at = 0
    while (at < bytes.length) {
      at = this.readLength(bytes, at)
      if (this.error !== undefined) {
        frames.push(Result.fail(this.error))
        return frames
      }
      if (this.lengthBytes < LENGTH_BYTES) break
      const more = Math.min(this.length - this.filled, bytes.length - at)
      const slice = bytes.subarray(at, at + more)
      at += more
      if (this.filled + more < this.length) {
        this.keep(slice)
        break
      }
      const frame = this.complete(slice)
      frames.push(frame)
      if (Result.isFailure(frame)) return frames
    }
    return frames
  }

  /** The stream has ended. A peer may end it between frames, which only the session can judge. */
  end(): Result.Result<void, UnexpectedEnd | DecodeError> {
    if (this.error !== undefined) return Result.fail(this.error)
    if (!this.hasPartial) return Result.succeed(undefined)
    return Result.fail({ _tag: "UnexpectedEnd", received: this.lengthBytes + this.filled })
  }

  /** Takes what it can of the four length bytes; gives the index after them. */
  private readLength(bytes: Uint8Array, from: number): number {
    let at = from
    while (this.lengthBytes < LENGTH_BYTES && at < bytes.length) {
      this.length += (bytes[at++] ?? 0) * 256 ** this.lengthBytes
      this.lengthBytes += 1
      if (this.lengthBytes === LENGTH_BYTES) {
        // Judged once, here: a failure resets the count, and going on would take four bytes more.
        this.judgeLength()
        break
      }
    }
    return at
  }

  private judgeLength(): void {
    const { length } = this
    if (length < MIN_FRAME_BYTES) this.fail({ _tag: "FrameMalformed", length })
    else if (length > MAX_FRAME_BYTES) this.fail({ _tag: "FrameTooLarge", length })
  }

  /** Copies a part of a body, growing the buffer by doubling but never past the announced length. */
  private keep(slice: Uint8Array): void {
    const needed = this.filled + slice.length
    if (needed > this.buffer.length) {
      const larger = new Uint8Array(Math.min(this.length, Math.max(needed, this.buffer.length * 2, 64)))
      larger.set(this.buffer.subarray(0, this.filled))
      this.buffer = larger
    }
    this.buffer.set(slice, this.filled)
    this.filled = needed
  }

  /** The last part of a body has come. */
  private complete(slice: Uint8Array): Result.Result<Frame, DecodeError> {
    if (this.filled > 0) this.keep(slice)
    const frame = decodeBody(this.filled > 0 ? this.buffer.subarray(0, this.filled) : slice)
    this.reset()
    if (Result.isFailure(frame)) this.fail(frame.failure)
    return frame
  }

  private fail(error: DecodeError): void {
    this.error = error
    this.buffer = new Uint8Array(0)
    this.reset()
  }

  private reset(): void {
    if (this.buffer.length > KEPT_BYTES) this.buffer = new Uint8Array(0)
    this.filled = 0
    this.lengthBytes = 0
    this.length = 0
  }
}

/** One sentence for a person. */
export const explain = (error: DecodeError | EncodeError | UnexpectedEnd): string => {
  switch (error._tag) {
    case "FrameMalformed":
      return `a frame of ${error.length} bytes is announced, the smallest has ${MIN_FRAME_BYTES}`
    case "FrameTooLarge":
      return `a frame of ${error.length} bytes is over the bound of ${MAX_FRAME_BYTES}`
    case "UnexpectedEnd":
      return `the stream ended after ${error.received} bytes of a frame`
    default:
      return Postcard.explain(error)
  }
}

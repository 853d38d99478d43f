/**
 * Frames of the wire as values: the same bytes are one object, so that they are encoded, decoded and compared once.
 */
import * as Result from "effect/Result"
import * as Frame from "../../protocol/Frame.ts"
import type { Message } from "../../protocol/Message.ts"
import { textOf } from "./Machines.ts"

/** Bytes that are no frame: the length that they announce is over the bound. */
export const GARBAGE = Uint8Array.of(0xff, 0xff, 0xff, 0xff)

/** No bytes. */
export const NOTHING = new Uint8Array(0)

export interface Decoded {
  /** A message that these bytes complete, and its number. */
  readonly message: Message | undefined
  readonly number: number
  /** What they leave for the next ones, {@link NOTHING} at the end of a frame. */
  readonly partial: Uint8Array
  readonly isGarbled: boolean
}

export class Frames {
  readonly #byHex = new Map<string, Uint8Array>([["", NOTHING]])
  readonly #numbers = new WeakMap<Uint8Array, number>()
  readonly #halves = new WeakMap<Uint8Array, Uint8Array>()
  readonly #encoded = new Map<string, Uint8Array>()
  readonly #byMessage = new WeakMap<Message, Map<number, Uint8Array>>()
  readonly #decoded = new Map<number, Map<number, Decoded>>()
  #count = 0

  constructor() {
    this.#number(NOTHING)
    this.intern(GARBAGE)
  }

  /** The one object of these bytes. */
  intern(bytes: Uint8Array): Uint8Array {
    if (this.#numbers.has(bytes)) return bytes
    const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")
    const known = this.#byHex.get(hex)
    if (known !== undefined) return known
    this.#byHex.set(hex, bytes)
    this.#number(bytes)
    return bytes
  }

  /** A small number for bytes: equal bytes, equal numbers. */
  numberOf(bytes: Uint8Array): number {
    return this.#numbers.get(bytes) ?? this.#numbers.get(this.intern(bytes)) ?? 0
  }

  encode(message: Message, version: number): Uint8Array {
    const byVersion = this.#byMessage.get(message) ?? new Map<number, Uint8Array>()
    this.#byMessage.set(message, byVersion)
    const known = byVersion.get(version)
    if (known !== undefined) return known
    const text = `${version} ${textOf(message)}`
    const bytes = this.#encoded.get(text) ?? this.intern(Result.getOrThrow(Frame.encode(message, version)))
    this.#encoded.set(text, bytes)
    byVersion.set(version, bytes)
    return bytes
  }

  /** A part of these bytes: the half of them. */
  half(bytes: Uint8Array): Uint8Array {
    const known = this.#halves.get(bytes) ?? this.intern(bytes.slice(0, bytes.length >> 1))
    this.#halves.set(bytes, known)
    return known
  }

  /** What a reader makes of `bytes` after the part of a frame that it has: the shipped decoder's answer. */
  decode(partial: Uint8Array, bytes: Uint8Array): Decoded {
    const [before, now] = [this.numberOf(partial), this.numberOf(bytes)]
    const byBytes = this.#decoded.get(before) ?? new Map<number, Decoded>()
    this.#decoded.set(before, byBytes)
    const known = byBytes.get(now)
    if (known !== undefined) return known
    const decoder = new Frame.Decoder()
    const frames = [...decoder.push(partial), ...decoder.push(bytes)]
    if (frames.length > 1) throw new Error("the bytes of one send are one frame at most")
    const [frame] = frames
    const whole = new Uint8Array([...partial, ...bytes])
    const decoded: Decoded = {
      message: frame !== undefined && Result.isSuccess(frame) ? frame.success.message : undefined,
      number: this.numberOf(whole),
      partial: frame === undefined ? this.intern(whole) : NOTHING,
      isGarbled: frame !== undefined && Result.isFailure(frame)
    }
    byBytes.set(now, decoded)
    return decoded
  }

  #number(bytes: Uint8Array): void {
    this.#numbers.set(bytes, this.#count++)
  }
}

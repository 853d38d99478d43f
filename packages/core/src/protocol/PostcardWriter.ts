/** The writing half of Postcard.ts, which says how it works. */
import * as HandoffId from "./HandoffId.ts"
import type { WriteError } from "./Postcard.ts"

/** A u64 is written as its low 49 bits, seven bytes that all continue, and the rest: both are exact as doubles. */
const LOW_BYTES = 7
const LOW_BITS = 49n
const LOW_RANGE = 2 ** 49

const utf8Encoder = new TextEncoder()

const U64_RANGE = 1n << 64n

/** Writes values into a buffer of its own. `reserve` zero bytes are left in front, for the frame's head. */
export class Writer {
  failure: WriteError | undefined = undefined
  /** Bytes written, those past the limit included. */
  length: number
  private buffer: Uint8Array
  private readonly limit: number

  constructor(limit: number, reserve = 0) {
    this.limit = limit
    this.length = reserve
    this.buffer = new Uint8Array(Math.min(limit, Math.max(64, reserve)))
  }

  /** What was written, sharing the writer's buffer. Meaningless with more than `limit` bytes written. */
  take(): Uint8Array {
    return this.buffer.subarray(0, this.length)
  }

  fail(failure: WriteError): void {
    this.failure ??= failure
  }

  bool(value: boolean): void {
    this.push(value ? 1 : 0)
  }

  u16(field: string, value: number): void {
    this.unsigned(field, "u16", value, 0xffff)
  }

  u32(field: string, value: number): void {
    this.unsigned(field, "u32", value, 0xffff_ffff)
  }

  u64(field: string, value: bigint): void {
    if (value < 0n || value >= U64_RANGE)
      return this.fail({ _tag: "OutOfRange", field, type: "u64", value: `${value}` })
    const high = Number(value >> LOW_BITS)
    if (high === 0) return this.varint(Number(value))
    let low = Number(value & (BigInt(LOW_RANGE) - 1n))
    for (let index = 0; index < LOW_BYTES; index++) {
      this.push((low % 128) | 0x80)
      low = Math.floor(low / 128)
    }
    this.varint(high)
  }

  /** A variant's index or a length: known to be a small integer. */
  varint(value: number): void {
    let rest = value
    while (rest >= 0x80) {
      this.push((rest % 128) | 0x80)
      rest = Math.floor(rest / 128)
    }
    this.push(rest)
  }

  byteString(value: Uint8Array): void {
    this.varint(value.length)
    this.raw(value)
  }

  fixed(field: string, value: Uint8Array, length: number): void {
    if (value.length === length) return this.raw(value)
    this.fail({ _tag: "OutOfRange", field, type: `[u8; ${length}]`, value: `${value.length} bytes` })
  }

  string(field: string, value: string): void {
    const length = this.byteLength(field, value)
    if (this.failure !== undefined) return
    this.varint(length)
    if (this.grow(length)) utf8Encoder.encodeInto(value, this.buffer.subarray(this.length))
    this.length += length
  }

  handoffId(field: string, value: HandoffId.HandoffId): void {
    const bytes = HandoffId.toBytes(value)
    if (bytes._tag === "Failure") return this.fail({ _tag: "InvalidHandoffId", field, value })
    this.byteString(bytes.success)
  }

  sequence<A>(items: ReadonlyArray<A>, write: (item: A) => void): void {
    this.varint(items.length)
    for (const item of items) write(item)
  }

  /** UTF-8 length by counting: encoding first would cost a buffer of any size the caller likes. */
  private byteLength(field: string, value: string): number {
    let bytes = 0
    for (let index = 0; index < value.length; index++) {
      const unit = value.charCodeAt(index)
      if (unit < 0x80) bytes += 1
      else if (unit < 0x800) bytes += 2
      else if (unit < 0xd800 || unit > 0xdfff) bytes += 3
      else {
        const next = value.charCodeAt(index + 1)
        if (unit > 0xdbff || !(next >= 0xdc00 && next <= 0xdfff)) {
          this.fail({ _tag: "IllFormedString", field, index })
          return 0
        }
        bytes += 4
        index++
      }
    }
    return bytes
  }

  private unsigned(field: string, type: string, value: number, max: number): void {
    if (Number.isInteger(value) && value >= 0 && value <= max) return this.varint(value)
    this.fail({ _tag: "OutOfRange", field, type, value: `${value}` })
  }

  private raw(bytes: Uint8Array): void {
    if (this.grow(bytes.length)) this.buffer.set(bytes, this.length)
    this.length += bytes.length
  }

  private push(byte: number): void {
    if (this.grow(1)) this.buffer[this.length] = byte
    this.length += 1
  }

  /** Makes room for so many more bytes; false past the limit. */
  private grow(more: number): boolean {
    const needed = this.length + more
    if (needed > this.limit) return false
    if (needed <= this.buffer.length) return true
    const larger = new Uint8Array(Math.min(this.limit, Math.max(needed, this.buffer.length * 2)))
    larger.set(this.buffer)
    this.buffer = larger
    return true
  }
}

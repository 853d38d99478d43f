/**
 * The part of the postcard encoding (https://postcard.jamesmunns.com/wire-format) that the handoff protocol uses: unsigned
 * integers as LEB128 varints, one byte for u8 and bool, a varint index for enum variants, length then content for strings
 * and sequences, fixed arrays raw.
 *
 * Reading is as tolerant as the Rust crate of that name, and no more: an overlong varint (`8500` for 5) is accepted while
 * it fits the bytes its type may take (3 for u16, 5 for u32, 10 for u64 and lengths) and its last byte adds no bit that
 * the type lacks. Writing is always the shortest form.
 *
 * Both classes hold their failure and are to be asked once, at the end: after the first failure a read gives a neutral
 * value without moving, a write does nothing. So nothing throws, the first failure is the one reported, and a loop over a
 * declared length ends with the input however large that length is: it must test `failure` in its condition.
 *
 * A Reader borrows the bytes it is given; what it returns never refers to them. A Writer owns its buffer, which never
 * grows past `limit`; beyond it bytes are only counted.
 */
import * as HandoffId from "./HandoffId.ts"

/** What is wrong with received bytes. `offset` counts from the start of the payload, `field` is the path of the value. */
export type ReadError =
  /** The payload ends inside a varint. */
  | { readonly _tag: "TruncatedVarint"; readonly field: string; readonly offset: number }
  /** The payload ends before the `needed` bytes of a value; a declared length over 2^53 is rounded. */
  | {
      readonly _tag: "Truncated"
      readonly field: string
      readonly offset: number
      readonly needed: number
      readonly available: number
    }
  /** More bytes or more bits than the type has. */
  | { readonly _tag: "VarintOverflow"; readonly field: string; readonly offset: number; readonly type: VarintType }
  | { readonly _tag: "UnknownVariant"; readonly field: string; readonly offset: number; readonly index: number }
  | { readonly _tag: "InvalidBool"; readonly field: string; readonly offset: number; readonly value: number }
  | { readonly _tag: "InvalidUtf8"; readonly field: string; readonly offset: number }
  /** A handoff id whose length is not 16. */
  | { readonly _tag: "InvalidIdLength"; readonly field: string; readonly offset: number; readonly length: number }

/** What is wrong with a value that was to be written. */
export type WriteError =
  /** Not an integer of the field's range, or a byte array of another length than the field's. */
  | { readonly _tag: "OutOfRange"; readonly field: string; readonly type: string; readonly value: string }
  /** A lone surrogate: no UTF-8 can hold it, and replacing it would change the value silently. */
  | { readonly _tag: "IllFormedString"; readonly field: string; readonly index: number }
  | { readonly _tag: "InvalidHandoffId"; readonly field: string; readonly value: string }

export type VarintType = "u16" | "u32" | "u64" | "length"

/** Most bytes a varint of the type takes, and the largest value of the last of them. */
const limits: Readonly<Record<VarintType, { readonly bytes: number; readonly last: number }>> = {
  u16: { bytes: 3, last: 0x03 },
  u32: { bytes: 5, last: 0x0f },
  u64: { bytes: 10, last: 0x01 },
  length: { bytes: 10, last: 0x01 }
}

/** The bytes of a varint past this one do not fit a double exactly: 7 * 7 = 49 bits below, 15 above. */
const LOW_BYTES = 7
const LOW_BITS = 49n
const LOW_RANGE = 2 ** 49

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
const utf8Encoder = new TextEncoder()

/** Reads values off a payload, one after another. */
export class Reader {
  failure: ReadError | undefined = undefined
  private readonly bytes: Uint8Array
  private offset = 0
  /** The bits of the last varint from bit 49 on. */
  private high = 0

  constructor(bytes: Uint8Array) {
    this.bytes = bytes
  }

  /** Bytes not yet read. */
  get remaining(): number {
    return this.bytes.length - this.offset
  }

  /** Records a failure unless there is one already. */
  fail(failure: ReadError): void {
    this.failure ??= failure
  }

  bool(field: string): boolean {
    const { offset } = this
    if (!this.has(1, field)) return false
    const value = this.bytes[this.offset++] ?? 0
    if (value > 1) this.fail({ _tag: "InvalidBool", field, offset, value })
    return value === 1
  }

  u16(field: string): number {
    return this.varint("u16", field)
  }

  u32(field: string): number {
    return this.varint("u32", field)
  }

  u64(field: string): bigint {
    const low = this.varint("u64", field)
    return this.high === 0 ? BigInt(low) : (BigInt(this.high) << LOW_BITS) | BigInt(low)
  }

  /** An enum's variant: an index under `count`. */
  variant(field: string, count: number): number {
    const { offset } = this
    const index = this.varint("u32", field)
    if (this.failure === undefined && index >= count) {
      this.fail({ _tag: "UnknownVariant", field, offset, index })
      return 0
    }
    return index
  }

  /** A declared length. Not yet compared with what is left; over 2^53 it is rounded, which no comparison notices. */
  length(field: string): number {
    const low = this.varint("length", field)
    return low + this.high * LOW_RANGE
  }

  /** A byte string, copied. */
  byteString(field: string): Uint8Array {
    return this.fixed(field, this.length(field))
  }

  /** Exactly `length` bytes, copied. */
  fixed(field: string, length: number): Uint8Array {
    if (!this.has(length, field)) return new Uint8Array(0)
    this.offset += length
    return this.bytes.slice(this.offset - length, this.offset)
  }

  string(field: string): string {
    const length = this.length(field)
    if (length === 0 || !this.has(length, field)) return ""
    const { offset } = this
    this.offset += length
    try {
      return utf8.decode(this.bytes.subarray(offset, this.offset))
    } catch {
      this.fail({ _tag: "InvalidUtf8", field, offset })
      return ""
    }
  }

  handoffId(field: string): HandoffId.HandoffId {
    const length = this.length(field)
    const { offset } = this
    if (!this.has(length, field)) return ""
    if (length !== HandoffId.BYTES) {
      this.fail({ _tag: "InvalidIdLength", field, offset, length })
      return ""
    }
    this.offset += length
    return HandoffId.fromBytes(this.bytes, offset)
  }

  /** A sequence: a length, then so many items. Each item takes at least one byte, so the input bounds the loop. */
  sequence<A>(field: string, item: (field: string) => A): ReadonlyArray<A> {
    const length = this.length(field)
    const items: Array<A> = []
    while (items.length < length && this.failure === undefined) {
      const value = item(field)
      if (this.failure === undefined) items.push(value)
    }
    return items
  }

  /** 0, or 1 and the value. */
  option<A>(field: string, value: (field: string) => A): A | undefined {
    const { offset } = this
    if (!this.has(1, field)) return undefined
    const index = this.bytes[this.offset++] ?? 0
    if (index > 1) this.fail({ _tag: "UnknownVariant", field, offset, index })
    return index === 1 ? value(field) : undefined
  }

  private has(length: number, field: string): boolean {
    if (this.failure !== undefined) return false
    if (length <= this.remaining) return true
    this.fail({ _tag: "Truncated", field, offset: this.offset, needed: length, available: this.remaining })
    return false
  }

  /** The low 49 bits; those above are left in `high`. */
  private varint(type: VarintType, field: string): number {
    this.high = 0
    if (this.failure !== undefined) return 0
    const start = this.offset
    const limit = limits[type]
    let low = 0
    let scale = 1
    for (let index = 0; index < limit.bytes; index++) {
      if (this.offset === this.bytes.length) {
        this.fail({ _tag: "TruncatedVarint", field, offset: start })
        return 0
      }
      const byte = this.bytes[this.offset++] ?? 0
      if (index === LOW_BYTES) scale = 1
      if (index < LOW_BYTES) low += (byte & 0x7f) * scale
      else this.high += (byte & 0x7f) * scale
      scale *= 128
      if (byte >= 0x80) continue
      if (index === limit.bytes - 1 && byte > limit.last) break
      return low
    }
    this.high = 0
    this.fail({ _tag: "VarintOverflow", field, offset: start, type })
    return 0
  }
}

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

/** One sentence for a person. */
export const explain = (error: ReadError | WriteError): string => {
  switch (error._tag) {
    case "TruncatedVarint":
      return `${error.field}: the payload ends inside the varint at byte ${error.offset}`
    case "Truncated":
      return `${error.field}: ${error.needed} bytes announced at byte ${error.offset}, ${error.available} are left`
    case "VarintOverflow":
      return `${error.field}: the varint at byte ${error.offset} does not fit a ${error.type}`
    case "UnknownVariant":
      return `${error.field}: unknown variant ${error.index} at byte ${error.offset}`
    case "InvalidBool":
      return `${error.field}: ${error.value} at byte ${error.offset} is neither 0 nor 1`
    case "InvalidUtf8":
      return `${error.field}: the string at byte ${error.offset} is not UTF-8`
    case "InvalidIdLength":
      return `${error.field}: a handoff id of ${error.length} bytes at byte ${error.offset}, 16 expected`
    case "OutOfRange":
      return `${error.field}: ${error.value} is not a ${error.type}`
    case "IllFormedString":
      return `${error.field}: a lone surrogate at index ${error.index} has no UTF-8 form`
    case "InvalidHandoffId":
      return `${error.field}: ${JSON.stringify(error.value)} is not a UUID in lower case`
  }
}

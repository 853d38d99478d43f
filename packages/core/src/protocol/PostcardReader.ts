/** The reading half of Postcard.ts, which says how it works. */
import * as HandoffId from "./HandoffId.ts"
import type { ReadError, VarintType } from "./Postcard.ts"

/** Most bytes a varint of the type takes, and the largest value of the last of them. */
const limits: Readonly<Record<VarintType, { readonly bytes: number; readonly last: number }>> = {
  u16: { bytes: 3, last: 0x03 },
  u32: { bytes: 5, last: 0x0f },
  u64: { bytes: 10, last: 0x01 },
  length: { bytes: 10, last: 0x01 }
}

/** Bytes whose 49 bits a double holds exactly; the last three have 15 more. */
const LOW_BYTES = 7
const LOW_BITS = 49n
const LOW_RANGE = 2 ** 49

const SMALL = 128
const small: ReadonlyArray<bigint> = Array.from({ length: SMALL }, (_, value) => BigInt(value))

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

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
    // Shared: a full frame of one-byte items would else become thirty times its size.
    if (low < SMALL && this.high === 0) return small[low] ?? 0n
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

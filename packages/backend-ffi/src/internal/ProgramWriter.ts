/**
 * Writes a child's program into an arena: records first, then the memory they point to.
 *
 * The caller has measured: every address a record needs is known before its bytes are written, and nothing is written
 * outside the measured size (a write past it throws, since the child would read what it must not).
 */
import { type Arena, PROGRAM } from "../Arena.ts"

/** Bytes of a record, and of the header before the first (trampoline/x64.S). */
export const RECORD = 96
export const HEADER = 16

const TWO_32 = 0x1_0000_0000

/** What a plan's program needs. */
export interface Size {
  readonly records: number
  /** Bytes of data, an upper bound. */
  readonly data: number
}

/** Bytes of the arena that a program of this size needs. */
export const arenaBytes = (size: Size): number => PROGRAM + HEADER + size.records * RECORD + size.data + 8

/** The errno bits of a record, or undefined: three words of 64 bits. */
export type Tolerated = ReadonlyArray<number> | undefined

export class ProgramWriter {
  readonly headerAddress: number
  private readonly arena: Arena
  private readonly end: number
  private nextRecord: number
  private nextData: number
  /** Eight zero bytes and more: an empty signal set, a default action. */
  readonly zeros: number

  constructor(arena: Arena, size: Size) {
    this.arena = arena
    this.headerAddress = arena.address + PROGRAM
    this.nextRecord = PROGRAM + HEADER
    this.nextData = this.nextRecord + size.records * RECORD
    this.end = arenaBytes(size)
    arena.halves.fill(0, PROGRAM / 4, Math.floor(this.end / 4))
    this.zeros = this.reserve(32)
  }

  private word(offset: number, value: number): void {
    const { halves } = this.arena
    halves[offset / 4] = value
    halves[offset / 4 + 1] = Math.floor(value / TWO_32)
  }

  /** Adds a record; `first` is the address of argument 0 when an earlier record's result is meant. Returns its address. */
  record(nr: number, args: ReadonlyArray<number>, tolerated: Tolerated, first?: number): number {
    const offset = this.nextRecord
    this.nextRecord += RECORD
    this.word(offset, nr)
    this.word(offset + 8, first ?? this.arena.address + offset + 16)
    for (let index = 0; index < args.length; index += 1) this.word(offset + 16 + 8 * index, args[index] ?? 0)
    if (tolerated !== undefined) {
      for (const errno of tolerated) {
        const half = (offset + 72) / 4 + (errno >> 5)
        this.arena.halves[half] = (this.arena.halves[half] ?? 0) | (1 << (errno & 31))
      }
    }
    return this.arena.address + offset
  }

  /** Reserves zeroed bytes, aligned to 8, and returns their address. */
  reserve(bytes: number): number {
    const offset = Math.ceil(this.nextData / 8) * 8
    this.claim(offset + bytes)
    return this.arena.address + offset
  }

  private claim(next: number): void {
    if (next > this.end) throw new RangeError(`a child's program outgrew its measure: ${next} > ${this.end}`)
    this.nextData = next
  }

  /** NUL-terminated UTF-8; returns its address. */
  text(text: string): number {
    const offset = this.nextData
    this.claim(offset + this.arena.bytes.write(text, offset, "utf8") + 1)
    return this.arena.address + offset
  }

  /** 64-bit words; returns their address. */
  words(values: ReadonlyArray<number>): number {
    const address = this.reserve(8 * values.length)
    for (let index = 0; index < values.length; index += 1) {
      this.word(address - this.arena.address + 8 * index, values[index] ?? 0)
    }
    return address
  }

  /** 32-bit words; returns their address. */
  halves(values: ReadonlyArray<number>): number {
    const address = this.reserve(4 * values.length)
    this.arena.halves.set(values, (address - this.arena.address) / 4)
    return address
  }
}

/**
 * The memory a child reads its program from, and the code that reads it.
 *
 * One arena serves every launch: the parent is suspended until the child executes its program or exits, so no two children
 * use it at once, and JavaScript never runs while one does. It stays mapped and grows on demand, because mapping costs more
 * than a launch's other calls together, and never shrinks.
 *
 *   +0            the child's stack, which grows down from STACK
 *   +STACK        the parent's words: two signal sets and a wait status
 *   +PROGRAM      the trampoline's header, its records, then the memory they point to
 *
 * SAFETY: it is MAP_SHARED: under qemu-user CLONE_VFORK is a fork, and the parent would not see a private arena's result.
 * The JavaScript views alias mapped memory: {@link ArenaOwner.ensure} drops the old ones when it unmaps, so a view must not
 * be kept across it.
 */
import type { ErrnoName } from "@handoff/core/Errno"
import * as Data from "effect/Data"
import * as Result from "effect/Result"
import type { Libc } from "./Libc.ts"

/** Bytes of the child's stack: the C library's `clone` and the trampoline use fewer than 100 of them. */
export const STACK = 8192
/** Offset of the parent's own words. */
export const PARENT_WORDS = STACK
/** Offset of the child's program. */
export const PROGRAM = STACK + 64

const PAGE = 65_536
const PROT_READ = 1
const PROT_WRITE = 2
const PROT_EXEC = 4
const MAP_SHARED = 1
const MAP_PRIVATE = 2
const MAP_ANONYMOUS = 0x20

export class MappingError extends Data.TaggedError("MappingError")<{
  readonly call: string
  readonly errno: ErrnoName
}> {
  override get message(): string {
    return `${this.call} = ${this.errno}`
  }
}

export interface Arena {
  readonly address: number
  readonly length: number
  /** The whole arena; writes are seen by the child and the other way round. */
  readonly bytes: Buffer
  /** The same memory in halves of 64-bit little-endian words. */
  readonly halves: Uint32Array
}

export interface ArenaOwner {
  /** The arena, with room for at least `length` bytes; views of a smaller one are dead afterwards. */
  readonly ensure: (length: number) => Result.Result<Arena, MappingError>
}

const map = (libc: Libc, length: number, sharing: number): Result.Result<number, MappingError> => {
  const { value, errno } = libc.call(
    "mmap",
    "address",
    ["address", "i64", "i32", "i32", "i32", "i64"],
    [0, length, PROT_READ | PROT_WRITE, sharing | MAP_ANONYMOUS, -1, 0]
  )
  return errno === undefined ? Result.succeed(value) : Result.fail(new MappingError({ call: `mmap(${length})`, errno }))
}

const unmap = (libc: Libc, address: number, length: number): void => {
  libc.call("munmap", "i32", ["address", "i64"], [address, length])
}

/** An owner without memory yet. */
export const make = (libc: Libc): ArenaOwner => {
  let current: Arena | undefined
  return {
    ensure: (length) => {
      if (current !== undefined && current.length >= length) return Result.succeed(current)
      // Doubling bounds what all growth together costs to twice the largest arena.
      const size = Math.ceil(Math.max(length, 2 * (current?.length ?? 0)) / PAGE) * PAGE
      const mapped = map(libc, size, MAP_SHARED)
      if (Result.isFailure(mapped)) return Result.fail(mapped.failure)
      if (current !== undefined) unmap(libc, current.address, current.length)
      const bytes = libc.memory(mapped.success, size)
      const halves = new Uint32Array(bytes.buffer, bytes.byteOffset, size / 4)
      current = { address: mapped.success, length: size, bytes, halves }
      return Result.succeed(current)
    }
  }
}

/**
 * Maps machine code read and execute, and returns its address. It stays mapped for the life of the process.
 *
 * SAFETY: the pages are written while they are not executable and made executable once they are not writable any more. On
 * arm64 the kernel cleans the data cache and invalidates the instruction cache when a page first becomes executable.
 */
export const mapCode = (libc: Libc, code: Uint8Array): Result.Result<number, MappingError> => {
  const mapped = map(libc, PAGE, MAP_PRIVATE)
  if (Result.isFailure(mapped)) return mapped
  libc.call("memcpy", "address", ["address", "bytes", "i64"], [mapped.success, code, code.length])
  const { errno } = libc.call(
    "mprotect",
    "i32",
    ["address", "i64", "i32"],
    [mapped.success, PAGE, PROT_READ | PROT_EXEC]
  )
  if (errno === undefined) return mapped
  unmap(libc, mapped.success, PAGE)
  return Result.fail(new MappingError({ call: "mprotect(PROT_READ | PROT_EXEC)", errno }))
}

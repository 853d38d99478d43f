/**
 * Typed calls of the C library through ffi-rs.
 *
 * The library is opened by its soname and only when {@link open} is asked for it: ffi-rs ends the process with SIGSEGV
 * when a worker thread that loaded it exits, so a worker is refused before anything is loaded.
 *
 * A call costs 3 to 8 microseconds, most of it for marshalling; {@link Libc.bind} once and call often. ffi-rs reports
 * errno after every call, but only a call that returned -1 has set it: {@link CallResult.errno} is present only then.
 * Calls that may wait must not be made here: they would stop the event loop.
 *
 * Limits: numbers travel as JavaScript numbers, exact up to 2^53; addresses of user space are far below that.
 */
import { createRequire } from "node:module"
import { isMainThread } from "node:worker_threads"
import type { ErrnoName } from "@handoff/core/Errno"
import * as Result from "effect/Result"
import type * as FfiRs from "ffi-rs"
import * as Errno from "./Errno.ts"
import { UnsupportedPlatform } from "./UnsupportedPlatform.ts"

/** `address`: a machine address as a number. */
export type ResultType = "i32" | "u32" | "i64" | "address"

/**
 * `bytes` passes the address of a Buffer or typed array (its view's first byte; the callee may write to it, and must not
 * keep it). `text` passes a NUL-terminated UTF-8 copy and refuses a string that contains NUL. The rest are numbers.
 */
export type ParameterType = "i32" | "u32" | "i64" | "address" | "bytes" | "text"

type Argument<T extends ParameterType> = T extends "bytes" ? Uint8Array : T extends "text" ? string : number

export type Arguments<P extends ReadonlyArray<ParameterType>> = {
  readonly [K in keyof P]: Argument<P[K] & ParameterType>
}

export interface CallResult {
  readonly value: number
  /** The error's name; present exactly when `value` is -1. */
  readonly errno: ErrnoName | undefined
}

export interface Libc {
  /**
   * A function of the library, prepared to be called many times. Variadic functions work on both architectures as long as
   * no argument is a floating-point number. Throws when the library has no such function (at the first call).
   *
   * @example
   * const kill = libc.bind("kill", "i32", ["i32", "i32"])
   * kill(pid, 15).errno === "ESRCH"
   */
  readonly bind: <const P extends ReadonlyArray<ParameterType>>(
    name: string,
    result: ResultType,
    parameters: P
  ) => (...args: Arguments<P>) => CallResult

  /** `bind` and call in one; the prepared function is remembered under its whole signature. */
  readonly call: <const P extends ReadonlyArray<ParameterType>>(
    name: string,
    result: ResultType,
    parameters: P,
    args: Arguments<P>
  ) => CallResult

  /**
   * The memory at `address` as a Buffer that shares it, without a copy.
   *
   * SAFETY: `length` bytes must be mapped, and stay mapped while the Buffer is used; whoever unmaps them drops it first.
   */
  readonly memory: (address: number, length: number) => Buffer
  /** The NUL-terminated text at `address`, or undefined for address 0. SAFETY: as for `memory`. */
  readonly text: (address: number) => string | undefined
}

/** The soname of glibc's libc, the same on x86-64 and arm64. */
export const SONAME = "libc.so.6"

/** The name by which this module's library is known to ffi-rs, which keeps one registry for the whole process. */
const LIBRARY = "handoff:libc"

const cString = (text: string): Uint8Array => {
  if (text.includes("\0")) throw new TypeError(`a string for a C function contains NUL: ${JSON.stringify(text)}`)
  return Buffer.from(`${text}\0`, "utf8")
}

const make = (ffi: typeof FfiRs): Libc => {
  // ffi-rs's DataType values, by ours. Its own String type cuts a string at NUL without a word: text goes as bytes.
  const I32 = 1
  const U8_ARRAY = 10
  const I64 = 8
  const U32 = 20
  const types: Record<ResultType | ParameterType, FfiRs.DataType> = {
    i32: I32,
    u32: U32,
    i64: I64,
    address: I64,
    bytes: U8_ARRAY,
    text: U8_ARRAY
  }

  const bind: Libc["bind"] = (name, result, parameters) => {
    const native = ffi.define({
      [name]: {
        library: LIBRARY,
        retType: types[result],
        paramsType: parameters.map((parameter) => types[parameter]),
        errno: true
      }
    })[name] as ((values: ReadonlyArray<unknown>) => { readonly value: number; readonly errnoCode: number }) | undefined
    if (native === undefined) throw new Error(`ffi-rs did not define ${name}`)
    const hasText = parameters.includes("text")
    return (...args) => {
      const values: ReadonlyArray<unknown> = hasText
        ? args.map((value, index) => (parameters[index] === "text" ? cString(value as string) : value))
        : args
      const { value, errnoCode } = native(values)
      return { value, errno: value === -1 ? Errno.name(errnoCode) : undefined }
    }
  }

  const bound = new Map<string, (...args: ReadonlyArray<never>) => CallResult>()
  const call: Libc["call"] = (name, result, parameters, args) => {
    const key = `${name} ${result} ${parameters.join(" ")}`
    let known = bound.get(key)
    if (known === undefined) {
      known = bind(name, result, parameters) as unknown as (...args: ReadonlyArray<never>) => CallResult
      bound.set(key, known)
    }
    return known(...(args as unknown as ReadonlyArray<never>))
  }

  const memory: Libc["memory"] = (address, length) => {
    // ffi-rs makes Buffers only of its own pointer objects, and a function that returns one is the way to get it.
    const pointer = ffi.load({
      library: LIBRARY,
      funcName: "memset",
      retType: 11 as FfiRs.DataType.External,
      paramsType: [I64, I32, I64],
      paramsValue: [address, 0, 0]
    })
    return ffi.createExternalBuffer(pointer, length)
  }

  const text: Libc["text"] = (address) => {
    if (address === 0) return undefined
    const length = call("strlen", "i64", ["address"], [address]).value
    return length === 0 ? "" : memory(address, length).toString("utf8")
  }

  return { bind, call, memory, text }
}

/** Why this thread of this machine can't use the library, one sentence each; empty when it can be tried. */
export const obstacles = (
  where: { readonly platform: string; readonly arch: string; readonly mainThread: boolean } = {
    platform: process.platform,
    arch: process.arch,
    mainThread: isMainThread
  }
): ReadonlyArray<string> => [
  ...(where.platform === "linux" ? [] : [`it needs Linux, and this is ${where.platform}`]),
  ...(where.arch === "x64" || where.arch === "arm64" ? [] : [`it needs x64 or arm64, and this is ${where.arch}`]),
  ...(where.mainThread
    ? []
    : ["it works in the main thread only: ffi-rs ends the process with SIGSEGV when a worker thread exits"])
]

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

const load = (): Result.Result<Libc, UnsupportedPlatform> => {
  const missing = obstacles()
  if (missing.length > 0) return Result.fail(new UnsupportedPlatform({ missing }))
  try {
    const ffi = createRequire(import.meta.url)("ffi-rs") as typeof FfiRs
    ffi.open({ library: LIBRARY, path: SONAME })
    return Result.succeed(make(ffi))
  } catch (error) {
    return Result.fail(new UnsupportedPlatform({ missing: [`glibc (${SONAME}) can't be opened: ${messageOf(error)}`] }))
  }
}

let opened: Result.Result<Libc, UnsupportedPlatform> | undefined

/** The C library of this process, opened once. Fails on another platform, another C library, and in a worker thread. */
export const open = (): Result.Result<Libc, UnsupportedPlatform> => {
  opened ??= load()
  return opened
}

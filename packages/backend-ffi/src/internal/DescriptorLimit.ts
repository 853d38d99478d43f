/**
 * The descriptor limits of this process, and those it had before Node raised its own soft limit at start.
 */
import { readFileSync } from "node:fs"
import type { LimitValue, ResourceLimit } from "@handoff/core/Launch"
import type { Libc } from "../Libc.ts"

const RLIMIT_NOFILE = 7
const TWO_32 = 0x1_0000_0000

/** RLIMIT_NOFILE of this process now. */
export const make = (libc: Libc): (() => { readonly soft: number; readonly hard: number }) => {
  const getrlimit = libc.bind("getrlimit", "i32", ["i32", "bytes"])
  const pair = Buffer.alloc(16)
  const word = (offset: number) => pair.readUInt32LE(offset) + pair.readUInt32LE(offset + 4) * TWO_32
  return () => {
    getrlimit(RLIMIT_NOFILE, pair)
    return { soft: word(0), hard: word(8) }
  }
}

const value = (text: string): LimitValue => (text === "unlimited" ? "unlimited" : Number(text))

/** The line "Max open files" of /proc/PID/limits. */
export const parse = (limits: string): ResourceLimit | undefined => {
  const [, soft, hard] = /^Max open files\s+(\S+)\s+(\S+)/m.exec(limits) ?? []
  return soft === undefined || hard === undefined ? undefined : { soft: value(soft), hard: value(hard) }
}

const read = (path: string): string | undefined => {
  try {
    return readFileSync(path, "utf8")
  } catch {
    return undefined
  }
}

const parentOf = (pid: number): number => {
  const stat = read(`/proc/${pid}/stat`) ?? ""
  // The command's name, in parentheses, may contain anything.
  return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1] ?? 0)
}

/**
 * The soft limit this process was started with, as far as /proc tells: the lowest of the ancestors that have the same hard
 * limit. Node raises its own to the hard limit, and so did each Node among the ancestors (npm). Undefined when no
 * ancestor can be compared: a container's first process.
 */
export const original = (own: { readonly soft: number; readonly hard: number }): ResourceLimit | undefined => {
  let lowest: number | undefined
  for (let pid = process.ppid; pid > 0; pid = parentOf(pid)) {
    const limit = parse(read(`/proc/${pid}/limits`) ?? "")
    if (limit?.hard === own.hard && typeof limit.soft === "number") lowest = Math.min(lowest ?? own.soft, limit.soft)
  }
  return lowest === undefined ? undefined : { soft: lowest, hard: own.hard }
}

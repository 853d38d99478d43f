/**
 * What /proc tells of processes: alive, descriptors, memory, who carries a mark in its environment.
 *
 * The mark finds what a test started even when the process between them is gone: a supervisor killed by a test leaves its
 * generations behind on purpose, and they inherited the mark. They are then ended one by one, by pid.
 */
import { readdirSync, readFileSync, readlinkSync } from "node:fs"

/** False for a zombie too: it serves nobody. */
export const isAlive = (pid: number): boolean => {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
    return !["Z", "X"].includes(stat.slice(stat.lastIndexOf(")") + 2, stat.lastIndexOf(")") + 3))
  } catch {
    return false
  }
}

export const processes = (): ReadonlyArray<number> =>
  readdirSync("/proc")
    .map(Number)
    .filter((pid) => pid > 0)

const parentOf = (pid: number): number => {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
    return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1])
  } catch {
    return 0
  }
}

/** A process for a person to read: pid, parent and command line. */
export const describeProcess = (pid: number): string => {
  try {
    const command = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").join(" ").trim()
    return `${pid} (of ${parentOf(pid)}: ${command})`
  } catch {
    return `${pid} (gone)`
  }
}

/** Living processes that descend from `pid`, itself not included. */
export const descendantsOf = (pid: number): ReadonlyArray<number> => {
  const parents = new Map(processes().map((each) => [each, parentOf(each)]))
  const isDescendant = (each: number | undefined): boolean =>
    each !== undefined && each > 1 && (parents.get(each) === pid || isDescendant(parents.get(each)))
  return [...parents.keys()].filter((each) => isDescendant(each) && isAlive(each))
}

/** Living processes whose initial environment contains `NAME=VALUE`, this one not included. */
export const processesMarked = (mark: string): ReadonlyArray<number> =>
  processes().filter((pid) => {
    try {
      return (
        pid !== process.pid && readFileSync(`/proc/${pid}/environ`, "utf8").split("\0").includes(mark) && isAlive(pid)
      )
    } catch {
      return false
    }
  })

/** What each descriptor of a process refers to, e.g. `3 -> socket:[123]`. */
export const descriptorsOf = (pid: number): ReadonlyMap<number, string> => {
  const found = new Map<number, string>()
  for (const fd of readdirSync(`/proc/${pid}/fd`)) {
    try {
      found.set(Number(fd), readlinkSync(`/proc/${pid}/fd/${fd}`))
    } catch {
      // Closed between the listing and the look.
    }
  }
  return found
}

/** Resident memory in megabytes (10^6 bytes). */
export const residentMegabytes = (pid: number): number => {
  const line = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))
  return (Number(line?.[1] ?? 0) * 1024) / 1e6
}

/**
 * The files that the roles of one handoff share, and what they tell: markers, the log, its openings, the data lock.
 *
 * It belongs to no implementation: a program of any of them that keeps the contract of an external fault test, and the
 * test daemons' form of the log, can take any role in it.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"

/** Environment of a role, beside what it inherits. */
export type Variables = Readonly<Record<string, string>>

export interface Line {
  /** Of the process that wrote it. */
  readonly pid: number
  readonly text: string
}

export interface Place {
  readonly controlSocket: string
  readonly dataDir: string
  readonly journal: string
  /** What every role needs. */
  readonly variables: Variables
  readonly log: () => ReadonlyArray<Line>
  /** The processes that opened the log, in order; one that resumed appears again. */
  readonly openings: () => ReadonlyArray<number>
  readonly marker: (name: string) => string | undefined
  /** Waits for a marker with a content, since not every program writes it whole at once, and gives the content. */
  readonly awaitMarker: (name: string, timeoutMs?: number) => Promise<string>
  /** Those of `pids` that hold the data lock. */
  readonly lockHolders: (pids: ReadonlyArray<number>) => ReadonlyArray<number>
}

const linesOf = (path: string): ReadonlyArray<string> =>
  existsSync(path)
    ? readFileSync(path, "utf8")
        .split("\n")
        .filter((line) => line !== "")
    : []

const parseLine = (line: string): Line => {
  const [pid = "", ...words] = line.split(" ")
  return { pid: Number(pid), text: words.join(" ") }
}

const textOf = (path: string): string => {
  try {
    return readFileSync(path, "utf8")
  } catch {
    return "" // Descriptors come and go while a daemon serves.
  }
}

const descriptorsOf = (pid: number): ReadonlyArray<string> => {
  try {
    return readdirSync(`/proc/${pid}/fdinfo`)
  } catch {
    return []
  }
}

/** The `lock:` lines of a process's descriptors name the inode of what they lock: `1: FLOCK ADVISORY WRITE 7 08:01:1234 0 EOF`. */
const locks = (pid: number, inode: number): boolean =>
  descriptorsOf(pid).some((fd) =>
    new RegExp(`^lock:.*FLOCK.*:${inode} `, "m").test(textOf(`/proc/${pid}/fdinfo/${fd}`))
  )

/** `markers` gives a second view of the same place a marker directory of its own. */
export const place = (directory: string, markers = "markers"): Place => {
  const dataDir = join(directory, "data")
  const markerDir = join(directory, markers)
  mkdirSync(dataDir, { recursive: true })
  mkdirSync(markerDir, { recursive: true })
  const controlSocket = join(directory, "control.sock")
  const marker: Place["marker"] = (name) => {
    const path = join(markerDir, `${name}.marker`)
    return existsSync(path) ? readFileSync(path, "utf8") : undefined
  }
  return {
    controlSocket,
    dataDir,
    journal: join(directory, "journal.bin"),
    variables: {
      HANDOFF_CONTROL_SOCKET: controlSocket,
      HANDOFF_DATA_DIR: dataDir,
      HANDOFF_MARKER_DIR: markerDir,
      HANDOFF_CRASH_MARKER_DIR: markerDir,
      INTEROP_NODE: process.execPath
    },
    log: () => linesOf(join(dataDir, "log")).map(parseLine),
    openings: () => linesOf(join(dataDir, "generations")).map((line) => Number(line.replace(/^open /, ""))),
    marker,
    awaitMarker: async (name, timeoutMs = 15_000) => {
      const deadline = Date.now() + timeoutMs
      for (;;) {
        const content = marker(name)
        if (content !== undefined && content !== "") return content
        if (Date.now() > deadline) throw new Error(`no marker ${name} within ${timeoutMs} ms`)
        await sleep(5)
      }
    },
    lockHolders: (pids) => {
      const { ino } = statSync(join(dataDir, ".handoff.lock"))
      return pids.filter((pid) => locks(pid, ino))
    }
  }
}

/**
 * What a data directory of the service says after the fact, held against what its clients remember.
 */
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import type { Memory } from "./Clients.ts"

export interface Line {
  readonly what: "open" | "close"
  readonly pid: number
  /** Milliseconds since 1970. */
  readonly at: number
}

const linesOf = (path: string): ReadonlyArray<string> =>
  existsSync(path) ? readFileSync(path, "utf8").trimEnd().split("\n") : []

/** Who had the database open, in the order of `generations.log`. */
export const generations = (directory: string): ReadonlyArray<Line> =>
  linesOf(join(directory, "generations.log")).map((line) => {
    const [what, pid, time] = line.split(" ")
    return { what: what as Line["what"], pid: Number(pid), at: Date.parse(time ?? "") }
  })

/** A `close` of one who had not opened: it wrote after another had opened. */
const outOfTurn = (directory: string): ReadonlyArray<string> =>
  generations(directory).flatMap((line, index, lines) =>
    line.what === "open" || (lines[index - 1]?.what === "open" && lines[index - 1]?.pid === line.pid)
      ? []
      : [`${line.pid} closes after ${lines[index - 1]?.what} ${lines[index - 1]?.pid}`]
  )

const contentOf = (directory: string) => {
  const database = new DatabaseSync(join(directory, "kv.sqlite"), { readOnly: true })
  try {
    const rows = database.prepare("SELECT key, CAST(value AS TEXT) AS value FROM entries").all()
    const last = database.prepare("SELECT number FROM revision").get()
    const { integrity_check: integrity } = database.prepare("PRAGMA integrity_check").get() ?? {}
    return {
      integrity,
      revision: Number(last?.number),
      values: new Map(rows.map(({ key, value }) => [String(key), String(value)]))
    }
  } finally {
    database.close()
  }
}

/** What went wrong, nothing being the good answer. Nobody may have the database open. */
export const audit = (directory: string, memory: Memory) => {
  const { integrity, revision, values } = contentOf(directory)
  return {
    failures: memory.failures,
    contradictions: memory.contradictions,
    lost: [...memory.values].filter(([key, value]) => values.get(key) !== value).map(([key]) => key),
    /** Each write made one revision: more of them are writes that nobody was told of, fewer are lost ones. */
    unaccounted: revision - memory.revisions.length,
    doubled: memory.revisions.length - new Set(memory.revisions).size,
    integrity,
    secondWriters: [...linesOf(join(directory, "overlaps")), ...outOfTurn(directory)]
  }
}

export const UNDAMAGED = {
  failures: [],
  contradictions: [],
  lost: [],
  unaccounted: 0,
  doubled: 0,
  integrity: "ok",
  secondWriters: []
} as const

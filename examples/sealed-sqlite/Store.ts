/**
 * Keys and values in one SQLite file that has one writer.
 *
 * Each write counts the revision up in its own transaction, so revisions name the writes, without a gap, in their order.
 * `synchronous=FULL` in WAL mode: a write that returned is on the disk.
 *
 * The handoff's data lock already keeps every other process out. `locking_mode=EXCLUSIVE` is the second bolt: SQLite itself refuses
 * a second opener, at once since the timeout is 0. A file in the same directory, `generations.log`, tells who had the
 * database open: `open PID TIME`, then `close PID TIME` once the last handle is closed; a process that was killed
 * leaves its line `close` out.
 */
import { appendFileSync, mkdirSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync, type StatementSync } from "node:sqlite"

const SCHEMA = `
  PRAGMA locking_mode = EXCLUSIVE;
  PRAGMA journal_mode = WAL;
  PRAGMA synchronous = FULL;
  CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS revision (id INTEGER PRIMARY KEY CHECK (id = 1), number INTEGER NOT NULL) STRICT;
  INSERT OR IGNORE INTO revision VALUES (1, 0);
`

export interface Entry {
  readonly value: Uint8Array
  readonly revision: bigint
}

interface Open {
  readonly database: DatabaseSync
  readonly revision: StatementSync
  readonly count: StatementSync
  readonly get: StatementSync
  readonly put: StatementSync
  readonly delete: StatementSync
}

const openAt = (path: string): Open => {
  const database = new DatabaseSync(path, { timeout: 0, readBigInts: true })
  try {
    database.exec(SCHEMA)
    return {
      database,
      revision: database.prepare("SELECT number FROM revision"),
      count: database.prepare("UPDATE revision SET number = number + 1 RETURNING number"),
      get: database.prepare("SELECT value, revision FROM entries WHERE key = ?"),
      put: database.prepare("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)"),
      delete: database.prepare("DELETE FROM entries WHERE key = ?")
    }
  } catch (error) {
    database.close()
    throw error
  }
}

export class Store {
  readonly directory: string
  #current: Open | undefined

  constructor(directory: string) {
    this.directory = directory
  }

  get isOpen(): boolean {
    return this.#current !== undefined
  }

  /** Opens what is on the disk, also after a seal that failed half way. Throws when another process has the file. */
  open(): void {
    this.#close()
    mkdirSync(this.directory, { recursive: true })
    this.#note("open")
    try {
      this.#current = openAt(join(this.directory, "kv.sqlite"))
    } catch (error) {
      this.#note("close")
      throw error
    }
  }

  /** Moves the write-ahead log into the file and closes it; gives the last revision. Throws, still open, when it cannot. */
  seal(): bigint {
    const last = this.revision()
    const checkpoint = this.#open.database.prepare("PRAGMA wal_checkpoint(TRUNCATE)").get()
    if (checkpoint?.busy !== 0n) throw new Error("the checkpoint was not completed, something reads the database")
    this.#close()
    return last
  }

  /** Of the last write; 0 before the first. */
  revision(): bigint {
    return this.#open.revision.get()?.number as bigint
  }

  get(key: string): Entry | undefined {
    return this.#open.get.get(key) as Entry | undefined
  }

  /** Gives the revision that this write made. */
  put(key: string, value: Uint8Array): bigint {
    return this.#write((revision) => this.#open.put.run(key, value, revision))
  }

  /** Gives the revision, also when there was no such key. */
  delete(key: string): bigint {
    return this.#write(() => this.#open.delete.run(key))
  }

  get #open(): Open {
    if (this.#current === undefined) throw new Error("the database is closed")
    return this.#current
  }

  #write(change: (revision: bigint) => void): bigint {
    const { database, count } = this.#open
    database.exec("BEGIN IMMEDIATE")
    try {
      const revision = count.get()?.number as bigint
      change(revision)
      database.exec("COMMIT")
      return revision
    } catch (error) {
      if (database.isTransaction) database.exec("ROLLBACK")
      throw error
    }
  }

  #close(): void {
    if (this.#current === undefined) return
    this.#current.database.close()
    this.#current = undefined
    this.#note("close")
  }

  /** One write to a file opened with O_APPEND; the data lock is held. */
  #note(what: "open" | "close"): void {
    appendFileSync(join(this.directory, "generations.log"), `${what} ${process.pid} ${new Date().toISOString()}\n`)
  }
}

/**
 * The lock of a data directory: whoever holds it may write there, and nobody else.
 *
 * The lock is an exclusive flock(2) on `DIR/.handoff.lock`, a file that is never removed: with two files of one name two
 * processes could hold "the" lock. `DIR/.handoff.pidfile` only says who has it, one line with the pid; it is written by
 * the holder under the lock and removed before the lock is let go, so it never names a later holder's predecessor for
 * long. It only informs, so one that cannot be removed (EROFS, EIO) is a warning, and the lock is let go all the same.
 * Both names and the pidfile's format are those of the Rust crate `beyond-handoff`, so that programs of either kind
 * keep each other out.
 *
 * Limits: the lock works where flock does (not between hosts). A child that inherited the descriptor without
 * close-on-exec would keep the lock after the process died; {@link DataDirLock.release} ends it for such copies, too.
 */
import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, writeSync } from "node:fs"
import { join } from "node:path"
import * as Flock from "@handoff/backend-ffi/Flock"
import * as DataLock from "@handoff/core/protocol/DataLock"
import * as Result from "effect/Result"
import { messageOf } from "../internal/ErrorText.ts"
import { DaemonError } from "./DaemonError.ts"

const PID_FILE = ".handoff.pidfile"

/** EPERM means that the process exists and belongs to another user. */
const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return error instanceof Error && Reflect.get(error, "code") === "EPERM"
  }
}

const syncPath = (path: string): void => {
  const fd = openSync(path, "r")
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

/**
 * Atomic and durable: a reader finds the old pid or the new one, also after a power failure. Only the holder of the lock
 * writes here, so the temporary name needs no number, and what a holder leaves that is killed right here the next one
 * takes with it.
 */
const writePid = (directory: string): void => {
  const path = join(directory, PID_FILE)
  const temporary = `${path}.tmp`
  try {
    const fd = openSync(temporary, "w", 0o644)
    try {
      writeSync(fd, `${process.pid}\n`)
      fsyncSync(fd)
    } finally {
      closeSync(fd)
    }
    renameSync(temporary, path)
  } catch (error) {
    rmSync(temporary, { force: true })
    throw error
  }
  syncPath(directory)
}

const removePid = (directory: string): void => {
  const path = join(directory, PID_FILE)
  try {
    rmSync(path, { force: true })
  } catch (error) {
    const text = `${path} could not be removed, the lock is released all the same: ${messageOf(error)}`
    process.emitWarning(text, "HandoffWarning")
  }
}

const readPid = (directory: string): number | undefined => {
  try {
    const pid = Number(readFileSync(join(directory, PID_FILE), "utf8").trim())
    return Number.isInteger(pid) && pid > 0 ? pid : undefined
  } catch {
    return undefined
  }
}

/** One process's hold on a data directory, taken and given back as often as handoffs ask for it. */
export class DataDirLock {
  readonly dataDir: string
  #lock: Flock.Lock | undefined

  constructor(dataDir: string) {
    this.dataDir = dataDir
  }

  get held(): boolean {
    return this.#lock !== undefined
  }

  /** One try, without waiting; creates the directory. What kept it from being taken, or undefined. */
  tryAcquire(): DaemonError | undefined {
    if (this.#lock !== undefined) return undefined
    const { dataDir } = this
    const failed = (detail: string) => new DaemonError({ reason: { _tag: "DataLockFailed", dataDir, detail } })
    try {
      mkdirSync(dataDir, { recursive: true })
    } catch (error) {
      return failed(messageOf(error))
    }
    const taken = Flock.tryLock(join(dataDir, DataLock.FILE_NAME))
    if (Result.isFailure(taken)) {
      if (taken.failure._tag === "CallFailed") return failed(`${taken.failure.call} = ${taken.failure.errno}`)
      const holder = readPid(dataDir) ?? taken.failure.holder
      const alive = holder !== undefined && isAlive(holder)
      return new DaemonError({ reason: { _tag: "DataLocked", dataDir, holder, alive } })
    }
    try {
      writePid(dataDir)
    } catch (error) {
      Flock.unlock(taken.success)
      return failed(messageOf(error))
    }
    this.#lock = taken.success
    return undefined
  }

  /** A pidfile that cannot be removed does not keep the lock: waiting for it would leave the data to nobody. */
  release(): void {
    const lock = this.#lock
    if (lock === undefined) return
    // Under the lock: afterwards it may be another's.
    removePid(this.dataDir)
    this.#lock = undefined
    Flock.unlock(lock)
  }
}

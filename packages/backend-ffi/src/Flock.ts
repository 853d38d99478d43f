/**
 * Whole-file locks (flock(2)) as plain synchronous functions, for daemons: nothing here needs Effect's runtime.
 *
 * The lock belongs to the open file description, so every descriptor that refers to it holds it: one that reached a forked
 * child would keep the lock after our close. Hence close-on-exec from the start (node:fs opens everything so), and LOCK_UN
 * before close, which ends the lock for all of them.
 *
 * The file stays: removing it would let two processes lock two files of one name.
 */
import { closeSync, constants, fstatSync, openSync } from "node:fs"
import type { LockError } from "@handoff/core/backend/Locks"
import type { Fd } from "@handoff/core/Fd"
import * as Result from "effect/Result"
import * as Libc from "./Libc.ts"
import { errnoOf } from "./PathErrno.ts"
import * as ProcNet from "./ProcNet.ts"

const LOCK_EX = 2
const LOCK_NB = 4
const LOCK_UN = 8

/** A lock that is held. It is released by {@link unlock}, and by the end of the process. */
export interface Lock {
  readonly path: string
  /** Close-on-exec; whoever dups it without that flag hands the lock on. */
  readonly fd: Fd
}

/** Why a lock was not taken: who has it, as far as the kernel tells, or the call that failed. */
export type Refusal = LockError["reason"]

/**
 * The process that took a flock on this inode, by /proc/locks; the device is not compared, because some file systems show
 * another one there than to stat(2). A holder of another pid namespace is listed with a pid that is not positive. The pid is
 * the taker's: it may have ended, and a child that inherited the descriptor holds the lock.
 */
const holderOf = (inode: number): number | undefined => {
  for (const line of ProcNet.readText("/proc/locks").split("\n")) {
    const fields = line.trim().split(/\s+/)
    // "1: FLOCK ADVISORY WRITE 1234 08:02:5678 0 EOF"; waiters have "->" after the number.
    if (fields[1] !== "FLOCK" || fields[5]?.split(":")[2] !== String(inode)) continue
    const pid = Number(fields[4])
    if (pid > 0) return pid
  }
  return undefined
}

const flock = (libc: Libc.Libc, fd: Fd, operation: number) =>
  libc.call("flock", "i32", ["i32", "i32"], [fd, operation]).errno

/**
 * Takes an exclusive lock on the file, without waiting; a missing file is created with mode 0600.
 *
 * Fails with `Held` when another open file description has it, also one of this process, and with `CallFailed`: `open` and
 * its errno, `flock` with `ENOLCK`, or `dlopen` with `ENOSYS` where the C library can't be used.
 *
 * @example
 * const lock = tryLock("/var/lib/app/.lock")
 * if (Result.isSuccess(lock)) unlock(lock.success)
 */
export const tryLock = (path: string): Result.Result<Lock, Refusal> => {
  const libc = Libc.open()
  if (Result.isFailure(libc)) return Result.fail({ _tag: "CallFailed", call: "dlopen", errno: "ENOSYS" })
  const opened = Result.try({
    try: () => openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600),
    catch: (error): Refusal => ({ _tag: "CallFailed", call: "open", errno: errnoOf(error) })
  })
  if (Result.isFailure(opened)) return Result.fail(opened.failure)
  const fd = opened.success
  const errno = flock(libc.success, fd, LOCK_EX | LOCK_NB)
  if (errno === undefined) return Result.succeed({ path, fd })
  const holder = errno === "EAGAIN" ? holderOf(fstatSync(fd).ino) : undefined
  closeSync(fd)
  if (errno !== "EAGAIN") return Result.fail({ _tag: "CallFailed", call: "flock", errno })
  return Result.fail({ _tag: "Held", ...(holder === undefined ? {} : { holder }) })
}

/** Releases a lock, for every copy of its descriptor, and closes ours. Call it once. */
export const unlock = (lock: Lock): void => {
  const libc = Libc.open()
  if (Result.isSuccess(libc)) flock(libc.success, lock.fd, LOCK_UN)
  closeSync(lock.fd)
}

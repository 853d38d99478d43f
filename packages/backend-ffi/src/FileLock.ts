/**
 * Whole-file advisory locks (flock(2)): the contract `Locks` of core.
 *
 * The lock belongs to the open file description, so every descriptor that refers to it holds it: one that reached a forked
 * child would keep the lock after our close. Hence close-on-exec from the start (node:fs opens everything so), and LOCK_UN
 * before close, which ends the lock for all of them.
 *
 * The file stays: removing it would let two processes lock two files of one name.
 */
import { closeSync, constants, fstatSync, openSync } from "node:fs"
import { LockError, Locks } from "@handoff/core/backend/Locks"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Libc from "./Libc.ts"
import { errnoOf } from "./PathErrno.ts"
import * as ProcNet from "./ProcNet.ts"

const LOCK_EX = 2
const LOCK_NB = 4
const LOCK_UN = 8

/**
 * The process that took a flock on this inode, by /proc/locks; the device is not compared, because some file systems show
 * another one there than to stat(2). A holder of another pid namespace is listed with a pid that is not positive.
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

type Flock = (fd: number, operation: number) => Libc.CallResult

const lock = (flock: Flock, path: string): Result.Result<number, LockError> => {
  const opened = Result.try({
    try: () => openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600),
    catch: (error) => new LockError({ path, reason: { _tag: "CallFailed", call: "open", errno: errnoOf(error) } })
  })
  if (Result.isFailure(opened)) return opened
  const fd = opened.success
  const { errno } = flock(fd, LOCK_EX | LOCK_NB)
  if (errno === undefined) return Result.succeed(fd)
  const holder = errno === "EAGAIN" ? holderOf(fstatSync(fd).ino) : undefined
  closeSync(fd)
  return Result.fail(
    new LockError({
      path,
      reason:
        errno === "EAGAIN"
          ? { _tag: "Held", ...(holder === undefined ? {} : { holder }) }
          : { _tag: "CallFailed", call: "flock", errno }
    })
  )
}

const make = (libc: Libc.Libc): Locks["Service"] => {
  const flock = libc.bind("flock", "i32", ["i32", "i32"])
  return {
    acquire: (path) =>
      Effect.asVoid(
        Effect.acquireRelease(
          Effect.suspend(() => Effect.fromResult(lock(flock, path))),
          (fd) =>
            Effect.sync(() => {
              flock(fd, LOCK_UN)
              closeSync(fd)
            })
        )
      )
  }
}

/** Locks through flock(2). */
export const layer = Layer.effect(
  Locks,
  Effect.map(
    Effect.suspend(() => Effect.fromResult(Libc.open())),
    make
  )
)

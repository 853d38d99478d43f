/**
 * Copying a socket out of another process (pidfd_getfd(2)).
 *
 * The socket is known by its inode, so the answer is checked by it: the descriptor that /proc showed may have been closed,
 * and its number used again, before the kernel copied it. Processes that end meanwhile are passed over, those that can't be
 * looked into are remembered: when nobody else has the socket, they are why it was not found.
 *
 *     readlink /proc/PID/fd/7 -> socket:[42]     close(7), open -> 7     pidfd_getfd(7)     fstat: not 42, closed again
 */
import { closeSync, fstatSync, readdirSync, readlinkSync } from "node:fs"
import type { CopyErrorReason } from "@handoff/core/backend/Processes"
import type { ErrnoName } from "@handoff/core/Errno"
import type { Fd } from "@handoff/core/Fd"
import * as Result from "effect/Result"
import { errnoOf } from "./PathErrno.ts"
import type { PidfdCalls } from "./Pidfd.ts"
import * as ProcNet from "./ProcNet.ts"

const CAP_SYS_PTRACE = 19n

const DENIED: ReadonlySet<ErrnoName> = new Set<ErrnoName>(["EPERM", "EACCES"])
/** The process ended, or closed its descriptor. */
const GONE: ReadonlySet<ErrnoName> = new Set<ErrnoName>(["ENOENT", "ESRCH", "EBADF"])

type Failure = { readonly call: string; readonly errno: ErrnoName }
type Copied = Result.Result<Fd | undefined, Failure>

const failed = (call: string, errno: ErrnoName): Copied =>
  GONE.has(errno) ? Result.succeed(undefined) : Result.fail({ call, errno })

/** What the kernel weighs when a process wants to look into another (ptrace(2), "Ptrace access mode checking"). */
export interface AccessFacts {
  readonly uid: number
  /** Undefined when it is gone. */
  readonly targetUid: number | undefined
  /** We have CAP_SYS_PTRACE. */
  readonly capable: boolean
  /** kernel.yama.ptrace_scope; undefined where the kernel has no Yama. */
  readonly scope: number | undefined
}

/** What would permit it, in words. */
export const missing = ({ uid, targetUid, capable, scope }: AccessFacts): string => {
  if (scope === 3) return "kernel.yama.ptrace_scope below 3, which is set until the next boot"
  if (capable) return "a seccomp filter that allows it, and a process in the same user namespace"
  if (targetUid !== undefined && targetUid !== uid) {
    return `CAP_SYS_PTRACE, since the process is of uid ${targetUid} and this one of uid ${uid}`
  }
  if (scope === 2) return "CAP_SYS_PTRACE, since kernel.yama.ptrace_scope is 2"
  if (scope === 1) return "CAP_SYS_PTRACE, or kernel.yama.ptrace_scope 0 (it is 1)"
  return "CAP_SYS_PTRACE, or a process that is dumpable and has no more rights than this one"
}

const statusField = (pid: number | "self", field: string): string | undefined =>
  new RegExp(`^${field}:\\s*(\\S+)`, "m").exec(ProcNet.readText(`/proc/${pid}/status`))?.[1]

const accessFacts = (pid: number): AccessFacts => {
  const scope = ProcNet.readText("/proc/sys/kernel/yama/ptrace_scope").trim()
  const uid = statusField(pid, "Uid")
  return {
    uid: process.getuid?.() ?? -1,
    targetUid: uid === undefined ? undefined : Number(uid),
    capable: ((BigInt(`0x${statusField("self", "CapEff") ?? "0"}`) >> CAP_SYS_PTRACE) & 1n) === 1n,
    scope: scope === "" ? undefined : Number(scope)
  }
}

/** The descriptors of a process that were this socket a moment ago. */
const candidates = (pid: number, inode: number): Result.Result<ReadonlyArray<Fd>, Failure> =>
  Result.try({
    try: () => {
      const link = `socket:[${inode}]`
      const held = (fd: string) => {
        try {
          return readlinkSync(`/proc/${pid}/fd/${fd}`) === link
        } catch (error) {
          if (errnoOf(error) === "ENOENT") return false
          throw error
        }
      }
      return readdirSync(`/proc/${pid}/fd`).filter(held).map(Number)
    },
    catch: (error) => ({ call: `open(/proc/${pid}/fd)`, errno: errnoOf(error) })
  })

const copyAt = (pidfds: PidfdCalls, pid: number, pidfd: Fd, fd: Fd, inode: number): Copied => {
  const copied = pidfds.copy(pidfd, fd)
  if (Result.isFailure(copied)) return failed(`pidfd_getfd(${pid}, ${fd})`, copied.failure)
  if (fstatSync(copied.success).ino === inode) return Result.succeed(copied.success)
  closeSync(copied.success)
  return Result.succeed(undefined)
}

const copyFrom = (pidfds: PidfdCalls, pid: number, inode: number): Copied => {
  const fds = candidates(pid, inode)
  if (Result.isFailure(fds)) return failed(fds.failure.call, fds.failure.errno)
  if (fds.success.length === 0) return Result.succeed(undefined)
  const opened = pidfds.open(pid)
  if (Result.isFailure(opened)) return failed(`pidfd_open(${pid})`, opened.failure)
  let last: Copied = Result.succeed(undefined)
  for (const fd of fds.success) {
    last = copyAt(pidfds, pid, opened.success, fd, inode)
    if (Result.isFailure(last) || last.success !== undefined) break
  }
  closeSync(opened.success)
  return last
}

/** A copy, close-on-exec, of the socket with this inode that one of these processes holds; the first that lets us. */
export const copySocket = (
  pidfds: PidfdCalls,
  pids: ReadonlyArray<number>,
  inode: number
): Result.Result<Fd, CopyErrorReason> => {
  let reason: CopyErrorReason = { _tag: "NotHeld" }
  for (const pid of pids) {
    const copied = copyFrom(pidfds, pid, inode)
    if (Result.isFailure(copied)) {
      const { call, errno } = copied.failure
      if (!DENIED.has(errno)) return Result.fail({ _tag: "CallFailed", call, errno })
      if (reason._tag === "NotHeld") reason = { _tag: "NotPermitted", call, missing: missing(accessFacts(pid)) }
    } else if (copied.success !== undefined) return Result.succeed(copied.success)
  }
  return Result.fail(reason)
}

/**
 * Process descriptors (pidfd_open(2), Linux 5.3): a pid may be used again, a pidfd refers to its process for ever.
 *
 * Calls go through syscall(2), since glibc has wrappers only since 2.36.
 */
import { closeSync } from "node:fs"
import type { ErrnoName } from "@handoff/core/Errno"
import type { Fd } from "@handoff/core/Fd"
import * as Result from "effect/Result"
import { numbers } from "./internal/SystemCallNumbers.ts"
import type { CallResult, Libc } from "./Libc.ts"
import type { Architecture } from "./trampoline/Code.ts"

const POLLIN = 1
const POLLFD_BYTES = 8

const resultOf = ({ value, errno }: CallResult): Result.Result<number, ErrnoName> =>
  errno === undefined ? Result.succeed(value) : Result.fail(errno)

/** Opens a pidfd of a process, close-on-exec. ENOSYS before Linux 5.3, ESRCH for no such process, EMFILE. */
export const make = (libc: Libc, architecture: Architecture): ((pid: number) => Result.Result<number, ErrnoName>) => {
  const syscall = libc.bind("syscall", "i64", ["i64", "i64", "i64"])
  const number = numbers[architecture].pidfd_open
  return (pid) => resultOf(syscall(number, pid, 0))
}

/** What can be done through pidfds. */
export interface PidfdCalls {
  readonly open: (pid: number) => Result.Result<Fd, ErrnoName>
  /** A copy, close-on-exec, of the process's descriptor `fd` (pidfd_getfd(2), Linux 5.6). EPERM, EBADF, ESRCH, ENOSYS. */
  readonly copy: (pidfd: Fd, fd: Fd) => Result.Result<Fd, ErrnoName>
  /** pidfd_send_signal(2); it succeeds for a zombie. */
  readonly signal: (pidfd: Fd, signal: number) => Result.Result<number, ErrnoName>
  /** Those whose process has ended, zombies too; one call for all of them (poll(2) without waiting). */
  readonly ended: (pidfds: ReadonlyArray<Fd>) => ReadonlySet<Fd>
}

/** The calls, prepared. */
export const calls = (libc: Libc, architecture: Architecture): PidfdCalls => {
  const syscall = libc.bind("syscall", "i64", ["i64", "i64", "i64", "i64", "i64"])
  const poll = libc.bind("poll", "i32", ["bytes", "i64", "i32"])
  const { pidfd_getfd, pidfd_send_signal } = numbers[architecture]
  return {
    open: make(libc, architecture),
    copy: (pidfd, fd) => resultOf(syscall(pidfd_getfd, pidfd, fd, 0, 0)),
    signal: (pidfd, signal) => resultOf(syscall(pidfd_send_signal, pidfd, signal, 0, 0)),
    ended: (pidfds) => {
      const asked = Buffer.alloc(POLLFD_BYTES * pidfds.length)
      for (const [index, pidfd] of pidfds.entries()) {
        asked.writeInt32LE(pidfd, POLLFD_BYTES * index)
        asked.writeInt16LE(POLLIN, POLLFD_BYTES * index + 4)
      }
      if (pidfds.length === 0 || poll(asked, pidfds.length, 0).errno !== undefined) return new Set()
      return new Set(pidfds.filter((_, index) => (asked.readInt16LE(POLLFD_BYTES * index + 6) & POLLIN) !== 0))
    }
  }
}

/** Why pidfds can't be had here, or undefined. */
export const obstacle = (libc: Libc, architecture: Architecture): ErrnoName | undefined => {
  const opened = make(libc, architecture)(process.pid)
  if (Result.isFailure(opened)) return opened.failure
  closeSync(opened.success)
  return undefined
}

/** Why descriptors can't be copied through pidfds here, or undefined: what a process may not even do to itself. */
export const copyObstacle = ({ open, copy }: PidfdCalls): ErrnoName | undefined => {
  const opened = open(process.pid)
  if (Result.isFailure(opened)) return opened.failure
  const copied = copy(opened.success, opened.success)
  closeSync(opened.success)
  if (Result.isFailure(copied)) return copied.failure
  closeSync(copied.success)
  return undefined
}

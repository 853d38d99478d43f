/**
 * Process descriptors (pidfd_open(2), Linux 5.3): a pid may be used again, a pidfd refers to its process for ever.
 *
 * Calls go through syscall(2), since glibc has wrappers only since 2.36.
 */
import { closeSync } from "node:fs"
import type { ErrnoName } from "@handoff/core/Errno"
import * as Result from "effect/Result"
import { numbers } from "./internal/SystemCallNumbers.ts"
import type { Libc } from "./Libc.ts"
import type { Architecture } from "./trampoline/Code.ts"

/** Opens a pidfd of a process, close-on-exec. ENOSYS before Linux 5.3, ESRCH for no such process, EMFILE. */
export const make = (libc: Libc, architecture: Architecture): ((pid: number) => Result.Result<number, ErrnoName>) => {
  const syscall = libc.bind("syscall", "i64", ["i64", "i64", "i64"])
  const number = numbers[architecture].pidfd_open
  return (pid) => {
    const { value, errno } = syscall(number, pid, 0)
    return errno === undefined ? Result.succeed(value) : Result.fail(errno)
  }
}

/** Why pidfds can't be had here, or undefined. */
export const obstacle = (libc: Libc, architecture: Architecture): ErrnoName | undefined => {
  const opened = make(libc, architecture)(process.pid)
  if (Result.isFailure(opened)) return opened.failure
  closeSync(opened.success)
  return undefined
}

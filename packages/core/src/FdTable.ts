/**
 * A process's descriptor table as a value, with one function for each system call that changes it.
 *
 * Numbers map to open file descriptions (open(2)), which are opaque names here: two descriptors refer to the same
 * description exactly if the names are equal. FD_CLOEXEC belongs to the descriptor, not to the description. The functions
 * return a new table or the errno Linux gives, and check in the order in which Linux checks; the given table never
 * changes. Each call copies the table: for many calls in a row take a draft (FdTableDraft.ts), on which these stand.
 */
import * as Result from "effect/Result"
import type { ErrnoName } from "./Errno.ts"
import { type Fd, isFd } from "./Fd.ts"
import * as FdTableDraft from "./FdTableDraft.ts"

/** The name of an open file description. */
export type Description = string | number

/** What a descriptor refers to, and its FD_CLOEXEC flag. */
export interface Entry {
  readonly description: Description
  readonly closeOnExec: boolean
}

export interface FdTable {
  /** RLIMIT_NOFILE (soft): new descriptors are below it; those already open at or over it stay open. */
  readonly limit: number
  readonly entries: ReadonlyMap<Fd, Entry>
}

/** A table of the given descriptors. Throws a RangeError for what is not a descriptor number. */
export const make = (limit: number, entries: Iterable<readonly [Fd, Entry]> = []): FdTable => {
  const map = new Map<Fd, Entry>()
  for (const [fd, entry] of entries) {
    if (!isFd(fd)) throw new RangeError(`${fd} is not a descriptor number`)
    map.set(fd, entry)
  }
  return { limit, entries: map }
}

/** The result of a call that opens a descriptor. */
export interface Opened {
  readonly fd: Fd
  readonly table: FdTable
}

const run = (
  table: FdTable,
  call: (draft: FdTableDraft.FdTableDraft) => ErrnoName | undefined
): Result.Result<FdTable, ErrnoName> => {
  const draft = FdTableDraft.make(table)
  const errno = call(draft)
  return errno === undefined ? Result.succeed(FdTableDraft.freeze(draft)) : Result.fail(errno)
}

const runOpening = (
  table: FdTable,
  call: (draft: FdTableDraft.FdTableDraft) => Fd | ErrnoName
): Result.Result<Opened, ErrnoName> => {
  const draft = FdTableDraft.make(table)
  const fd = call(draft)
  return typeof fd === "string" ? Result.fail(fd) : Result.succeed({ fd, table: FdTableDraft.freeze(draft) })
}

/** open(2), socket(2) and the like: the lowest free number, or EMFILE. */
export const open = (table: FdTable, description: Description, closeOnExec = true): Result.Result<Opened, ErrnoName> =>
  runOpening(table, (draft) => FdTableDraft.open(draft, description, closeOnExec))

/** dup2(2): EBADF for a closed source or a target at or over the limit; `dup2(n, n)` changes nothing, flag included. */
export const dup2 = (table: FdTable, from: Fd, to: Fd): Result.Result<FdTable, ErrnoName> =>
  run(table, (draft) => FdTableDraft.dup2(draft, from, to))

/** dup3(2): as dup2, with the flag chosen; EINVAL if source and target are the same number. */
export const dup3 = (table: FdTable, from: Fd, to: Fd, closeOnExec = false): Result.Result<FdTable, ErrnoName> =>
  run(table, (draft) => FdTableDraft.dup3(draft, from, to, closeOnExec))

/** F_DUPFD or F_DUPFD_CLOEXEC (fcntl(2)): EBADF closed source, EINVAL minimum at or over the limit, EMFILE none free. */
export const duplicate = (
  table: FdTable,
  from: Fd,
  atLeast: Fd,
  closeOnExec: boolean
): Result.Result<Opened, ErrnoName> =>
  runOpening(table, (draft) => FdTableDraft.duplicate(draft, from, atLeast, closeOnExec))

/** F_SETFD (fcntl(2)): EBADF. */
export const setCloseOnExec = (table: FdTable, fd: Fd, closeOnExec: boolean): Result.Result<FdTable, ErrnoName> =>
  run(table, (draft) => FdTableDraft.setCloseOnExec(draft, fd, closeOnExec))

/** close(2): EBADF. */
export const close = (table: FdTable, fd: Fd): Result.Result<FdTable, ErrnoName> =>
  run(table, (draft) => FdTableDraft.close(draft, fd))

/** close_range(2), the last number included: EINVAL if `first` is over `last`; closed numbers are passed over. */
export const closeRange = (
  table: FdTable,
  first: Fd,
  last: Fd | "max",
  how: "close" | "close-on-exec"
): Result.Result<FdTable, ErrnoName> => run(table, (draft) => FdTableDraft.closeRange(draft, first, last, how))

/** execve(2): descriptors marked close-on-exec are closed. */
export const exec = (table: FdTable): FdTable => {
  const draft = FdTableDraft.make(table)
  FdTableDraft.exec(draft)
  return FdTableDraft.freeze(draft)
}

/** setrlimit(2) of RLIMIT_NOFILE: what is open stays open. */
export const setLimit = (table: FdTable, limit: number): FdTable => ({ ...table, limit })

/** The open numbers, ascending. */
export const numbers = (table: FdTable): ReadonlyArray<Fd> => [...table.entries.keys()].sort((a, b) => a - b)

/** True if both tables have the same descriptors, descriptions and flags; the limit does not count. */
export const equals = (left: FdTable, right: FdTable): boolean => {
  if (left.entries.size !== right.entries.size) return false
  for (const [fd, entry] of left.entries) {
    const other = right.entries.get(fd)
    if (other?.description !== entry.description || other.closeOnExec !== entry.closeOnExec) return false
  }
  return true
}

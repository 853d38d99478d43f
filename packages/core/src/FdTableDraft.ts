/**
 * A descriptor table that changes in place: the calls of FdTable.ts for many operations in a row.
 *
 * A draft is made from a table, changed, and frozen into a table; it belongs to whoever made it. A call returns the errno
 * of its failure (and changed nothing then), or undefined; one that opens a descriptor returns its number.
 *
 * The search for a free number remembers a run of numbers known to be taken, so that n copies above one minimum take
 * linear time, as a plan that stages makes them.
 */
import type { ErrnoName } from "./Errno.ts"
import type { Fd } from "./Fd.ts"
import type { Description, Entry, FdTable } from "./FdTable.ts"

export interface FdTableDraft {
  limit: number
  readonly entries: Map<Fd, Entry>
  /** Every number from `from` up to, and not including, `to` is taken. */
  readonly taken: { from: Fd; to: Fd }
}

export const make = (table: FdTable): FdTableDraft => ({
  limit: table.limit,
  entries: new Map(table.entries),
  taken: { from: 0, to: 0 }
})

/** The draft's present state as a value; the draft may be changed further. */
export const freeze = (draft: FdTableDraft): FdTable => ({ limit: draft.limit, entries: new Map(draft.entries) })

/** The draft's last state as a value: the draft is not used again. */
export const finish = (draft: FdTableDraft): FdTable => ({ limit: draft.limit, entries: draft.entries })

const remove = (draft: FdTableDraft, fd: Fd): void => {
  draft.entries.delete(fd)
  const { taken } = draft
  if (fd >= taken.from && fd < taken.to) taken.to = fd
}

const lowestFree = (draft: FdTableDraft, atLeast: Fd): Fd => {
  const { taken } = draft
  const known = atLeast >= taken.from && atLeast <= taken.to
  if (!known) taken.from = atLeast
  let fd = known ? taken.to : atLeast
  while (draft.entries.has(fd)) fd++
  taken.to = fd
  return fd
}

export const open = (draft: FdTableDraft, description: Description, closeOnExec: boolean): Fd | ErrnoName => {
  const fd = lowestFree(draft, 0)
  if (fd >= draft.limit) return "EMFILE"
  draft.entries.set(fd, { description, closeOnExec })
  return fd
}

export const dup3 = (draft: FdTableDraft, from: Fd, to: Fd, closeOnExec = false): ErrnoName | undefined => {
  if (from === to) return "EINVAL"
  if (to < 0 || to >= draft.limit) return "EBADF"
  const entry = draft.entries.get(from)
  if (entry === undefined) return "EBADF"
  draft.entries.set(to, { description: entry.description, closeOnExec })
  return undefined
}

export const dup2 = (draft: FdTableDraft, from: Fd, to: Fd): ErrnoName | undefined => {
  if (from === to) return draft.entries.has(from) ? undefined : "EBADF"
  return dup3(draft, from, to)
}

export const duplicate = (draft: FdTableDraft, from: Fd, atLeast: Fd, closeOnExec: boolean): Fd | ErrnoName => {
  const entry = draft.entries.get(from)
  if (entry === undefined) return "EBADF"
  if (atLeast < 0 || atLeast >= draft.limit) return "EINVAL"
  const fd = lowestFree(draft, atLeast)
  if (fd >= draft.limit) return "EMFILE"
  draft.entries.set(fd, { description: entry.description, closeOnExec })
  return fd
}

export const setCloseOnExec = (draft: FdTableDraft, fd: Fd, closeOnExec: boolean): ErrnoName | undefined => {
  const entry = draft.entries.get(fd)
  if (entry === undefined) return "EBADF"
  if (entry.closeOnExec !== closeOnExec) draft.entries.set(fd, { description: entry.description, closeOnExec })
  return undefined
}

export const close = (draft: FdTableDraft, fd: Fd): ErrnoName | undefined => {
  if (!draft.entries.has(fd)) return "EBADF"
  remove(draft, fd)
  return undefined
}

export const closeRange = (
  draft: FdTableDraft,
  first: Fd,
  last: Fd | "max",
  how: "close" | "close-on-exec"
): ErrnoName | undefined => {
  const end = last === "max" ? Number.POSITIVE_INFINITY : last
  if (first < 0 || end < first) return "EINVAL"
  const act = (fd: Fd): void => {
    if (how === "close") remove(draft, fd)
    else setCloseOnExec(draft, fd, true)
  }
  // Whatever is shorter, the range or the table: a plan may seal thousands of gaps of one number each.
  if (end - first < draft.entries.size) {
    for (let fd = first; fd <= end; fd++) if (draft.entries.has(fd)) act(fd)
    return undefined
  }
  for (const fd of draft.entries.keys()) if (fd >= first && fd <= end) act(fd)
  return undefined
}

export const exec = (draft: FdTableDraft): void => {
  for (const [fd, entry] of draft.entries) if (entry.closeOnExec) remove(draft, fd)
}

import type { ErrnoName } from "./Errno.ts"
import type { Fd } from "./Fd.ts"

/** The result of an earlier `Duplicate` operation, known only when the plan runs. */
export interface Slot {
  readonly slot: number
}

/** A descriptor known while planning, or the result of an earlier operation. */
export type FdRef = Fd | Slot

/** One system call on the descriptor table. `tolerate` lists errnos that do not stop the plan. */
export type FdOperation =
  /** dup3(from, to, 0): `to` refers to what `from` refers to, FD_CLOEXEC clear. Planners never emit from = to. */
  | { readonly _tag: "Dup2"; readonly from: FdRef; readonly to: Fd; readonly tolerate?: ReadonlyArray<ErrnoName> }
  /** fcntl F_DUPFD or F_DUPFD_CLOEXEC: the lowest free number at or above `atLeast`, remembered as `slot`. */
  | {
      readonly _tag: "Duplicate"
      readonly from: FdRef
      readonly atLeast: Fd
      readonly closeOnExec: boolean
      readonly slot: number
      readonly tolerate?: ReadonlyArray<ErrnoName>
    }
  /** fcntl F_SETFD 0. */
  | { readonly _tag: "ClearCloseOnExec"; readonly fd: FdRef; readonly tolerate?: ReadonlyArray<ErrnoName> }
  /** close. */
  | { readonly _tag: "Close"; readonly fd: FdRef; readonly tolerate?: ReadonlyArray<ErrnoName> }
  /** close_range(first, last, flags); `last: "max"` is the whole tail. */
  | {
      readonly _tag: "CloseRange"
      readonly first: Fd
      readonly last: Fd | "max"
      readonly how: "close" | "close-on-exec"
      readonly tolerate?: ReadonlyArray<ErrnoName>
    }

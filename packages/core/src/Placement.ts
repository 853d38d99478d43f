/**
 * The wish: which source descriptor of the parent must be open at which target number in the child.
 *
 * After a plan made from placements ran, `target` refers to the open file description that `source` referred to before
 * it, with FD_CLOEXEC clear. One source may feed many targets, a target has one source, a source may equal its target,
 * and targets may be sparse and include stdio.
 */
import type { Fd } from "./Fd.ts"

/** `source` is a descriptor of the parent, `target` the number at which the child finds it. */
export interface Placement {
  readonly source: Fd
  readonly target: Fd
}

/** The placement of `source` at `target`: `move(7, 3)`. */
export const move = (source: Fd, target: Fd): Placement => ({ source, target })

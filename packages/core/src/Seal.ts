/**
 * The seal: after it, a child inherits its targets and nothing else.
 *
 * Node marks what it inherited close-on-exec only up to the first hole over 15, and other libraries open descriptors
 * without the flag, so every gap between the targets and the whole tail above them is marked by close_range(2).
 * Marking rather than closing: the kernel closes marked descriptors in exec, after the parent was let go, so a parent
 * with thousands of connections does not wait for it.
 *
 * Without close_range (Linux before 5.11, where it can't mark) the descriptors the parent has open are closed one by one.
 * EBADF is tolerated: one may have been closed since they were listed.
 */
import type { Fd } from "./Fd.ts"
import type { FdOperation } from "./PlacementPlan.ts"

export interface SealFacts {
  readonly closeRange: boolean
  readonly openDescriptors?: ReadonlyArray<Fd>
}

/**
 * Operations that leave only `targets` inheritable; stdio is sealed too unless it is a target. Undefined if there is no
 * way: neither close_range nor a list of what is open. Run them after the placements.
 */
export const operations = (targets: Iterable<Fd>, facts: SealFacts): ReadonlyArray<FdOperation> | undefined => {
  if (!facts.closeRange) {
    if (facts.openDescriptors === undefined) return undefined
    const kept = new Set(targets)
    return facts.openDescriptors.filter((fd) => !kept.has(fd)).map((fd) => ({ _tag: "Close", fd, tolerate: ["EBADF"] }))
  }
  const calls: Array<FdOperation> = []
  let first: Fd = 0
  for (const target of [...targets].sort((a, b) => a - b)) {
    if (target > first) calls.push({ _tag: "CloseRange", first, last: target - 1, how: "close-on-exec" })
    first = target + 1
  }
  calls.push({ _tag: "CloseRange", first, last: "max", how: "close-on-exec" })
  return calls
}

/**
 * Descriptor operations for people, in the words of dup(2), fcntl(2) and close_range(2).
 */
import type { FdOperation, FdRef, PlacementPlan } from "../PlacementPlan.ts"

/** How a slot is written: `a` to `z`, then `a1` and so on. */
export const formatSlot = (slot: number): string => {
  const round = Math.floor(slot / 26)
  return String.fromCharCode(97 + (slot % 26)) + (round === 0 ? "" : String(round))
}

/** A descriptor number, or the letter of the slot it will be in. */
export const formatRef = (ref: FdRef): string => (typeof ref === "number" ? String(ref) : formatSlot(ref.slot))

/** One operation in a few words, e.g. `dup2 4 -> 3`. */
export const formatOperation = (operation: FdOperation): string => {
  switch (operation._tag) {
    case "Dup2":
      return `dup2 ${formatRef(operation.from)} -> ${operation.to}`
    case "Duplicate": {
      const name = operation.closeOnExec ? "F_DUPFD_CLOEXEC" : "F_DUPFD"
      return `${name} ${formatRef(operation.from)} -> ${formatSlot(operation.slot)} (>= ${operation.atLeast})`
    }
    case "ClearCloseOnExec":
      return `F_SETFD ${formatRef(operation.fd)} clears close-on-exec`
    case "Close":
      return `close ${formatRef(operation.fd)}`
    case "CloseRange":
      return `close_range ${operation.first}-${operation.last}${operation.how === "close" ? "" : " close-on-exec"}`
  }
}

/** The plan as text, one operation a line. */
export const explain = (plan: Pick<PlacementPlan, "operations">): string =>
  plan.operations.map(formatOperation).join("\n")

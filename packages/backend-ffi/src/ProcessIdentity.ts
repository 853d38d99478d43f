/** Which process a pid names: its start time tells it from an earlier one of the same number. */
import type { ProcessIdentity } from "@handoff/core/backend/Processes"
import * as ProcessTree from "./ProcessTree.ts"
import * as ProcNet from "./ProcNet.ts"

let bootId: string | undefined

/** Undefined when there is no such process, or only its zombie. */
export const identify = (pid: number): ProcessIdentity | undefined => {
  const stat = ProcessTree.statOf(pid)
  if (!ProcessTree.isAlive(stat)) return undefined
  bootId ??= ProcNet.readText("/proc/sys/kernel/random/boot_id").trim()
  return { pid, startTime: stat.startTime, bootId }
}

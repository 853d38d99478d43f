/**
 * Finding processes, and what they hold, by what /proc shows of them (proc_pid_environ(5), proc_pid_fdinfo(5)).
 *
 * Limits: `environ` is what the process was started with, as long as it has not written over it; it, `fd` and `fdinfo` can be
 * read of processes of the same user, or by root. Others are passed over.
 */
import { basename } from "node:path"
import type { ProcessIdentity } from "@handoff/core/backend/Processes"
import { identify } from "./ProcessIdentity.ts"
import * as ProcNet from "./ProcNet.ts"

/** Living processes that were started with `variable=value`, oldest first. */
export const startedWith = (variable: string, value: string): ReadonlyArray<ProcessIdentity> => {
  // /proc is read byte by byte, so the entry is looked for as the bytes it has.
  const entry = Buffer.from(`${variable}=${value}`, "utf8").toString("latin1")
  return ProcNet.readNames("/proc")
    .filter((name) => /^[0-9]+$/.test(name))
    .filter((name) => ProcNet.readText(`/proc/${name}/environ`).split("\0").includes(entry))
    .flatMap((name) => identify(Number(name)) ?? [])
    .sort((one, other) => one.startTime - other.startTime || one.pid - other.pid)
}

/** The kernel lists a flock in the fdinfo of every descriptor that refers to the locked open file description. */
const LOCK_LINE = /^lock:.*\bFLOCK\b/m

/** Whether one of these processes holds a flock on a file of this name, in whatever directory. */
export const holdsLock = (pids: ReadonlyArray<number>, fileName: string): boolean =>
  pids.some((pid) =>
    ProcNet.readNames(`/proc/${pid}/fd`).some(
      (fd) =>
        basename(ProcNet.readLink(`/proc/${pid}/fd/${fd}`)) === fileName &&
        LOCK_LINE.test(ProcNet.readText(`/proc/${pid}/fdinfo/${fd}`))
    )
  )

/**
 * The journal that the crate's supervisor left, where a configuration file names one.
 *
 * It tells of a swap that was cut short. What to do about that, the daemons know by themselves (an incumbent that lost its
 * supervisor resumes), and what runs is in this supervisor's own state; so the file is reported in one line and renamed
 * to `PATH.old`, from where the crate's supervisor will not take it up again. A file that can't be moved stays, and that
 * is reported, too: it is no reason not to serve.
 */
import { readFileSync, renameSync } from "node:fs"
import * as CrateJournal from "@handoff/core/protocol/CrateJournal"
import * as Result from "effect/Result"
import { messageOf } from "../internal/ErrorText.ts"

const describe = (bytes: Uint8Array): string => {
  const read = CrateJournal.decode(bytes)
  if (Result.isFailure(read)) return "it can't be read"
  const { handoffId, phase, incumbentPid, successorPid, startedAtUnixMs } = read.success
  const successor = successorPid === undefined ? "" : ` to process ${successorPid}`
  const at =
    startedAtUnixMs < 8_640_000_000_000_000n ? new Date(Number(startedAtUnixMs)).toISOString() : "an unknown time"
  return `swap ${handoffId} from process ${incumbentPid}${successor}, begun at ${at}, had come to ${phase}`
}

/** Sets the journal aside. Gives the line to report; undefined when there is none. */
export const setAside = (path: string): string | undefined => {
  try {
    const what = describe(readFileSync(path))
    renameSync(path, `${path}.old`)
    return `journal ${path}: ${what}; set aside as ${path}.old`
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined
    return `journal ${path}: ${messageOf(error)}; left as it is`
  }
}

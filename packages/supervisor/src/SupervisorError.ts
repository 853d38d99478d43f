/**
 * What can go wrong with a supervisor, for a person: every error says what happened, to which generation, after how long,
 * and what is still running.
 */

import { formatExit } from "@handoff/core/backend/Launcher"
import * as Sealed from "@handoff/core/swap/Sealed"
import type { Failure, Refusal, SwapRecord } from "@handoff/core/swap/Supervision"
import * as Data from "effect/Data"
import type { SwapReport } from "./Supervisor.ts"

/** `after 1.5 s`, `after 20 ms`. */
export const formatDuration = (milliseconds: number): string =>
  milliseconds >= 1000 ? `${(milliseconds / 1000).toFixed(1)} s` : `${Math.round(milliseconds)} ms`

/** What was seen of a generation that was not ready, or why it may not have been seen. */
const seen = ({ accepting, expected }: Extract<Failure, { readonly _tag: "NotReady" }>): string => {
  if (accepting) return "; it was seen accepting"
  return expected.includes("accept")
    ? "; a server on poll or select can't be seen: for it there is --ready settle:2s"
    : ""
}

/** One clause that says why a generation did not come to serve. */
export const formatFailure = (failure: Failure): string => {
  switch (failure._tag) {
    case "LaunchFailed":
      return failure.detail
    case "Exited":
      return `it ${formatExit(failure.status)} ${formatDuration(failure.afterMs)} after its start, before it was ready`
    case "NotReady":
      return `it was not ready ${formatDuration(failure.afterMs)} after its start (waited for ${failure.expected}${seen(failure)})`
    case "Aborted":
      return `it was aborted by request after ${formatDuration(failure.afterMs)}`
    case "Stopping":
      return "the supervisor was told to stop"
    case "HandoffFailed":
      return `${Sealed.explain(failure.reason)} (${failure.phase}, after ${formatDuration(failure.afterMs)})`
    case "SupervisorDied":
      return "the supervisor died in the middle of the swap"
  }
}

export const formatRefusal = (refusal: Refusal): string => {
  switch (refusal._tag) {
    case "AlreadySwapping":
      return `swap ${refusal.swap} has been running for ${formatDuration(refusal.sinceMs)}: wait for it, or end it with \`handoff abort\``
    case "NotRunning":
      return "the supervisor has not been started"
    case "Starting":
      return "the first generation is still starting, there is nothing to replace yet"
    case "AlreadyStarted":
      return "the supervisor has been started already"
    case "Stopping":
      return "the supervisor is stopping"
    case "NoPrevious":
      return "there is no version before this one to go back to"
    case "NoSwap":
      return "no swap is running"
    case "NoProgram":
      return refusal.detail
    case "TooLate":
      return `swap ${refusal.swap} is decided: the new version was told to serve`
  }
}

/** The first generation did not come to serve; nothing is running. */
export class StartError extends Data.TaggedError("StartError")<{
  /** Undefined when none was started: a stop came first. */
  readonly generation: number | undefined
  readonly failure: Failure
  /** The last lines it wrote. */
  readonly lastLines: ReadonlyArray<string>
}> {
  override get message(): string {
    const subject =
      this.generation === undefined ? "nothing was started" : `generation ${this.generation} did not start`
    return `${subject}: ${formatFailure(this.failure)}`
  }
}

/** Who serves after a rollback. An exclusive one has ended the old generation, and started its command again as another. */
const keptBy = ({ from, serving }: SwapRecord): string => {
  if (serving === undefined) return "nothing serves"
  return from === undefined || from === serving
    ? `generation ${serving} keeps serving`
    : `generation ${serving} serves, with the command of generation ${from}`
}

/** A swap that did not commit. */
export class SwapError extends Data.TaggedError("SwapError")<{
  readonly reason:
    | { readonly _tag: "RolledBack"; readonly report: SwapReport }
    | { readonly _tag: "Refused"; readonly refusal: Refusal }
}> {
  override get message(): string {
    const reason = this.reason
    if (reason._tag === "Refused") return formatRefusal(reason.refusal)
    const { record } = reason.report
    const why = record.failure === undefined ? "" : `: ${formatFailure(record.failure)}`
    // A sealed swap may end before anything was started.
    const rejected = record.to === undefined ? "" : `: generation ${record.to} was rejected`
    const cut = record.cut > 0 ? `; ${record.cut} connection${record.cut === 1 ? " was" : "s were"} cut` : ""
    return `rolled back after ${formatDuration(record.durationMs)}, ${keptBy(record)}${rejected}${why}${cut}`
  }
}

/** The supervisor could not be set up: a bad option, an address in use, a state directory that can't be written. */
export class SetupError extends Data.TaggedError("SetupError")<{
  readonly subject: string
  readonly detail: string
}> {
  override get message(): string {
    return `${this.subject}: ${this.detail}`
  }
}

/**
 * What happens, in one line for a person.
 */
import { formatExit } from "@handoff/core/backend/Launcher"
import type { AdminLine } from "../AdminMessages.ts"
import { formatDuration, formatFailure } from "../SupervisorError.ts"
import * as SwapText from "../SwapText.ts"

/** An argument vector as one could type it. */
export const formatCommand = (argv: ReadonlyArray<string>): string =>
  argv.map((text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`)).join(" ")

/** Undefined for what a person need not see. */
export const format = (event: AdminLine): string | undefined => {
  switch (event._tag) {
    case "Watching":
      return event.serving === null ? `nothing serves (${event.phase})` : `generation ${event.serving} serves`
    case "SwapRequested":
      return `${event.kind} ${event.swap}: ${formatCommand(event.command.argv)}`
    case "SwapWaiting":
      return `swap ${event.swap} waits for generation ${event.generation}, which is ${event.why}`
    case "HandoffPhase":
      return undefined
    case "SwapEnded":
      return `swap ${event.record.id} ${SwapText.formatRecord(event.record)}`
    case "SwapRefused":
      return `refused: ${event.message}`
    case "RestartScheduled":
      return `restart in ${formatDuration(event.delayMs)} (failure ${event.failures})`
    case "StateNotSaved":
      return `the state could not be saved: ${event.detail}`
    case "Stopping":
      return "stopping"
    case "Stopped":
      return "stopped"
    default:
      return `generation ${event.generation} ${generationText(event)}`
  }
}

type GenerationEvent = Extract<AdminLine, { readonly _tag: `Generation${string}` }>

const generationText = (event: GenerationEvent): string => {
  switch (event._tag) {
    case "GenerationStarting":
      return `starts: ${formatCommand(event.command.argv)}`
    case "GenerationAdopted":
      return `lives on as process ${event.pid} (${event.phase}) and is taken over: ${formatCommand(event.command.argv)}`
    case "GenerationLaunched":
      return `runs as process ${event.pid}`
    case "GenerationReady":
      return `is ready after ${formatDuration(event.afterMs)} (${SwapText.evidence[event.evidence]})`
    case "GenerationDraining":
      return `drains, for at most ${formatDuration(event.graceMs)}`
    case "GenerationRejected":
      return `is rejected: ${formatFailure(event.failure)}`
    case "GenerationKilled":
      return event.connections === 0
        ? "is killed"
        : `is killed with ${event.connections} connection${event.connections === 1 ? "" : "s"}`
    case "GenerationExited":
      return formatExit(event.status)
    case "GenerationGone":
      return "is gone"
  }
}

/**
 * The vocabulary of the supervisor's machine of a sealed swap (Sealed.ts): its state, what happens to it, what it asks
 * for, and its timers.
 */
import type { ExitStatus } from "../backend/Launcher.ts"
import type { HandoffId } from "../protocol/HandoffId.ts"
import type { Message, Tag } from "../protocol/Message.ts"
import * as Negotiation from "../protocol/Negotiation.ts"

export type Party = "incumbent" | "successor"

/** All times in milliseconds. */
export interface Options {
  readonly versions: Negotiation.VersionRange
  /** For the incumbent to take the connection and say Hello: it is running already. */
  readonly incumbentHelloMs: number
  /** For the successor to start and say Hello. */
  readonly successorHelloMs: number
  /** How long a party that works for us may be silent; it sends heartbeats every 2 s. */
  readonly livenessMs: number
  /** From the request to Ready. */
  readonly deadlineMs: number
  /** How long the incumbent may drain. */
  readonly drainGraceMs: number
  /** What a report may be late by, after the drain grace. */
  readonly slackMs: number
  /** For a successor that is ready to take the handoff socket's path. */
  readonly publishMs: number
  /** For an incumbent to serve again after an abort; then it is killed, so that its command can be started again. */
  readonly resumeMs: number
  /** Between two looks at the handoff socket's path. */
  readonly probeMs: number
}

export const defaults: Options = {
  versions: Negotiation.SUPPORTED,
  incumbentHelloMs: 5_000,
  successorHelloMs: 30_000,
  livenessMs: 10_000,
  deadlineMs: 60_000,
  drainGraceMs: 25_000,
  slackMs: 1_000,
  publishMs: 10_000,
  resumeMs: 30_000,
  probeMs: 5
}

export const phases = [
  "connecting",
  "greeting-incumbent",
  "launching",
  "greeting-successor",
  "draining",
  "sealing",
  "opening",
  "publishing",
  "reverting",
  "resuming",
  "ended"
] as const

export type Phase = (typeof phases)[number]
export type Timer =
  | "hello-incumbent"
  | "hello-successor"
  | "drain"
  | "liveness"
  | "deadline"
  | "publish"
  | "resume"
  | "probe"

/** Why a sealed swap did not commit. */
export type Failure =
  | { readonly _tag: "Unreachable"; readonly detail: string }
  /** Somebody else answers, or says it is somebody else. */
  | { readonly _tag: "WrongPeer"; readonly party: Party; readonly expected: number | undefined; readonly pid: number }
  | { readonly _tag: "TimedOut"; readonly party: Party; readonly waitedFor: Tag; readonly afterMs: number }
  | { readonly _tag: "Lost"; readonly party: Party; readonly waitedFor: Tag; readonly detail: string }
  | { readonly _tag: "Violation"; readonly party: Party; readonly detail: string }
  | { readonly _tag: "SealFailed"; readonly error: string; readonly partialState: string }
  | { readonly _tag: "Unhealthy" }
  /** The successor opened a state older than the sealed one. Revisions are u64 as decimal text. */
  | { readonly _tag: "RevisionBehind"; readonly shard: number; readonly sealed: string; readonly advertised: string }
  | { readonly _tag: "LaunchFailed"; readonly detail: string }
  | { readonly _tag: "Exited"; readonly status: ExitStatus }
  | { readonly _tag: "Aborted" }
  | { readonly _tag: "Stopping" }

export interface State {
  readonly phase: Phase
  readonly options: Options
  readonly handoffId: HandoffId
  readonly startedAt: number
  /** Who listens at the handoff socket's path, once connected. */
  readonly incumbentPid: number | undefined
  readonly successorPid: number | undefined
  /** The session with the incumbent, and the channel to the successor, are open. */
  readonly session: boolean
  readonly channel: boolean
  /** The incumbent's process lives, as far as is known. */
  readonly incumbentAlive: boolean
  /** The incumbent was told to prepare and has not said that it resumed. */
  readonly prepared: boolean
  readonly versions: { readonly incumbent: number; readonly successor: number }
  /** How far the seal has come, as the incumbent tells it. */
  readonly progress: { readonly sealed: number; readonly total: number } | undefined
  /** What the seal reported: u64 as decimal text. */
  readonly revisions: ReadonlyArray<string> | undefined
  /** Set while it is found out whether a successor that is late serves already. */
  readonly late: Failure | undefined
  readonly failure: Failure | undefined
  /** The phase in which it failed. */
  readonly failedIn: Phase | undefined
}

export type Event = { readonly at: number } & (
  | { readonly _tag: "Started" }
  /** `pid` listens at the handoff socket's path; `member`: it belongs to the serving generation. */
  | { readonly _tag: "Connected"; readonly pid: number; readonly member: boolean }
  | { readonly _tag: "ConnectFailed"; readonly detail: string }
  | { readonly _tag: "Launched"; readonly pid: number }
  | { readonly _tag: "LaunchFailed"; readonly detail: string }
  | { readonly _tag: "Received"; readonly from: Party; readonly message: Message }
  /** Closed by the peer, or a write that was not taken. */
  | { readonly _tag: "Lost"; readonly from: Party; readonly detail: string }
  /** Bytes that are no frame. */
  | { readonly _tag: "Garbled"; readonly from: Party; readonly detail: string }
  | { readonly _tag: "IncumbentExited" }
  | { readonly _tag: "SuccessorExited"; readonly status: ExitStatus }
  /** Nobody of the successor's group is left: what it held, the kernel has taken back. */
  | { readonly _tag: "SuccessorGone" }
  /** Who answers on the handoff socket's path; undefined for nobody. `hello`: it was waited for its greeting. */
  | { readonly _tag: "PathAnswered"; readonly pid: number | undefined; readonly hello: boolean }
  | { readonly _tag: "AbortRequested"; readonly why: "Aborted" | "Stopping" }
  | { readonly _tag: "TimerFired"; readonly timer: Timer }
)

export type Command =
  /** Open a session on the handoff socket. */
  | { readonly _tag: "Connect" }
  /** Start the successor with its channel. */
  | { readonly _tag: "Launch" }
  | { readonly _tag: "Send"; readonly to: Party; readonly message: Message; readonly version: number }
  /** After what was sent has been written. */
  | { readonly _tag: "Close"; readonly to: Party }
  /** SIGKILL to the successor's group, and wait for its end (SuccessorGone). */
  | { readonly _tag: "Kill" }
  /** SIGKILL to the incumbent's group (IncumbentExited): it neither serves nor ends. */
  | { readonly _tag: "KillIncumbent" }
  /** Connect to the handoff socket's path and tell who listens there; `hello`: and only if it says Hello. */
  | { readonly _tag: "Probe"; readonly hello: boolean }
  | { readonly _tag: "Commit" }
  | { readonly _tag: "RollBack"; readonly failure: Failure }
  | { readonly _tag: "SetTimer"; readonly timer: Timer; readonly delayMs: number }
  | { readonly _tag: "ClearTimer"; readonly timer: Timer }

export interface Step {
  readonly state: State
  readonly commands: ReadonlyArray<Command>
}

/** Whether a timer may run in this phase. */
export const wanted = (phase: Phase, timer: Timer): boolean => {
  switch (timer) {
    case "hello-incumbent":
      return phase === "connecting" || phase === "greeting-incumbent"
    case "hello-successor":
      return phase === "greeting-successor"
    case "drain":
      return phase === "draining"
    case "liveness":
      return phase === "draining" || phase === "sealing" || phase === "opening"
    case "deadline":
      return phases.indexOf(phase) <= phases.indexOf("opening")
    case "publish":
      return phase === "publishing"
    case "resume":
      return phase === "resuming"
    case "probe":
      return phase === "publishing" || phase === "resuming"
  }
}

const delay = ({ options }: State, timer: Exclude<Timer, "probe">): number => {
  switch (timer) {
    case "hello-incumbent":
      return options.incumbentHelloMs
    case "hello-successor":
      return options.successorHelloMs
    case "drain":
      return options.drainGraceMs + options.slackMs
    case "liveness":
      return options.livenessMs
    case "deadline":
      return options.deadlineMs
    case "publish":
      return options.publishMs
    case "resume":
      return options.resumeMs
  }
}

const kept = ["hello-incumbent", "hello-successor", "drain", "liveness", "deadline", "publish", "resume"] as const

/** Starts the timers that the next phase wants and the last did not, and ends the others. Liveness counts per phase. */
export const timers = (before: State, after: State, started: boolean): ReadonlyArray<Command> => {
  const commands: Array<Command> = []
  for (const timer of kept) {
    const was = wanted(before.phase, timer) && !started
    const is = wanted(after.phase, timer)
    const anew = timer === "liveness" && before.phase !== after.phase
    if (is && (!was || anew)) commands.push({ _tag: "SetTimer", timer, delayMs: delay(after, timer) })
    if (was && !is) commands.push({ _tag: "ClearTimer", timer })
  }
  if (wanted(before.phase, "probe") && before.phase !== after.phase)
    commands.push({ _tag: "ClearTimer", timer: "probe" })
  return commands
}

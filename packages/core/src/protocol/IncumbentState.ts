/**
 * The vocabulary of the incumbent's machine (Incumbent.ts): its state, what happens to it, what it asks
 * for, and its timers. A timer runs exactly while the state wants it, so none is forgotten and none outlives its reason.
 */
import type { HandoffId } from "./HandoffId.ts"
import type { Capabilities, Message } from "./Message.ts"
import * as Negotiation from "./Negotiation.ts"
import type { Violation } from "./Violation.ts"

export interface Options {
  readonly pid: number
  readonly buildId: Uint8Array
  readonly versions: Negotiation.VersionRange
  readonly capabilities: Capabilities
  readonly helloTimeoutMs: number
  /** From HelloAck to PrepareHandoff: S starts N in between. */
  readonly prepareTimeoutMs: number
  readonly heartbeatMs: number
  readonly relockMs: number
  /** How long a session may stay open after it served its purpose. */
  readonly lingerMs: number
}

/** Everything but who this is. */
export const defaults: Omit<Options, "pid" | "buildId"> = {
  versions: Negotiation.SUPPORTED,
  capabilities: { reserved: 0n },
  helloTimeoutMs: 5_000,
  prepareTimeoutMs: 300_000,
  heartbeatMs: 2_000,
  relockMs: 25,
  lingerMs: 5_000
}

export const phases = [
  "serving",
  "greeting",
  "acquainted",
  "draining",
  "drained",
  "sealing",
  "releasing",
  "sealed",
  "drain-abandoned",
  "seal-abandoned",
  "release-abandoned",
  "relocking",
  "resuming",
  "resumed",
  "exiting"
] as const

export type Phase = (typeof phases)[number]
export type Timer = "hello" | "prepare" | "deadline" | "heartbeat" | "relock" | "linger"

export interface State {
  readonly phase: Phase
  readonly options: Options
  /** A session is open. */
  readonly session: boolean
  readonly version: number
  readonly handoffId: HandoffId
  readonly deadlineMs: number
  /** What the seal reported, until S is told. */
  readonly seal: Pick<SealedFact, "revisions" | "fingerprint"> | undefined
  /** Why the seal failed, until S is told: once this process serves again. */
  readonly sealFailure: Pick<SealFailedFact, "error" | "partialState"> | undefined
}

interface SealedFact {
  readonly _tag: "Sealed"
  readonly revisions: ReadonlyArray<bigint>
  readonly fingerprint: Uint8Array
}

interface SealFailedFact {
  readonly _tag: "SealFailed"
  readonly error: string
  readonly partialState: string
}

export type Event = { readonly at: number } & (
  | { readonly _tag: "Connected" }
  | { readonly _tag: "Received"; readonly message: Message }
  | { readonly _tag: "Disconnected" }
  | { readonly _tag: "TimerFired"; readonly timer: Timer }
  /** The drain hook ended, in time or at its limit. */
  | { readonly _tag: "Drained"; readonly openConnections: number; readonly acceptClosed: boolean }
  | { readonly _tag: "DrainFailed" }
  | { readonly _tag: "Progressed"; readonly sealed: number; readonly total: number; readonly lastRevision: bigint }
  /** The seal hook ended: everything is durable, the state is closed. The lock is still held. */
  | SealedFact
  /** The seal hook failed. The lock is still held. */
  | SealFailedFact
  | { readonly _tag: "LockReleased" }
  | { readonly _tag: "LockAcquired" }
  /** Another process holds it, or the try failed. */
  | { readonly _tag: "LockHeld" }
  /** Who answers on the handoff socket's path; undefined for nobody. */
  | { readonly _tag: "PathAnswered"; readonly pid: number | undefined }
  | { readonly _tag: "Resumed" }
  | { readonly _tag: "ResumeFailed" }
)

export type Command =
  | { readonly _tag: "Send"; readonly message: Message; readonly version: number }
  | { readonly _tag: "CloseSession" }
  /** Stop accepting, refuse writes, let requests in flight end, fsync; report within the time, in milliseconds. */
  | { readonly _tag: "Drain"; readonly withinMs: number }
  /** End the drain hook early; it still reports. */
  | { readonly _tag: "CancelDrain" }
  | { readonly _tag: "Seal" }
  | { readonly _tag: "ReleaseLock" }
  /** One try, without waiting. */
  | { readonly _tag: "AcquireLock" }
  | { readonly _tag: "ProbePath" }
  /** Reopen the state from disk and accept again. */
  | { readonly _tag: "Resume" }
  /** End the process and leave the socket's path alone: it may be another's by now. */
  | { readonly _tag: "Exit"; readonly status: number; readonly why: "committed" | "replaced" | "resume-failed" }
  | { readonly _tag: "SetTimer"; readonly timer: Timer; readonly delayMs: number }
  | { readonly _tag: "ClearTimer"; readonly timer: Timer }

export interface Step {
  readonly state: State
  readonly commands: ReadonlyArray<Command>
  readonly violation: Violation | undefined
}

/** Whether a timer runs in this state. What it waits for is over when this turns false. */
export const wanted = (state: State, timer: Timer): boolean => {
  const { phase } = state
  switch (timer) {
    case "hello":
      return phase === "greeting"
    case "prepare":
      return phase === "acquainted"
    case "deadline":
      return ["draining", "drained", "sealing", "releasing", "sealed"].includes(phase)
    case "heartbeat":
      if (!state.session) return false
      return ["draining", "sealing", "releasing"].includes(phase) || state.sealFailure !== undefined
    case "relock":
      return phase === "relocking"
    case "linger":
      return phase === "resumed"
  }
}

const delay = (state: State, timer: Exclude<Timer, "relock">): number => {
  const { options } = state
  switch (timer) {
    case "hello":
      return options.helloTimeoutMs
    case "prepare":
      return options.prepareTimeoutMs
    case "deadline":
      return state.deadlineMs
    case "heartbeat":
      return options.heartbeatMs
    case "linger":
      return options.lingerMs
  }
}

/** Starts the timers that the next state wants and the last did not, and ends the others. */
export const timers = (before: State, after: State): ReadonlyArray<Command> => {
  const commands: Array<Command> = []
  for (const timer of ["hello", "prepare", "deadline", "heartbeat", "linger"] as const) {
    const [was, is] = [wanted(before, timer), wanted(after, timer)]
    if (is && !was) commands.push({ _tag: "SetTimer", timer, delayMs: delay(after, timer) })
    if (was && !is) commands.push({ _tag: "ClearTimer", timer })
  }
  if (wanted(before, "relock") && !wanted(after, "relock")) commands.push({ _tag: "ClearTimer", timer: "relock" })
  return commands
}

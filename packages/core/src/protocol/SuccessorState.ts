/**
 * The vocabulary of the successor's machine (Successor.ts): its state, what happens to it, what it asks
 * for, and its timers.
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
  readonly heartbeatMs: number
  readonly relockMs: number
  /** How long a held lock is tried for: the incumbent has released it before Begin. */
  readonly lockTimeoutMs: number
  readonly wordMs: number
  readonly leaveMs: number
  readonly publishRetryMs: number
}

/** Everything but who this is. */
export const defaults: Omit<Options, "pid" | "buildId"> = {
  versions: Negotiation.SUPPORTED,
  capabilities: { reserved: 0n },
  helloTimeoutMs: 5_000,
  heartbeatMs: 2_000,
  relockMs: 25,
  lockTimeoutMs: 2_000,
  wordMs: 1_000,
  leaveMs: 2_000,
  publishRetryMs: 1_000
}

export const phases = [
  "greeting",
  "waiting",
  "taking",
  "locking",
  "opening",
  "preparing",
  "announced",
  "publishing",
  "serving",
  "cancelling",
  "closing",
  "exiting"
] as const

export type Phase = (typeof phases)[number]
export type Timer = "hello" | "heartbeat" | "relock" | "lock" | "word" | "leave" | "publish"

/** Why it did not come to serve. */
export type Why =
  | "supervisor-gone"
  | "aborted"
  | "violation"
  | "hello-timeout"
  | "no-listeners"
  | "lock-held"
  | "open-failed"
  | "socket-failed"
  | "unhealthy"

export interface State {
  readonly phase: Phase
  readonly options: Options
  /** The channel to S is open. */
  readonly channel: boolean
  readonly version: number
  readonly handoffId: HandoffId
  readonly opened: Opened | undefined
  readonly why: Why | undefined
}

/** The open hook ended: the state is open, the service could answer. */
export interface Opened {
  readonly _tag: "Opened"
  readonly listeningOn: ReadonlyArray<string>
  readonly healthy: boolean
  readonly revisions: ReadonlyArray<bigint>
}

export type Event = { readonly at: number } & (
  | { readonly _tag: "Started" }
  | { readonly _tag: "Received"; readonly message: Message }
  | { readonly _tag: "Disconnected" }
  | { readonly _tag: "TimerFired"; readonly timer: Timer }
  | { readonly _tag: "ListenersTaken" }
  | { readonly _tag: "ListenersFailed" }
  | { readonly _tag: "LockAcquired" }
  | { readonly _tag: "LockHeld" }
  | Opened
  | { readonly _tag: "OpenFailed" }
  /** The handoff socket listens under a temporary name. */
  | { readonly _tag: "SocketPrepared" }
  | { readonly _tag: "SocketFailed" }
  /** The socket's name was renamed over the path. */
  | { readonly _tag: "Published" }
  | { readonly _tag: "PublishFailed" }
  /** The state was closed again. */
  | { readonly _tag: "Closed" }
)

export type Command =
  | { readonly _tag: "Send"; readonly message: Message; readonly version: number }
  | { readonly _tag: "CloseChannel" }
  | { readonly _tag: "TakeListeners" }
  /** One try, without waiting. */
  | { readonly _tag: "AcquireLock" }
  | { readonly _tag: "ReleaseLock" }
  | { readonly _tag: "Open" }
  /** End the open hook early; it still reports. */
  | { readonly _tag: "CancelOpen" }
  | { readonly _tag: "Close" }
  | { readonly _tag: "PrepareSocket" }
  /** Remove the prepared socket, if there is one; carried out after PrepareSocket has ended. */
  | { readonly _tag: "RemoveSocket" }
  /** Rename the prepared socket over the handoff socket's path. */
  | { readonly _tag: "Publish" }
  | { readonly _tag: "Accept" }
  | { readonly _tag: "Exit"; readonly status: 1; readonly why: Why }
  | { readonly _tag: "SetTimer"; readonly timer: Timer; readonly delayMs: number }
  | { readonly _tag: "ClearTimer"; readonly timer: Timer }

export interface Step {
  readonly state: State
  readonly commands: ReadonlyArray<Command>
  readonly violation: Violation | undefined
}

/** Whether a timer may run in this state. */
export const wanted = (state: State, timer: Timer): boolean => {
  const { phase } = state
  switch (timer) {
    case "hello":
      return phase === "greeting"
    case "heartbeat":
      return state.channel && ["taking", "locking", "opening", "preparing"].includes(phase)
    case "relock":
    case "lock":
      return phase === "locking"
    case "word":
      return phase === "announced"
    case "leave":
      return phase === "cancelling" || phase === "closing"
    case "publish":
      return phase === "publishing"
  }
}

export const timers = (before: State, after: State, event: Event): ReadonlyArray<Command> => {
  const { helloTimeoutMs: hello, heartbeatMs: heartbeat, lockTimeoutMs: lock } = after.options
  const started = { hello, heartbeat, lock, word: after.options.wordMs, leave: after.options.leaveMs }
  const commands: Array<Command> = []
  for (const timer of ["hello", "heartbeat", "lock", "word", "leave"] as const) {
    const was = wanted(before, timer) && event._tag !== "Started"
    const is = wanted(after, timer)
    if (is && !was) commands.push({ _tag: "SetTimer", timer, delayMs: started[timer] })
    if (was && !is) commands.push({ _tag: "ClearTimer", timer })
  }
  for (const timer of ["relock", "publish"] as const) {
    if (wanted(before, timer) && !wanted(after, timer)) commands.push({ _tag: "ClearTimer", timer })
  }
  return commands
}

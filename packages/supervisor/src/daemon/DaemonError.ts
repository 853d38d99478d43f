/**
 * What can go wrong for a daemon that takes its listeners over: one error, with a reason.
 *
 * `daemon()`, `serve()` and `ready()` reject with it. Its message says what to do; `reason` is for programs.
 */
import * as DataLock from "@handoff/core/protocol/DataLock"
import type { Why } from "@handoff/core/protocol/Successor"
import * as Data from "effect/Data"

export type DaemonErrorReason =
  /** LISTEN_FDS and its like contradict each other; the environment was left as it was. */
  | { readonly _tag: "BadEnvironment"; readonly detail: string }
  /** An inherited descriptor is not an open listening socket; environment and descriptors were left as they were. */
  | { readonly _tag: "BadDescriptor"; readonly name: string; readonly fd: number; readonly detail: string }
  | { readonly _tag: "UnknownName"; readonly name: string; readonly available: ReadonlyArray<string> }
  | { readonly _tag: "TakenTwice"; readonly name: string }
  /** Started by hand, and `serve` was given no address, or one it cannot read. */
  | { readonly _tag: "BadAddress"; readonly name: string; readonly detail: string }
  | { readonly _tag: "ListenFailed"; readonly name: string; readonly where: string; readonly detail: string }
  /** The server given to `serve` listens already: give it before it listens. */
  | { readonly _tag: "AlreadyListening"; readonly name: string }
  | { readonly _tag: "Draining"; readonly name: string }
  /** Hooks for the data without `dataDir`, or the other way round. */
  | { readonly _tag: "BadOptions"; readonly detail: string }
  /** The C library, which locks and socket credentials need, can't be used here. */
  | { readonly _tag: "Unsupported"; readonly missing: ReadonlyArray<string> }
  /** Another process has the data. `alive: false`: the process that took the lock ended, and something else holds it. */
  | {
      readonly _tag: "DataLocked"
      readonly dataDir: string
      readonly holder: number | undefined
      readonly alive: boolean
    }
  | { readonly _tag: "DataLockFailed"; readonly dataDir: string; readonly detail: string }
  /** The `open` hook failed; the lock was given back. */
  | { readonly _tag: "OpenFailed"; readonly dataDir: string; readonly detail: string; readonly cause: unknown }
  | { readonly _tag: "HandoffSocketFailed"; readonly path: string; readonly detail: string }
  /** This successor did not come to serve. Everything was given back; the process before it has the data. */
  | { readonly _tag: "HandoffEnded"; readonly why: Why | "stopped"; readonly detail: string | undefined }

/**
 * @example
 * await handoff.serve(server, "admin").catch((error) => {
 *   if (error instanceof DaemonError && error.reason._tag === "UnknownName") return
 *   throw error
 * })
 */
export class DaemonError extends Data.TaggedError("DaemonError")<{ readonly reason: DaemonErrorReason }> {
  override get message(): string {
    const reason = this.reason
    switch (reason._tag) {
      case "BadEnvironment":
        return `the inherited listeners cannot be used: ${reason.detail}`
      case "BadDescriptor":
        return `descriptor ${reason.fd}, passed as listener "${reason.name}", cannot be used: ${reason.detail}`
      case "UnknownName":
        return `no listener "${reason.name}" was passed to this process; it has ${list(reason.available)}`
      case "TakenTwice":
        return `the listener "${reason.name}" is served already; each name can be taken once`
      case "BadAddress":
        return `listener "${reason.name}": ${reason.detail}`
      case "ListenFailed":
        return `listener "${reason.name}" could not listen on ${reason.where}: ${reason.detail}`
      case "AlreadyListening":
        return `the server given for "${reason.name}" listens already; give it to serve() before it listens`
      case "Draining":
        return `the listener "${reason.name}" was not served: this process drains and is about to end`
      case "BadOptions":
        return `daemon() was called with options that do not fit: ${reason.detail}`
      case "Unsupported":
        return `a daemon with a data directory can't run here: ${reason.missing.join("; ")}`
      case "DataLocked":
        return `the data in ${reason.dataDir} is locked ${lockedBy(reason)}`
      case "DataLockFailed":
        return `the lock of ${reason.dataDir} could not be taken: ${reason.detail}`
      case "OpenFailed":
        return `the state in ${reason.dataDir} could not be opened, and its lock was given back: ${reason.detail}`
      case "HandoffSocketFailed":
        return `the handoff socket ${reason.path} could not be served: ${reason.detail}`
      case "HandoffEnded": {
        const detail = reason.detail === undefined ? "" : `: ${reason.detail}`
        return `this successor ends without having served, ${endings[reason.why]}${detail}`
      }
    }
  }
}

const lockedBy = ({ holder, alive }: Extract<DaemonErrorReason, { readonly _tag: "DataLocked" }>): string => {
  if (holder === undefined) return `by another process; end it, or find it with \`fuser\` on ${DataLock.FILE_NAME}`
  return alive
    ? `by process ${holder}; end it, or replace it with \`handoff swap\``
    : `though process ${holder}, which took it, is gone: a child of it may hold the lock's descriptor; ` +
        `find it with \`fuser\` on ${DataLock.FILE_NAME} and end it`
}

const endings: Readonly<Record<Why | "stopped", string>> = {
  "supervisor-gone": "because the supervisor closed the channel",
  aborted: "because the supervisor aborted the handoff",
  violation: "because the supervisor broke the protocol",
  "hello-timeout": "because the supervisor did not answer the greeting",
  "no-listeners": "because a listener it was given cannot be used",
  "lock-held": "because the data stayed locked",
  "open-failed": "because the state could not be opened",
  "socket-failed": "because its handoff socket could not be bound",
  unhealthy: "because it was not healthy",
  stopped: "because it was asked to stop"
}

const list = (names: ReadonlyArray<string>): string => names.map((name) => `"${name}"`).join(", ")

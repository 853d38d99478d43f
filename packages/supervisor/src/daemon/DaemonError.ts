/**
 * What can go wrong for a daemon that takes its listeners over: one error, with a reason.
 *
 * `daemon()`, `serve()` and `ready()` reject with it. Its message says what to do; `reason` is for programs.
 */
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
    }
  }
}

const list = (names: ReadonlyArray<string>): string => names.map((name) => `"${name}"`).join(", ")

/**
 * A program of a simulation as data: what it does at which time after exec, and what it does about signals.
 *
 * Times are milliseconds after exec, or after the signal. A list that a signal starts replaces whatever was still to come.
 * A signal without an entry has its default action, unless the process was started with it ignored or blocked: then nothing
 * happens, as in a real kernel. SIGKILL and SIGSTOP always act.
 *
 * @example
 * const programs = {
 *   "/srv/v1": Program.server({ readyAfterMs: 200, notify: true, drainMs: 50 }),
 *   "/srv/v2": Program.exits(1, { afterMs: 20, output: ["no config file"] }),
 *   "/srv/v3": Program.hangs({ ignoresStop: true })
 * }
 */
import type { Fd } from "../Fd.ts"
import type { SignalName } from "../Signal.ts"

export type Action =
  /** Writes to a descriptor (default 2), if it is an open file. */
  | { readonly _tag: "Write"; readonly text: string; readonly fd?: Fd }
  /** Sends a datagram to NOTIFY_SOCKET, if there is one. */
  | { readonly _tag: "Notify"; readonly fields: Readonly<Record<string, string>> }
  /** Waits for connections on every listener that LISTEN_FDS gives it. */
  | { readonly _tag: "Accept" }
  | { readonly _tag: "StopAccepting" }
  /** Starts a child process with copies of the descriptors, in the same process group. */
  | { readonly _tag: "Fork"; readonly program: Program }
  | { readonly _tag: "Exit"; readonly code: number }

export interface Timed {
  readonly afterMs: number
  readonly action: Action
}

export interface Program {
  readonly actions: ReadonlyArray<Timed>
  readonly signals: Partial<Readonly<Record<SignalName, "ignore" | ReadonlyArray<Timed>>>>
}

const lines = (afterMs: number, output: ReadonlyArray<string>): ReadonlyArray<Timed> =>
  output.map((line) => ({ afterMs, action: { _tag: "Write", text: `${line}\n` } }))

export interface ServerOptions {
  /** When it says READY=1, if `notify`. Default 0. */
  readonly readyAfterMs?: number
  /** Default false. */
  readonly notify?: boolean
  /** Default: `readyAfterMs`. `"never"`: it has no event loop. */
  readonly acceptsAfterMs?: number | "never"
  /** From SIGTERM to its exit with status 0. Default 0. */
  readonly drainMs?: number
  /** SIGTERM does nothing. Default false. */
  readonly ignoresStop?: boolean
  /** Exits by itself. Default: never. */
  readonly exitsAfterMs?: number
  readonly exitCode?: number
  /** Lines it writes at its start. */
  readonly output?: ReadonlyArray<string>
}

/** A server on the listeners it inherits. */
export const server = (options: ServerOptions = {}): Program => {
  const { readyAfterMs = 0, acceptsAfterMs = readyAfterMs } = options
  const actions: Array<Timed> = [...lines(0, options.output ?? [])]
  if (acceptsAfterMs !== "never") actions.push({ afterMs: acceptsAfterMs, action: { _tag: "Accept" } })
  if (options.notify === true) {
    actions.push({ afterMs: readyAfterMs, action: { _tag: "Notify", fields: { READY: "1" } } })
  }
  if (options.exitsAfterMs !== undefined) {
    actions.push({ afterMs: options.exitsAfterMs, action: { _tag: "Exit", code: options.exitCode ?? 1 } })
  }
  const drain: ReadonlyArray<Timed> = [
    { afterMs: 0, action: { _tag: "StopAccepting" } },
    { afterMs: options.drainMs ?? 0, action: { _tag: "Exit", code: 0 } }
  ]
  return { actions, signals: { SIGTERM: options.ignoresStop === true ? "ignore" : drain } }
}

/** Ends by itself, having written `output`. */
export const exits = (
  code: number,
  options: { readonly afterMs?: number; readonly output?: ReadonlyArray<string> } = {}
): Program => {
  const { afterMs = 0 } = options
  return {
    actions: [...lines(afterMs, options.output ?? []), { afterMs, action: { _tag: "Exit", code } }],
    signals: {}
  }
}

/** Does nothing for ever. */
export const hangs = (
  options: { readonly ignoresStop?: boolean; readonly output?: ReadonlyArray<string> } = {}
): Program => ({
  actions: lines(0, options.output ?? []),
  signals: options.ignoresStop === true ? { SIGTERM: "ignore" } : {}
})

/** Starts `inner` as a child in its own group and waits, like `sh -c` or `npm start`. Signals do not reach the child. */
export const wrapper = (inner: Program): Program => ({
  actions: [{ afterMs: 0, action: { _tag: "Fork", program: inner } }],
  signals: {}
})

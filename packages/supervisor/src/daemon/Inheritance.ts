/**
 * What this process was started with, checked and claimed in one piece.
 *
 * Read the variables (pure, in core); look at every descriptor; only then give close-on-exec back and consume the
 * variables. An error before that last step leaves descriptors and environment as they were, so that a program can say
 * what is wrong, or hand everything on by exec. The FFI is loaded only here, and only when something was inherited: by
 * hand, a daemon runs wherever Node does.
 *
 * Limit: in a worker thread the FFI refuses; take the listeners in the main thread.
 */
import * as ListenEnvironment from "@handoff/core/ListenEnvironment"
import * as Result from "effect/Result"
import { DaemonError } from "./DaemonError.ts"

export interface InheritedListener {
  readonly name: string
  readonly fd: number
}

export interface Inheritance {
  readonly listeners: ReadonlyArray<InheritedListener>
  /** False when whoever started us named none of them. */
  readonly named: boolean
  /** Tells whoever started us, as sd_notify(3); does nothing when nobody asked to be told. */
  readonly notify: (text: string) => Promise<void>
}

const nothing: Inheritance = { listeners: [], named: false, notify: async () => undefined }

/** What a listener without a name is called (sd_listen_fds_with_names(3)). */
const UNNAMED = "unknown"

const check = async (listeners: ReadonlyArray<InheritedListener>): Promise<void> => {
  if (listeners.length === 0) return
  const { describe, inspectListener, setCloseOnExec } = await import("@handoff/backend-ffi/InheritedSocket")
  for (const { name, fd } of listeners) {
    const facts = inspectListener(fd)
    if (Result.isSuccess(facts)) continue
    throw new DaemonError({ reason: { _tag: "BadDescriptor", name, fd, detail: describe(facts.failure) } })
  }
  // Only now that all are good: what was refused stays as it was.
  for (const { name, fd } of listeners) {
    const done = setCloseOnExec(fd)
    if (Result.isSuccess(done)) continue
    throw new DaemonError({ reason: { _tag: "BadDescriptor", name, fd, detail: `fcntl = ${done.failure}` } })
  }
}

const refuse = (detail: string): never => {
  throw new DaemonError({ reason: { _tag: "BadEnvironment", detail } })
}

/** Claims what `environment` offers to this process, and removes the variables it came in. */
export const inherit = async (environment: NodeJS.ProcessEnv): Promise<Inheritance> => {
  const read = ListenEnvironment.read(environment, process.pid)
  if (Result.isFailure(read)) return refuse(read.failure.message)
  const { listeners, notifySocket, handoffFd, consumed } = read.success
  // Nothing was set, or it was meant for another process: then its NOTIFY_SOCKET is not ours either.
  if (consumed.length === 0) return nothing
  if (handoffFd !== undefined) return refuse("HANDOFF_ROLE=successor: a sealed handoff needs a daemon that owns data")
  await check(listeners)
  for (const variable of consumed) delete environment[variable]
  return {
    listeners,
    named: listeners.some(({ name }) => name !== UNNAMED),
    notify: async (text) => {
      if (notifySocket === undefined || notifySocket === "") return
      const { send } = await import("@handoff/backend-ffi/Notify")
      const sent = send(notifySocket, text)
      if (Result.isFailure(sent)) throw new Error(`sendto ${notifySocket} = ${sent.failure}`)
    }
  }
}

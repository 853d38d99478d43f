/**
 * What this process was started with, checked and claimed in one piece.
 *
 * Read the variables (pure, in core); look at every descriptor; only then give close-on-exec back and consume the
 * variables. An error before that last step leaves descriptors and environment as they were, so that a program can say
 * what is wrong, or hand everything on by exec. The FFI is loaded only here, and only when something was inherited: by
 * hand, a daemon runs wherever Node does.
 *
 * A successor consumes the variables and leaves its listeners alone until it takes them: the process before it still
 * accepts on them.
 *
 * Limit: in a worker thread the FFI refuses; take the listeners in the main thread.
 */
import { format } from "@handoff/core/Address"
import * as ListenEnvironment from "@handoff/core/ListenEnvironment"
import * as Result from "effect/Result"
import { DaemonError } from "./DaemonError.ts"

export interface InheritedListener {
  readonly name: string
  readonly fd: number
  /** Where it is bound, as text. */
  readonly address: string
}

export interface Inheritance {
  /** Names of the listeners, in the order of their descriptors. */
  readonly names: ReadonlyArray<string>
  /** False when whoever started us named none of them. */
  readonly named: boolean
  /** A successor's channel to the supervisor. */
  readonly handoffFd: number | undefined
  readonly controlSocket: string | undefined
  /** The listeners, checked. Rejects with a DaemonError, for a successor only. */
  readonly take: () => Promise<ReadonlyArray<InheritedListener>>
  /** Tells whoever started us, as sd_notify(3); does nothing when nobody asked to be told. */
  readonly notify: (text: string) => Promise<void>
}

const nothing: Inheritance = {
  names: [],
  named: false,
  handoffFd: undefined,
  controlSocket: undefined,
  take: async () => [],
  notify: async () => undefined
}

/** What a listener without a name is called (sd_listen_fds_with_names(3)). */
const UNNAMED = "unknown"

const bad = (name: string, fd: number, detail: string) =>
  new DaemonError({ reason: { _tag: "BadDescriptor", name, fd, detail } })

const check = async (
  listeners: ReadonlyArray<ListenEnvironment.InheritedListener>
): Promise<ReadonlyArray<InheritedListener>> => {
  if (listeners.length === 0) return []
  const { describe, inspectListener, setCloseOnExec } = await import("@handoff/backend-ffi/InheritedSocket")
  const checked = listeners.map(({ name, fd }) => {
    const facts = inspectListener(fd)
    if (Result.isFailure(facts)) throw bad(name, fd, describe(facts.failure))
    return { name, fd, address: format(facts.success.address) }
  })
  // Only now that all are good: what was refused stays as it was.
  for (const { name, fd } of listeners) {
    const done = setCloseOnExec(fd)
    if (Result.isFailure(done)) throw bad(name, fd, `fcntl = ${done.failure}`)
  }
  return checked
}

const checkChannel = async (fd: number): Promise<void> => {
  const { channelProblem } = await import("./internal/Native.ts")
  const problem = channelProblem(fd)
  if (problem !== undefined) throw bad("HANDOFF_SOCK_FD", fd, problem)
}

const refuse = (detail: string): never => {
  throw new DaemonError({ reason: { _tag: "BadEnvironment", detail } })
}

/**
 * Claims what `environment` offers to this process, and removes the variables it came in.
 *
 * @param ownsData whether this daemon can be a successor in a sealed handoff
 */
export const inherit = async (environment: NodeJS.ProcessEnv, ownsData: boolean): Promise<Inheritance> => {
  const read = ListenEnvironment.read(environment, process.pid)
  if (Result.isFailure(read)) return refuse(read.failure.message)
  const { listeners, notifySocket, controlSocket, handoffFd, consumed } = read.success
  // Nothing was set, or it was meant for another process: then its NOTIFY_SOCKET is not ours either.
  if (consumed.length === 0) return nothing
  if (handoffFd !== undefined && !ownsData) {
    return refuse("HANDOFF_ROLE=successor: a sealed handoff needs a daemon that owns data (dataDir)")
  }
  if (handoffFd !== undefined) await checkChannel(handoffFd)
  const checked = handoffFd === undefined ? await check(listeners) : undefined
  for (const variable of consumed) delete environment[variable]
  return {
    names: listeners.map(({ name }) => name),
    named: listeners.some(({ name }) => name !== UNNAMED),
    handoffFd,
    controlSocket,
    take: async () => checked ?? (await check(listeners)),
    notify: async (text) => {
      if (notifySocket === undefined || notifySocket === "") return
      const { send } = await import("@handoff/backend-ffi/Notify")
      const sent = send(notifySocket, text)
      if (Result.isFailure(sent)) throw new Error(`sendto ${notifySocket} = ${sent.failure}`)
    }
  }
}

/**
 * The variables through which a started program learns of its descriptors, written and read.
 *
 *   LISTEN_FDS, LISTEN_FDNAMES, LISTEN_PID   sd_listen_fds(3): listeners from descriptor 3 on, and for whom they are
 *   NOTIFY_SOCKET                            sd_notify(3): where READY=1 goes
 *   HANDOFF_ROLE, HANDOFF_SOCK_FD            a successor, and its channel to the supervisor (right after the listeners,
 *                                            not counted in LISTEN_FDS)
 *   HANDOFF_CONTROL_SOCKET                   the path at which a daemon that owns data serves its handoff socket
 *   HANDOFF_TOKEN                            tells this start from all others: a supervisor that follows one that died
 *                                            finds the process by it
 *
 * LISTEN_PID is not written here: only the child knows its pid, so a launch stamps it (`LaunchSpec.stampListenPid`).
 */
import * as Data from "effect/Data"
import * as Result from "effect/Result"
import { type Fd, FIRST_INHERITED_FD } from "./Fd.ts"

/** Every variable that belongs to an activation: a supervisor removes inherited ones, a reader consumes them. */
export const VARIABLES = [
  "LISTEN_FDS",
  "LISTEN_FDNAMES",
  "LISTEN_PID",
  "LISTEN_PIDFDID",
  "NOTIFY_SOCKET",
  "HANDOFF_ROLE",
  "HANDOFF_SOCK_FD",
  "HANDOFF_CONTROL_SOCKET",
  "HANDOFF_TOKEN"
] as const

export interface Wish {
  /** Names of the listeners in descriptor order. */
  readonly names: ReadonlyArray<string>
  readonly notifySocket?: string
  readonly controlSocket?: string
  readonly token?: string
  /** A successor gets its channel right after the listeners. */
  readonly successor?: boolean
}

/** systemd's rule (FileDescriptorName=), without the empty name: 1 to 255 printable ASCII characters, no colon. */
export const isName = (name: string): boolean => /^[\x20-\x39\x3b-\x7e]{1,255}$/.test(name)

/**
 * The variables of a child. Throws a RangeError for a name that {@link isName} refuses, since it would change how all
 * the others are read: check names where they come in.
 *
 * @example
 * ListenEnvironment.write({ names: ["http"] })   // { LISTEN_FDS: "1", LISTEN_FDNAMES: "http" }
 */
export const write = (wish: Wish): Readonly<Record<string, string>> => {
  const bad = wish.names.find((name) => !isName(name))
  if (bad !== undefined) throw new RangeError(`${JSON.stringify(bad)} can not be the name of a listener`)
  return {
    ...(wish.names.length === 0 ? {} : { LISTEN_FDS: String(wish.names.length), LISTEN_FDNAMES: wish.names.join(":") }),
    ...(wish.notifySocket === undefined ? {} : { NOTIFY_SOCKET: wish.notifySocket }),
    ...(wish.controlSocket === undefined ? {} : { HANDOFF_CONTROL_SOCKET: wish.controlSocket }),
    ...(wish.token === undefined ? {} : { HANDOFF_TOKEN: wish.token }),
    ...(wish.successor === true
      ? { HANDOFF_ROLE: "successor", HANDOFF_SOCK_FD: String(FIRST_INHERITED_FD + wish.names.length) }
      : {})
  }
}

export interface InheritedListener {
  readonly name: string
  readonly fd: Fd
}

export interface Inherited {
  readonly listeners: ReadonlyArray<InheritedListener>
  readonly notifySocket: string | undefined
  readonly controlSocket: string | undefined
  /** The descriptor of a successor's channel; undefined for a cold start. */
  readonly handoffFd: Fd | undefined
  /** The variables that were read: remove them, so that grandchildren do not take the descriptors for theirs. */
  readonly consumed: ReadonlyArray<string>
}

export class ListenError extends Data.TaggedError("ListenError")<{
  readonly variable: string
  readonly value: string
  readonly detail: string
}> {
  override get message(): string {
    return `${this.variable}=${this.value}: ${this.detail}`
  }
}

type Environment = Readonly<Record<string, string | undefined>>

const refuse = (variable: string, value: string, detail: string): Result.Result<never, ListenError> =>
  Result.fail(new ListenError({ variable, value, detail }))

const wholeNumber = (text: string): number | undefined => (/^\d{1,9}$/.test(text) ? Number(text) : undefined)

/** fs.nr_open of an ordinary kernel: no process has more descriptors, so a larger count is a mistake, not a wish. */
const MOST_LISTENERS = 1 << 20

const readListeners = (env: Environment): Result.Result<ReadonlyArray<InheritedListener>, ListenError> => {
  const text = env.LISTEN_FDS
  if (text === undefined) return Result.succeed([])
  const count = wholeNumber(text)
  if (count === undefined || count > MOST_LISTENERS) {
    return refuse("LISTEN_FDS", text, "is not a number of descriptors")
  }
  const given = env.LISTEN_FDNAMES ?? ""
  const names = given === "" ? undefined : given.split(":")
  if (names !== undefined && names.length !== count) {
    return refuse("LISTEN_FDNAMES", given, `names ${names.length} descriptors, LISTEN_FDS says ${count}`)
  }
  // systemd allows the empty name.
  const bad = names?.find((name) => name !== "" && !isName(name))
  if (bad !== undefined) return refuse("LISTEN_FDNAMES", given, `${JSON.stringify(bad)} is not a name`)
  return Result.succeed(
    Array.from({ length: count }, (_, index) => ({
      name: names?.[index] ?? "unknown",
      fd: FIRST_INHERITED_FD + index
    }))
  )
}

const readHandoffFd = (env: Environment, listeners: number): Result.Result<Fd | undefined, ListenError> => {
  const role = env.HANDOFF_ROLE
  const text = env.HANDOFF_SOCK_FD
  if (role === undefined) {
    return text === undefined
      ? Result.succeed(undefined)
      : refuse("HANDOFF_SOCK_FD", text, "is set without HANDOFF_ROLE=successor")
  }
  if (role !== "successor") return refuse("HANDOFF_ROLE", role, "the only role is successor")
  if (text === undefined) return refuse("HANDOFF_ROLE", role, "HANDOFF_SOCK_FD is missing")
  const fd = wholeNumber(text)
  if (fd === undefined) return refuse("HANDOFF_SOCK_FD", text, "is not a descriptor")
  return fd < FIRST_INHERITED_FD + listeners
    ? refuse("HANDOFF_SOCK_FD", text, "is stdio or one of the listeners")
    : Result.succeed(fd)
}

/**
 * What an environment offers to the process `pid`. Without LISTEN_FDS, or with a LISTEN_PID of another process, there are
 * no listeners, which is no error; a block of another process is left alone whole, its variables are not consumed.
 * Changes nothing: an error leaves everything as it was. LISTEN_PID may be missing, not every supervisor knows it.
 *
 * @example
 * ListenEnvironment.read({ LISTEN_FDS: "1", LISTEN_FDNAMES: "http" }, 42)   // listeners: [{ name: "http", fd: 3 }]
 */
export const read = (env: Environment, pid: number): Result.Result<Inherited, ListenError> => {
  const forPid = env.LISTEN_PID ?? ""
  if (forPid !== "" && wholeNumber(forPid) === undefined) return refuse("LISTEN_PID", forPid, "is not a process")
  if (forPid !== "" && Number(forPid) !== pid) {
    return Result.succeed({
      listeners: [],
      notifySocket: env.NOTIFY_SOCKET,
      controlSocket: undefined,
      handoffFd: undefined,
      consumed: []
    })
  }
  const listeners = readListeners(env)
  if (Result.isFailure(listeners)) return Result.fail(listeners.failure)
  const handoffFd = readHandoffFd(env, listeners.success.length)
  if (Result.isFailure(handoffFd)) return Result.fail(handoffFd.failure)
  return Result.succeed({
    listeners: listeners.success,
    notifySocket: env.NOTIFY_SOCKET,
    controlSocket: env.HANDOFF_CONTROL_SOCKET,
    handoffFd: handoffFd.success,
    consumed: VARIABLES.filter((name) => env[name] !== undefined)
  })
}

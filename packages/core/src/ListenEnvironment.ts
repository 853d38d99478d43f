/**
 * The variables through which a started program learns of its descriptors, written and read.
 *
 *   LISTEN_FDS, LISTEN_FDNAMES, LISTEN_PID   sd_listen_fds(3): listeners from descriptor 3 on, and for whom they are
 *   NOTIFY_SOCKET                            sd_notify(3): where READY=1 goes
 *   HANDOFF_ROLE, HANDOFF_SOCK_FD            a successor, and its channel to the supervisor (right after the listeners,
 *                                            not counted in LISTEN_FDS)
 *   HANDOFF_CONTROL_SOCKET                   the path at which a daemon that owns data serves its handoff socket
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
  "HANDOFF_CONTROL_SOCKET"
] as const

export interface Wish {
  /** Names of the listeners in descriptor order. */
  readonly names: ReadonlyArray<string>
  readonly notifySocket?: string
  readonly controlSocket?: string
  /** A successor gets its channel right after the listeners. */
  readonly successor?: boolean
}

/** systemd's rule: 1 to 255 printable ASCII characters without a colon. */
export const isName = (name: string): boolean => /^[\x20-\x39\x3b-\x7e]{1,255}$/.test(name)

/**
 * The variables of a child.
 *
 * @example
 * ListenEnvironment.write({ names: ["http"] })   // { LISTEN_FDS: "1", LISTEN_FDNAMES: "http" }
 */
export const write = (wish: Wish): Readonly<Record<string, string>> => ({
  ...(wish.names.length === 0 ? {} : { LISTEN_FDS: String(wish.names.length), LISTEN_FDNAMES: wish.names.join(":") }),
  ...(wish.notifySocket === undefined ? {} : { NOTIFY_SOCKET: wish.notifySocket }),
  ...(wish.controlSocket === undefined ? {} : { HANDOFF_CONTROL_SOCKET: wish.controlSocket }),
  ...(wish.successor === true
    ? { HANDOFF_ROLE: "successor", HANDOFF_SOCK_FD: String(FIRST_INHERITED_FD + wish.names.length) }
    : {})
})

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

const wholeNumber = (text: string): number | undefined => (/^\d{1,9}$/.test(text) ? Number(text) : undefined)

const readListeners = (env: Environment): Result.Result<ReadonlyArray<InheritedListener>, ListenError> => {
  const text = env.LISTEN_FDS
  if (text === undefined) return Result.succeed([])
  const count = wholeNumber(text)
  if (count === undefined) {
    return Result.fail(new ListenError({ variable: "LISTEN_FDS", value: text, detail: "is not a number" }))
  }
  const given = env.LISTEN_FDNAMES
  const names = given === undefined || given === "" ? undefined : given.split(":")
  if (names !== undefined && names.length !== count) {
    const detail = `names ${names.length} descriptors, LISTEN_FDS says ${count}`
    return Result.fail(new ListenError({ variable: "LISTEN_FDNAMES", value: given ?? "", detail }))
  }
  return Result.succeed(
    Array.from({ length: count }, (_, index) => ({
      name: names?.[index] ?? "unknown",
      fd: FIRST_INHERITED_FD + index
    }))
  )
}

const readHandoffFd = (env: Environment): Result.Result<Fd | undefined, ListenError> => {
  const role = env.HANDOFF_ROLE
  if (role === undefined) return Result.succeed(undefined)
  if (role !== "successor") {
    return Result.fail(new ListenError({ variable: "HANDOFF_ROLE", value: role, detail: "the only role is successor" }))
  }
  const text = env.HANDOFF_SOCK_FD ?? ""
  const fd = wholeNumber(text)
  return fd === undefined
    ? Result.fail(new ListenError({ variable: "HANDOFF_SOCK_FD", value: text, detail: "is not a descriptor" }))
    : Result.succeed(fd)
}

/**
 * What an environment offers to the process `pid`. Without LISTEN_FDS, or with a LISTEN_PID of another process, there are
 * no listeners, which is no error. Changes nothing: an error leaves everything as it was.
 */
export const read = (env: Environment, pid: number): Result.Result<Inherited, ListenError> => {
  const forPid = env.LISTEN_PID
  if (forPid !== undefined && forPid !== "" && wholeNumber(forPid) === undefined) {
    return Result.fail(new ListenError({ variable: "LISTEN_PID", value: forPid, detail: "is not a process" }))
  }
  const mine = forPid === undefined || forPid === "" || Number(forPid) === pid
  const listeners = mine ? readListeners(env) : Result.succeed([])
  if (Result.isFailure(listeners)) return Result.fail(listeners.failure)
  const handoffFd = mine ? readHandoffFd(env) : Result.succeed(undefined)
  if (Result.isFailure(handoffFd)) return Result.fail(handoffFd.failure)
  return Result.succeed({
    listeners: listeners.success,
    notifySocket: env.NOTIFY_SOCKET,
    controlSocket: env.HANDOFF_CONTROL_SOCKET,
    handoffFd: handoffFd.success,
    consumed: mine ? VARIABLES.filter((name) => env[name] !== undefined) : []
  })
}

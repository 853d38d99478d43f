/**
 * Processes that are not our children, watched and signalled all the same.
 *
 * Nobody tells us of their end, so one timer asks for all of them every {@link PERIOD_MS}, and only while there are any. A
 * pidfd is readable once its process has ended; where there is none, the identity (pid and start time) must still be that
 * of a living process. Either way a zombie counts as gone, and nothing is reaped: its status is its parent's.
 *
 * A pid may be another's by the time of a signal. A pidfd can't be; without one the identity is looked at right before
 * kill(2). A group's number stays taken while the group has a member, even when its leader is gone; once the group was seen
 * empty it is not signalled any more, since the number may come back as somebody else's:
 *
 *     leader ends   group lives on   last member ends   [pid is used again, leads a new group]   kill(-pid) would strike it
 *
 * Limits: a group that empties and whose number is used again within one period is not told from the one before. The timer
 * keeps the event loop alive.
 */
import { closeSync } from "node:fs"
import { type ExitStatus, LaunchError, type Process } from "@handoff/core/backend/Launcher"
import { isSame, type ProcessIdentity } from "@handoff/core/backend/Processes"
import type { ErrnoName } from "@handoff/core/Errno"
import type { Fd } from "@handoff/core/Fd"
import * as Signal from "@handoff/core/Signal"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import { errnoOf } from "./PathErrno.ts"
import type { PidfdCalls } from "./Pidfd.ts"
import { identify } from "./ProcessIdentity.ts"

const PERIOD_MS = 100

const UNKNOWN: ExitStatus = { _tag: "Unknown" }

interface Adopted {
  readonly identity: ProcessIdentity
  /** Open until the process is gone. */
  pidfd: Fd | undefined
  gone: boolean
  groupGone: boolean
  readonly waiters: Set<() => void>
}

type Kill = Result.Result<boolean, ErrnoName>

/** kill(2): false for ESRCH. */
const kill = (target: number, signal: Signal.SignalName | 0): Kill => {
  try {
    process.kill(target, signal === 0 ? 0 : Signal.number(signal))
    return Result.succeed(true)
  } catch (error) {
    const errno = errnoOf(error)
    return errno === "ESRCH" ? Result.succeed(false) : Result.fail(errno)
  }
}

const isGone = (result: Kill): boolean => Result.isSuccess(result) && !result.success

/** Watches adopted processes; make one a backend. `pidfds` is undefined where the C library can't be used. */
export const make = (
  pidfds: PidfdCalls | undefined,
  groupMembers: (group: number) => ReadonlyArray<number>
): ((identity: ProcessIdentity) => Effect.Effect<Process | undefined, never, Scope.Scope>) => {
  const watched = new Set<Adopted>()
  let timer: NodeJS.Timeout | undefined

  const hasIdentity = ({ identity }: Adopted): boolean => {
    const found = identify(identity.pid)
    return found !== undefined && isSame(found, identity)
  }

  const settle = (one: Adopted): void => {
    one.gone = true
    if (one.pidfd !== undefined) closeSync(one.pidfd)
    one.pidfd = undefined
    const waiters = [...one.waiters]
    one.waiters.clear()
    for (const wake of waiters) wake()
  }

  /** Looks at these processes now. */
  const look = (ones: Iterable<Adopted>): void => {
    const living = [...ones].filter((one) => !one.gone)
    const ended = pidfds?.ended(living.flatMap(({ pidfd }) => pidfd ?? []))
    for (const one of living) {
      if (one.pidfd === undefined ? !hasIdentity(one) : ended?.has(one.pidfd) === true) settle(one)
    }
    for (const one of ones) if (one.gone && isGone(kill(-one.identity.pid, 0))) one.groupGone = true
  }

  const watch = (one: Adopted): void => {
    watched.add(one)
    timer ??= setInterval(() => look(watched), PERIOD_MS)
  }

  const release = (one: Adopted): void => {
    watched.delete(one)
    if (one.pidfd !== undefined) closeSync(one.pidfd)
    one.pidfd = undefined
    if (watched.size > 0) return
    clearInterval(timer)
    timer = undefined
  }

  const sendOne = (one: Adopted, signal: Signal.SignalName): Kill => {
    look([one])
    if (one.gone) return Result.succeed(false)
    const { pidfd } = one
    if (pidfd === undefined || pidfds === undefined) return kill(one.identity.pid, signal)
    const sent = pidfds.signal(pidfd, Signal.number(signal))
    if (Result.isSuccess(sent)) return Result.succeed(true)
    if (sent.failure === "ENOSYS") return kill(one.identity.pid, signal)
    return sent.failure === "ESRCH" ? Result.succeed(false) : Result.fail(sent.failure)
  }

  const sendGroup = (one: Adopted, signal: Signal.SignalName): Kill => {
    look([one])
    const { pid } = one.identity
    // A process of this number that is not ours: the group, if there is one, is its own.
    const taken = one.gone && identify(pid) !== undefined
    if (one.groupGone || taken) return Result.succeed(false)
    // Zombies count for nobody. Who is there and can't be looked at is struck all the same.
    const anyone = groupMembers(pid).length > 0
    return Result.map(kill(-pid, signal), (sent) => sent && anyone)
  }

  const sending =
    (target: number, send: (signal: Signal.SignalName) => Kill): Process["signal"] =>
    (signal) =>
      Effect.suspend(() => {
        const call = `kill(${target}, ${signal})`
        return Effect.fromResult(
          Result.mapError(
            send(signal),
            (errno) => new LaunchError({ reason: { _tag: "ParentCallFailed", call, errno } })
          )
        )
      })

  const processOf = (one: Adopted): Process => {
    const { pid } = one.identity
    return {
      pid,
      exit: Effect.callback((resume) => {
        look([one])
        if (one.gone) return resume(Effect.succeed(UNKNOWN))
        const wake = () => resume(Effect.succeed(UNKNOWN))
        one.waiters.add(wake)
        return Effect.sync(() => one.waiters.delete(wake))
      }),
      signal: sending(pid, (signal) => sendOne(one, signal)),
      signalGroup: sending(-pid, (signal) => sendGroup(one, signal))
    }
  }

  /** The pidfd is opened first: the process that has the identity after that is the one it refers to. */
  const begin = (identity: ProcessIdentity): Adopted | undefined => {
    const opened = pidfds?.open(identity.pid)
    const pidfd = opened !== undefined && Result.isSuccess(opened) ? opened.success : undefined
    const one: Adopted = { identity, pidfd, gone: false, groupGone: false, waiters: new Set() }
    if (hasIdentity(one)) {
      watch(one)
      return one
    }
    if (pidfd !== undefined) closeSync(pidfd)
    return undefined
  }

  return (identity) =>
    Effect.acquireRelease(
      Effect.sync(() => begin(identity)),
      (one) => Effect.sync(() => (one === undefined ? undefined : release(one)))
    ).pipe(Effect.map((one) => (one === undefined ? undefined : processOf(one))))
}

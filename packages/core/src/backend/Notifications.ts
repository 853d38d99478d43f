/**
 * The contract of readiness datagrams (sd_notify(3)): one unix datagram socket a generation, whose path a child finds in
 * `NOTIFY_SOCKET`.
 */
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { ErrnoName } from "../Errno.ts"

/** One datagram: newline separated `KEY=VALUE` lines, and its sender's credentials (SCM_CREDENTIALS). */
export interface Notification {
  readonly pid: number
  readonly uid: number
  /** Later lines win. `READY=1`, `STATUS=...`, `STOPPING=1`, ... */
  readonly fields: Readonly<Record<string, string>>
}

export class NotificationError extends Data.TaggedError("NotificationError")<{
  readonly path: string
  readonly call: string
  readonly errno: ErrnoName
}> {
  override get message(): string {
    return `the notify socket ${this.path} could not be opened: ${this.call} = ${this.errno}`
  }
}

export interface NotifySocket {
  readonly path: string
  /** Waits for the next datagram. Those of a foreign uid (not ours, not root's, not `uid`) are dropped. */
  readonly take: Effect.Effect<Notification>
}

export class Notifications extends Context.Service<
  Notifications,
  {
    /** Binds a datagram socket at `path`, removed with the scope. `uid` also may send, besides ours and root. */
    readonly open: (
      path: string,
      options?: { readonly uid?: number }
    ) => Effect.Effect<NotifySocket, NotificationError, Scope.Scope>
  }
>()("@handoff/core/backend/Notifications") {}

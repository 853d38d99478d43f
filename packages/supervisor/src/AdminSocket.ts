/**
 * The path of an admin socket: where it is, and who may have it.
 *
 * A supervisor that was killed leaves its socket behind, and a bind to it fails with EADDRINUSE. Whether somebody listens
 * is found out by connecting: refused means that nobody does, and the path is removed; an answer means that a
 * supervisor of this name lives, and it is asked for its pid. Two supervisors that start at the same moment could both
 * find the same stale socket, so the command holds a lock on the directory before it comes here.
 */

import { chmod, lstat, mkdir, unlink } from "node:fs/promises"
import { connect } from "node:net"
import { dirname } from "node:path"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as AdminClient from "./AdminClient.ts"
import { messageOf } from "./internal/ErrorText.ts"

export type AdminSocketReason =
  | { readonly _tag: "InUse"; readonly pid: number | undefined }
  | { readonly _tag: "PathTooLong"; readonly bytes: number }
  | { readonly _tag: "NotPrivate"; readonly detail: string }
  | { readonly _tag: "CallFailed"; readonly detail: string }

export class AdminSocketError extends Data.TaggedError("AdminSocketError")<{
  readonly path: string
  readonly reason: AdminSocketReason
}> {
  override get message(): string {
    return describe(this.path, this.reason)
  }
}

const describe = (path: string, reason: AdminSocketReason): string => {
  switch (reason._tag) {
    case "InUse":
      return `a supervisor of this name is already running${reason.pid === undefined ? "" : ` as process ${reason.pid}`} (${path})`
    case "PathTooLong":
      return `the admin socket's path is ${reason.bytes} bytes long, it may have ${MAX_PATH_BYTES}: choose a shorter --state-dir or --name (${path})`
    case "NotPrivate":
      return `${path} ${reason.detail}`
    case "CallFailed":
      return `${path}: ${reason.detail}`
  }
}

/** `sun_path` of unix(7) less its terminating NUL. */
export const MAX_PATH_BYTES = 107
const PROBE_MS = 2000

const attempt = <A>(path: string, run: () => Promise<A>): Effect.Effect<A, AdminSocketError> =>
  Effect.tryPromise({
    try: run,
    catch: (error) =>
      new AdminSocketError({
        path,
        reason: { _tag: "CallFailed", detail: messageOf(error) }
      })
  })

const refuse = (path: string, reason: AdminSocketReason) => Effect.fail(new AdminSocketError({ path, reason }))

/** Whether somebody listens at a unix path. */
export const probe = (path: string): Effect.Effect<"live" | "stale" | "absent"> =>
  Effect.callback<"live" | "stale" | "absent">((resume) => {
    const socket = connect(path)
    const answer = (what: "live" | "stale" | "absent") => {
      socket.destroy()
      resume(Effect.succeed(what))
    }
    socket.setTimeout(PROBE_MS, () => answer("live"))
    socket.once("connect", () => answer("live"))
    socket.once("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT" || error.code === "ENOTDIR") answer("absent")
      else answer(error.code === "ECONNREFUSED" || error.code === "ENOTSOCK" ? "stale" : "live")
    })
    return Effect.sync(() => socket.destroy())
  })

/** Makes the path free to bind: a stale socket is removed, a live one refused with the pid of its supervisor. */
export const claim = Effect.fnUntraced(function* (path: string) {
  const bytes = Buffer.byteLength(path)
  if (bytes > MAX_PATH_BYTES) return yield* refuse(path, { _tag: "PathTooLong", bytes })
  const found = yield* probe(path)
  if (found === "absent") return
  if (found === "live") return yield* refuse(path, { _tag: "InUse", pid: yield* pidOf(path) })
  const entry = yield* attempt(path, () => lstat(path))
  if (!entry.isSocket()) return yield* refuse(path, { _tag: "CallFailed", detail: "is in the way and is no socket" })
  yield* attempt(path, () => unlink(path))
})

/** The pid of the supervisor that answers at the path, if it does within two seconds. */
export const pidOf = (path: string): Effect.Effect<number | undefined> =>
  AdminClient.status(path).pipe(
    Effect.map((status): number | undefined => status.pid),
    Effect.timeout(PROBE_MS),
    Effect.orElseSucceed(() => undefined)
  )

/** Mode 0600. The window since the bind is harmless: the directory around it is private. */
export const restrict = (path: string): Effect.Effect<void, AdminSocketError> => attempt(path, () => chmod(path, 0o600))

/**
 * Makes a supervisor's directory: 0700 and ours, or an error. One that is ours and wider is narrowed; one of another
 * user is refused, since in a shared place such as /tmp somebody else may have made it first.
 */
export const prepare = Effect.fnUntraced(function* (directory: string) {
  const base = dirname(directory)
  yield* attempt(base, () => mkdir(base, { recursive: true, mode: 0o700 }))
  const around = yield* attempt(base, () => lstat(base))
  const uid = process.getuid?.() ?? 0
  if (around.uid !== uid && around.uid !== 0) {
    return yield* refuse(base, { _tag: "NotPrivate", detail: `belongs to user ${around.uid}, not to us (${uid})` })
  }
  if ((around.mode & 0o022) !== 0 && (around.mode & 0o1000) === 0) {
    return yield* refuse(base, { _tag: "NotPrivate", detail: "can be written by others (chmod go-w)" })
  }
  yield* attempt(directory, () => mkdir(directory, { recursive: true, mode: 0o700 }))
  const own = yield* attempt(directory, () => lstat(directory))
  if (!own.isDirectory()) return yield* refuse(directory, { _tag: "NotPrivate", detail: "is no directory" })
  if (own.uid !== uid) {
    return yield* refuse(directory, { _tag: "NotPrivate", detail: `belongs to user ${own.uid}, not to us (${uid})` })
  }
  if ((own.mode & 0o077) !== 0) yield* attempt(directory, () => chmod(directory, 0o700))
})

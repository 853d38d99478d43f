/**
 * Where supervisors keep their admin sockets, and how other commands find them.
 *
 * Each supervisor has a directory of its name under the state directory: `<state dir>/<name>/admin.sock`. Whether it runs is
 * found out by connecting, never from a pid file: pids are used again.
 */
import { access, constants, readdir } from "node:fs/promises"
import { tmpdir, userInfo } from "node:os"
import { join, resolve as resolvePath } from "node:path"
import * as Effect from "effect/Effect"
import * as AdminSocket from "../AdminSocket.ts"
import { Code, CommandExit } from "./CommandExit.ts"

export interface Facts {
  readonly environment: Readonly<Record<string, string | undefined>>
  readonly uid: number
  readonly temporary: string
}

export const facts = (): Facts => ({
  environment: process.env,
  uid: process.getuid?.() ?? userInfo().uid,
  temporary: tmpdir()
})

/** --state-dir, $HANDOFF_STATE_DIR, /run/handoff for root, $XDG_RUNTIME_DIR/handoff, <tmp>/handoff-<uid>. */
export const resolve = (flag: string | undefined, { environment, uid, temporary }: Facts): string => {
  const asked = flag ?? environment.HANDOFF_STATE_DIR
  if (asked !== undefined && asked !== "") return resolvePath(asked)
  if (uid === 0) return "/run/handoff"
  const runtime = environment.XDG_RUNTIME_DIR
  return runtime === undefined || runtime === "" ? join(temporary, `handoff-${uid}`) : join(runtime, "handoff")
}

export const socketPath = (stateDirectory: string, name: string): string => join(stateDirectory, name, "admin.sock")

/** Names of the supervisors that answer, sorted. */
export const running = (stateDirectory: string): Effect.Effect<ReadonlyArray<string>> =>
  Effect.gen(function* () {
    const entries = yield* Effect.tryPromise(() => readdir(stateDirectory)).pipe(Effect.orElseSucceed(() => []))
    const states = yield* Effect.forEach(
      entries.toSorted(),
      (name) => Effect.map(AdminSocket.probe(socketPath(stateDirectory, name)), (state) => ({ name, state })),
      { concurrency: 16 }
    )
    return states.filter(({ state }) => state === "live").map(({ name }) => name)
  })

/** The directory is there, but not for this user. */
const isForbidden = (directory: string): Effect.Effect<boolean> =>
  Effect.promise(() =>
    access(directory, constants.R_OK | constants.X_OK).then(
      () => false,
      (error: NodeJS.ErrnoException) => error.code === "EACCES"
    )
  )

export interface Found {
  readonly name: string
  readonly path: string
}

/** The supervisor of that name, or the only one that runs. */
export const find = Effect.fnUntraced(function* (stateDirectory: string, name: string | undefined) {
  if (name !== undefined) {
    const path = socketPath(stateDirectory, name)
    if ((yield* AdminSocket.probe(path)) === "live") return { name, path } satisfies Found
  }
  const names = yield* running(stateDirectory)
  const [only] = names
  if (only === undefined && (yield* isForbidden(stateDirectory))) {
    return yield* new CommandExit({
      code: Code.noSupervisor,
      text: `${stateDirectory} may not be read by this user`,
      hint: "ask as the user who started the supervisor, or say where it is with --state-dir"
    })
  }
  if (only === undefined || name !== undefined) {
    const others = only === undefined ? "" : `; there ${names.length === 1 ? "is" : "are"} ${names.join(", ")}`
    const which = name === undefined ? "no supervisor runs" : `no supervisor named "${name}" runs`
    return yield* new CommandExit({
      code: Code.noSupervisor,
      text: `${which} under ${stateDirectory}${others}`,
      hint: "start one with `handoff run`, or say where it is with --state-dir"
    })
  }
  if (names.length > 1) {
    return yield* new CommandExit({
      code: Code.usage,
      text: `${names.length} supervisors run: ${names.join(", ")}`,
      hint: `choose one with --name ${only}`
    })
  }
  return { name: only, path: socketPath(stateDirectory, only) } satisfies Found
})

/**
 * `handoff run`: the supervisor itself. Everything heavy is loaded here and only then: other commands start quickly.
 */
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as LaunchFlags from "./LaunchFlags.ts"
import { context } from "./Root.ts"

export const run = Command.make(
  "run",
  LaunchFlags.flags,
  Effect.fnUntraced(function* (values) {
    const { name = "default", stateDirectory, json } = yield* context
    const launch = yield* LaunchFlags.settle("run", values)
    const { supervise } = yield* Effect.promise(() => import("./Supervise.ts"))
    yield* supervise({ name, stateDirectory, json, ...launch })
  })
).pipe(
  Command.withDescription(
    "Start a program behind listeners and supervise it. SIGHUP swaps, SIGTERM and SIGINT stop gracefully, a second one kills."
  ),
  Command.withShortDescription("Start a program and supervise it")
)

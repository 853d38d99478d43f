/**
 * `handoff plan`: what a launch with these options would do, without doing it.
 */
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as LaunchFlags from "./LaunchFlags.ts"
import { context } from "./Root.ts"

export const plan = Command.make(
  "plan",
  LaunchFlags.flags,
  Effect.fnUntraced(function* (values) {
    const { name = "default", stateDirectory, json } = yield* context
    const { options } = yield* LaunchFlags.settle("plan", values)
    const { show } = yield* Effect.promise(() => import("./ShowPlan.ts"))
    yield* show({ name, stateDirectory, json, options })
  })
).pipe(
  Command.withDescription(
    "Show what a launch would do, as a picture of the descriptor table before and after and as the list of system calls. Takes the options of run; starts and binds nothing."
  ),
  Command.withShortDescription("Show what a launch would do")
)

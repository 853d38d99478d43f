/**
 * `handoff doctor`: can this machine do it, and where would things be?
 */
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import { Code, CommandExit } from "./CommandExit.ts"
import { context, print, printJson } from "./Root.ts"

export const doctor = Command.make("doctor", {}, () =>
  Effect.gen(function* () {
    const { json, stateDirectory } = yield* context
    const { diagnose, format } = yield* Effect.promise(() => import("./Diagnosis.ts"))
    const diagnosis = yield* diagnose(stateDirectory)
    yield* json ? printJson(diagnosis) : print(format(diagnosis))
    if (!diagnosis.ok) return yield* new CommandExit({ code: Code.failed })
  })
).pipe(Command.withDescription("Check what this machine can do. Exit status: 0 if handoff works here, 1 if not."))

/**
 * `handoff abort`: asks the running swap to end. Its own caller gets the verdict.
 */
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as AdminClient from "../AdminClient.ts"
import { Code, CommandExit } from "./CommandExit.ts"
import { print, printJson, target, unreachable } from "./Root.ts"

export const abort = Command.make("abort", {}, () =>
  Effect.gen(function* () {
    const { json, path } = yield* target
    const answer = yield* Effect.mapError(AdminClient.abort(path), unreachable)
    if (json) yield* printJson(answer)
    if (answer._tag === "Refused") {
      return yield* new CommandExit({ code: Code.failed, ...(json ? {} : { text: answer.message }) })
    }
    if (!json) yield* print(`swap ${answer.swap} is being rolled back`)
  })
).pipe(Command.withDescription("End the running swap; the old version keeps serving"))

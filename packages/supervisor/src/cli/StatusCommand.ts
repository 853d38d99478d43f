/**
 * `handoff status`: what runs, what drains, what the last swaps came to.
 */
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as AdminClient from "../AdminClient.ts"
import { print, printJson, target, unreachable } from "./Root.ts"
import * as StatusText from "./StatusText.ts"

export const status = Command.make("status", {}, () =>
  Effect.gen(function* () {
    const { json, path } = yield* target
    const answer = yield* Effect.mapError(AdminClient.status(path), unreachable)
    yield* json ? printJson(answer) : print(StatusText.format(answer, Date.now()))
  })
).pipe(Command.withDescription("Show generations, connections still draining and the last swaps"))

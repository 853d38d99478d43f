/**
 * `handoff stop`: lets every version drain, then ends the supervisor.
 */
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as AdminClient from "../AdminClient.ts"
import { Code, CommandExit } from "./CommandExit.ts"
import * as EventText from "./EventText.ts"
import * as Interrupt from "./Interrupt.ts"
import * as Progress from "./Progress.ts"
import { print, printJson, target, unreachable } from "./Root.ts"

const ask = (now: boolean) =>
  Effect.scoped(
    Effect.gen(function* () {
      const { json, path, name } = yield* target
      const progress = yield* Progress.make(`stop of ${name}`)
      const request = AdminClient.stream(path, { method: "POST", resource: now ? "/stop?now" : "/stop" }, (line) => {
        const text = line._tag === "Stopped" ? undefined : EventText.format(line)
        if (text !== undefined) progress.line(text)
      })
      const last = yield* request.pipe(
        Effect.mapError(unreachable),
        Effect.raceFirst(Interrupt.interrupted("the supervisor goes on stopping: see `handoff status`"))
      )
      if (last._tag !== "Stopped") {
        return yield* new CommandExit({ code: Code.failed, text: "the supervisor was lost before it had stopped" })
      }
      return { json, name, last }
    })
  )

export const stop = Command.make(
  "stop",
  {
    now: Flag.Boolean("now").pipe(
      Flag.withDescription("Kill what still drains"),
      Flag.withDefault(false),
      Flag.withoutNegation
    )
  },
  Effect.fnUntraced(function* ({ now }) {
    const { json, name, last } = yield* ask(now)
    yield* json ? printJson(last) : print(`${name} stopped`)
  })
).pipe(Command.withDescription("Let every version drain, then end the supervisor"))

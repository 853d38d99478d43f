/**
 * Ctrl-C in a command that only watches: says what goes on, and ends this process alone.
 */
import * as Effect from "effect/Effect"
import { Code, CommandExit } from "./CommandExit.ts"

/** Fails when SIGINT or SIGTERM comes; until then it waits. The handlers go with it. */
export const interrupted = (text: string): Effect.Effect<never, CommandExit> =>
  Effect.callback<never, CommandExit>((resume) => {
    const on = () => resume(Effect.fail(new CommandExit({ code: Code.interrupted, text })))
    process.once("SIGINT", on)
    process.once("SIGTERM", on)
    return Effect.sync(() => {
      process.off("SIGINT", on)
      process.off("SIGTERM", on)
    })
  })

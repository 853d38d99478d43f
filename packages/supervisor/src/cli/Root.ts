/**
 * The root of the command and the options that every subcommand takes.
 */
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type * as AdminClient from "../AdminClient.ts"
import { messageOf } from "../internal/ErrorText.ts"
import { Code, CommandExit } from "./CommandExit.ts"
import * as OptionText from "./OptionText.ts"
import * as StateDirectory from "./StateDirectory.ts"

/** A flag whose text a parser reads. Its failure names the flag, the text and what was expected. */
export const parsed = <A>(name: string, parse: (text: string) => Result.Result<A, string>): Flag.Flag<A> =>
  Flag.mapTryCatch(
    Flag.String(name),
    (text) => Result.getOrThrowWith(parse(text), (message) => new Error(message)),
    messageOf
  )

const shared = {
  name: parsed("name", OptionText.supervisorName).pipe(
    Flag.withDescription("Name of the supervisor (run: default; else the only one that runs)"),
    Flag.withMetavar("NAME"),
    Flag.optional
  ),
  stateDir: Flag.String("state-dir").pipe(
    Flag.withDescription("Where supervisors keep their sockets and logs"),
    Flag.withMetavar("DIR"),
    Flag.optional
  ),
  json: Flag.Boolean("json").pipe(
    Flag.withDescription("Print JSON on stdout"),
    Flag.withDefault(false),
    Flag.withoutNegation
  )
}

export const root = Command.make("handoff").pipe(
  Command.withSharedFlags(shared),
  Command.withDescription("Replace a running server without a failed request")
)

export interface Context {
  readonly name: string | undefined
  readonly stateDirectory: string
  readonly json: boolean
}

/** The shared options of this invocation. */
export const context = Effect.map(
  root,
  ({ name, stateDir, json }): Context => ({
    name: Option.getOrUndefined(name),
    stateDirectory: StateDirectory.resolve(Option.getOrUndefined(stateDir), StateDirectory.facts()),
    json
  })
)

/** The shared options and the supervisor they mean. */
export const target = Effect.gen(function* () {
  const options = yield* context
  return { ...options, ...(yield* StateDirectory.find(options.stateDirectory, options.name)) }
})

/** What an unreachable supervisor means for the caller. */
export const unreachable = (error: AdminClient.AdminClientError): CommandExit => {
  switch (error.reason._tag) {
    case "NotRunning":
      return new CommandExit({ code: Code.noSupervisor, text: error.message })
    case "Lost":
      return new CommandExit({
        code: Code.failed,
        text: `${error.message}; what came of the request is unknown`,
        hint: "see `handoff status`"
      })
    case "BadAnswer":
      return new CommandExit({ code: error.reason.status < 500 ? Code.usage : Code.failed, text: error.message })
  }
}

export const print = (text: string): Effect.Effect<void> => Effect.sync(() => void process.stdout.write(`${text}\n`))

export const printJson = (value: unknown): Effect.Effect<void> => print(JSON.stringify(value))

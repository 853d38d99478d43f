/**
 * `handoff swap`, `handoff rollback`: replace the serving version and say in one line what became of it.
 *
 * The swap belongs to the supervisor. Ctrl-C here, or a lost connection, leaves it running.
 */
import { resolve } from "node:path"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as AdminClient from "../AdminClient.ts"
import type { AdminLine, SwapVerdict } from "../AdminMessages.ts"
import { Code, CommandExit, usage } from "./CommandExit.ts"
import * as EventText from "./EventText.ts"
import * as Interrupt from "./Interrupt.ts"
import { env, mode, program } from "./LaunchFlags.ts"
import * as Progress from "./Progress.ts"
import { print, printJson, target, unreachable } from "./Root.ts"

/** The exit status that a verdict means; 0 is committed. */
export const codeOf = (verdict: SwapVerdict): number => {
  if (verdict._tag === "SwapEnded") {
    if (verdict.record.outcome === "committed") return 0
    // JSON has no undefined: a missing number is what says that nothing serves.
    return typeof verdict.record.serving === "number" ? Code.rolledBack : Code.nothingServes
  }
  switch (verdict.refusal._tag) {
    case "AlreadySwapping":
      return Code.busy
    case "NotRunning":
    case "Starting":
    case "Stopping":
      return Code.nothingServes
    default:
      return Code.failed
  }
}

const isVerdict = (line: AdminLine): line is SwapVerdict =>
  line._tag === "SwapRefused" || (line._tag === "SwapEnded" && "message" in line)

const report = (verdict: SwapVerdict) =>
  Effect.gen(function* () {
    if (verdict._tag === "SwapRefused") {
      return yield* new CommandExit({ code: codeOf(verdict), text: verdict.message })
    }
    yield* print(verdict.message)
    if (verdict.record.outcome === "committed" || verdict.lastLines.length === 0) return
    yield* print(`the last lines of generation ${verdict.record.to ?? "?"}:`)
    for (const line of verdict.lastLines) yield* print(`  | ${line}`)
  })

const ask = (resource: "swap" | "rollback", body?: unknown) =>
  Effect.scoped(
    Effect.gen(function* () {
      const { json, path, name } = yield* target
      const progress = yield* Progress.make(`${resource} of ${name}`)
      const show = (line: AdminLine) => {
        const text = isVerdict(line) ? undefined : EventText.format(line)
        if (text !== undefined) progress.line(text)
      }
      const request = AdminClient.stream(path, { method: "POST", resource: `/${resource}`, body }, show)
      const last = yield* request.pipe(
        Effect.mapError(unreachable),
        Effect.raceFirst(
          Interrupt.interrupted(
            `the ${resource} goes on without us: see \`handoff status\`, end it with \`handoff abort\``
          )
        )
      )
      if (!isVerdict(last)) {
        return yield* new CommandExit({
          code: Code.failed,
          text: `the supervisor ended in the middle of the ${resource}, what came of it is unknown`
        })
      }
      return { verdict: last, json }
    })
  ).pipe(
    // The moving line is gone by now.
    Effect.tap(({ verdict, json }) => (json ? printJson(verdict) : report(verdict))),
    Effect.flatMap(({ verdict }) => {
      const code = codeOf(verdict)
      return code === 0 ? Effect.void : Effect.fail(new CommandExit({ code }))
    })
  )

export const swap = Command.make(
  "swap",
  {
    mode: mode("that of run").pipe(Flag.optional),
    env,
    directory: Flag.String("working-directory").pipe(
      Flag.withAlias("C"),
      Flag.withDescription("Where the program starts (the supervisor's own directory)"),
      Flag.withMetavar("DIR"),
      Flag.optional
    ),
    program
  },
  Effect.fnUntraced(function* ({ mode: asked, env: variables, directory, program: argv }) {
    const how = Option.isNone(asked) ? {} : { mode: asked.value }
    if (argv.length === 0) {
      if (variables.length > 0 || Option.isSome(directory)) {
        return yield* usage(
          "swap",
          "--env and --working-directory need a program: handoff swap --env K=V -- node server.js"
        )
      }
      return yield* ask("swap", how)
    }
    const command = {
      argv,
      ...(variables.length === 0 ? {} : { environment: Object.fromEntries(variables) }),
      ...(Option.isNone(directory) ? {} : { workingDirectory: resolve(directory.value) })
    }
    return yield* ask("swap", { command, ...how })
  })
).pipe(
  Command.withDescription(
    "Replace the serving version by a new process of the same command, or of the one after --. Exit status: 0 committed, 3 rolled back and the old version serves, 4 no supervisor, 5 a swap is running, 6 nothing serves."
  ),
  Command.withShortDescription("Replace the serving version")
)

export const rollback = Command.make("rollback", {}, () => ask("rollback")).pipe(
  Command.withDescription("Swap to the command before the last committed swap. Exit status as of swap.")
)

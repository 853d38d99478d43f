/**
 * The `handoff` command put together, and what its end means for the process.
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Cause from "effect/Cause"
import * as CliConfig from "effect/cli/CliConfig"
import * as CliOutput from "effect/cli/CliOutput"
import * as Command from "effect/cli/Command"
import * as GlobalFlag from "effect/cli/GlobalFlag"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import { messageOf } from "../internal/ErrorText.ts"
import { VERSION } from "../Version.ts"
import { abort } from "./AbortCommand.ts"
import { Code, CommandExit } from "./CommandExit.ts"
import { doctor } from "./DoctorCommand.ts"
import { plan } from "./PlanCommand.ts"
import { root } from "./Root.ts"
import { run } from "./RunCommand.ts"
import { status } from "./StatusCommand.ts"
import { stop } from "./StopCommand.ts"
import { rollback, swap } from "./SwapCommand.ts"
import * as Usage from "./Usage.ts"

const handoff = root.pipe(Command.withSubcommands([run, swap, rollback, abort, status, stop, plan, doctor]))

const services = Layer.mergeAll(
  NodeServices.layer,
  CliConfig.layer({ builtIns: [GlobalFlag.Help, GlobalFlag.Version, GlobalFlag.Completions] }),
  CliOutput.layerPresenter(Usage.presenter)
)

const complain = (text: string, { command, hint }: Pick<CommandExit, "command" | "hint"> = {}): void => {
  const who = command === undefined ? "handoff" : `handoff ${command}`
  process.stderr.write(`${who}: ${text}\n${hint === undefined ? "" : `${hint}\n`}`)
}

const codeOf = (error: unknown, json: boolean): number => {
  if (error instanceof CommandExit) {
    if (error.text !== undefined) {
      complain(error.text, error)
      if (json) process.stdout.write(`${JSON.stringify({ error: { code: error.code, message: error.text } })}\n`)
    }
    return error.code
  }
  // The presenter has shown what is wrong.
  if (error instanceof Object && "_tag" in error && error._tag === "ShowHelp") return Code.usage
  complain(messageOf(error))
  return Code.failed
}

/** Runs the command line and gives the exit status. */
export const main = async (argv: ReadonlyArray<string>): Promise<number> => {
  const ours = argv.includes("--") ? argv.slice(0, argv.indexOf("--")) : argv
  const program = Command.runWith(handoff, { version: VERSION })(argv)
  const exit = await Effect.runPromiseExit(Effect.provide(program, services))
  if (Exit.isSuccess(exit)) return 0
  if (Cause.hasDies(exit.cause)) {
    complain(`internal error\n${Cause.pretty(exit.cause)}`)
    return Code.failed
  }
  return codeOf(Cause.squash(exit.cause), ours.includes("--json"))
}

/**
 * How a command ends when it does not end well: an exit status, a line for a person, and with `--json` an object.
 *
 *   0    done; of `swap` and `rollback`: committed
 *   1    failed
 *   2    wrong usage
 *   3    rolled back, the old version serves
 *   4    no supervisor found
 *   5    a swap is already running
 *   6    nothing serves
 *   130  interrupted by the user (128 + SIGINT)
 */
import * as Data from "effect/Data"

export const Code = {
  failed: 1,
  usage: 2,
  rolledBack: 3,
  noSupervisor: 4,
  busy: 5,
  nothingServes: 6,
  interrupted: 130
} as const

export class CommandExit extends Data.TaggedError("CommandExit")<{
  readonly code: number
  /** The subcommand, where the line is about how it was used. */
  readonly command?: string
  /** Printed on stderr after the command's name; absent when the command has said everything itself. */
  readonly text?: string
  /** A second line: what to do. */
  readonly hint?: string
}> {
  override get message(): string {
    return this.text ?? `exit status ${this.code}`
  }
}

/** Wrong usage, found after parsing. */
export const usage = (command: string, text: string): CommandExit =>
  new CommandExit({ code: Code.usage, command, text, hint: `see \`handoff ${command} --help\`` })

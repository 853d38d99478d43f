/**
 * How wrong usage, help and the version are shown: one line on stderr that names the culprit, and a hint; help and version
 * on stdout. Knows the error types of `effect/cli`, which is unstable.
 */
import type * as CliError from "effect/cli/CliError"
import * as CliOutput from "effect/cli/CliOutput"
import * as Effect from "effect/Effect"

const didYouMean = (suggestions: ReadonlyArray<string>): string =>
  suggestions.length === 0 ? "" : `; did you mean ${suggestions.join(" or ")}?`

/** One line, without the name of the command. */
export const describe = (error: CliError.NonShowHelpErrors): string => {
  switch (error._tag) {
    case "UnrecognizedOption":
      return `unknown option ${error.option}${didYouMean(error.suggestions)}`
    case "UnknownSubcommand":
      return `unknown command "${error.subcommand}"${didYouMean(error.suggestions)}`
    case "UnexpectedArgument":
      return `unexpected argument ${error.arguments.map((text) => `"${text}"`).join(", ")}`
    case "MissingOption":
      return `--${error.option} is required`
    case "InvalidValue": {
      const culprit = error.kind === "flag" ? `--${error.option}` : error.option
      const expected = error.expected.replace(/^Expected:? /, "")
      if (error.value === "") return `${culprit} needs a value: ${expected}`
      // effect/cli counts an option that may be given once.
      if (/^\d+ occurrences$/.test(error.value)) return `${culprit} is given more than once`
      return `${culprit} "${error.value}": expected ${expected}`
    }
    default:
      return error.message.split("\n")[0] ?? error.message
  }
}

const write = (stream: NodeJS.WriteStream, text: string) => Effect.sync(() => void stream.write(`${text}\n`))

export const presenter: CliOutput.Presenter = {
  present: (event) =>
    Effect.gen(function* () {
      const formatter = yield* CliOutput.Formatter
      switch (event._tag) {
        case "Version":
          return yield* write(process.stdout, `${event.name} ${event.version}`)
        case "Help":
          return yield* write(
            event.reason === "Requested" ? process.stdout : process.stderr,
            formatter.formatHelpDoc(event.helpDoc)
          )
        case "InvalidInvocation": {
          const path = event.commandPath.join(" ")
          const [first] = event.errors
          yield* write(process.stderr, `${path}: ${first === undefined ? "wrong usage" : describe(first)}`)
          const unknown = first?._tag === "UnrecognizedOption" ? "; options of the program go after --" : ""
          return yield* write(process.stderr, `see \`${path} --help\`${unknown}`)
        }
      }
    })
}

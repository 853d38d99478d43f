/**
 * The entry of the command. It loads nothing itself: `--version` needs none of it, the rest is one import away.
 */
import { VERSION } from "../Version.ts"

const argv = process.argv.slice(2)

if (argv.length === 1 && (argv[0] === "--version" || argv[0] === "-v")) {
  process.stdout.write(`handoff ${VERSION}\n`)
} else {
  const { main } = await import("./Cli.ts")
  process.exit(await main(argv))
}

/**
 * Prints the crash matrix: `npm run faults [POINT ...]`. Party x point: what the caller was told, who serves afterwards, how
 * long a client waited that came after the death, and when all was as it should be again. Status 1 when anything is not.
 */
import { cases, type Outcome, runAll } from "./Matrix.ts"

const wanted = process.argv.slice(2)
const chosen = wanted.length === 0 ? cases : cases.filter(({ point }) => wanted.includes(point))

const seconds = (milliseconds: number): string => `${(milliseconds / 1000).toFixed(2)} s`.padStart(8)

const print = (outcome: Outcome): void => {
  const { party, point, serves, answeredMs, settledMs, cut, swap, problems } = outcome
  const numbers = `${seconds(answeredMs)} ${seconds(settledMs)} ${String(cut).padStart(4)}`
  process.stdout.write(`${party.padEnd(11)} ${point.padEnd(27)} ${serves.padEnd(14)} ${numbers}  ${swap}\n`)
  for (const problem of problems) process.stdout.write(`${" ".repeat(12)}! ${problem}\n`)
}

process.stdout.write(
  `${"dies".padEnd(11)} ${"at".padEnd(27)} ${"serves".padEnd(14)} answered  settled  cut  the caller was told\n`
)
let failed = 0
await runAll(chosen, (outcome) => {
  failed += outcome.problems.length > 0 ? 1 : 0
  print(outcome)
})
process.stdout.write(`${chosen.length} deaths, ${failed} with problems\n`)
process.exitCode = failed > 0 || chosen.length === 0 ? 1 : 0

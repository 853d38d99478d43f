/**
 * `npm run soak -- --minutes N [--seed S] [--log FILE]`: real supervisors and daemons under load, swaps and faults; see Soak.ts. Prints what
 * was survived. Status 1 when an invariant broke, with the seed and the last events; 2 for wrong options.
 */
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { ensureBuilt } from "../support/Build.ts"
import { format, formatBroken } from "./Report.ts"
import { soak } from "./Soak.ts"

const USAGE = "usage: npm run soak -- --minutes N [--seed S] [--log FILE]"

const options = () => {
  try {
    const { values } = parseArgs({
      options: { minutes: { type: "string" }, seed: { type: "string" }, log: { type: "string" } }
    })
    const minutes = Number(values.minutes)
    const seed = Number(values.seed ?? Date.now() % 100_000)
    if (!(minutes > 0) || !Number.isInteger(seed)) throw new Error(USAGE)
    return { minutes, seed, log: values.log ?? join(tmpdir(), `handoff-soak-${process.pid}.log`) }
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n${USAGE}\n`)
    return process.exit(2)
  }
}

const wish = options()
const say = (text: string) => void process.stdout.write(`${text}\n`)
const interrupted = new AbortController()
for (const name of ["SIGINT", "SIGTERM"] as const) process.once(name, () => interrupted.abort())

await ensureBuilt()
say(`soak: ${wish.minutes} minutes, seed ${wish.seed}, log ${wish.log}`)
const summary = await soak({ ...wish, say }, interrupted.signal)
say(format(summary))
if (summary.broken !== undefined) {
  say(formatBroken(summary))
  say(`everything: ${wish.log}`)
  process.exitCode = 1
}

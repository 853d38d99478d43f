/** One minute of the soak with a fixed seed, in CI. Elsewhere it is typed: it takes the machine for that minute. */
import { join } from "node:path"
import { beforeAll, expect, it } from "vitest"
import { BUILD_TIMEOUT, ensureBuilt } from "../support/Build.ts"
import { managedProcesses } from "../support/ManagedProcesses.ts"
import { isContinuousIntegration } from "../support/Tools.ts"

const SEED = 5
const MAIN = join(import.meta.dirname, "main.ts")
/** Milliseconds: the minute, the rests in it, and a slow machine. */
const PATIENCE = 240_000

const runs = isContinuousIntegration()
const why = runs ? "" : ` (skipped: run in CI only; by hand npm run soak -- --minutes 1 --seed ${SEED})`

beforeAll(() => (runs ? ensureBuilt() : undefined), BUILD_TIMEOUT)

it.skipIf(!runs)(`a minute of swaps and faults breaks no invariant${why}`, { timeout: PATIENCE + 60_000 }, async () => {
  await using processes = managedProcesses()
  const { child, ended } = processes.start(process.execPath, [
    ...["--conditions=@handoff/source", MAIN, "--minutes", "1", "--seed", String(SEED)]
  ])
  // Asked to end, it ends what it started, which does not carry our mark.
  const patience = setTimeout(() => child.kill("SIGTERM"), PATIENCE)
  const { code, stdout, stderr } = await ended
  clearTimeout(patience)
  console.log(stdout)
  expect(code, stdout + stderr).toBe(0)
})

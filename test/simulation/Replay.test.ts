/**
 * Reality agrees: paths sampled from the World are carried out on real processes, and end as the World says they may.
 *
 * Of each path stays what can be done to real processes at a point that both can name (ReplayScript.ts); the World then
 * tells every end that such a run may have, and the run must come to one of them, with every acknowledged write kept, one
 * holder of the lock and no swap in the document. The seed is always the same, so that a failure can be run again:
 * HANDOFF_REPLAY_SEED and HANDOFF_REPLAY_COUNT choose others.
 */
import { describe, expect, it } from "vitest"
import { isContinuousIntegration } from "../support/Tools.ts"
import { type Disagreement, replay } from "./Replay.ts"
import { sample } from "./ReplaySample.ts"
import { outcomeText, scriptText } from "./ReplayScript.ts"

const { env } = process
const SEED = Number(env.HANDOFF_REPLAY_SEED ?? 1)
const COUNT = Number(env.HANDOFF_REPLAY_COUNT ?? (isContinuousIntegration() ? 200 : 20))

const explain = ({ script, possible, real, problems }: Disagreement): string =>
  [
    scriptText(script),
    ...possible.map((one) => `  may:  ${outcomeText(one)}`),
    `  real: ${real === undefined ? "no end" : outcomeText(real)}`,
    ...problems.map((one) => `  ! ${one}`)
  ].join("\n")

describe("sampled paths of the World", { timeout: 900_000 }, () => {
  it(`end on real processes as the World says (${COUNT} scripts, seed ${SEED})`, async () => {
    const { scripts, paths, leftOut } = sample(SEED, COUNT)
    const left = [...leftOut].sort(([, one], [, other]) => other - one).map(([why, times]) => `${times} ${why}`)
    const begun = performance.now()
    const { disagreements, complete } = await replay(scripts)
    const seconds = ((performance.now() - begun) / 1000).toFixed(0)
    console.log(
      `seed ${SEED}: ${scripts.length} scripts of ${paths} paths in ${seconds} s; in ${complete} all faults happened\n` +
        `not taken: ${left.join(", ")}`
    )
    expect(disagreements.map(explain).join("\n\n")).toBe("")
    // Faults that never happen would agree with anything.
    expect(complete).toBeGreaterThan(scripts.length / 2)
  })
})

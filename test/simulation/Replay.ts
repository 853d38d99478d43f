/**
 * Carries scripts out, two at a time, and compares their ends with those that the World allows.
 */
import { type Mode, modes, type Outcome, type Script } from "./ReplayScript.ts"
import { type Played, type Stage, stage } from "./ReplayStage.ts"
import { modelOf, outcomes } from "./ReplayWorld.ts"

export interface Disagreement {
  readonly script: Script
  readonly possible: ReadonlyArray<Outcome>
  /** Undefined: it did not come to an end. */
  readonly real: Outcome | undefined
  readonly problems: ReadonlyArray<string>
}

export interface Comparison {
  readonly disagreements: ReadonlyArray<Disagreement>
  /** Scripts of which every fault happened. */
  readonly complete: number
}

/** A supervisor that dies may die with its answer on the way. */
const dies = ({ faults }: Script): boolean =>
  faults.some(({ party, act }) => (act._tag === "dies" ? party : act._tag === "kill" ? act.victim : undefined) === "S")

const agrees = (script: Script, possible: ReadonlyArray<Outcome>, real: Outcome): boolean =>
  possible.some(
    (one) =>
      one.serves === real.serves &&
      one.kept === real.kept &&
      one.happened === real.happened &&
      (one.told === real.told || (real.told === "nothing" && dies(script)))
  )

const AT_ONCE = 2

export const replay = async (
  scripts: ReadonlyArray<Script>,
  done: (script: Script, possible: ReadonlyArray<Outcome>, played: Played | Error, ms: number) => void = () => undefined
): Promise<Comparison> => {
  const disagreements: Array<Disagreement> = []
  let complete = 0
  const models = new Map<Mode, ReturnType<typeof modelOf>>(modes.map((mode) => [mode, modelOf(mode, 0)]))
  // One mode after the other: a stage is of one mode.
  const left = modes.flatMap((mode) => scripts.filter((one) => one.mode === mode))
  const one = async (it: Stage, script: Script): Promise<boolean> => {
    const model = models.get(script.mode)
    const possible = model === undefined ? [] : outcomes(model, script)
    const begun = performance.now()
    const played = await it.play(script).catch((error: Error) => error)
    done(script, possible, played, performance.now() - begun)
    if (played instanceof Error) {
      disagreements.push({ script, possible, real: undefined, problems: [played.message] })
      return false
    }
    const { outcome, problems, reusable } = played
    if (!outcome.happened.includes("-")) complete += 1
    const same = agrees(script, possible, outcome)
    if (!same || problems.length > 0) disagreements.push({ script, possible, real: outcome, problems })
    return same && reusable
  }
  const worker = async () => {
    let it: Stage | undefined
    try {
      for (let script = left.shift(); script !== undefined; script = left.shift()) {
        if (it !== undefined && it.mode !== script.mode) {
          await it[Symbol.asyncDispose]()
          it = undefined
        }
        it ??= stage(script.mode)
        if (await one(it, script)) continue
        await it[Symbol.asyncDispose]()
        it = undefined
      }
    } finally {
      await it?.[Symbol.asyncDispose]()
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
  return { disagreements, complete }
}

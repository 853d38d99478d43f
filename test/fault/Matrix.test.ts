/**
 * Every crash point of a sealed swap in every party (Matrix.ts), in an order that is another each time, two at a time. A
 * start is what a machine under load is slow at, so the three seconds to recover are stretched by what the first start of
 * the same case has taken.
 */
import { describe, expect, it } from "vitest"
import { cases, run } from "./Matrix.ts"

/** Milliseconds from a death to an answer. */
const RECOVERY = 3_000

/** Each case is six processes in its course. */
const AT_ONCE = 2

const shuffled = <A>(items: ReadonlyArray<A>): ReadonlyArray<A> =>
  items
    .map((item) => ({ item, key: Math.random() }))
    .sort((one, other) => one.key - other.key)
    .map(({ item }) => item)

const turns: Array<() => void> = []
let running = 0

/** Waits its turn: vitest would run five at a time. */
const inTurn = async <A>(body: () => Promise<A>): Promise<A> => {
  if (running >= AT_ONCE) await new Promise<void>((resolve) => turns.push(resolve))
  else running += 1
  try {
    return await body()
  } finally {
    const next = turns.shift()
    if (next === undefined) running -= 1
    else next()
  }
}

describe.concurrent("a party of a sealed swap dies", { timeout: 120_000 }, () => {
  for (const one of shuffled(cases)) {
    it(`the ${one.party} at ${one.point}`, async () => {
      const { problems, answeredMs, startMs } = await inTurn(() => run(one))
      expect(problems).toEqual([])
      expect(answeredMs).toBeLessThan(Math.max(RECOVERY, 2 * startMs))
    })
  }
})

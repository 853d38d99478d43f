/** The judge of a soak must not excuse more than a fault makes inevitable: a lenient one would find nothing. */
import { expect, it } from "vitest"
import { excuses } from "./Excuses.ts"

const at = () => {
  let time = 1_000
  const judge = excuses(() => time)
  const failed = (error: string, begun: number, ended: number) => judge.explain({ error, begun, ended })
  return {
    judge,
    failed,
    go: (to: number) => {
      time = to
    }
  }
}

it("a killed process explains as many resets as it held connections, around its death, and nothing else", () => {
  const { judge, failed, go } = at()
  const gone = judge.killed(2)
  go(1_010)
  gone()
  expect(failed("ECONNRESET", 100, 900)).toBeUndefined()
  expect(failed("ECONNREFUSED", 990, 1_005)).toBeUndefined()
  expect(failed("status 503", 990, 1_005)).toBeUndefined()
  expect(failed("ECONNRESET", 2_000, 2_001)).toBeUndefined()
  expect(failed("ECONNRESET", 990, 1_005)).toBe("its server was killed")
  expect(failed("cut", 500, 1_020)).toBe("its server was killed")
  expect(failed("ECONNRESET", 990, 1_005)).toBeUndefined()
})

it("connections are refused only while nobody has to hold the listener", () => {
  const { judge, failed, go } = at()
  expect(failed("ECONNREFUSED", 999, 1_000)).toBeUndefined()
  const taken = judge.vacant()
  go(1_500)
  taken()
  expect(failed("ECONNREFUSED", 1_400, 1_401)).toBe("nobody held the listener")
  expect(failed("late", 1_400, 1_401)).toBeUndefined()
  expect(failed("ECONNREFUSED", 1_600, 1_601)).toBeUndefined()
  expect(judge.wasVacant()).toBe(true)
  go(1_700)
  expect(judge.wasVacant()).toBe(false)
})

it("who waits for one who is stopped is not waiting for us, and is again from the moment on that it goes on", () => {
  const { judge, go } = at()
  const release = judge.hold()
  go(3_000)
  expect(judge.countsFrom(900)).toBe(3_000)
  release()
  release()
  go(4_000)
  expect(judge.countsFrom(900)).toBe(3_000)
  expect(judge.countsFrom(3_500)).toBe(3_500)
})

it("a swap may fail during a disturbance and some seconds after it", () => {
  const { judge, go } = at()
  expect(judge.disturbed(1_000)).toBe(false)
  const calm = judge.disturb()
  expect(judge.disturbed(1_000)).toBe(true)
  go(2_000)
  calm()
  expect(judge.disturbed(6_000)).toBe(true)
  expect(judge.disturbed(8_000)).toBe(false)
})

import { existsSync, readdirSync, writeFileSync } from "node:fs"
import { expect, it } from "vitest"
import { stage, strayFiles } from "./Stage.ts"

it("a second supervisor of one state directory is refused, and takes nothing of the first one's", {
  timeout: 60_000
}, async () => {
  await using it = stage()
  const first = await it.start()
  const { serving } = await it.settle(first)
  await expect(it.start()).rejects.toThrow(new RegExp(`in use by another supervisor, process ${first.process.pid}`))
  expect(existsSync(`${it.stateDirectory}/notify-${serving}.sock`)).toBe(true)
  expect((await first.swap()).committed).toBe(true)
})

it("what a killed supervisor was writing is overwritten by the next one", { timeout: 60_000 }, async () => {
  await using it = stage()
  const first = await it.start()
  const { serving, generations } = await it.settle(first)
  process.kill(first.process.pid, "SIGKILL")
  await first.process.ended
  writeFileSync(`${it.stateDirectory}/state.json.new`, '{"format":')
  const second = await it.start()
  expect((await it.settle(second)).generations[0]?.pid).toBe(generations[0]?.pid)
  expect(await strayFiles(it, serving)).toEqual([])
  expect(readdirSync(it.stateDirectory)).toContain("state.json")
})

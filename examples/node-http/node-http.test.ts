import { fileURLToPath } from "node:url"
import { expect, it } from "vitest"
import { harness } from "../../packages/supervisor/test/daemon/Harness.ts"

const program = fileURLToPath(new URL("./server.js", import.meta.url))

const ask = async (port: number, path = "/"): Promise<{ readonly version: string; readonly pid: number }> =>
  (await fetch(`http://127.0.0.1:${port}${path}`)).json() as Promise<{ readonly version: string; readonly pid: number }>

it("the example swaps versions on one listener and answers a slow request whole", async () => {
  await using it = harness()
  const held = await it.held()
  const first = await held.start({ VERSION: "1" }, program)
  expect(await ask(held.port)).toEqual({ version: "1", pid: first.pid })
  const slow = ask(held.port, "/slow?ms=1000")
  await new Promise((resolve) => setTimeout(resolve, 200))
  const second = await held.start({ VERSION: "2" }, program)
  await second.printed(`version 2 serves as process ${second.pid}`)
  first.terminate()
  await first.said("exited 0")
  expect(await slow).toEqual({ version: "1", pid: first.pid })
  expect(await ask(held.port)).toEqual({ version: "2", pid: second.pid })
})

it("the example starts by hand", async () => {
  await using it = harness()
  const server = it.byHand({ ADDRESS: "127.0.0.1:0" }, program)
  await server.printed(`version dev serves as process ${server.pid}`)
})

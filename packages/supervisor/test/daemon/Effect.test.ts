import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { describe, expect, it } from "vitest"
import { harness } from "./Harness.ts"
import { get } from "./Load.ts"

const program = fileURLToPath(new URL("./fixtures/effect.ts", import.meta.url))

describe("the Effect entry", () => {
  it("serves an inherited listener, and its drain lets the answer in flight out before the program ends", async () => {
    await using it = harness()
    const held = await it.held()
    const server = await held.start({ LISTEN_FDNAMES: "http" }, program)
    await server.said("serving inherited")
    const answer = get(held.port, "/", false)
    await sleep(150)
    server.terminate()
    await server.said("draining")
    expect((await answer).pid).toBe(server.pid)
    await server.said("drained cut=0")
    await server.said("end")
    await server.said("exited 0")
  })

  it("fails with the typed error", async () => {
    await using it = harness()
    const held = await it.held()
    const server = await held.start({ LISTEN_FDNAMES: "other" }, program)
    await server.said('failed no listener "http" was passed to this process; it has "other"')
  })
})

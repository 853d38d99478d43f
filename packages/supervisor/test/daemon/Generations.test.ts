import { setTimeout as sleep } from "node:timers/promises"
import { describe, expect, it } from "vitest"
import { requireTool } from "../../../../test/support/Tools.ts"
import { harness } from "./Harness.ts"
import { get, startLoad } from "./Load.ts"

const wrk = requireTool("wrk")

describe("generations that share a listener", () => {
  it("replace each other five times under kept-alive and new connections without an error", async () => {
    await using it = harness()
    const held = await it.held()
    let serving = await held.start({ LISTEN_FDNAMES: "http" })
    await serving.said("serving")
    const load = startLoad(held.port)
    const pids = [serving.pid]
    for (let swap = 0; swap < 5; swap += 1) {
      await sleep(150)
      const next = await held.start({ LISTEN_FDNAMES: "http" })
      await next.said("serving")
      serving.terminate()
      await serving.said("drained cut=0")
      serving = next
      pids.push(next.pid)
    }
    await sleep(150)
    const { requests, errors, byPid } = await load.stop()
    expect(errors).toEqual([])
    expect(requests).toBeGreaterThan(500)
    expect([...byPid.keys()].toSorted()).toEqual(pids.toSorted())
  })

  it("let a request of 3 s finish at the old one while the new one serves", async () => {
    await using it = harness()
    const held = await it.held()
    const old = await held.start({ LISTEN_FDNAMES: "http" })
    await old.said("serving")
    const slow = get(held.port, "/slow?ms=3000", false)
    await sleep(200)
    const next = await held.start({ LISTEN_FDNAMES: "http" })
    await next.said("serving")
    old.terminate()
    await old.said("draining")
    expect((await get(held.port, "/", false)).pid).toBe(next.pid)
    expect((await slow).pid).toBe(old.pid)
    await old.said("exited 0")
  })

  it.skipIf(!wrk.available)(`lose nothing of what wrk asks${wrk.reason}`, async () => {
    await using it = harness()
    const held = await it.held()
    let serving = await held.start({ LISTEN_FDNAMES: "http" })
    await serving.said("serving")
    const client = it.processes.run(wrk.path ?? "", ["-t1", "-c32", "-d4s", `http://127.0.0.1:${held.port}/`])
    for (let swap = 0; swap < 4; swap += 1) {
      await sleep(400)
      const next = await held.start({ LISTEN_FDNAMES: "http" })
      await next.said("serving")
      serving.terminate()
      await serving.said("drained cut=0")
      serving = next
    }
    const { stdout } = await client
    expect(stdout).toMatch(/[1-9]\d* requests in/)
    expect(stdout).not.toMatch(/Socket errors|Non-2xx/)
  })
})

import { lstatSync, readFileSync } from "node:fs"
import { describe, expect, it } from "vitest"
import { handOver, ID, world } from "./ScriptedSupervisor.ts"

describe("a sealed handoff", () => {
  it("passes lock, listener and handoff socket from the old process to the new one", async () => {
    await using it = world()
    const old = await it.incumbent()
    expect(lstatSync(it.control).mode & 0o777).toBe(0o600)
    expect(await it.append("one")).toBe(1)

    const o = await it.connect()
    const hello = await o.greet()
    expect([hello.role, hello.pid, Buffer.from(hello.buildId).toString()]).toEqual([
      "Incumbent",
      old.pid,
      "fault-daemon"
    ])
    const n = await it.successor()
    expect([(await n.peer.greet()).role, Number(await n.marker("successor-pid"))]).toEqual(["Successor", n.pid])
    o.prepare()
    expect((await o.next("Drained")).acceptClosed).toBe(true)
    o.say("SealRequest")
    const sealed = await o.next("SealComplete")
    expect([sealed.handoffId, sealed.lastRevisionPerShard]).toEqual([ID, [1n]])
    const waiting = it.append("two")
    n.peer.say("Begin")
    const ready = await n.peer.next("Ready")
    expect(ready).toMatchObject({ healthzOk: true, listeningOn: [`127.0.0.1:${it.port}`] })
    expect(ready.advertisedRevisionPerShard).toEqual([1n])
    n.peer.close()
    o.say("Commit")
    expect(await waiting).toBe(2)
    expect((await old.ended).code).toBe(0)
    expect(await it.servingPid()).toBe(n.pid)
    expect(readFileSync(`${it.dataDir}/.handoff.pidfile`, "utf8")).toBe(`${n.pid}\n`)
    expect((await (await it.connect()).next("Hello")).pid).toBe(n.pid)
    expect(it.log()).toEqual([`${old.pid} one`, `${n.pid} two`])
    expect(old.output().stderr + n.output().stderr).toBe("")
  })

  it("works twenty times in a row, from process to process", { timeout: 60_000 }, async () => {
    await using it = world()
    let serving = await it.incumbent()
    for (let times = 1; times <= 20; times += 1) {
      expect(await it.append(`${times}`)).toBe(times)
      serving = await handOver(it, serving)
      expect(await it.servingPid()).toBe(serving.pid)
    }
    expect(it.log()).toHaveLength(20)
    serving.child.kill("SIGTERM")
    expect((await serving.ended).code).toBe(0)
  })
})

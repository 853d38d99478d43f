import { once } from "node:events"
import { createConnection } from "node:net"
import { fileURLToPath } from "node:url"
import { describe, expect, it } from "vitest"
import { requireTool } from "../../../../test/support/Tools.ts"
import { HandoffSocket } from "../../src/daemon/HandoffSocket.ts"
import { startLoad } from "./Load.ts"
import { begun, handOver, ID, until, world } from "./ScriptedSupervisor.ts"

const fixture = (name: string): string => fileURLToPath(new URL(`./fixtures/${name}.ts`, import.meta.url))
const python = requireTool("python3")
const prlimit = requireTool("prlimit")

describe("the single steps of a successor", () => {
  it("lead to serving, in their order, and to giving way to the next", async () => {
    await using it = world()
    const daemon = await it.incumbent()
    const peer = await it.connect()
    await peer.sealed()
    const n = await it.successor({}, fixture("steps"))
    expect(Buffer.from((await n.peer.greet()).buildId).toString()).toBe("steps")
    await n.line(new RegExp(`acquainted ${ID} undefined`))
    n.peer.say("Begin")
    expect(await n.peer.next("Ready")).toMatchObject({ listeningOn: ["here"], advertisedRevisionPerShard: [7n] })
    await n.line(new RegExp(`equipped http 127\\.0\\.0\\.1:${it.port}`))
    n.peer.close()
    peer.say("Commit")
    await daemon.ended
    await n.line(/serving/)
    const client = createConnection(it.port, "127.0.0.1")
    const [answer] = (await once(client, "data")) as [Buffer]
    expect(answer.toString()).toBe(`${n.pid}`)
    client.destroy()
    const next = await it.connect()
    expect((await next.sealed()).lastRevisionPerShard).toEqual([8n])
    next.say("Commit")
    await n.line(/ended committed/)
    expect((await n.ended).code).toBe(0)
  })

  it("lead to a process that takes its path back before it accepts again, when a handoff is given up", async () => {
    await using it = world()
    const daemon = await it.incumbent()
    const o = await it.connect()
    await o.sealed()
    const n = await it.successor({}, fixture("steps"))
    await n.peer.greet()
    n.peer.say("Begin")
    await n.peer.next("Ready")
    n.peer.close()
    o.say("Commit")
    await daemon.ended
    await n.line(/serving/)
    const peer = await it.connect()
    await peer.sealed()
    const successor = await HandoffSocket.prepare(it.control)
    successor.publish()
    // It is gone, and the path leads to nobody.
    successor.abandon()
    peer.close()
    await n.line(/resumed, found at its path: true/)
    const next = await it.connect()
    expect((await next.sealed()).lastRevisionPerShard).toEqual([8n])
  })

  it("close the state and fail when the handoff is aborted between them", async () => {
    await using it = world()
    const daemon = await it.incumbent()
    const peer = await it.connect()
    await peer.sealed()
    const n = await it.successor({}, fixture("steps"))
    await n.peer.greet()
    n.peer.say("Begin")
    await n.peer.next("Ready")
    n.peer.send({ _tag: "Abort", handoffId: ID, reason: "" })
    await n.line(/closed/)
    await n.line(/failed this successor ends without having served, because the supervisor aborted the handoff/)
    expect((await n.ended).code).toBe(1)
    peer.say("ResumeAfterAbort")
    await it.append("again")
    expect(await it.servingPid()).toBe(daemon.pid)
  })

  it("are none for a process that is no successor, whose variables stay", async () => {
    await using it = world()
    const daemon = it.start({}, fixture("steps"))
    await daemon.line(/no successor 1/)
  })
})

describe("a daemon with data, in Effect", () => {
  it("opens, resumes, hands over and closes through its effects", async () => {
    await using it = world()
    const old = it.start({}, fixture("effectData"))
    await old.line(/open cold-start closed[\s\S]*serving/)
    const aborted = await it.connect()
    await aborted.drained()
    aborted.close()
    await until("it serves again", () => /drain\n/.test(old.output().stdout))
    expect(await it.servingPid()).toBe(old.pid)
    const second = await it.connect()
    expect((await second.sealed()).lastRevisionPerShard).toEqual([3n])
    second.close()
    await old.line(/seal\n.*open resume closed/)
    const o = await it.connect()
    await o.sealed()
    const n = await it.successor({}, fixture("effectData"))
    await n.peer.greet()
    n.peer.say("Begin")
    expect((await n.peer.next("Ready")).advertisedRevisionPerShard).toEqual([3n])
    n.peer.close()
    o.say("Commit")
    await old.line(/ended handed-over/)
    expect((await old.ended).code).toBe(0)
    await n.line(/serving/)
    n.child.kill("SIGTERM")
    await n.line(/drain[\s\S]*close[\s\S]*ended stopped/)
    expect((await n.ended).code).toBe(0)
  })

  it("interrupts an open that is not wanted any more, and fails with the typed error", async () => {
    await using it = world()
    const old = await it.incumbent()
    const peer = await it.connect()
    await peer.sealed()
    const n = await it.successor({ OPEN_HANGS: "1" }, fixture("effectData"))
    await n.peer.greet()
    n.peer.say("Begin")
    await n.line(/open successor closed/)
    n.peer.send({ _tag: "Abort", handoffId: ID, reason: "" })
    await n.line(/open interrupted/)
    await n.line(/failed HandoffEnded: this successor ends without having served, because the supervisor aborted/)
    expect((await n.ended).code).toBe(1)
    peer.say("ResumeAfterAbort")
    await it.append("again")
    expect(await it.servingPid()).toBe(old.pid)
  })
})

describe("a daemon with data", () => {
  it("is refused with hooks that have no data, and with data that has no hooks", async () => {
    const { daemon } = await import("@handoff/supervisor/daemon")
    const hooks = { seal: async () => undefined }
    await expect(Reflect.apply(daemon, undefined, [hooks])).rejects.toThrow("without dataDir there is nothing for seal")
    await expect(Reflect.apply(daemon, undefined, [{ dataDir: "." }])).rejects.toThrow("the hooks open and seal are")
  })

  it("loses no request of clients that keep asking while five handoffs pass", async () => {
    await using it = world()
    let serving = await it.incumbent()
    const load = startLoad(it.port)
    for (let times = 1; times <= 5; times += 1) {
      expect(await it.append(`${times}`)).toBe(times)
      serving = await handOver(it, serving)
    }
    const { requests, errors, byPid } = await load.stop()
    expect(errors).toEqual([])
    expect(requests).toBeGreaterThan(100)
    expect(byPid.size).toBeGreaterThan(4)
  })

  it.skipIf(!prlimit.available)(`comes back when it runs out of descriptors${prlimit.reason}`, async () => {
    await using it = world()
    const daemon = await it.incumbent()
    const { stdout } = await it.processes.run(prlimit.path ?? "", [`--pid=${daemon.pid}`, "--nofile=40:40"])
    expect(stdout).toBe("")
    const clients = Array.from({ length: 60 }, () =>
      createConnection(it.port, "127.0.0.1").on("error", () => undefined)
    )
    await Promise.all(clients.map((client) => (client.connecting ? once(client, "connect") : undefined)))
    const peers = await Promise.all(Array.from({ length: 5 }, () => it.connect()))
    await until("a connection was dropped", () => peers.some(({ closed }) => closed))
    for (const peer of peers) peer.close()
    for (const client of clients) client.destroy()
    // Until it has seen them go, it accepts a connection only to close it.
    await expect.poll(it.servingPid, { timeout: 10_000 }).toBe(daemon.pid)
    await it.append("still here")
    const peer = await it.connect()
    await peer.drained()
    peer.close()
    await it.append("and here")
    await handOver(it, daemon)
  })

  /** Prints whether the path accepts a connection by the time READY=1 arrives. */
  const RECEIVER = `
import socket, sys
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.bind(sys.argv[1])
print("bound", flush=True)
while True:
    text = notify.recv(4096).decode()
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    print("got", text, "accepts" if client.connect_ex(sys.argv[2]) == 0 else "refuses", flush=True)
    client.close()
`
  it.skipIf(!python.available)(`says READY=1 when it can be replaced${python.reason}`, async () => {
    await using it = world()
    const NOTIFY_SOCKET = it.file("notify")
    const receiver = it.processes.start(python.path ?? "", ["-c", RECEIVER, NOTIFY_SOCKET, it.control])
    await receiver.line(/bound/)
    const old = await it.incumbent({ NOTIFY_SOCKET })
    await receiver.line(/got READY=1 accepts/)
    const peer = await it.connect()
    await peer.sealed()
    const n = await begun(it, { NOTIFY_SOCKET })
    await n.peer.next("Ready")
    expect(receiver.output().stdout.match(/READY=1/g)).toHaveLength(1)
    n.peer.close()
    peer.say("Commit")
    await old.ended
    await until("the second READY=1", () => (receiver.output().stdout.match(/READY=1 accepts/g) ?? []).length === 2)
  })
})

import { once } from "node:events"
import { readlinkSync } from "node:fs"
import { createConnection } from "node:net"
import { setTimeout as sleep } from "node:timers/promises"
import { describe, expect, it } from "vitest"
import { temporaryDirectory } from "../../../../test/support/TemporaryDirectory.ts"
import { descriptorOf } from "../../src/internal/NodeHandle.ts"
import { harness } from "./Harness.ts"
import { get } from "./Load.ts"

const namesOf = async (said: Promise<RegExpExecArray>): Promise<string> => (await said)[1] ?? ""

describe("a daemon started with a listener", () => {
  it("serves it by its name, keeps its queue for the next holder, and hides the variables from its children", async () => {
    await using it = harness()
    const held = await it.held()
    const server = await held.start({ LISTEN_FDNAMES: "http" })
    await server.said("serving")
    expect(await namesOf(server.said("environment (.*)"))).toBe("LISTEN_FDNAMES LISTEN_FDS")
    expect(await namesOf(server.said("left (.*)"))).toBe("")
    expect((await get(held.port, "/", false)).pid).toBe(server.pid)
    server.terminate()
    await server.said("exited 0")
    // Nobody accepts now: the connection waits in the queue until the next one serves.
    const waiting = get(held.port, "/", false)
    await sleep(100)
    const next = await held.start({ LISTEN_FDNAMES: "http" })
    expect((await waiting).pid).toBe(next.pid)
  })

  it("gives a listener without a name to the first that asks", async () => {
    await using it = harness()
    const held = await it.held()
    const server = await held.start({ NAMES: "whatever" })
    await server.said("served whatever inherited")
    expect((await get(held.port, "/", false)).pid).toBe(server.pid)
  })

  it("accepts on none of its listeners before all are served", async () => {
    await using it = harness()
    const held = await it.held(2)
    const server = await held.start({ LISTEN_FDNAMES: "http:admin", NAMES: "http" })
    await server.said("serving")
    const answers = held.ports.slice(0, 1).map((port) => get(port, "/", false))
    const first = await Promise.race([Promise.all(answers), sleep(300, "nothing")])
    expect(first).toBe("nothing")
    process.kill(server.pid, "SIGUSR2")
    await server.said("asked to be ready")
    expect((await Promise.all(answers)).map(({ pid }) => pid)).toEqual([server.pid])
    const both = await held.start({ LISTEN_FDNAMES: "http:admin", NAMES: "admin,http" })
    await both.said("served http inherited")
    expect((await get(held.ports[1] ?? 0, "/", false)).pid).toBe(both.pid)
  })

  it("does not accept before ready() when readiness is manual", async () => {
    await using it = harness()
    const held = await it.held()
    const server = await held.start({ READINESS: "manual" })
    await server.said("serving")
    const answer = get(held.port, "/", false)
    expect(await Promise.race([answer, sleep(300, "nothing")])).toBe("nothing")
    process.kill(server.pid, "SIGUSR2")
    expect((await answer).pid).toBe(server.pid)
  })
})

describe("what a daemon refuses", () => {
  it("a name it was not given, and lists those it was", async () => {
    await using it = harness()
    const held = await it.held(2)
    const server = await held.start({ LISTEN_FDNAMES: "http:admin", NAMES: "metrics" })
    await server.said('failed no listener "metrics" was passed to this process; it has "http", "admin"')
    await server.said("exited 1")
  })

  it("the same name twice, inherited or by hand", async () => {
    await using it = harness()
    const held = await it.held()
    const server = await held.start({ LISTEN_FDNAMES: "http", NAMES: "http,http" })
    await server.said('failed the listener "http" is served already; each name can be taken once')
    const byHand = it.byHand({ ADDRESS: "127.0.0.1:0", NAMES: "http,http" })
    await byHand.said('failed the listener "http" is served already')
    for (const each of [server, byHand]) each.terminate()
  })

  it("names that do not match the count, with the environment left as it was", async () => {
    await using it = harness()
    const held = await it.held()
    const server = await held.start({ LISTEN_FDNAMES: "http:admin" })
    await server.said("failed the inherited listeners cannot be used: .*LISTEN_FDNAMES")
    expect(await namesOf(server.said("left (.*)"))).toBe("LISTEN_FDNAMES LISTEN_FDS")
  })

  it("a descriptor that does not listen, with the environment and the descriptor left as they were", async () => {
    await using it = harness()
    const held = await it.held()
    const connected = createConnection(held.port, "127.0.0.1")
    await once(connected, "connect")
    const fd = descriptorOf(connected)
    const inode = readlinkSync(`/proc/self/fd/${fd}`)
    const server = it.byHand({ LISTEN_FDS: "1", LISTEN_FDNAMES: "http", LINGER_MS: "60000" }, undefined, [fd])
    await server.said('failed descriptor 3, passed as listener "http", cannot be used: .* does not listen')
    expect(await namesOf(server.said("left (.*)"))).toBe("LISTEN_FDNAMES LISTEN_FDS")
    expect(readlinkSync(`/proc/${server.pid}/fd/3`)).toBe(inode)
    connected.destroy()
  })
})

describe("a daemon started by hand", () => {
  it("binds the address when LISTEN_PID is of another process, and leaves the variables to it", async () => {
    await using it = harness()
    const held = await it.held()
    const server = await held.start({ LISTEN_PID: "1", LISTEN_FDNAMES: "http", ADDRESS: "127.0.0.1:0" })
    const [, port] = await server.said("served http bound port=(\\d+)")
    expect((await get(Number(port), "/", false)).pid).toBe(server.pid)
    expect(await namesOf(server.said("left (.*)"))).toBe("LISTEN_FDNAMES LISTEN_FDS LISTEN_PID")
  })

  it("says that it needs an address, and which address is in use", async () => {
    await using it = harness()
    const without = it.byHand()
    await without.said('failed listener "http": no listener was inherited, so serve\\(\\) needs an address')
    const first = it.byHand({ ADDRESS: "127.0.0.1:0" })
    const [, port] = await first.said("served http bound port=(\\d+)")
    const second = it.byHand({ ADDRESS: `127.0.0.1:${port}` })
    await second.said(`failed listener "http" could not listen on 127.0.0.1:${port}: .*EADDRINUSE`)
  })

  it("takes over the unix socket that a killed process left, but not a living one's", async () => {
    using directory = temporaryDirectory()
    await using it = harness()
    const ADDRESS = `unix:${directory.file("http.sock")}`
    const first = it.byHand({ ADDRESS })
    await first.said("served http bound")
    await it.byHand({ ADDRESS }).said("failed .* EADDRINUSE")
    process.kill(first.pid, "SIGKILL")
    await first.process.ended
    await it.byHand({ ADDRESS }).said("served http bound")
  })
})

import { once } from "node:events"
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync
} from "node:fs"
import { createConnection } from "node:net"
import { setTimeout as sleep } from "node:timers/promises"
import * as Frame from "@handoff/core/protocol/Frame"
import * as Result from "effect/Result"
import { describe, expect, it } from "vitest"
import { descriptorsOf } from "../../../../test/support/ProcessTable.ts"
import { requireRoot } from "../../../../test/support/Tools.ts"
import { HandoffSocket } from "../../src/daemon/HandoffSocket.ts"
import { begun, type Daemon, handOver, ID, type Peer, until, type World, world } from "./ScriptedSupervisor.ts"

const OTHER_ID = "00000000-9a1b-4c3d-8e7f-102132435465"

/** It writes and answers, holds the lock, and can be replaced. */
const expectServing = async (it: World, daemon: Daemon): Promise<void> => {
  await it.append("still here")
  expect(await it.servingPid()).toBe(daemon.pid)
  expect(readFileSync(`${it.dataDir}/.handoff.pidfile`, "utf8")).toBe(`${daemon.pid}\n`)
  const peer = await it.connect()
  expect((await peer.next("Hello")).pid).toBe(daemon.pid)
  peer.close()
}

/** What is sealed is handed to a new successor, which serves then. */
const giveWay = async (it: World, daemon: Daemon, peer: Peer): Promise<void> => {
  const n = await begun(it)
  await n.peer.next("Ready")
  n.peer.close()
  peer.say("Commit")
  expect((await daemon.ended).code).toBe(0)
  await n.marker("successor-ready")
  await expectServing(it, n)
}

interface Phase {
  readonly name: string
  readonly env?: Record<string, string>
  readonly reach: (peer: Peer, daemon: Daemon) => Promise<unknown>
}

const slow = { HANDOFF_DRAIN_DELAY_MS: "600", HANDOFF_SEAL_DELAY_MS: "600" }

const phases: ReadonlyArray<Phase> = [
  { name: "greeting", reach: (peer) => peer.next("Hello") },
  { name: "acquainted", reach: (peer) => peer.greet() },
  {
    name: "draining",
    env: slow,
    reach: async (peer, daemon) => {
      await peer.greet()
      peer.prepare()
      await daemon.marker("drain-called")
    }
  },
  { name: "drained", reach: (peer) => peer.drained() },
  {
    name: "sealing",
    env: slow,
    reach: async (peer, daemon) => {
      await peer.drained()
      peer.say("SealRequest")
      await daemon.marker("seal-called")
    }
  },
  { name: "sealed", reach: (peer) => peer.sealed() }
]

describe.each(phases)("an incumbent in phase $name", ({ name, env, reach }) => {
  const isDrained = !["greeting", "acquainted"].includes(name)
  // Before HelloAck there is no handoff yet that could be named.
  const itAcquainted = name === "greeting" ? () => undefined : it

  it("serves again when its supervisor is gone, and answers who waited in the queue meanwhile", async () => {
    await using it = world()
    const daemon = await it.incumbent(env)
    await it.append("before")
    const peer = await it.connect()
    await reach(peer, daemon)
    const waiting = isDrained ? it.append("waited") : undefined
    if (waiting !== undefined) expect(await Promise.race([waiting, sleep(100, "nothing")])).toBe("nothing")
    peer.close()
    expect(await waiting).toBe(isDrained ? 2 : undefined)
    expect(daemon.hasMarker("resume-called")).toBe(isDrained)
    await expectServing(it, daemon)
  })

  itAcquainted("serves again when its supervisor aborts, and keeps the session open for it", async () => {
    await using it = world()
    const daemon = await it.incumbent(env)
    const peer = await it.connect()
    await reach(peer, daemon)
    peer.say("ResumeAfterAbort")
    if (name === "acquainted") await peer.ended()
    else await daemon.marker("resume-called")
    await it.append("still here")
    if (isDrained) {
      expect(peer.closed).toBe(false)
      peer.send({ _tag: "Abort", handoffId: ID, reason: "once more" })
      peer.close()
    }
    await expectServing(it, daemon)
  })

  itAcquainted("ends the session over a message of another handoff", async () => {
    await using it = world()
    const daemon = await it.incumbent(env)
    const peer = await it.connect()
    await reach(peer, daemon)
    peer.say("SealRequest", OTHER_ID)
    await peer.ended()
    await expectServing(it, daemon)
    expect(daemon.output().stderr).toMatch(/SealRequest belongs to handoff 00000000/)
  })

  it("ends the session over bytes that are no frame", async () => {
    await using it = world()
    const daemon = await it.incumbent(env)
    const peer = await it.connect()
    await reach(peer, daemon)
    peer.socket.write(Buffer.from("GET / HTTP/1.1\r\n\r\n"))
    await peer.ended()
    await expectServing(it, daemon)
  })

  it("exits or crashes leaving the lock to the next one", async () => {
    await using it = world()
    const daemon = await it.incumbent(env)
    const peer = await it.connect()
    await reach(peer, daemon)
    daemon.child.kill("SIGKILL")
    await daemon.ended
    peer.close()
    const next = await it.incumbent()
    await expectServing(it, next)
  })
})

describe("an incumbent and the supervisor's timing", () => {
  it("resumes by itself when the deadline it was given is over", async () => {
    await using it = world()
    const daemon = await it.incumbent()
    const peer = await it.connect()
    await peer.sealed({ deadlineMs: 700n })
    await peer.ended()
    await expectServing(it, daemon)
  })

  it("reports within the drain's grace, though a request is in flight, and cuts nothing", async () => {
    await using it = world()
    const daemon = await it.incumbent({ HANDOFF_DRAIN_DELAY_MS: "60000" })
    const client = createConnection(it.port, "127.0.0.1")
    client.write("POST /append HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nla")
    await sleep(300)
    const peer = await it.connect()
    expect(await peer.drained({ drainGraceMs: 500n })).toMatchObject({ openConnsRemaining: 1, acceptClosed: true })
    peer.close()
    await daemon.marker("resume-called")
    client.write("te")
    const [answer] = (await once(client, "data")) as [Buffer]
    expect(answer.toString()).toMatch(/^HTTP\/1.1 200/)
    client.destroy()
    await expectServing(it, daemon)
  })

  it("says every two seconds that it is alive while a hook runs", async () => {
    await using it = world()
    await it.incumbent({ HANDOFF_SEAL_DELAY_MS: "4500" })
    const peer = await it.connect()
    await peer.sealed()
    expect(peer.heard.filter(({ _tag }) => _tag === "Heartbeat").length).toBeGreaterThanOrEqual(2)
    expect(peer.heard.find(({ _tag }) => _tag === "SealProgress")).toMatchObject({ shardsSealed: 1, shardsTotal: 1 })
  })

  it("closes a silent client after five seconds, and then hears the next one", async () => {
    await using it = world()
    const daemon = await it.incumbent()
    const silent = await it.connect()
    await silent.next("Hello")
    const next = await it.connect()
    await sleep(300)
    expect(next.heard).toEqual([])
    await silent.ended()
    expect((await next.next("Hello")).pid).toBe(daemon.pid)
  })

  it("keeps going when a client sends half a frame and goes", async () => {
    await using it = world()
    const daemon = await it.incumbent()
    for (const bytes of [
      Buffer.from([9, 0]),
      Buffer.from([200, 0, 0, 0, 1, 0, 1]),
      Buffer.from([255, 255, 255, 255])
    ]) {
      const peer = await it.connect()
      await peer.next("Hello")
      peer.socket.end(bytes)
      await peer.ended()
    }
    await expectServing(it, daemon)
  })

  it("refuses a version that it does not speak", async () => {
    await using it = world()
    const daemon = await it.incumbent()
    const peer = await it.connect()
    await peer.next("Hello")
    peer.send({ _tag: "HelloAck", protoVersionChosen: 0, handoffId: ID })
    await peer.ended()
    await expectServing(it, daemon)
    expect(daemon.output().stderr).toMatch(/chose protocol version 0/)
  })

  it("refuses Commit before the seal, and goes on serving", async () => {
    await using it = world()
    const daemon = await it.incumbent()
    const peer = await it.connect()
    await peer.drained()
    peer.say("Commit")
    await peer.ended()
    await expectServing(it, daemon)
  })

  it("holds sixteen clients behind the one it hears, and closes the others", async () => {
    await using it = world()
    const daemon = await it.incumbent()
    const first = await it.connect()
    await first.next("Hello")
    const others = await Promise.all(Array.from({ length: 20 }, () => it.connect()))
    await until("four closed", () => others.filter(({ closed }) => closed).length === 4)
    await sleep(100)
    expect(others.filter(({ closed }) => closed)).toHaveLength(4)
    for (const peer of [first, ...others]) peer.close()
    await expectServing(it, daemon)
  })
})

describe("an incumbent whose seal fails", () => {
  it("says so when it serves again with the lock it kept, and can be replaced later", async () => {
    await using it = world()
    const daemon = await it.incumbent({ HANDOFF_SEAL_FAILS_ONCE: "1" })
    const peer = await it.connect()
    await peer.drained()
    peer.say("SealRequest")
    expect(await peer.next("SealFailed")).toMatchObject({ handoffId: ID, error: "the seal fails once, as asked" })
    expect(await it.append("after the failure")).toBe(1)
    peer.say("ResumeAfterAbort")
    peer.close()
    await expectServing(it, daemon)
    const next = await handOver(it, daemon)
    await expectServing(it, next)
  })
})

describe("an incumbent whose pidfile cannot be removed", () => {
  const blockPidfile = (it: World): string => {
    const pidfile = `${it.dataDir}/.handoff.pidfile`
    rmSync(pidfile)
    mkdirSync(pidfile)
    return pidfile
  }

  it("gives the lock to its successor all the same", async () => {
    await using it = world()
    const daemon = await it.incumbent()
    const peer = await it.connect()
    await peer.drained()
    const pidfile = blockPidfile(it)
    peer.say("SealRequest")
    await peer.next("SealComplete")
    rmdirSync(pidfile)
    await giveWay(it, daemon, peer)
  })

  it("says why it ends when its state cannot be opened again", async () => {
    await using it = world()
    const daemon = await it.incumbent()
    const peer = await it.connect()
    await peer.drained()
    blockPidfile(it)
    rmSync(`${it.dataDir}/generations`)
    mkdirSync(`${it.dataDir}/generations`)
    peer.close()
    expect(await daemon.ended).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/could not be opened again after a handoff failed: EISDIR/)
    })
  })
})

describe("an incumbent that is sealed when its supervisor dies", () => {
  it("exits when the successor serves, which needed no word either", async () => {
    await using it = world()
    const daemon = await it.incumbent()
    const peer = await it.connect()
    await peer.sealed()
    const n = await begun(it)
    await n.peer.next("Ready")
    peer.close()
    n.peer.close()
    expect((await daemon.ended).code).toBe(0)
    await n.marker("successor-ready")
    await expectServing(it, n)
  })

  it("waits for the lock while a successor opens, and serves when that one dies", async () => {
    await using it = world()
    const daemon = await it.incumbent()
    const peer = await it.connect()
    await peer.sealed()
    const n = await begun(it, { HANDOFF_READY_DELAY_MS: "60000" })
    await until("the successor opens", () =>
      readFileSync(`${it.dataDir}/generations`, "utf8").includes(`open ${n.pid}\n`)
    )
    const waiting = it.append("waited")
    peer.close()
    await sleep(3_000)
    expect(daemon.hasMarker("resume-called")).toBe(false)
    n.child.kill("SIGKILL")
    expect(await waiting).toBe(1)
    await expectServing(it, daemon)
  })
})

describe("an incumbent that cannot take its path back from a successor that died", () => {
  /** Serving again, with a directory in the way. A supervisor that was in the queue before is heard: `queued`. */
  const blocked = async (it: World) => {
    const daemon = await it.incumbent()
    const peer = await it.connect()
    const queued = await it.connect()
    await peer.sealed()
    rmSync(it.control)
    mkdirSync(it.control)
    peer.close()
    await until("the warning", () =>
      daemon.output().stderr.includes("taking the path back is tried again every second")
    )
    await it.append("served meanwhile")
    return { daemon, queued }
  }
  const temporaries = (it: World) => readdirSync(it.file(".")).filter((name) => name.startsWith(".~"))

  it("takes it when what was in the way is gone", async () => {
    await using it = world()
    const { daemon, queued } = await blocked(it)
    queued.close()
    rmdirSync(it.control)
    await until("the path", () => existsSync(it.control))
    await expectServing(it, daemon)
    expect(daemon.output().stderr.match(/is tried again/g)).toHaveLength(1)
    await handOver(it, daemon)
    expect(temporaries(it)).toEqual([])
  })

  it("leaves nothing when it stops", async () => {
    await using it = world()
    const { daemon, queued } = await blocked(it)
    queued.close()
    daemon.child.kill("SIGTERM")
    rmdirSync(it.control)
    expect((await daemon.ended).code).toBe(0)
    expect([existsSync(it.control), temporaries(it)]).toEqual([false, []])
  })

  it("leaves the path to the next successor when it is sealed again, and takes it when that one dies", async () => {
    await using it = world()
    const { daemon, queued } = await blocked(it)
    await queued.sealed()
    rmdirSync(it.control)
    const successor = await HandoffSocket.prepare(it.control)
    successor.publish()
    await sleep(1_200)
    expect(successor.ownsPath).toBe(true)
    successor.abandon()
    queued.close()
    await it.append("served again")
    await expectServing(it, daemon)
  })
})

describe("an incumbent that is asked to stop", () => {
  it("closes its state, gives the lock back and takes its socket away", async () => {
    await using it = world()
    const daemon = await it.incumbent()
    daemon.child.kill("SIGTERM")
    expect(await daemon.ended).toMatchObject({ code: 0, stderr: "" })
    expect([existsSync(it.control), existsSync(`${it.dataDir}/.handoff.pidfile`)]).toEqual([false, false])
    expect(existsSync(`${it.dataDir}/.handoff.lock`)).toBe(true)
    await it.incumbent()
  })

  it("in the middle of a handoff: first the handoff ends, by commit", async () => {
    await using it = world()
    const daemon = await it.incumbent()
    const peer = await it.connect()
    await peer.drained()
    daemon.child.kill("SIGTERM")
    await sleep(300)
    peer.say("SealRequest")
    await peer.next("SealComplete")
    await giveWay(it, daemon, peer)
  })

  it("in the middle of a handoff: or by a state that can't be opened again, of which it says so once", async () => {
    await using it = world()
    const daemon = await it.incumbent()
    const peer = await it.connect()
    await peer.drained()
    daemon.child.kill("SIGTERM")
    await sleep(300)
    rmSync(`${it.dataDir}/generations`)
    mkdirSync(`${it.dataDir}/generations`)
    peer.close()
    const { code, stderr } = await daemon.ended
    expect(code).toBe(1)
    expect(stderr.match(/could not be opened again after a handoff failed: EISDIR/g)).toHaveLength(1)
  })

  it("in the middle of a handoff: or by abort, and then it stops", async () => {
    await using it = world()
    const daemon = await it.incumbent()
    const peer = await it.connect()
    await peer.sealed()
    daemon.child.kill("SIGTERM")
    await sleep(300)
    expect(daemon.child.exitCode).toBe(null)
    peer.close()
    expect((await daemon.ended).code).toBe(0)
    expect(daemon.hasMarker("resume-called")).toBe(true)
    expect(existsSync(it.control)).toBe(false)
    await it.incumbent()
  })

  it.each([
    ["has said nothing", (peer: Peer): Promise<unknown> => peer.next("Hello")],
    [
      "has aborted",
      async (peer: Peer): Promise<unknown> => {
        await peer.sealed()
        peer.say("ResumeAfterAbort")
        return sleep(400)
      }
    ]
  ])("does not wait for a client that %s", async (_, reach) => {
    await using it = world()
    const daemon = await it.incumbent()
    const peer = await it.connect()
    await reach(peer)
    const begun = Date.now()
    daemon.child.kill("SIGTERM")
    expect((await daemon.ended).code).toBe(0)
    expect(Date.now() - begun).toBeLessThan(4_000)
  })

  it("sends a supervisor away that does not end within the grace", async () => {
    await using it = world()
    const daemon = await it.incumbent({ HANDOFF_TEST_GRACE_MS: "500" })
    const peer = await it.connect()
    await peer.drained()
    daemon.child.kill("SIGTERM")
    await peer.ended()
    expect((await daemon.ended).code).toBe(0)
  })

  it("twice in the middle of a handoff: exits at once", async () => {
    await using it = world()
    const daemon = await it.incumbent()
    const peer = await it.connect()
    await peer.drained()
    daemon.child.kill("SIGTERM")
    await sleep(200)
    daemon.child.kill("SIGTERM")
    expect(await daemon.ended).toMatchObject({ code: 1, stderr: expect.stringMatching(/second signal/) })
  })
})

describe("an incumbent over and over", () => {
  it("has no more descriptors after twenty handoffs that were given up", { timeout: 60_000 }, async () => {
    await using it = world()
    const daemon = await it.incumbent()
    const abort = async (how: (peer: Peer) => Promise<unknown>) => {
      const peer = await it.connect()
      await how(peer)
      peer.close()
      await it.append("again")
    }
    await abort((peer) => peer.sealed())
    await sleep(300)
    const before = descriptorsOf(daemon.pid).size
    for (let times = 0; times < 10; times += 1) {
      await abort((peer) => peer.sealed())
      await abort((peer) => peer.drained())
    }
    await until("the descriptors of the sessions are closed", () => descriptorsOf(daemon.pid).size <= before)
    await expectServing(it, daemon)
  })

  it.each([
    ["TCP", (): string => "127.0.0.1:0"],
    ["unix", (it: World): string => `unix:${it.file("http.sock")}`]
  ])("listens again on a %s address that it bound by hand", async (_, addressOf) => {
    await using it = world()
    const daemon = it.start({ LISTEN_FDS: "0", LISTEN_FDNAMES: "", HANDOFF_TEST_ADDRESS: addressOf(it) })
    await daemon.marker("serving")
    const path = it.file("http.sock")
    const isUnix = existsSync(path)
    const where = isUnix
      ? { path }
      : { host: "127.0.0.1", port: Number((await daemon.marker("address")).split(":")[1]) }
    const inode = isUnix ? lstatSync(path).ino : undefined
    const peer = await it.connect()
    await peer.sealed()
    const client = createConnection(where)
    client.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    peer.close()
    const [answer] = (await once(client, "data")) as [Buffer]
    expect(answer.toString()).toContain(`"pid":${daemon.pid}`)
    if (isUnix) expect(lstatSync(path).ino).toBe(inode)
    daemon.child.kill("SIGTERM")
    expect((await daemon.ended).code).toBe(0)
    expect(existsSync(path)).toBe(false)
  })
})

const root = requireRoot()

describe("the handoff socket", () => {
  it.skipIf(!root.available)(`closes another user's connection without a word${root.reason}`, async () => {
    await using it = world()
    const reachable = mkdtempSync("/tmp/handoff-reachable-")
    try {
      chmodSync(reachable, 0o755)
      const control = `${reachable}/handoff.sock`
      await it.incumbent({ HANDOFF_CONTROL_SOCKET: control })
      chmodSync(control, 0o666)
      const script = `
        const socket = require("node:net").createConnection(${JSON.stringify(control)})
        let bytes = 0
        socket.on("connect", () => console.log("connected")).on("data", (data) => { bytes += data.length })
        socket.on("error", () => {}).on("close", () => console.log("closed after", bytes))`
      const stranger = it.processes.start(process.execPath, ["--eval", script], { uid: 65_534, gid: 65_534 })
      await stranger.line(/closed after 0$/m)
      expect(stranger.output().stdout).toMatch(/connected/)
      const friend = createConnection(control)
      const [hello] = (await once(friend, "data")) as [Buffer]
      const [frame] = new Frame.Decoder().push(hello)
      expect(frame !== undefined && Result.isSuccess(frame) && frame.success.message._tag).toBe("Hello")
      friend.destroy()
    } finally {
      rmSync(reachable, { recursive: true, force: true })
    }
  })

  it("is refused by name when something else is in its place", async () => {
    await using it = world()
    const daemon = it.start({ HANDOFF_CONTROL_SOCKET: it.dataDir })
    expect(await daemon.ended).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/handoff socket .*data could not be served: something else than a socket/)
    })
  })
})

describe("the data lock", () => {
  it("is refused to a second daemon, which is told who has it", async () => {
    await using it = world()
    const daemon = await it.incumbent()
    const second = it.start({ HANDOFF_CONTROL_SOCKET: it.file("second.sock") })
    expect(await second.ended).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(new RegExp(`the data in .*data is locked by process ${daemon.pid};`))
    })
    await expectServing(it, daemon)
  })
})

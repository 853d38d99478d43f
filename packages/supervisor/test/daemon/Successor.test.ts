import { existsSync, readdirSync, readFileSync } from "node:fs"
import { setTimeout as sleep } from "node:timers/promises"
import { describe, expect, it } from "vitest"
import { descriptorsOf } from "../../../../test/support/ProcessTable.ts"
import { begun, type Daemon, ID, type Peer, type Successor, until, type World, world } from "./ScriptedSupervisor.ts"

/** An incumbent that has given way, and its session. */
const sealedIncumbent = async (it: World): Promise<{ readonly daemon: Daemon; readonly peer: Peer }> => {
  const daemon = await it.incumbent()
  const peer = await it.connect()
  await peer.sealed()
  return { daemon, peer }
}

/** Who is said to hold the lock. */
const pidOf = (it: World): string => {
  const path = `${it.dataDir}/.handoff.pidfile`
  return existsSync(path) ? readFileSync(path, "utf8") : ""
}

/** One line, status 1, nothing of it left. */
const expectGone = async (it: World, n: Successor, line: RegExp): Promise<void> => {
  const { code, stderr } = await n.ended
  expect(stderr.trim().split("\n")).toEqual([expect.stringMatching(line)])
  expect(stderr).toMatch(/this successor ends without having served/)
  expect(code).toBe(1)
  expect(pidOf(it)).not.toBe(`${n.pid}\n`)
  expect(readdirSync(it.file(".")).filter((name) => name.startsWith(".~"))).toEqual([])
}

const opening = (it: World, n: Successor): Promise<void> =>
  until("the successor opens", () => readFileSync(`${it.dataDir}/generations`, "utf8").includes(`open ${n.pid}\n`))

interface Phase {
  readonly name: string
  readonly env?: Record<string, string>
  readonly reach: (it: World, n: Successor) => Promise<unknown>
}

const phases: ReadonlyArray<Phase> = [
  { name: "waiting", reach: (_, n) => n.peer.greet() },
  {
    name: "opening",
    env: { HANDOFF_READY_DELAY_MS: "700" },
    reach: async (it, n) => {
      await n.peer.greet()
      n.peer.say("Begin")
      await opening(it, n)
    }
  },
  {
    name: "announced",
    reach: async (_, n) => {
      await n.peer.greet()
      n.peer.say("Begin")
      await n.peer.next("Ready")
    }
  }
]

describe.each(phases)("a successor in phase $name", ({ name, env, reach }) => {
  it("gives everything back when the handoff is aborted, and the one before it serves again", async () => {
    await using it = world()
    const { daemon, peer } = await sealedIncumbent(it)
    const waiting = it.append("waited")
    const n = await it.successor(env)
    await reach(it, n)
    n.peer.send({ _tag: "Abort", handoffId: ID, reason: "not wanted" })
    await expectGone(it, n, /because the supervisor aborted the handoff$/)
    peer.say("ResumeAfterAbort")
    expect(await waiting).toBe(1)
    expect(await it.servingPid()).toBe(daemon.pid)
  })

  it("leaves lock and listener to the one before it when it is killed", async () => {
    await using it = world()
    const { daemon, peer } = await sealedIncumbent(it)
    const waiting = it.append("waited")
    const n = await it.successor(env)
    await reach(it, n)
    n.child.kill("SIGKILL")
    await n.ended
    peer.say("ResumeAfterAbort")
    expect(await waiting).toBe(1)
    expect(await it.servingPid()).toBe(daemon.pid)
  })

  const itBeforeReady = name === "announced" ? () => undefined : it
  itBeforeReady("leaves when its supervisor is gone", async () => {
    await using it = world()
    const { peer } = await sealedIncumbent(it)
    const n = await it.successor(env)
    await reach(it, n)
    n.peer.close()
    await expectGone(it, n, /because the supervisor closed the channel/)
    peer.say("ResumeAfterAbort")
    await it.append("again")
  })

  itBeforeReady("leaves when it is asked to stop", async () => {
    await using it = world()
    const { peer } = await sealedIncumbent(it)
    const n = await it.successor(env)
    await reach(it, n)
    n.child.kill("SIGTERM")
    await expectGone(it, n, /because it was asked to stop$/)
    peer.say("ResumeAfterAbort")
    await it.append("again")
  })

  itBeforeReady("leaves over a message that does not fit, or of another handoff", async () => {
    await using it = world()
    await sealedIncumbent(it)
    const n = await it.successor(env)
    await reach(it, n)
    n.peer.say("Commit", "00000000-9a1b-4c3d-8e7f-102132435465")
    const { code, stderr } = await n.ended
    expect([code, stderr]).toEqual([1, expect.stringMatching(/broke the protocol: Commit belongs to handoff 00000000/)])
  })
})

describe("a successor", () => {
  it("touches neither data nor lock before Begin", async () => {
    await using it = world()
    const daemon = await it.incumbent()
    const n = await it.successor()
    await n.peer.greet()
    await sleep(300)
    expect(readFileSync(`${it.dataDir}/generations`, "utf8")).toBe(`open ${daemon.pid}\n`)
    expect(await it.append("still the old one")).toBe(1)
    expect([...descriptorsOf(n.pid).values()].filter((target) => target.includes(it.dataDir))).toEqual([])
    n.peer.close()
    await n.ended
  })

  it("accepts nothing before its supervisor closes the channel", async () => {
    await using it = world()
    const { peer, daemon } = await sealedIncumbent(it)
    const n = await begun(it)
    await n.peer.next("Ready")
    const waiting = it.append("waited")
    for (let times = 0; times < 5; times += 1) {
      n.peer.send({ _tag: "Heartbeat", tsMs: 1n })
      expect(await Promise.race([waiting, sleep(400, "nothing")])).toBe("nothing")
    }
    expect(n.hasMarker("successor-ready")).toBe(false)
    n.peer.close()
    expect(await waiting).toBe(1)
    await n.marker("successor-ready")
    peer.say("Commit")
    await daemon.ended
    expect(await it.servingPid()).toBe(n.pid)
  })

  it("serves without a word after a second of silence, since it holds the lock", async () => {
    await using it = world()
    const { peer, daemon } = await sealedIncumbent(it)
    const n = await begun(it)
    await n.peer.next("Ready")
    await n.marker("successor-ready")
    expect(await it.append("served")).toBe(1)
    expect(n.peer.closed).toBe(false)
    peer.close()
    expect((await daemon.ended).code).toBe(0)
  })

  it("stops like any daemon when it was asked to in the moment between Ready and the word", async () => {
    await using it = world()
    const { peer, daemon } = await sealedIncumbent(it)
    const n = await begun(it)
    await n.peer.next("Ready")
    n.child.kill("SIGTERM")
    peer.say("Commit")
    await daemon.ended
    n.peer.close()
    expect(await n.ended).toMatchObject({ code: 0, stderr: "" })
    expect([existsSync(it.control), existsSync(`${it.dataDir}/.handoff.pidfile`)]).toEqual([false, false])
  })

  it("leaves after five seconds when nobody answers its greeting", async () => {
    await using it = world()
    const n = await it.successor()
    await n.peer.next("Hello")
    await expectGone(it, n, /because the supervisor did not answer the greeting/)
  })

  it("leaves when the data stays locked, and says by whom", async () => {
    await using it = world()
    const daemon = await it.incumbent()
    const n = await begun(it)
    await expectGone(it, n, new RegExp(`because the data stayed locked: .* locked by process ${daemon.pid};`))
    expect(await it.servingPid()).toBe(daemon.pid)
  })

  it("leaves when its state cannot be opened, and says why", async () => {
    await using it = world()
    const { peer } = await sealedIncumbent(it)
    const n = await begun(it, { HANDOFF_DATA_DIR: it.dataDir, HANDOFF_TEST_OPEN_FAILS: "1" })
    await expectGone(it, n, /because the state could not be opened: the open fails, as asked/)
    peer.say("ResumeAfterAbort")
    await it.append("again")
  })

  it("leaves when its handoff socket cannot be bound, after closing its state", async () => {
    await using it = world()
    const { peer } = await sealedIncumbent(it)
    const n = await begun(it, { HANDOFF_CONTROL_SOCKET: it.file("missing/handoff.sock") })
    await expectGone(it, n, /because its handoff socket could not be bound: .*missing/)
    peer.say("ResumeAfterAbort")
    await it.append("again")
  })

  it("leaves when it was given a listener that is none", async () => {
    await using it = world()
    await sealedIncumbent(it)
    const n = await begun(it, { LISTEN_FDS: "1", HANDOFF_TEST_CLOSE_FD: "3" })
    await expectGone(it, n, /because a listener it was given cannot be used: descriptor 3/)
  })

  it("that is not healthy says so and leaves when it hears nothing", async () => {
    await using it = world()
    const { peer } = await sealedIncumbent(it)
    const n = await begun(it, { HANDOFF_TEST_UNHEALTHY: "1" })
    expect((await n.peer.next("Ready")).healthzOk).toBe(false)
    await expectGone(it, n, /because it was not healthy/)
    peer.say("ResumeAfterAbort")
    await it.append("again")
  })
})

describe("the crash points", () => {
  const crash = { HANDOFF_CRASH_ROLE: "tested" }

  it.each([
    "n-before-handshake",
    "n-after-handshake",
    "n-after-begin",
    "n-before-announce-ready",
    "n-after-announce-ready"
  ])("%s: the successor is gone and the incumbent serves again", async (HANDOFF_CRASH_AT) => {
    await using it = world()
    const { daemon, peer } = await sealedIncumbent(it)
    const n = await it.successor({ ...crash, HANDOFF_CRASH_AT })
    if (HANDOFF_CRASH_AT !== "n-before-handshake") {
      await n.peer.greet()
      n.peer.say("Begin")
    }
    expect((await n.ended).code).toBe(99)
    expect(await n.marker("crashed-tested")).toBe(HANDOFF_CRASH_AT)
    peer.say("ResumeAfterAbort")
    await it.append("again")
    expect(await it.servingPid()).toBe(daemon.pid)
  })

  it.each(["n-before-publish", "n-after-publish"])("%s: the next start finds the data", async (HANDOFF_CRASH_AT) => {
    await using it = world()
    await it.incumbent().then(async (daemon) => {
      const peer = await it.connect()
      await it.append("kept")
      await peer.sealed()
      const n = await begun(it, { ...crash, HANDOFF_CRASH_AT })
      await n.peer.next("Ready")
      peer.say("Commit")
      n.peer.close()
      expect((await n.ended).code).toBe(99)
      await daemon.ended
    })
    const next = await it.incumbent()
    expect(await it.append("more")).toBe(2)
    expect(await it.servingPid()).toBe(next.pid)
  })

  it.each([
    "o-inside-drain",
    "o-after-drained-sent",
    "o-inside-seal",
    "o-after-seal-flock-released",
    "o-after-seal-complete-sent",
    "o-after-commit-recv"
  ])("%s: the incumbent is gone and the next start finds the data", async (HANDOFF_CRASH_AT) => {
    await using it = world()
    const daemon = await it.incumbent({ ...crash, HANDOFF_CRASH_AT, HANDOFF_SEAL_DELAY_MS: "200" })
    await it.append("kept")
    const peer = await it.connect()
    await peer.greet()
    peer.prepare()
    const drained = await peer.next("Drained").catch(() => undefined)
    if (drained !== undefined) {
      peer.say("SealRequest")
      const sealed = await peer.next("SealComplete").catch(() => undefined)
      if (sealed !== undefined) peer.say("Commit")
    }
    expect((await daemon.ended).code).toBe(99)
    expect(await daemon.marker("crashed-tested")).toBe(HANDOFF_CRASH_AT)
    await it.incumbent()
    expect(await it.append("more")).toBe(2)
  })
})

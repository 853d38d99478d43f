/**
 * A party of a sealed swap that does not die: it stops (SIGSTOP), says nothing, or says what it must not. Each time the
 * swap ends with an error that names party and reason, the old version serves, and the next swap commits. The deadlines are
 * short; what they are by default changes nothing but the wait.
 */
import { chmodSync, writeFileSync } from "node:fs"
import { createConnection, type Socket } from "node:net"
import { join } from "node:path"
import * as Frame from "@handoff/core/protocol/Frame"
import type { Message } from "@handoff/core/protocol/Message"
import type { Failure as Reason } from "@handoff/core/swap/Sealed"
import * as Result from "effect/Result"
import { describe, expect, it } from "vitest"
import type { Variables } from "../interop/Place.ts"
import { append, startWriters, type Writers } from "../interop/Writers.ts"
import { requireRoot } from "../support/Tools.ts"
import type { Deed } from "./Fake.ts"
import type { Verdict } from "./Service.ts"
import { DAEMON, isAlive, logProblems, type Service, type Stage, stage, strayFiles, until } from "./Stage.ts"

/** Milliseconds. The Hello of a successor is its start, which takes long on a machine under load. */
const TIMES = { deadlineMs: 12_000, drainGraceMs: 2_000, helloTimeoutMs: 10_000 }

const NODE = [process.execPath, "--conditions=@handoff/source"]
const FAKE = join(import.meta.dirname, "Fake.ts")

interface Scene {
  readonly it: Stage
  readonly service: Service
  readonly incumbent: number
  readonly writers: Writers
}

/** A supervisor, a daemon with these faults, and clients that write until the scene has been played. */
const scene = async (faults: Variables, play: (scene: Scene) => Promise<void>): Promise<void> => {
  await using it = stage({ graceMs: 4_000, sealed: TIMES })
  it.arm(faults)
  const service = await it.start()
  const incumbent = (await it.settle(service)).generations[0]?.pid ?? 0
  using writers = startWriters(service.port, 2)
  await play({ it, service, incumbent, writers })
  await append(service.port, "after the wedge")
  const { serving } = await it.settle(service)
  expect(await strayFiles(it, serving)).toEqual([])
  const next = await service.swap({ argv: [DAEMON] })
  expect(next.message).toBe("")
  const { generations } = await it.settle(service)
  await append(service.port, "after the next swap")
  const written = await writers.stop()
  expect(written.failures).toEqual([])
  expect(it.where.lockHolders(it.processes.alive())).toEqual([generations[0]?.pid])
  expect(logProblems(it.where.log(), it.where.openings(), written)).toEqual([])
  await service.stop()
}

/** Rolled back to the incumbent, for this reason, with a message that says so. */
const expectVerdict = (verdict: Verdict, reason: Partial<Reason>, message: RegExp): void => {
  expect(verdict.committed).toBe(false)
  expect(verdict.failure).toMatchObject({ _tag: "HandoffFailed", reason })
  expect(verdict.message).toMatch(message)
  expect(verdict.message).toMatch(/generation 1 keeps serving/)
}

const successorGone = (it: Stage): Promise<true> =>
  until("the successor is ended", () => {
    const pid = Number(it.where.marker("successor-pid") ?? 0)
    return pid > 0 && !isAlive(pid) ? true : undefined
  })

describe.concurrent("a party stops", { timeout: 120_000 }, () => {
  it("the incumbent, before the swap", () =>
    scene({}, async ({ service, incumbent }) => {
      process.kill(incumbent, "SIGSTOP")
      const verdict = await service.swap()
      expectVerdict(
        verdict,
        { _tag: "TimedOut", party: "incumbent", waitedFor: "Hello" },
        /incumbent did not send Hello/
      )
      process.kill(incumbent, "SIGCONT")
    }))

  for (const [where, waitedFor, faults] of [
    ["drain", "Drained", { HANDOFF_DRAIN_DELAY_MS: "700" }],
    ["seal", "SealComplete", { HANDOFF_SEAL_DELAY_MS: "700" }]
  ] as const) {
    it(`the incumbent, in its ${where}`, () =>
      scene(faults, async ({ it, service, incumbent }) => {
        const swap = service.swap()
        await it.where.awaitMarker(`${where}-called`)
        process.kill(incumbent, "SIGSTOP")
        await successorGone(it)
        process.kill(incumbent, "SIGCONT")
        const message = new RegExp(`incumbent did not send ${waitedFor}`)
        expectVerdict(await swap, { _tag: "TimedOut", party: "incumbent", waitedFor }, message)
      }))
  }

  it("the incumbent, after its seal: it is not needed any more, and is ended", () =>
    scene({}, async ({ it, service, incumbent }) => {
      it.arm({ HANDOFF_READY_DELAY_MS: "700" })
      const swap = service.swap()
      await it.where.awaitMarker("successor-begin")
      process.kill(incumbent, "SIGSTOP")
      expect((await swap).message).toBe("")
      await until("the incumbent is ended", () => (isAlive(incumbent) ? undefined : true))
    }))

  it("the successor, before its Hello", () =>
    scene({}, async ({ service }) => {
      const verdict = await service.swap({ argv: ["sh", "-c", "kill -STOP $$"] })
      expectVerdict(
        verdict,
        { _tag: "TimedOut", party: "successor", waitedFor: "Hello" },
        /successor did not send Hello/
      )
    }))

  it("the successor, after Begin", () =>
    scene({}, async ({ it, service }) => {
      it.arm({ HANDOFF_READY_DELAY_MS: "60000" })
      const swap = service.swap()
      process.kill(Number(await it.where.awaitMarker("successor-begin")), "SIGSTOP")
      expectVerdict(
        await swap,
        { _tag: "TimedOut", party: "successor", waitedFor: "Ready" },
        /successor did not send Ready/
      )
    }))

  it("the supervisor, while the incumbent seals: the incumbent serves again at its deadline, by itself", () =>
    scene({ HANDOFF_SEAL_DELAY_MS: "700" }, async ({ it, service, writers }) => {
      const swap = service.swap()
      await it.where.awaitMarker("seal-called")
      process.kill(service.process.pid, "SIGSTOP")
      await it.where.awaitMarker("resume-called", 20_000)
      const written = writers.count()
      await until("clients write again", () => (writers.count() > written ? true : undefined))
      process.kill(service.process.pid, "SIGCONT")
      expectVerdict(await swap, {}, /rolled back/)
    }))

  it("the supervisor, before the successor is ready: the successor serves by itself", () =>
    scene({}, async ({ it, service, writers, incumbent }) => {
      it.arm({ HANDOFF_READY_DELAY_MS: "700" })
      const swap = service.swap()
      await it.where.awaitMarker("successor-begin")
      process.kill(service.process.pid, "SIGSTOP")
      const successor = await it.where.awaitMarker("successor-ready")
      const written = writers.count()
      await until("clients write again", () => (writers.count() > written ? true : undefined))
      await until("the incumbent gives way", () => (isAlive(incumbent) ? undefined : true))
      process.kill(service.process.pid, "SIGCONT")
      expect((await swap).message).toBe("")
      expect((await it.settle(service)).generations[0]?.pid).toBe(Number(successor))
    }))
})

const ENDS = "ends in the middle of a frame"

/** What a peer does, and what is said of it; `party` is put in. */
const DEEDS = (party: "incumbent" | "successor"): ReadonlyArray<readonly [Deed, Partial<Reason>, RegExp]> => {
  const inTurn =
    party === "incumbent" ? /SealComplete is not allowed while draining/ : /Drained is not allowed while draining/
  return [
    ["is silent", { _tag: "TimedOut", party, waitedFor: "Hello" }, /did not send Hello in time/],
    ["sends half a frame", { _tag: "TimedOut", party, waitedFor: "Hello" }, /did not send Hello in time/],
    [
      "sends garbage",
      { _tag: "Violation", party },
      /broke the protocol: a frame of 4294967295 bytes is over the bound/
    ],
    ["names another pid", { _tag: "WrongPeer", party }, /says that it is process \d+, it is \d+/],
    ["plays the other role", { _tag: "Violation", party }, /broke the protocol: it says that it is the/],
    ["speaks an old version", { _tag: "Violation", party }, /broke the protocol: .*0/],
    ["answers for another handoff", { _tag: "Violation", party }, /belongs to handoff/],
    ["speaks out of turn", { _tag: "Violation", party }, inTurn]
  ]
}

describe.concurrent("a successor that", { timeout: 120_000 }, () => {
  const play = (deed: Deed, judge: (verdict: Verdict) => void) =>
    scene({}, async ({ it, service, incumbent }) => {
      const verdict = await service.swap({ argv: [...NODE, FAKE], environment: { FAKE_DOES: deed } })
      judge(verdict)
      expect((await it.settle(service)).generations[0]?.pid).toBe(incumbent)
    })

  for (const [deed, reason, message] of DEEDS("successor")) {
    it(deed, () =>
      play(deed, (verdict) => {
        expectVerdict(verdict, reason, message)
        expect(verdict.message).toContain("successor")
      })
    )
  }

  // As its death would: what is told is how it ended.
  it(ENDS, () =>
    play(ENDS, ({ failure, message }) => {
      expect(failure).toMatchObject({ _tag: "Exited", status: { _tag: "Signaled", signal: "SIGKILL" } })
      expect(message).toMatch(/generation 1 keeps serving: generation 2 was rejected/)
    })
  )
})

describe.concurrent("an incumbent that", { timeout: 120_000 }, () => {
  const lost = [
    ENDS,
    { _tag: "Lost", party: "incumbent", waitedFor: "Hello" },
    /was lost before it sent Hello/
  ] as const
  for (const [deed, reason, message] of [...DEEDS("incumbent"), lost]) {
    it(deed, async () => {
      await using it = stage({ command: [...NODE, FAKE], graceMs: 4_000, sealed: TIMES })
      const reformed = join(it.where.dataDir, "..", "markers", "reformed")
      const service = await it.start({ FAKE_DOES: deed, FAKE_UNTIL: reformed })
      const incumbent = (await it.settle(service)).generations[0]?.pid
      const verdict = await service.swap({ argv: [DAEMON] })
      expectVerdict(verdict, reason, message)
      expect(verdict.message).toContain("incumbent")
      expect(await append(service.port, "")).toBe(incumbent)
      expect((await it.settle(service)).generations[0]?.pid).toBe(incumbent)
      writeFileSync(reformed, "")
      expect((await service.swap({ argv: [DAEMON] })).message).toBe("")
      const { generations } = await it.settle(service)
      expect(it.where.lockHolders(it.processes.alive())).toEqual([generations[0]?.pid])
      expect(await append(service.port, "the first line")).toBe(1)
      await service.stop()
    })
  }
})

const ID = "6f0d2c5e-9a1b-4c3d-8e7f-102132435465"

const frame = (message: Message): Uint8Array => Result.getOrThrow(Frame.encode(message, 1))

const ack = (change: { readonly protoVersionChosen?: number } = {}): Uint8Array =>
  frame({ _tag: "HelloAck", protoVersionChosen: 1, handoffId: ID, ...change })

const prepare = (handoffId: string): Uint8Array =>
  frame({ _tag: "PrepareHandoff", handoffId, successorPid: 1, deadlineMs: 5_000n, drainGraceMs: 1_000n })

/** What a client of the handoff socket sends, and goes away or waits until it is sent away. */
const CLIENTS: ReadonlyArray<readonly [string, ReadonlyArray<Uint8Array>]> = [
  ["is silent", []],
  ["sends half a frame", [ack().subarray(0, 10)]],
  ["sends garbage", [new Uint8Array(64).fill(0xff)]],
  ["chooses an old version", [ack({ protoVersionChosen: 0 })]],
  ["seals out of turn", [ack(), frame({ _tag: "SealRequest", handoffId: ID })]],
  ["commits out of turn", [ack(), frame({ _tag: "Commit", handoffId: ID })]],
  ["prepares another handoff", [ack(), prepare("00000000-0000-4000-8000-000000000000")]],
  ["prepares, and says no more", [ack(), prepare(ID)]]
]

const visit = (path: string, words: ReadonlyArray<Uint8Array>): Promise<Socket> =>
  new Promise((resolve, reject) => {
    const socket = createConnection(path, () => {
      for (const word of words) socket.write(word)
      resolve(socket)
    })
    socket.resume()
    socket.on("error", reject)
  })

/** Becomes nobody once Node is loaded, which nobody may not be able to read. */
const STRANGER = `
process.setgroups([])
process.setgid(65534)
process.setuid(65534)
let bytes = 0
const socket = require("node:net").createConnection(process.argv[1])
socket.on("data", (chunk) => { bytes += chunk.length })
socket.on("error", (error) => console.log(error.code))
socket.on("end", () => console.log(bytes + " bytes"))
`

describe.concurrent("a client of the handoff socket", { timeout: 120_000 }, () => {
  for (const [deed, words] of CLIENTS) {
    it(deed, () =>
      scene({}, async ({ it, incumbent }) => {
        const socket = await visit(it.where.controlSocket, words)
        await until("it is sent away", () => (socket.closed ? true : undefined))
        expect(it.where.lockHolders([incumbent])).toEqual([incumbent])
      })
    )
  }

  const root = requireRoot()
  it.skipIf(!root.available)(`of another user${root.reason}`, () =>
    scene({}, async ({ it, incumbent }) => {
      const path = it.where.controlSocket
      const ask = async (): Promise<string> =>
        (await it.processes.run(process.execPath, ["--eval", STRANGER, path])).stdout.trim()
      chmodSync(join(path, ".."), 0o755)
      expect(await ask()).toBe("EACCES")
      // The mode of the file is one fence, whoever asks is looked at all the same.
      chmodSync(path, 0o666)
      expect(await ask()).toBe("0 bytes")
      chmodSync(path, 0o600)
      expect(it.where.lockHolders([incumbent])).toEqual([incumbent])
    })
  )
})

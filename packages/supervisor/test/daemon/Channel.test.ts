import { once } from "node:events"
import { createConnection, createServer, type Socket } from "node:net"
import * as Frame from "@handoff/core/protocol/Frame"
import type { Message } from "@handoff/core/protocol/Message"
import * as Result from "effect/Result"
import { afterEach, describe, expect, it, vi } from "vitest"
import { temporaryDirectory } from "../../../../test/support/TemporaryDirectory.ts"
import { Channel } from "../../src/daemon/internal/Channel.ts"

const large: Message = {
  _tag: "SealFailed",
  handoffId: "6f0d2c5e-9a1b-4c3d-8e7f-102132435465",
  error: "x".repeat(900_000),
  partialState: ""
}

const connected = async () => {
  const directory = temporaryDirectory()
  const server = createServer({ pauseOnConnect: true })
  server.listen(directory.file("socket"))
  await once(server, "listening")
  const accepted = once(server, "connection")
  const theirs = createConnection(directory.file("socket"))
  const [ours] = (await accepted) as [Socket]
  const received: Array<Message> = []
  const ended: Array<string> = []
  const channel = new Channel(ours, {
    received: (message) => received.push(message),
    ended: (why) => ended.push(why)
  })
  return {
    channel,
    ours,
    theirs,
    received,
    ended,
    [Symbol.dispose]: () => {
      theirs.destroy()
      ours.destroy()
      server.close()
      directory[Symbol.dispose]()
    }
  }
}

describe("a channel", () => {
  afterEach(() => {
    vi.useRealTimers()
  })

  it("gives a peer up that reads nothing for ten seconds, once", async () => {
    using it = await connected()
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] })
    it.theirs.pause()
    for (let times = 0; times < 5; times += 1) it.channel.send(large, 1)
    vi.advanceTimersByTime(9_900)
    expect(it.ended).toEqual([])
    vi.advanceTimersByTime(200)
    expect(it.ended).toEqual(["nothing was read for 10000 ms"])
    expect(it.ours.destroyed).toBe(true)
    it.channel.send(large, 1)
    vi.advanceTimersByTime(60_000)
    expect(it.ended).toHaveLength(1)
  })

  it("receives what came before the end, in order, and nothing after its own close", async () => {
    using it = await connected()
    const bytes = Buffer.concat(
      [1n, 2n, 3n].map((tsMs) => Result.getOrThrow(Frame.encode({ _tag: "Heartbeat", tsMs }, 1)))
    )
    it.theirs.write(bytes.subarray(0, 11))
    it.theirs.end(bytes.subarray(11))
    await vi.waitFor(() => expect(it.ended).toEqual(["closed by the supervisor"]), 10_000)
    expect(it.received.map((message) => message._tag === "Heartbeat" && message.tsMs)).toEqual([1n, 2n, 3n])
    using other = await connected()
    other.channel.close()
    // Refused with a reset or not: it is closed either way, and nothing of it is heard.
    const closed = new Promise((resolve) => other.theirs.on("error", () => undefined).once("close", resolve))
    other.theirs.resume().write(bytes)
    await closed
    expect([other.received, other.ended]).toEqual([[], []])
  })

  it("ends over a message that its frame cannot hold", async () => {
    using it = await connected()
    it.channel.send({ _tag: "Heartbeat", tsMs: -1n }, 1)
    expect(it.ended).toEqual([expect.stringMatching(/^Heartbeat could not be written/)])
  })
})

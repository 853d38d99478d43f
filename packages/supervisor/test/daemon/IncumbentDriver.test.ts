/** What only a program of one's own parts can show: `serveHandoffs` in this process, its supervisor played by hand. */
import { once } from "node:events"
import { existsSync, mkdirSync, rmdirSync, rmSync, writeFileSync } from "node:fs"
import { createConnection } from "node:net"
import { setTimeout as sleep } from "node:timers/promises"
import { DataDirLock } from "@handoff/supervisor/daemon/DataDirLock"
import { HandoffSocket } from "@handoff/supervisor/daemon/HandoffSocket"
import { type End, type Parts, serveHandoffs } from "@handoff/supervisor/daemon/Incumbent"
import { expect, it } from "vitest"
import { temporaryDirectory } from "../../../../test/support/TemporaryDirectory.ts"
import { Peer, until } from "./ScriptedSupervisor.ts"
import { warnings } from "./Warnings.ts"

/** An incumbent whose hooks do nothing but what is given. */
const incumbentWith = async (parts: Partial<Parts> = {}, Lock = DataDirLock) => {
  const directory = temporaryDirectory()
  const lock = new Lock(directory.file("data"))
  expect(lock.tryAcquire()).toBe(undefined)
  const socket = await HandoffSocket.prepare(directory.file("handoff.sock"))
  socket.publish()
  const ends: Array<End> = []
  const resumed: Array<boolean> = []
  const incumbent = serveHandoffs({
    name: "parts",
    lock,
    socket,
    parts: {
      drain: async () => 0,
      seal: async () => ({ revisions: [1n] }),
      resume: async () => {
        resumed.push(socket.ownsPath)
      },
      ended: (end) => ends.push(end),
      ...parts
    }
  })
  return {
    directory,
    incumbent,
    lock,
    socket,
    ends,
    /** Each time it served again: whether the path led to it by then. */
    resumed,
    connect: async () => {
      const client = createConnection(socket.path)
      await once(client, "connect")
      return new Peer(client)
    },
    [Symbol.asyncDispose]: async () => {
      incumbent.disconnect()
      await socket.close()
      lock.release()
      directory[Symbol.dispose]()
    }
  }
}

/** Rejections that nobody handles, which would end a process; for their time the test runner does not count them. */
const rejections = () => {
  const others = process.listeners("unhandledRejection")
  const heard: Array<unknown> = []
  process.removeAllListeners("unhandledRejection")
  process.on("unhandledRejection", (error) => heard.push(error))
  return {
    heard,
    [Symbol.dispose]: () => {
      process.removeAllListeners("unhandledRejection")
      for (const other of others) process.on("unhandledRejection", other)
    }
  }
}

it("does not take an error of its own, after the seal, for one of the hook", async () => {
  using unhandled = rejections()
  using warned = warnings()
  class Broken extends DataDirLock {
    override release(): void {
      const { held } = this
      super.release()
      if (held) throw new Error("the lock cannot be released")
    }
  }
  await using it = await incumbentWith({}, Broken)
  const peer = await it.connect()
  await peer.drained()
  peer.say("SealRequest")
  await until("the error", () => unhandled.heard.length > 0)
  expect(unhandled.heard).toEqual([new Error("the lock cannot be released")])
  expect([peer.heard.map(({ _tag }) => _tag), warned.heard]).toEqual([["Hello", "Drained"], []])
  peer.close()
})

it("says once a run why the lock, which nobody holds, cannot be taken again, and takes it when it can", async () => {
  using warned = warnings()
  await using it = await incumbentWith()
  const pidfile = it.directory.file("data", ".handoff.pidfile")
  for (const times of [1, 2]) {
    const peer = await it.connect()
    await peer.sealed()
    mkdirSync(pidfile)
    peer.close()
    const told = () => warned.heard.filter((text) => text.includes("could not be taken: EISDIR")).length
    await until("the warning", () => told() === times)
    // Several tries later.
    await sleep(200)
    expect([told(), it.lock.held, it.resumed.length]).toEqual([times, false, times - 1])
    rmdirSync(pidfile)
    await until("it serves again", () => it.incumbent.serving)
    expect(it.lock.held).toBe(true)
  }
})

it("says nothing while another has the lock", async () => {
  using warned = warnings()
  await using it = await incumbentWith()
  const peer = await it.connect()
  await peer.sealed()
  const other = new DataDirLock(it.lock.dataDir)
  expect(other.tryAcquire()).toBe(undefined)
  peer.close()
  await sleep(200)
  expect([it.incumbent.serving, it.lock.held]).toEqual([false, false])
  other.release()
  await until("it serves again", () => it.incumbent.serving)
  expect(warned.heard.filter((text) => text.includes("lock"))).toEqual([])
})

/** It has sealed once, its successor took the path and is gone, and a file is in the way. */
const robbed = async (parts: Partial<Parts> = {}) => {
  const it = await incumbentWith(parts)
  const peer = await it.connect()
  await peer.sealed()
  rmSync(it.socket.path)
  writeFileSync(it.socket.path, "")
  peer.close()
  return it
}

it("goes on serving while something is in the way of its path, and has it back when that is gone", async () => {
  await using it = await robbed()
  await until("it serves again", () => it.incumbent.serving)
  expect([it.socket.ownsPath, it.resumed]).toEqual([false, [false]])
  rmSync(it.socket.path)
  await until("the path", () => it.socket.ownsPath)
})

it.concurrent.each(["retire", "a resume that fails"])("does not take the path any more after %s", async (end) => {
  const failing = async () => {
    throw new Error("the state cannot be opened")
  }
  await using it = await robbed(end === "retire" ? {} : { resume: failing })
  await until("the end of the handoff", () => it.incumbent.serving || it.ends.length > 0)
  if (end === "retire") await it.incumbent.retire()
  // The lock is given back by now: the path may be another's.
  rmSync(it.socket.path)
  await sleep(1_200)
  expect(existsSync(it.socket.path)).toBe(false)
})

it("is retired when it has given way, and not kept waiting for a return", async () => {
  await using it = await incumbentWith()
  const peer = await it.connect()
  await peer.sealed()
  const retired = it.incumbent.retire()
  peer.say("Commit")
  await retired
  expect(it.ends).toMatchObject([{ status: 0, why: "committed" }])
})

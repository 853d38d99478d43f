import { once } from "node:events"
import { existsSync, linkSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { connect, createServer } from "node:net"
import { setTimeout as sleep } from "node:timers/promises"
import { expect, it } from "vitest"
import { temporaryDirectory } from "../../../../test/support/TemporaryDirectory.ts"
import { HandoffSocket } from "../../src/daemon/HandoffSocket.ts"
import { until } from "./ScriptedSupervisor.ts"
import { warnings } from "./Warnings.ts"

/** A socket's file that nobody listens on, as a process leaves it that is killed. */
const leave = async (path: string): Promise<void> => {
  const server = createServer().listen(`${path}.other`)
  await once(server, "listening")
  linkSync(`${path}.other`, path)
  await new Promise((closed) => server.close(closed))
  rmSync(`${path}.other`, { force: true })
}

it("a socket that a killed process prepared is gone when the next one prepares its own", async () => {
  using directory = temporaryDirectory()
  await leave(directory.file(".~abc123"))
  const socket = await HandoffSocket.prepare(directory.file("handoff.sock"))
  socket.publish()
  expect(readdirSync(directory.path)).toEqual(["handoff.sock"])
  socket.close()
  expect(readdirSync(directory.path)).toEqual([])
})

it("an incumbent removes what a killed successor has left, and neither a living one's nor a file", async () => {
  using directory = temporaryDirectory()
  const socket = await HandoffSocket.prepare(directory.file("handoff.sock"))
  socket.publish()
  const living = await HandoffSocket.prepare(directory.file("other.sock"))
  await leave(directory.file(".~abc123"))
  writeFileSync(directory.file(".~file"), "")
  await socket.reclaim()
  living.publish()
  expect(readdirSync(directory.path).sort()).toEqual([".~file", "handoff.sock", "other.sock"])
  living.close()
  socket.close()
})

it("an incumbent that ends leaves the socket alone that its successor has prepared", async () => {
  using directory = temporaryDirectory()
  const path = directory.file("handoff.sock")
  const incumbent = await HandoffSocket.prepare(path)
  incumbent.publish()
  const successor = await HandoffSocket.prepare(path)
  incumbent.close()
  expect(existsSync(path)).toBe(false)
  successor.publish()
  expect(successor.ownsPath).toBe(true)
  successor.close()
})

it("an incumbent that serves again takes the path back from a successor that died after its rename", async () => {
  using directory = temporaryDirectory()
  const path = directory.file("handoff.sock")
  const incumbent = await HandoffSocket.prepare(path)
  incumbent.publish()
  const successor = await HandoffSocket.prepare(path)
  successor.publish()
  expect(incumbent.ownsPath).toBe(false)
  // Its end leaves the path as it is, with nobody behind it.
  successor.abandon()
  const taken = new Promise<void>((done) => {
    incumbent.take((socket) => {
      socket.destroy()
      done()
    })
  })
  await incumbent.reclaim()
  expect(incumbent.ownsPath).toBe(true)
  const client = connect(path)
  await once(client, "connect")
  await taken
  client.destroy()
  expect(readdirSync(directory.path)).toEqual(["handoff.sock"])
  incumbent.close()
  expect(readdirSync(directory.path)).toEqual([])
})

/** An incumbent's socket whose path a successor took that is gone, and then the path is gone, too. */
const robbed = async (path: string): Promise<HandoffSocket> => {
  const incumbent = await HandoffSocket.prepare(path)
  incumbent.publish()
  rmSync(path)
  return incumbent
}

/** Lets only promises go on, and nothing of the event loop, until the directory has something in it. */
const firstNames = async (directory: string): Promise<ReadonlyArray<string>> => {
  for (let turn = 0; turn < 1_000 && readdirSync(directory).length === 0; turn += 1) await undefined
  return readdirSync(directory)
}

it("tries to take the path back until it can, and warns once", async () => {
  using directory = temporaryDirectory()
  using warned = warnings()
  const path = directory.file("handoff.sock")
  const incumbent = await robbed(path)
  writeFileSync(path, "")
  const timers = () => process.getActiveResourcesInfo().filter((one) => one === "Timeout").length
  const before = timers()
  await incumbent.reclaim()
  // Its timer keeps no process alive.
  expect(timers()).toBe(before)
  // Each attempt begins by removing what is dead.
  for (const name of [".~abc1", ".~abc2"]) {
    await leave(directory.file(name))
    await until("the next attempt", () => !existsSync(directory.file(name)))
  }
  expect(incumbent.ownsPath).toBe(false)
  rmSync(path)
  await until("the path leads to the incumbent", () => incumbent.ownsPath)
  expect(warned.heard).toHaveLength(1)
  expect(warned.heard[0]).toMatch(/something else than a socket is in its place.*taking the path back is tried again/)
  expect(readdirSync(directory.path)).toEqual(["handoff.sock"])
  rmSync(path)
  writeFileSync(path, "")
  await incumbent.reclaim()
  await until("a warning of its own for what fails later", () => warned.heard.length === 2)
  await incumbent.close()
})

it.concurrent.each(["close", "abandon", "stopReclaiming"] as const)(
  "does not take the path again after %s",
  async (stop) => {
    using directory = temporaryDirectory()
    const path = directory.file("handoff.sock")
    const incumbent = await robbed(path)
    writeFileSync(path, "")
    await incumbent.reclaim()
    await incumbent[stop]()
    rmSync(path)
    await sleep(1_200)
    expect(readdirSync(directory.path)).toEqual([])
    await incumbent.close()
  }
)

it.each(["close", "abandon", "stopReclaiming"] as const)("gives an attempt under way up at %s", async (stop) => {
  using directory = temporaryDirectory()
  const incumbent = await robbed(directory.file("handoff.sock"))
  const attempt = incumbent.reclaim()
  expect(await firstNames(directory.path)).toEqual([expect.stringMatching(/^\.~/)])
  const stopped = incumbent[stop]()
  await (stop === "close" ? stopped : attempt)
  expect(readdirSync(directory.path)).toEqual([])
  await incumbent.close()
})

it("begins no attempt beside one that is under way", async () => {
  using directory = temporaryDirectory()
  const incumbent = await robbed(directory.file("handoff.sock"))
  const attempts = Promise.all([incumbent.reclaim(), incumbent.reclaim()])
  expect(await firstNames(directory.path)).toHaveLength(1)
  for (let turn = 0; turn < 100; turn += 1) await undefined
  expect(readdirSync(directory.path)).toHaveLength(1)
  await attempts
  expect([incumbent.ownsPath, readdirSync(directory.path)]).toEqual([true, ["handoff.sock"]])
  await incumbent.close()
})

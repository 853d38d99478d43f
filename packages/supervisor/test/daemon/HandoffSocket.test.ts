import { once } from "node:events"
import { existsSync, linkSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { connect, createServer } from "node:net"
import { expect, it } from "vitest"
import { temporaryDirectory } from "../../../../test/support/TemporaryDirectory.ts"
import { HandoffSocket } from "../../src/daemon/HandoffSocket.ts"

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

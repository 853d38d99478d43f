import { describe, expect, it } from "vitest"
import { temporaryDirectory } from "../../../../test/support/TemporaryDirectory.ts"
import { requireTool } from "../../../../test/support/Tools.ts"
import { harness } from "./Harness.ts"

const python = requireTool("python3")

/** Prints each datagram, and for READY=1 whether the path given as second argument accepts a connection by then. */
const RECEIVER = `
import socket, sys
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.bind(sys.argv[1])
print("bound", flush=True)
while True:
    text = notify.recv(4096).decode()
    where = "-"
    if text == "READY=1":
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        where = "accepts" if client.connect_ex(sys.argv[2]) == 0 else "refuses"
        client.close()
    print("got", text, where, flush=True)
`

describe("what a daemon tells whoever started it", () => {
  it.skipIf(!python.available)(
    `says READY=1 only when it listens, STOPPING=1 when it drains${python.reason}`,
    async () => {
      using directory = temporaryDirectory()
      await using it = harness()
      const [NOTIFY_SOCKET, path] = [directory.file("notify"), directory.file("http")]
      const receiver = it.processes.start(python.path ?? "", ["-c", RECEIVER, NOTIFY_SOCKET, path])
      await receiver.line(/bound/)
      const server = it.byHand({ NOTIFY_SOCKET, ADDRESS: `unix:${path}`, READINESS: "manual" })
      await server.said("serving")
      expect((await server.said("left (.*)"))[1]).toBe("")
      expect(receiver.output().stdout).not.toMatch(/READY/)
      process.kill(server.pid, "SIGUSR2")
      await receiver.line(/got READY=1 accepts/)
      server.terminate()
      await receiver.line(/got STOPPING=1/)
      expect((await server.process.ended).code).toBe(0)
      expect(receiver.output().stdout.match(/READY=1/g)).toHaveLength(1)
    }
  )

  it("serves on when the one who wanted to be told is gone, and warns", async () => {
    using directory = temporaryDirectory()
    await using it = harness()
    const server = it.byHand({ NOTIFY_SOCKET: directory.file("gone"), ADDRESS: "127.0.0.1:0" })
    await server.said("serving")
    await server.process.line(/READY=1 could not be sent: sendto .* = ENOENT/)
    server.terminate()
    expect((await server.process.ended).code).toBe(0)
  })
})

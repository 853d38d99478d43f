import { once } from "node:events"
import { createConnection } from "node:net"
import { DataDirLock } from "@handoff/supervisor/daemon/DataDirLock"
import { expect, it } from "vitest"
import { temporaryDirectory } from "../../../../test/support/TemporaryDirectory.ts"
import { inherit } from "../../src/daemon/Inheritance.ts"
import { DataOwnership } from "../../src/daemon/internal/DataOwnership.ts"
import { observeNothing } from "../../src/daemon/internal/Points.ts"
import { Servers } from "../../src/daemon/Servers.ts"
import { Peer, until } from "./ScriptedSupervisor.ts"
import { warnings } from "./Warnings.ts"

class Broken extends Servers {
  override abandon(): void {
    throw new Error("close: EIO")
  }
}

it("a daemon whose listeners cannot be let go of comes to its end all the same, and the lock with it", async () => {
  using directory = temporaryDirectory()
  using warned = warnings()
  const finished: Array<string | undefined> = []
  const ownership = new DataOwnership(
    {
      dataDir: directory.path,
      open: () => undefined,
      seal: async () => undefined,
      resume: () => {
        throw new Error("the disk is gone")
      }
    },
    {
      inheritance: await inherit({}, true),
      servers: new Broken(false, undefined),
      observe: observeNothing,
      finished: (failure) => finished.push(failure),
      refused: (error) => {
        throw error
      },
      abandon: (why) => {
        throw new Error(why)
      }
    }
  )
  await ownership.open()
  await ownership.serve(async () => undefined)
  const client = createConnection(directory.file(".handoff.sock"))
  await once(client, "connect")
  const peer = new Peer(client)
  await peer.drained()
  peer.close()
  await until("the end", () => finished.length > 0)
  expect(finished).toEqual([
    expect.stringMatching(/could not be opened again after a handoff failed: the disk is gone/)
  ])
  await until("the warning", () =>
    warned.heard.some((text) => text.includes("given back after the handoff: close: EIO"))
  )
  // Its state may be open: only its end gives the lock back.
  expect(new DataDirLock(directory.path).tryAcquire()?.reason._tag).toBe("DataLocked")
})

/** One data directory, daemons of both kinds: whoever has the lock keeps the other kind out, which names the holder. */
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { beforeAll, describe, expect, it } from "vitest"
import { managedProcesses } from "../support/ManagedProcesses.ts"
import { temporaryDirectory } from "../support/TemporaryDirectory.ts"
import { requireTool } from "../support/Tools.ts"
import { startIncumbent } from "./HandOff.ts"
import { BUILD_TIMEOUT, cargo, ensureBuilt, RUST_DAEMON, TYPESCRIPT_DAEMON } from "./Interop.ts"
import { type Place, place } from "./Place.ts"

const DAEMONS = { TypeScript: TYPESCRIPT_DAEMON, Rust: RUST_DAEMON } as const
const flock = requireTool("flock")

beforeAll(ensureBuilt, BUILD_TIMEOUT)

/** For a second daemon of the same data: with the holder's socket path a mistake could hide behind the socket. */
const elsewhere = (where: Place, directory: string) => ({
  ...process.env,
  ...where.variables,
  HANDOFF_CONTROL_SOCKET: join(directory, "other.sock")
})

describe.skipIf(!cargo.available)(`the data lock${cargo.reason}`, () => {
  for (const [holder, other] of [
    ["TypeScript", "Rust"],
    ["Rust", "TypeScript"]
  ] as const) {
    it(`held by ${holder}: ${other} does not start, and names the holder`, async () => {
      await using processes = managedProcesses()
      using directory = temporaryDirectory()
      const where = place(directory.path)
      const first = await startIncumbent(processes, where, DAEMONS[holder])
      const second = await processes.run(DAEMONS[other], [], { env: elsewhere(where, directory.path) })
      expect(second.code).toBe(1)
      expect(second.stderr).toContain(String(first.pid))
      expect(where.openings()).toEqual([first.pid])
      expect(where.lockHolders(processes.alive())).toEqual([first.pid])
      first.child.kill("SIGKILL")
      await first.ended
      // What the dead left behind keeps nobody out.
      await startIncumbent(processes, place(directory.path, "later"), DAEMONS[other])
    })
  }

  for (const kind of ["TypeScript", "Rust"] as const) {
    it.skipIf(!flock.available)(
      `held although its named holder is dead: ${kind} does not start${flock.reason}`,
      async () => {
        await using processes = managedProcesses()
        using directory = temporaryDirectory()
        const where = place(directory.path)
        const gone = processes.start("true", [])
        await gone.ended
        writeFileSync(join(where.dataDir, ".handoff.pidfile"), `${gone.pid}\n`)
        const lock = join(where.dataDir, ".handoff.lock")
        const holding = processes.start(flock.path ?? "", [lock, "sh", "-c", "echo held; exec sleep 60"])
        await holding.line(/held/)
        const refused = await processes.run(DAEMONS[kind], [], { env: elsewhere(where, directory.path) })
        expect(refused.code).toBe(1)
        expect(refused.stderr).toContain(String(gone.pid))
        expect(where.openings()).toEqual([])
      }
    )
  }
})

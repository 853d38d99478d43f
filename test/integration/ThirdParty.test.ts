/**
 * Servers that nobody here wrote, unmodified, behind the real command as a person would type it. They take LISTEN_FDS from
 * whoever starts them. (ForeignServers.test.ts looks into how such servers get ready, break and drain.)
 *
 *   gunicorn   says READY=1; its sync workers close each connection
 *   lighttpd   seen accepting; stops gracefully on SIGINT, and closes kept connections then
 */
import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { beforeAll, describe, expect, it } from "vitest"
import { BUILD_TIMEOUT, ensureBuilt } from "../support/Build.ts"
import { freePort, supervise } from "../support/Handoff.ts"
import { type LoadOptions, startLoad } from "../support/Load.ts"
import { type ManagedProcesses, managedProcesses } from "../support/ManagedProcesses.ts"
import { temporaryDirectory } from "../support/TemporaryDirectory.ts"
import { requireTool } from "../support/Tools.ts"

const SWAPS = 5
const gunicorn = requireTool("gunicorn")
const lighttpd = requireTool("lighttpd")

beforeAll(ensureBuilt, BUILD_TIMEOUT)

interface Subject {
  readonly options?: ReadonlyArray<string>
  readonly port?: number
  /** What follows `handoff run ... --`, and `handoff swap`. */
  readonly program: (version: string) => ReadonlyArray<string>
  readonly load: Omit<LoadOptions, "port">
}

/** Swaps under load: every answer whole, from each version in turn, and one generation left. */
const swapUnderLoad = async (processes: ManagedProcesses, directory: string, subject: Subject): Promise<void> => {
  const supervised = await supervise(processes, directory, {
    program: subject.program("0"),
    environment: { PYTHONDONTWRITEBYTECODE: "1" },
    ...(subject.options === undefined ? {} : { options: subject.options }),
    ...(subject.port === undefined ? {} : { port: subject.port })
  })
  using load = startLoad({ ...subject.load, port: supervised.port })
  for (let version = 1; version <= SWAPS; version++) {
    const swapped = await supervised.swap("--", ...subject.program(String(version)))
    expect(swapped.code, swapped.stdout + swapped.stderr).toBe(0)
    await expect.poll(() => load.counts().byVersion[String(version)] ?? 0, { timeout: 10_000 }).toBeGreaterThan(0)
  }
  const { failed, errors, byVersion } = await load.stop()
  expect({ failed, errors }).toEqual({ failed: 0, errors: {} })
  expect(Object.keys(byVersion).sort()).toEqual(Array.from({ length: SWAPS + 1 }, (_, version) => String(version)))
  await expect.poll(async () => (await supervised.status()).generations.length, { timeout: 10_000 }).toBe(1)
  await supervised.command("stop")
  await supervised.run.ended
  expect(processes.alive()).toEqual([])
}

describe(`${SWAPS} swaps under load fail no request of`, { timeout: 90_000 }, () => {
  it.skipIf(!gunicorn.available)(`gunicorn${gunicorn.reason}`, async () => {
    await using processes = managedProcesses()
    using directory = temporaryDirectory()
    const options = [
      "--workers",
      "2",
      "--chdir",
      join(import.meta.dirname, "foreign-servers"),
      "--log-level",
      "warning"
    ]
    await swapUnderLoad(processes, directory.path, {
      program: (version) => [gunicorn.path ?? "", ...options, `application:create('${version}')`],
      load: { kept: 0, fresh: 8 }
    })
  })

  it.skipIf(!lighttpd.available)(`lighttpd${lighttpd.reason}`, async () => {
    await using processes = managedProcesses()
    using directory = temporaryDirectory()
    // It takes the inherited listener whose address is the configured one, which it must therefore know.
    const port = await freePort()
    const program = (version: string): ReadonlyArray<string> => {
      const root = directory.file(`v${version}`)
      mkdirSync(root, { recursive: true })
      writeFileSync(join(root, "index.html"), JSON.stringify({ version }))
      const settings = {
        "server.systemd-socket-activation": `"enable"`,
        "server.bind": `"127.0.0.1"`,
        "server.port": String(port),
        "server.document-root": JSON.stringify(root),
        "index-file.names": `("index.html")`
      }
      const lines = Object.entries(settings).map(([name, value]) => `${name} = ${value}\n`)
      writeFileSync(join(root, "lighttpd.conf"), lines.join(""))
      return [lighttpd.path ?? "", "-D", "-f", join(root, "lighttpd.conf")]
    }
    await swapUnderLoad(processes, directory.path, {
      port,
      options: ["--stop-signal", "SIGINT"],
      program,
      load: { kept: 0, fresh: 8 }
    })
  })
})

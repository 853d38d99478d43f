/**
 * The real `handoff` command in a test: a supervisor of its own state directory, and what one would type beside it.
 *
 * Call `ensureBuilt` in `beforeAll` first: it is the built command that runs, as it is shipped.
 */
import { createServer } from "node:net"
import { join } from "node:path"
import type { Status } from "@handoff/supervisor/Supervisor"
import { ROOT } from "./Build.ts"
import type { Ended, ManagedProcess, ManagedProcesses } from "./ManagedProcesses.ts"

export const HANDOFF = join(ROOT, "packages", "supervisor", "bin", "handoff.js")

export interface Supervised {
  readonly run: ManagedProcess
  readonly pid: number
  /** Of the listener named http. */
  readonly port: number
  /** `handoff ARGS... --name .. --state-dir ..`, waited for. */
  readonly command: (subcommand: string, ...args: ReadonlyArray<string>) => Promise<Ended>
  readonly status: () => Promise<Status>
  /** `handoff swap ARGS...`; gives its exit status and what it printed. */
  readonly swap: (...args: ReadonlyArray<string>) => Promise<Ended>
}

/**
 * `handoff run --listen http=127.0.0.1:0 OPTIONS -- PROGRAM`, once it serves.
 *
 * @example
 * const supervised = await supervise(processes, directory.path, { program: [process.execPath, "server.js"] })
 */
export const supervise = async (
  processes: ManagedProcesses,
  directory: string,
  how: {
    readonly program: ReadonlyArray<string>
    readonly options?: ReadonlyArray<string>
    readonly port?: number
    readonly environment?: Readonly<Record<string, string>>
  }
): Promise<Supervised> => {
  const where = ["--name", "test", "--state-dir", join(directory, "state")]
  const listen = ["--listen", `http=127.0.0.1:${how.port ?? 0}`]
  const run = processes.start(
    process.execPath,
    [HANDOFF, "run", ...where, ...listen, ...(how.options ?? []), "--", ...how.program],
    { env: { ...process.env, ...how.environment } }
  )
  const port = Number((await run.line(/serves on http=127\.0\.0\.1:(\d+)/, 30_000))[1])
  const command: Supervised["command"] = (subcommand, ...args) =>
    processes.run(process.execPath, [HANDOFF, subcommand, ...where, ...args])
  return {
    run,
    pid: run.pid,
    port,
    command,
    swap: (...args) => command("swap", ...args),
    status: async () => JSON.parse((await command("status", "--json")).stdout) as Status
  }
}

/** A port that was free a moment ago, for a program that must be told its port before anything listens. */
export const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = createServer()
    server.once("error", reject)
    server.listen(0, "127.0.0.1", () => {
      const address = server.address()
      server.close(() => resolve(typeof address === "object" && address !== null ? address.port : 0))
    })
  })

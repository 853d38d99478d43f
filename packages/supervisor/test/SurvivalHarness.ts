/**
 * Supervisors in processes of their own, so that one can be killed while what it runs lives on: `handoff run` from the
 * sources, several lives of one name, and the programs that they run.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { get, type RequestOptions } from "node:http"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import type { Document } from "@handoff/core/swap/Document"
import type { Ended, ManagedProcess, ManagedProcesses } from "../../../test/support/ManagedProcesses.ts"
import type { Status } from "../src/Supervisor.ts"

const CONDITION = "--conditions=@handoff/source"
const MAIN = fileURLToPath(new URL("../src/cli/main.ts", import.meta.url))
const DAEMON = fileURLToPath(new URL("../../../test/fault/Daemon.ts", import.meta.url))

/**
 * Serves on every listener it has. Its arguments: version, delay before it serves, delay between SIGTERM and its end. A
 * second SIGTERM ends it at once, as it does many programs.
 */
const SERVER = `
const http = require("node:http")
const [version, readyAfter = "0", endAfter = "0"] = process.argv.slice(2)
const count = Number(process.env.LISTEN_FDS ?? 0)
const serve = () => {
  const servers = Array.from({ length: count }, (_, index) => {
    const server = http.createServer((request, response) => {
      if (request.url.startsWith("/say?")) console.log(request.url.slice(5))
      if (stopping) response.setHeader("connection", "close")
      const wait = request.url.startsWith("/slow?") ? Number(request.url.slice(6)) : 0
      setTimeout(() => response.end(JSON.stringify({ version, pid: process.pid })), wait)
    })
    server.listen({ fd: 3 + index })
    return server
  })
  let stopping = false
  process.once("SIGTERM", () => {
    stopping = true
    setTimeout(() => {
      let open = servers.length
      for (const server of servers) {
        // http's own close cuts idle connections; this one only stops listening.
        require("node:net").Server.prototype.close.call(server, () => (open -= 1) === 0 && process.exit(0))
      }
      setTimeout(() => servers.forEach((server) => server.closeIdleConnections()), 200)
    }, Number(endAfter))
  })
}
setTimeout(serve, Number(readyAfter))
`

export interface Answer {
  readonly version?: string
  readonly pid: number
}

const fetchJson = (options: RequestOptions, timeoutMs: number): Promise<unknown> =>
  new Promise((resolve, reject) => {
    get({ ...options, agent: false, signal: AbortSignal.timeout(timeoutMs) }, (response) => {
      let body = ""
      response.setEncoding("utf8")
      response.on("data", (chunk: string) => {
        body += chunk
      })
      response.on("end", () => resolve(JSON.parse(body)))
      response.on("error", reject)
    }).on("error", reject)
  })

export const fetchFrom = (port: number, path = "/", timeoutMs = 10_000): Promise<Answer> =>
  fetchJson({ host: "127.0.0.1", port, path }, timeoutMs) as Promise<Answer>

export interface Life {
  readonly run: ManagedProcess
  readonly port: number
  readonly status: () => Promise<Status>
  readonly swap: (...args: ReadonlyArray<string>) => Promise<Ended>
  /** SIGKILL, and its end. */
  readonly kill: () => Promise<void>
  /** SIGTERM, and its end. */
  readonly stop: () => Promise<Ended>
}

export interface Name {
  /** Of the state of this name. */
  readonly directory: string
  /** The plain server, as a command: version, delay before it serves, delay between SIGTERM and its end. */
  readonly server: (version: string, readyAfterMs?: number, endAfterMs?: number) => ReadonlyArray<string>
  /** A daemon that owns data and speaks the protocol, as a command. */
  readonly daemon: ReadonlyArray<string>
  /** `handoff run ARGS -- PROGRAM`, not waited for. */
  readonly begin: (program: ReadonlyArray<string>, how?: How) => ManagedProcess
  /** `handoff run ARGS -- PROGRAM`, once it serves. */
  readonly start: (program: ReadonlyArray<string>, how?: How) => Promise<Life>
  /** The document. */
  readonly read: () => Document
  readonly write: (change: (document: Document) => Document) => void
}

export interface How {
  readonly args?: ReadonlyArray<string>
  /** [127.0.0.1:0] */
  readonly listen?: string
  /** A program that runs the rest of its arguments. */
  readonly prefix?: ReadonlyArray<string>
}

/** A name for supervisors that live one after the other, with its files under `directory`. */
export const nameIn = (processes: ManagedProcesses, directory: string): Name => {
  const script = join(directory, "server.cjs")
  const data = join(directory, "data")
  writeFileSync(script, SERVER)
  mkdirSync(data, { recursive: true })
  const where = ["--name", "test", "--state-dir", join(directory, "state")]
  const own = join(directory, "state", "test")
  const state = join(own, "state.json")

  const begin: Name["begin"] = (program, { args = [], listen = "127.0.0.1:0", prefix = [] } = {}) => {
    const main = [process.execPath, CONDITION, MAIN, "run", ...where, "-l", `http=${listen}`, ...args]
    const [first = "", ...rest] = [...prefix, ...main, "--", ...program]
    return processes.start(first, rest, { env: { ...process.env, HANDOFF_DATA_DIR: data } })
  }
  const command = (subcommand: string, ...args: ReadonlyArray<string>) =>
    processes.run(process.execPath, [CONDITION, MAIN, subcommand, ...where, ...args])

  return {
    directory: own,
    server: (version, readyAfterMs = 0, endAfterMs = 0) => [
      process.execPath,
      script,
      version,
      String(readyAfterMs),
      String(endAfterMs)
    ],
    daemon: [process.execPath, CONDITION, DAEMON],
    begin,
    start: async (program, how) => {
      const run = begin(program, how)
      const port = Number((await run.line(/serves on http=127\.0\.0\.1:(\d+)/, 30_000))[1])
      return {
        run,
        port,
        status: () => fetchJson({ socketPath: join(own, "admin.sock"), path: "/status" }, 10_000) as Promise<Status>,
        swap: (...args) => command("swap", ...args),
        kill: async () => {
          process.kill(run.pid, "SIGKILL")
          await run.ended
        },
        stop: () => {
          process.kill(run.pid, "SIGTERM")
          return run.ended
        }
      }
    },
    read: () => JSON.parse(readFileSync(state, "utf8")) as Document,
    write: (change) => writeFileSync(state, JSON.stringify(change(JSON.parse(readFileSync(state, "utf8")) as Document)))
  }
}

/**
 * The role program of the fault tests for O and N: a daemon that keeps "the contract of an external fault test" (roles
 * primitive and successor), so that a supervisor of any implementation can be tested against it, and crashed with it.
 *
 * It speaks through the environment and files alone. HANDOFF_DATA_DIR and HANDOFF_CONTROL_SOCKET are paths; files
 * `<name>.marker` appear in HANDOFF_MARKER_DIR:
 *
 *   serving, incumbent-pid, address    O: it holds the lock, listens, and its handoff socket answers
 *   successor-pid                      N, before its Hello (content: the pid)
 *   successor-handshake, -begin        N: HelloAck and Begin were received
 *   successor-ready                    N: its handoff socket answers
 *   drain-called, seal-called, resume-called
 *
 * HANDOFF_SEAL_FAILS_ONCE=1, HANDOFF_SEAL_DELAY_MS, HANDOFF_DRAIN_DELAY_MS and HANDOFF_READY_DELAY_MS are faults. At the
 * point named in HANDOFF_CRASH_AT it writes `$HANDOFF_CRASH_MARKER_DIR/crashed-$HANDOFF_CRASH_ROLE.marker` and ends with
 * status 99 at once, nothing run or flushed.
 *
 * It serves HTTP on the listeners it inherits, or on HANDOFF_TEST_ADDRESS (127.0.0.1:0). `GET /` answers `{"pid","role"}`. `POST /append`
 * adds the line `<pid> <body>` to `log` in the data directory, durably, and answers the number of lines, which is the
 * revision; 503 while the state is closed. Each `open` adds the line `open <pid>` to `generations`.
 *
 * For tests of this project alone: HANDOFF_TEST_OPEN_FAILS=1, HANDOFF_TEST_UNHEALTHY=1, HANDOFF_TEST_COLD_FAILS=1 (it starts as
 * a successor only), HANDOFF_TEST_CLOSE_FD=N, HANDOFF_TEST_IDLE_GRACE_MS, HANDOFF_TEST_GRACE_MS.
 *
 * No program of a user can reach a crash point: the library reads no variable for it, and takes its observer only through
 * daemon/internal/Start.ts, which the package does not export and this file imports by its path in the source tree.
 */
import { closeSync, fsyncSync, openSync, readFileSync, writeSync } from "node:fs"
import { createServer, type IncomingMessage, type ServerResponse } from "node:http"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { start } from "../../packages/supervisor/src/daemon/internal/Start.ts"

const env = process.env
const role = env.HANDOFF_ROLE === "successor" ? "successor" : "primitive"
const dataDir = env.HANDOFF_DATA_DIR ?? "."
const inherited = Number(env.LISTEN_FDS ?? 0)
/** Listeners without names go to any name. */
const names = env.LISTEN_FDNAMES?.split(":") ?? Array.from({ length: Math.max(1, inherited) }, () => "http")

const writeMarker = (directory: string | undefined, name: string, content: string): void => {
  if (directory === undefined || directory === "") return
  const fd = openSync(join(directory, `${name}.marker`), "w")
  writeSync(fd, content)
  fsyncSync(fd)
  closeSync(fd)
}

const mark = (name: string, content = String(process.pid)): void => writeMarker(env.HANDOFF_MARKER_DIR, name, content)

const markers: Readonly<Record<string, string>> = {
  "n-before-handshake": "successor-pid",
  "n-after-handshake": "successor-handshake",
  "n-after-begin": "successor-begin",
  "n-after-publish": "successor-ready"
}

const observe = (point: string): void => {
  const marker = markers[point]
  if (marker !== undefined) mark(marker)
  if (env.HANDOFF_CRASH_AT !== point) return
  writeMarker(env.HANDOFF_CRASH_MARKER_DIR, `crashed-${env.HANDOFF_CRASH_ROLE ?? role}`, point)
  // Not process.exit, which runs the handlers of "exit".
  Reflect.get(process, "reallyExit")(99)
}

const delay = async (variable: string | undefined): Promise<void> => {
  const milliseconds = Number(variable ?? 0)
  if (milliseconds > 0) await sleep(milliseconds)
}

let log: number | undefined
let revision = 0
let sealFailures = env.HANDOFF_SEAL_FAILS_ONCE === "1" ? 1 : 0

const append = (name: string, line: string): void => {
  const fd = openSync(join(dataDir, name), "a")
  writeSync(fd, line)
  fsyncSync(fd)
  closeSync(fd)
}

const open = (): void => {
  if (env.HANDOFF_TEST_OPEN_FAILS === "1") throw new Error("the open fails, as asked")
  append("generations", `open ${process.pid}\n`)
  log = openSync(join(dataDir, "log"), "a+")
  revision = readFileSync(log, "utf8").split("\n").length - 1
}

const close = (): void => {
  if (log === undefined) return
  fsyncSync(log)
  closeSync(log)
  log = undefined
}

const bodyOf = async (request: IncomingMessage): Promise<string> => {
  const chunks: Array<Buffer> = []
  for await (const chunk of request) chunks.push(chunk)
  return Buffer.concat(chunks).toString("utf8")
}

const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
  const body = await bodyOf(request)
  if (request.method !== "POST") {
    response.end(JSON.stringify({ pid: process.pid, role }))
    return
  }
  if (log === undefined) {
    response.writeHead(503).end("sealed\n")
    return
  }
  writeSync(log, `${process.pid} ${body}\n`)
  fsyncSync(log)
  revision += 1
  response.end(`${revision}\n`)
}

if (env.HANDOFF_TEST_COLD_FAILS === "1" && role === "primitive") throw new Error("the start fails, as asked")
if (env.HANDOFF_TEST_CLOSE_FD !== undefined) closeSync(Number(env.HANDOFF_TEST_CLOSE_FD))

const handoff = await start(
  {
    dataDir,
    name: "fault-daemon",
    idleGraceMs: Number(env.HANDOFF_TEST_IDLE_GRACE_MS ?? 200),
    graceMs: Number(env.HANDOFF_TEST_GRACE_MS ?? 25_000),
    open: async () => {
      open()
      await delay(env.HANDOFF_READY_DELAY_MS)
    },
    drain: async () => {
      mark("drain-called")
      await delay(env.HANDOFF_DRAIN_DELAY_MS)
    },
    seal: async (progress) => {
      mark("seal-called")
      await delay(env.HANDOFF_SEAL_DELAY_MS)
      if (sealFailures > 0) {
        sealFailures -= 1
        throw new Error("the seal fails once, as asked")
      }
      const last = BigInt(revision)
      close()
      progress(1, 1, last)
      return { revisions: [last] }
    },
    resume: async () => {
      mark("resume-called")
      close()
      open()
    },
    close,
    snapshot: () => ({ revisions: [BigInt(revision)], healthy: env.HANDOFF_TEST_UNHEALTHY !== "1" })
  },
  observe
)

for (const name of names) {
  const server = createServer((request, response) => {
    answer(request, response).catch(() => response.destroy())
  })
  await handoff.serve(server, name, inherited > 0 ? undefined : (env.HANDOFF_TEST_ADDRESS ?? "127.0.0.1:0"))
  const address = server.address()
  if (typeof address === "object" && address !== null) mark("address", `${address.address}:${address.port}`)
}
if (role === "primitive") {
  mark("incumbent-pid")
  mark("serving")
}

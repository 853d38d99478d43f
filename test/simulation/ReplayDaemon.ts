/**
 * The daemon of a replay: appends lines durably, and can be hit at every point of ReplayPoints.ts.
 *
 * With HANDOFF_DATA_DIR it owns its data and is handed over sealed; without, it is a program that knows no protocol and
 * writes to $HANDOFF_REPLAY_LOG as it can. The observer comes through daemon/internal/Start.ts, which the package does
 * not export.
 */
import { closeSync, fsyncSync, openSync, readFileSync, writeSync } from "node:fs"
import { createServer, type IncomingMessage, type ServerResponse } from "node:http"
import { join } from "node:path"
import { start } from "../../packages/supervisor/src/daemon/internal/Start.ts"
import { launched, ordinalOf, reach } from "./ReplayPoints.ts"

const { HANDOFF_DATA_DIR: dataDir, HANDOFF_TOKEN = "", HANDOFF_REPLAY_LOG = "" } = process.env
const generation = Number(HANDOFF_TOKEN.slice(HANDOFF_TOKEN.lastIndexOf(".") + 1))
launched({ generation, pid: process.pid })

const at = (point: string): string | undefined => reach(() => ordinalOf(process.pid), point)

const failAt = (point: string): string | undefined => {
  const how = at(point)
  if (how === "failed") throw new Error(`${point} fails, as asked`)
  return how
}

let log: number | undefined
let revision = 0
let opened: string | undefined

const append = (path: string, line: string): void => {
  const fd = openSync(path, "a")
  writeSync(fd, line)
  fsyncSync(fd)
  closeSync(fd)
}

const openLog = (path: string): void => {
  log = openSync(path, "a+")
  revision = readFileSync(log, "utf8").split("\n").length - 1
}

const closeLog = (): void => {
  if (log === undefined) return
  fsyncSync(log)
  closeSync(log)
  log = undefined
}

const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
  let body = ""
  for await (const chunk of request) body += chunk
  if (log === undefined) {
    response.writeHead(503).end("sealed\n")
    return
  }
  writeSync(log, `${process.pid} ${body}\n`)
  fsyncSync(log)
  revision += 1
  response.end(`${revision}\n`)
}

const server = createServer((request, response) => {
  answer(request, response).catch(() => response.destroy())
})

const serveSealed = async (directory: string): Promise<void> => {
  const open = () => {
    append(join(directory, "generations"), `open ${process.pid}\n`)
    openLog(join(directory, "log"))
  }
  const handoff = await start(
    {
      dataDir: directory,
      name: "replay-daemon",
      idleGraceMs: 50,
      graceMs: 10_000,
      open: () => {
        opened = failAt("open")
        open()
      },
      drain: () => void failAt("drain"),
      seal: async () => {
        failAt("seal")
        const last = BigInt(revision)
        closeLog()
        return { revisions: [last] }
      },
      resume: () => {
        failAt("resume")
        closeLog()
        open()
      },
      close: () => {
        at("close")
        closeLog()
      },
      snapshot: () => ({
        revisions: [BigInt(opened === "behind" ? revision - 1 : revision)],
        healthy: opened !== "unhealthy"
      })
    },
    (point) => void at(point)
  )
  await handoff.serve(server, "http")
}

const servePlain = (): void => {
  if (at("start") === "failed") process.exit(1)
  openLog(HANDOFF_REPLAY_LOG)
  process.on("SIGTERM", () => {
    at("SIGTERM")
    server.close(() => process.exit(0))
    server.closeIdleConnections()
  })
  server.listen({ fd: 3 })
}

if (dataDir === undefined || dataDir === "") servePlain()
else await serveSealed(dataDir)

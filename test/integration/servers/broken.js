// Versions that fail, each in one way: `node broken.js HOW`. They take descriptor 3 as any program that reads LISTEN_FDS.
import { spawn } from "node:child_process"
import { createServer } from "node:http"

const how = process.argv[2]

/** Serves without a word to the supervisor: it accepts, and never says that it is ready. */
const accept = (onRequest) => {
  const server = createServer(onRequest)
  server.listen({ fd: 3 }, () => console.error("accepting"))
  process.on("SIGTERM", () => {
    server.close(() => process.exit(0))
    server.closeIdleConnections()
  })
}

const answer = (_, response) => response.setHeader("connection", "close").end(JSON.stringify({ version: "broken" }))

switch (how) {
  case "exits":
    console.error("cannot read the configuration")
    process.exit(78)
    break
  case "hangs": {
    // With a child that ignores SIGTERM too: ending the process alone would leave it.
    spawn("sh", ["-c", "trap '' TERM; while :; do sleep 0.2; done"], { stdio: "ignore" })
    process.on("SIGTERM", () => console.error("not now"))
    setInterval(() => {}, 60_000)
    console.error("waiting for the database")
    break
  }
  case "accepts":
    accept(answer)
    break
  case "accepts-then-exits":
    // Takes a request, holds it for a while, and fails before it has answered.
    accept(() =>
      setTimeout(() => {
        console.error("out of memory")
        process.exit(1)
      }, 700)
    )
    break
  default:
    throw new Error(`no such fault: ${how}`)
}

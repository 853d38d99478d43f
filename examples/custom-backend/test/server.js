// A server on the listener it inherits at descriptor 3; it knows nothing of handoff.
import { createServer } from "node:http"

const [version] = process.argv.slice(2)
if (version === "broken") {
  console.error("cannot open database")
  process.exit(3)
}

const server = createServer((_, response) => {
  response.setHeader("connection", "close")
  response.end(version)
})
server.listen({ fd: 3 })
process.on("SIGTERM", () => server.close())

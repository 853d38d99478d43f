// A server that knows nothing of handoff: it takes descriptor 3, whoever's process it was meant for, and drains on SIGTERM.
import { createServer } from "node:http"

const version = process.argv[2] ?? "plain"
const server = createServer((_, response) => response.setHeader("connection", "close").end(JSON.stringify({ version })))
server.listen({ fd: 3 })
process.on("SIGTERM", () => server.close(() => process.exit(0)))

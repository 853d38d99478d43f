/**
 * The server of the demo: `node server.ts VERSION [exit | hang]`. Two of its versions are broken.
 */
import { createServer } from "node:http"
import { daemon } from "@handoff/supervisor/daemon"

const [version = "v?", fault] = process.argv.slice(2)

if (fault === "exit") {
  console.error(`${version}: cannot read the configuration: unexpected end of file`)
  process.exit(1)
}
if (fault === "hang") {
  console.error(`${version}: waiting for the database`)
  process.on("SIGTERM", () => console.error(`${version}: SIGTERM ignored`))
  setInterval(() => {}, 60_000)
} else {
  const server = createServer((request, response) => {
    const milliseconds = request.url === "/slow" ? 3_000 : 0
    setTimeout(() => response.end(JSON.stringify({ version, pid: process.pid })), milliseconds)
  })
  const handoff = await daemon()
  await handoff.serve(server, "http", "127.0.0.1:8080")
  console.log(`${version} serves`)
}

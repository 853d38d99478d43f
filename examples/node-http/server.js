// A server that can be replaced under load. By hand: node server.js, then open http://127.0.0.1:8080
import { createServer } from "node:http"
import { setTimeout as sleep } from "node:timers/promises"
import { daemon } from "@handoff/supervisor/daemon"

const version = process.env.VERSION ?? "dev"

const app = async (request, response) => {
  const url = new URL(request.url, "http://localhost")
  if (url.pathname === "/slow") await sleep(Number(url.searchParams.get("ms") ?? 3_000))
  response.setHeader("Content-Type", "application/json")
  response.end(`${JSON.stringify({ version, pid: process.pid })}\n`)
}

const handoff = await daemon()
await handoff.serve(createServer(app), "http", process.env.ADDRESS ?? "127.0.0.1:8080")
console.log(`version ${version} serves as process ${process.pid}`)

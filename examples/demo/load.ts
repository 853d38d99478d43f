/**
 * The clients of the demo, a process of their own so that nothing disturbs them: `node load.ts HOST PORT`.
 *
 * Sixteen keep a connection open, eight open one for each request. A request counts as failed unless it got a whole answer
 * with status 200: a refused or reset connection, a cut body and a time-out are failures, and nothing is tried again.
 * Counts go to the parent over IPC ten times a second; the message "stop" ends it after the requests in flight.
 */
import { Agent, get } from "node:http"

export interface Counts {
  requests: number
  failed: number
  maxLatencyMs: number
  readonly byVersion: Record<string, number>
  readonly errors: Record<string, number>
}

const KEPT = 16
const FRESH = 8
const TIMEOUT_MS = 10_000

const [host = "127.0.0.1", port = ""] = process.argv.slice(2)
const counts: Counts = { requests: 0, failed: 0, maxLatencyMs: 0, byVersion: {}, errors: {} }
let stopping = false

const once = (agent: Agent | false): Promise<string> =>
  new Promise((resolve, reject) => {
    const request = get({ host, port, agent, timeout: TIMEOUT_MS }, (response) => {
      let body = ""
      response.setEncoding("utf8")
      response.on("data", (chunk: string) => {
        body += chunk
      })
      response.on("error", reject)
      response.on("end", () => {
        if (response.statusCode !== 200 || !response.complete) reject(new Error(`status ${response.statusCode}`))
        else resolve((JSON.parse(body) as { readonly version: string }).version)
      })
    })
    request.on("timeout", () => request.destroy(new Error("timed out")))
    request.on("error", reject)
  })

const client = async (agent: Agent | false): Promise<void> => {
  while (!stopping) {
    const begun = performance.now()
    counts.requests += 1
    try {
      const version = await once(agent)
      counts.byVersion[version] = (counts.byVersion[version] ?? 0) + 1
    } catch (error) {
      counts.failed += 1
      const what = (error as NodeJS.ErrnoException).code ?? (error as Error).message
      counts.errors[what] = (counts.errors[what] ?? 0) + 1
    }
    counts.maxLatencyMs = Math.max(counts.maxLatencyMs, performance.now() - begun)
    // A pause of a few milliseconds: the demo is about swaps, not about how fast Node serves.
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
}

process.on("message", (message) => {
  if (message === "stop") stopping = true
})
process.on("disconnect", () => process.exit(1))
const ticker = setInterval(() => process.send?.(counts), 100)
await Promise.all([
  ...Array.from({ length: KEPT }, () => client(new Agent({ keepAlive: true, maxSockets: 1 }))),
  ...Array.from({ length: FRESH }, () => client(false))
])
clearInterval(ticker)
process.send?.(counts, () => process.disconnect())
process.removeAllListeners("disconnect")

/**
 * HTTP clients that never stop asking, a process of their own so that nothing disturbs them. Started by `Load.ts` with one
 * argument: its options as JSON.
 *
 * Some keep a connection open, some open one for each request. A request counts as failed unless it got a whole answer with
 * status 200: a refused or reset connection, a cut body and a time-out are failures, and nothing is tried again.
 * Counts go to the parent over IPC ten times a second; the message "stop" ends it after the requests in flight. It ends by
 * itself when its parent is gone.
 */
import { Agent, get } from "node:http"
import type { Counts, LoadOptions } from "./Load.ts"

const TIMEOUT_MS = 10_000
const REPORT_MS = 100

const options = JSON.parse(process.argv[2] ?? "{}") as LoadOptions
const { host = "127.0.0.1", port, path = "/", kept = 16, fresh = 8, pauseMs = 2 } = options
const counts: Counts = { requests: 0, failed: 0, maxLatencyMs: 0, byVersion: {}, errors: {} }
let stopping = false

/** Which version answered: the `version` of a JSON body, else the body itself. */
const versionOf = (body: string): string => {
  try {
    return (JSON.parse(body) as { readonly version: string }).version
  } catch {
    return body.trim().slice(0, 40)
  }
}

const ask = (agent: Agent | false): Promise<string> =>
  new Promise((resolve, reject) => {
    const request = get({ host, port, path, agent, timeout: TIMEOUT_MS }, (response) => {
      let body = ""
      response.setEncoding("utf8")
      response.on("data", (chunk: string) => {
        body += chunk
      })
      response.on("error", reject)
      response.on("aborted", () => reject(new Error("the body was cut")))
      response.on("end", () => {
        if (response.statusCode === 200 && response.complete) resolve(versionOf(body))
        else reject(new Error(response.complete ? `status ${response.statusCode}` : "the body was cut"))
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
      const version = await ask(agent)
      counts.byVersion[version] = (counts.byVersion[version] ?? 0) + 1
    } catch (error) {
      counts.failed += 1
      const { code, message } = error as NodeJS.ErrnoException
      const what = code ?? message
      counts.errors[what] = (counts.errors[what] ?? 0) + 1
    }
    counts.maxLatencyMs = Math.max(counts.maxLatencyMs, performance.now() - begun)
    await new Promise((resolve) => setTimeout(resolve, pauseMs))
  }
}

process.on("message", (message) => {
  if (message === "stop") stopping = true
})
process.once("disconnect", () => process.exit(1))
const ticker = setInterval(() => process.send?.(counts), REPORT_MS)
await Promise.all([
  ...Array.from({ length: kept }, () => client(new Agent({ keepAlive: true, maxSockets: 1 }))),
  ...Array.from({ length: fresh }, () => client(false))
])
clearInterval(ticker)
process.removeAllListeners("disconnect")
process.send?.(counts, () => process.exit(0))

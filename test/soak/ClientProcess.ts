/**
 * Clients that never stop, honour `Connection: close`, try nothing again, and remember what was acknowledged to them:
 * `ClientProcess.ts LOAD`, a `Load` as JSON. News go to the parent over IPC; the message "stop" ends it after the requests in flight.
 *
 * Half of the readers keep their connection; writers open one for each line. A client waits from its first unanswered
 * request on, whether that hangs or fails again and again, until it is answered.
 */
import { Agent, type IncomingMessage, request } from "node:http"
import { setImmediate as poll, setTimeout as sleep } from "node:timers/promises"
import type { Acknowledged } from "../interop/Writers.ts"
import { clock, type Failure, type Load, type News } from "./Clients.ts"

/** Milliseconds: longer than anything is ever stopped. */
const PATIENCE = 30_000
const REPORT_EVERY = 100

const { port, readers, writers, pauseMs } = JSON.parse(process.argv[2] ?? "{}") as Load
const waiting = new Map<number, number>()
let acknowledged: Array<Acknowledged> = []
let failures: Array<Failure> = []
let requests = 0
let longestMs = 0
let stopped = false

const bodyOf = async (response: IncomingMessage): Promise<string> => {
  let body = ""
  try {
    for await (const chunk of response.setEncoding("utf8")) body += chunk
  } catch {
    throw new Error("cut")
  }
  if (!response.complete) throw new Error("cut")
  if (response.statusCode !== 200) throw new Error(`status ${response.statusCode}`)
  return body
}

const ask = (agent: Agent | false, line: string | undefined): Promise<string> =>
  new Promise((resolve, reject) => {
    const how = line === undefined ? { method: "GET", path: "/" } : { method: "POST", path: "/append" }
    const asked = request({ host: "127.0.0.1", port, agent, timeout: PATIENCE, ...how })
    asked.on("response", (response) => bodyOf(response).then(resolve, reject))
    asked.on("timeout", () => asked.destroy(new Error("late")))
    asked.on("error", (error: NodeJS.ErrnoException) => reject(new Error(error.code ?? error.message)))
    asked.end(line)
  })

const client = async (id: number): Promise<void> => {
  const writes = id >= readers
  const agent = !writes && id % 2 === 0 ? new Agent({ keepAlive: true, maxSockets: 1 }) : false
  for (let turn = 0; !stopped; turn += 1) {
    const begun = clock()
    if (!waiting.has(id)) waiting.set(id, begun)
    requests += 1
    try {
      const text = `client ${id} line ${turn}`
      const body = await ask(agent, writes ? text : undefined)
      if (writes) acknowledged.push({ text, revision: Number(body) })
      longestMs = Math.max(longestMs, clock() - (waiting.get(id) ?? begun))
      waiting.delete(id)
    } catch (error) {
      failures.push({ error: (error as Error).message, begun, ended: clock() })
    }
    await sleep(pauseMs)
    // On a busy machine more time may have passed: a connection that was closed meanwhile must be known to be closed.
    await poll()
    await poll()
  }
  waiting.delete(id)
  if (agent !== false) agent.destroy()
}

const report = (done?: () => void): void => {
  const news: News = { requests, acknowledged, failures, longestMs, waiting: [...waiting.values()] }
  requests = 0
  acknowledged = []
  failures = []
  longestMs = 0
  process.send?.(news, () => done?.())
}

process.on("message", () => {
  stopped = true
})
process.once("disconnect", () => process.exit(1))
const ticker = setInterval(report, REPORT_EVERY)
await Promise.all(Array.from({ length: readers + writers }, (_, id) => client(id)))
clearInterval(ticker)
process.removeAllListeners("disconnect")
report(() => process.exit(0))

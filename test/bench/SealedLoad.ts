/**
 * A fixed rate of requests to the key-value service, whatever becomes of those before: a process of its own, started by
 * `sealed.ts` with the port and the requests per second. One in twenty is a write, which the service makes durable.
 *
 * A wait counts from the moment at which a request was due, also when no connection was free then. All connections are used in turn,
 * so that none is idle. The message "stop" makes it tell every wait to its parent and end.
 */
import { Agent } from "node:http"
import { ask } from "../../examples/sealed-sqlite/test/Clients.ts"

export interface Waited {
  /** When each request was due, in milliseconds since 1970, and how long it waited for its answer. */
  readonly waits: ReadonlyArray<readonly [number, number]>
  readonly failures: ReadonlyArray<string>
}

const [port = 0, rate = 1_000] = process.argv.slice(2).map(Number)
const agent = new Agent({ keepAlive: true, maxSockets: 32, scheduling: "fifo" })
const waits: Array<readonly [number, number]> = []
const failures: Array<string> = []
const origin = performance.timeOrigin + performance.now()
const begun = performance.now()
const inFlight = new Set<Promise<void>>()
let due = 0

const one = async (number: number): Promise<void> => {
  const after = (number / rate) * 1_000
  const path = `/kv/${number % 500}`
  try {
    const { status } = await (number % 20 === 0
      ? ask(port, "PUT", path, { agent, body: String(number) })
      : ask(port, "GET", path, { agent }))
    if (status !== 200 && status !== 404) throw new Error(`status ${status}`)
    waits.push([origin + after, performance.now() - begun - after])
  } catch (error) {
    failures.push((error as Error).message)
  }
}

const ticker = setInterval(() => {
  for (; (due / rate) * 1_000 <= performance.now() - begun; due += 1) {
    const asked = one(due).finally(() => inFlight.delete(asked))
    inFlight.add(asked)
  }
}, 1)

process.once("disconnect", () => process.exit(1))
process.once("message", async () => {
  clearInterval(ticker)
  await Promise.all(inFlight)
  process.removeAllListeners("disconnect")
  process.send?.({ waits, failures } satisfies Waited, () => process.exit(0))
})

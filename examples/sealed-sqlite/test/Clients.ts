/**
 * Clients of the key-value service that never stop, and what they remember of it.
 *
 * Each keeps one connection alive, connects anew when it is told `Connection: close`, and owns its keys, so that it knows what
 * each must hold. Nothing is tried again: a request fails that is refused, reset (also one on a connection that was
 * used before), cut, late, or answered with another status than it must be.
 */
import { Agent, type IncomingMessage, request } from "node:http"
import { setTimeout as sleep } from "node:timers/promises"
import { type Random, random as randomStream } from "@handoff/core/testing/Arbitraries"

export interface Answered {
  /** Milliseconds since 1970. */
  readonly sentAt: number
  readonly waitMs: number
  /** Who answered, where the answer tells. */
  readonly pid: number | undefined
}

export interface Memory {
  readonly requests: number
  readonly failures: ReadonlyArray<string>
  /** Answers that contradict what was acknowledged before. */
  readonly contradictions: ReadonlyArray<string>
  /** Revisions of the acknowledged writes. */
  readonly revisions: ReadonlyArray<number>
  /** What each key that was ever written must hold; undefined when it was deleted. */
  readonly values: ReadonlyMap<string, string | undefined>
  readonly answered: ReadonlyArray<Answered>
  readonly longestWaitMs: number
}

export interface Clients extends Disposable {
  readonly memory: Memory
  /** Lets the requests in flight end. */
  readonly stop: () => Promise<Memory>
}

const PATIENCE = 30_000
const KEYS_OF_A_CLIENT = 40

interface Answer {
  readonly status: number
  readonly body: string
}

const read = async (response: IncomingMessage): Promise<Answer> => {
  let body = ""
  for await (const chunk of response.setEncoding("utf8")) body += chunk
  if (!response.complete) throw new Error("the body was cut")
  return { status: response.statusCode ?? 0, body }
}

/** One request. `halfwayMs`: the second half of the body is sent that much later. Fails with what a person needs to know. */
export const ask = (
  port: number,
  method: string,
  path: string,
  how: { readonly agent?: Agent; readonly body?: string; readonly halfwayMs?: number } = {}
): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const { agent = false, body = "", halfwayMs } = how
    const headers = { "Content-Length": Buffer.byteLength(body) }
    const asked = request({ host: "127.0.0.1", port, method, path, agent, headers, timeout: PATIENCE })
    asked.on("response", (response) => {
      read(response).then(resolve, reject)
    })
    asked.on("timeout", () => asked.destroy(new Error("no answer in time")))
    asked.on("error", (error: NodeJS.ErrnoException) =>
      reject(new Error(`${error.code ?? error.message}${asked.reusedSocket ? " on a connection used before" : ""}`))
    )
    if (halfwayMs === undefined) {
      asked.end(body)
      return
    }
    asked.write(body.slice(0, body.length / 2))
    setTimeout(() => asked.end(body.slice(body.length / 2)), halfwayMs)
  })

/**
 * @example
 * using clients = startClients(port, { count: 8 })
 * // ... swaps ...
 * const { failures, longestWaitMs } = await clients.stop()
 */
export const startClients = (
  port: number,
  { count, pauseMs = 4, random = randomStream(1) }: { count: number; pauseMs?: number; random?: Random }
): Clients => {
  const failures: Array<string> = []
  const contradictions: Array<string> = []
  const revisions: Array<number> = []
  const values = new Map<string, string | undefined>()
  const answered: Array<Answered> = []
  const memory = { requests: 0, longestWaitMs: 0, failures, contradictions, revisions, values, answered }
  /** The highest revision that anybody was told. */
  let known = 0
  let stopped = false

  const timed = async (agent: Agent, method: string, path: string, body?: string): Promise<Answer> => {
    const sentAt = Date.now()
    const begun = performance.now()
    memory.requests += 1
    const answer = await ask(port, method, path, { agent, ...(body === undefined ? {} : { body }) })
    const waitMs = performance.now() - begun
    const pid = /"pid":(\d+)/.exec(answer.body)?.[1]
    answered.push({ sentAt, waitMs, pid: pid === undefined ? undefined : Number(pid) })
    memory.longestWaitMs = Math.max(memory.longestWaitMs, waitMs)
    return answer
  }

  /** A revision that an answer tells must be beyond, or at least, what anybody had been told when it was asked. */
  const learn = ({ status, body }: Answer, floor: number, write: boolean): void => {
    if (status !== 200) throw new Error(`status ${status}`)
    const revision = Number(/"revision":(\d+)/.exec(body)?.[1])
    if (write ? !(revision > floor) : !(revision >= floor)) contradictions.push(`revision ${revision} after ${floor}`)
    if (write) revisions.push(revision)
    known = Math.max(known, revision)
  }

  const write = async (agent: Agent, key: string, value: string | undefined): Promise<void> => {
    const floor = known
    learn(await timed(agent, value === undefined ? "DELETE" : "PUT", `/kv/${key}`, value), floor, true)
    values.set(key, value)
  }

  const check = async (agent: Agent, key: string): Promise<void> => {
    const { status, body } = await timed(agent, "GET", `/kv/${key}`)
    const value = values.get(key)
    const isAsWritten = value === undefined ? status === 404 : status === 200 && body === value
    if (status !== 200 && status !== 404) throw new Error(`status ${status}`)
    if (!isAsWritten) contradictions.push(`${key} is ${status} ${body}, written was ${value}`)
  }

  const client = async (id: number): Promise<void> => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 })
    for (let turn = 0; !stopped; turn += 1) {
      const key = `${id}-${random(KEYS_OF_A_CLIENT)}`
      const dice = random(10)
      try {
        if (dice < 6) await write(agent, key, `${id}/${turn}`)
        else if (dice < 7) await write(agent, key, undefined)
        else if (dice < 9) await check(agent, key)
        else {
          const floor = known
          learn(await timed(agent, "GET", "/revision"), floor, false)
        }
      } catch (error) {
        failures.push(`client ${id}: ${(error as Error).message}`)
      }
      await sleep(random(pauseMs + 1))
    }
    agent.destroy()
  }

  const ended = Promise.all(Array.from({ length: count }, (_, id) => client(id)))
  return {
    memory,
    stop: async () => {
      stopped = true
      await ended
      return memory
    },
    [Symbol.dispose]: () => {
      stopped = true
    }
  }
}

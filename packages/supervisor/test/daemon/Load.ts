/** Clients that keep asking, on kept-alive connections and on a new one for each request, and count what went wrong. */
import { Agent, request } from "node:http"
import { setTimeout as sleep } from "node:timers/promises"

export interface LoadResult {
  readonly requests: number
  readonly errors: ReadonlyArray<string>
  /** Answers by the pid that gave them. */
  readonly byPid: ReadonlyMap<number, number>
}

export const get = (port: number, path: string, agent: Agent | false): Promise<{ readonly pid: number }> =>
  new Promise((resolve, reject) => {
    const sent = request(
      { port, path, host: "127.0.0.1", ...(agent === false ? { agent } : { agent }) },
      (response) => {
        const chunks: Array<Buffer> = []
        response.on("data", (chunk: Buffer) => chunks.push(chunk))
        response.once("error", reject)
        response.once("end", () => {
          try {
            resolve(JSON.parse(Buffer.concat(chunks).toString()))
          } catch (error) {
            reject(error)
          }
        })
      }
    )
    sent.once("error", reject)
    sent.end()
  })

export const startLoad = (port: number, { keepAlive = 8, perRequest = 4, pauseMs = 1 } = {}) => {
  const agent = new Agent({ keepAlive: true, maxSockets: keepAlive })
  const errors: Array<string> = []
  const byPid = new Map<number, number>()
  let requests = 0
  let running = true
  const client = async (through: Agent | false) => {
    while (running) {
      requests += 1
      try {
        const { pid } = await get(port, "/", through)
        byPid.set(pid, (byPid.get(pid) ?? 0) + 1)
      } catch (error) {
        errors.push(String(error))
      }
      await sleep(pauseMs)
    }
  }
  const clients = [
    ...Array.from({ length: keepAlive }, () => client(agent)),
    ...Array.from({ length: perRequest }, () => client(false))
  ]
  return {
    stop: async (): Promise<LoadResult> => {
      running = false
      await Promise.all(clients)
      agent.destroy()
      return { requests, errors, byPid }
    }
  }
}

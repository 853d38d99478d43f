/**
 * Clients that append lines to a daemon's log while it is swapped, and what must be true of the log afterwards.
 *
 * Each client opens a connection for each line and sends the next line when the last is answered. A line counts as
 * acknowledged when a whole answer with status 200 has come; only such a line may not be lost.
 */
import { request } from "node:http"
import { setTimeout as sleep } from "node:timers/promises"
import type { Line, Place } from "./Place.ts"

export interface Acknowledged {
  readonly text: string
  /** As the daemon answered: the number of lines in the log with this one, which is this line's number. */
  readonly revision: number
}

export interface Written {
  readonly acknowledged: ReadonlyArray<Acknowledged>
  /** Errno or status of each line that was not acknowledged. */
  readonly failures: ReadonlyArray<string>
}

export interface Writers extends Disposable {
  /** Acknowledged so far. */
  readonly count: () => number
  readonly stop: () => Promise<Written>
}

/** Milliseconds: a swap, or a rollback with its waiting, lies well within. */
const PATIENCE = 30_000

/** One line; gives the revision that the daemon answered. Fails with the errno, or with the status when that is not 200. */
export const append = (port: number, text: string): Promise<number> =>
  new Promise((resolve, reject) => {
    const asked = request(
      { host: "127.0.0.1", port, path: "/append", method: "POST", agent: false, timeout: PATIENCE },
      (response) => {
        let body = ""
        response.setEncoding("utf8").on("data", (chunk: string) => {
          body += chunk
        })
        response.on("error", reject)
        response.on("end", () => {
          if (response.statusCode === 200) resolve(Number(body))
          else reject(new Error(`status ${response.statusCode}`))
        })
      }
    )
    asked.on("timeout", () => asked.destroy(new Error("no answer in time")))
    asked.on("error", reject)
    asked.end(text)
  })

/**
 * @example
 * using writers = startWriters(port)
 * // ... swaps ...
 * expectNothingLost(place, await writers.stop())
 */
export const startWriters = (port: number, clients = 4): Writers => {
  const acknowledged: Array<Acknowledged> = []
  const failures: Array<string> = []
  let stopped = false
  const write = async (client: number) => {
    for (let line = 0; !stopped; line += 1) {
      const text = `client ${client} line ${line}`
      try {
        acknowledged.push({ text, revision: await append(port, text) })
      } catch (error) {
        failures.push((error as NodeJS.ErrnoException).code ?? (error as Error).message)
        await sleep(5)
      }
    }
  }
  const ended = Promise.all(Array.from({ length: clients }, (_, client) => write(client)))
  return {
    count: () => acknowledged.length,
    stop: async () => {
      stopped = true
      await ended
      return { acknowledged, failures }
    },
    [Symbol.dispose]: () => {
      stopped = true
    }
  }
}

/**
 * Acknowledged lines that the log lacks, lines that it has twice, and lines that are not where the daemon counted them: it
 * counts from what it found when it opened the log, so that anyone who wrote after that moves its lines.
 */
export const damage = (log: ReadonlyArray<Line>, acknowledged: ReadonlyArray<Acknowledged>) => {
  const numbers = new Map<string, Array<number>>()
  for (const [index, { text }] of log.entries()) numbers.set(text, [...(numbers.get(text) ?? []), index + 1])
  return {
    lost: acknowledged.filter(({ text }) => !numbers.has(text)).map(({ text }) => text),
    doubled: [...numbers].filter(([, found]) => found.length > 1).map(([text]) => text),
    moved: acknowledged.filter(({ text, revision }) => numbers.has(text) && !numbers.get(text)?.includes(revision))
  }
}

/**
 * Whether each process wrote only between its own opening of the log and the next one: the openings, each made with the data
 * lock held, are then the order in which processes were the writer.
 */
export const wroteInTurn = (log: ReadonlyArray<Line>, openings: ReadonlyArray<number>): boolean => {
  let turn = 0
  for (const { pid } of log) {
    while (turn < openings.length && openings[turn] !== pid) turn += 1
    if (turn === openings.length) return false
  }
  return true
}

/** What went wrong with a place's log, nothing being the good answer; made to be compared with `UNDAMAGED`. */
export const audit = (where: Place, written: Written) => ({
  ...damage(where.log(), written.acknowledged),
  failures: written.failures,
  inTurn: wroteInTurn(where.log(), where.openings())
})

export const UNDAMAGED = { lost: [], doubled: [], moved: [], failures: [], inTurn: true } as const

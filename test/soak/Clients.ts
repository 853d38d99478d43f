/**
 * The load of a soak, seen from the process that judges it: what clients in a process of their own (ClientProcess.ts) say ten times a
 * second, so that nothing that the judge does makes them slow.
 *
 * Times are milliseconds of `clock`, which all processes of a machine share.
 */
import { join } from "node:path"
import type { Acknowledged } from "../interop/Writers.ts"
import type { ManagedProcesses } from "../support/ManagedProcesses.ts"

export const clock = (): number => performance.timeOrigin + performance.now()

export interface Load {
  readonly port: number
  readonly readers: number
  readonly writers: number
  /** Milliseconds that each client waits between two requests. */
  readonly pauseMs: number
}

export interface Failure {
  /** An errno, `cut`, `late`, or `status N`. */
  readonly error: string
  readonly begun: number
  readonly ended: number
}

/** What was new since the last time. */
export interface News {
  readonly requests: number
  readonly acknowledged: ReadonlyArray<Acknowledged>
  readonly failures: ReadonlyArray<Failure>
  /** The longest that a client had waited that was answered. */
  readonly longestMs: number
  /** Since when each client waits that has no answer now. */
  readonly waiting: ReadonlyArray<number>
}

export interface Clients {
  readonly pid: number
  readonly requests: () => number
  readonly acknowledged: ReadonlyArray<Acknowledged>
  readonly waiting: () => ReadonlyArray<number>
  /** Lets requests in flight end. */
  readonly stop: () => Promise<void>
}

/** Starts them. `hear` gets all news. */
export const startClients = (processes: ManagedProcesses, load: Load, hear: (news: News) => void): Clients => {
  const acknowledged: Array<Acknowledged> = []
  let requests = 0
  let waiting: ReadonlyArray<number> = []
  const { child, pid, ended } = processes.start(
    process.execPath,
    [join(import.meta.dirname, "ClientProcess.ts"), JSON.stringify(load)],
    { stdio: ["ignore", "inherit", "inherit", "ipc"] }
  )
  child.on("message", (message) => {
    const news = message as News
    for (const line of news.acknowledged) acknowledged.push(line)
    requests += news.requests
    waiting = news.waiting
    hear(news)
  })
  return {
    pid,
    requests: () => requests,
    acknowledged,
    waiting: () => waiting,
    stop: async () => {
      if (child.connected) child.send("stop")
      await ended
      waiting = []
    }
  }
}

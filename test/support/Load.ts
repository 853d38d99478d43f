/**
 * A load on an HTTP server: our own clients in a process of their own, or wrk.
 *
 * Both count every request that did not get a whole answer, and both are ended on every path: their handle is disposable,
 * our clients end with their parent, wrk after its duration at the latest.
 */
import { fork, spawn } from "node:child_process"
import { join } from "node:path"

export interface LoadOptions {
  /** ["127.0.0.1"] */
  readonly host?: string
  readonly port: number
  /** ["/"] */
  readonly path?: string
  /** Clients that keep their connection. [16] */
  readonly kept?: number
  /** Clients that open a connection for each request. [8] */
  readonly fresh?: number
  /** Milliseconds a client waits between requests. [2] */
  readonly pauseMs?: number
}

export interface Counts {
  /** Begun, those in flight included. */
  requests: number
  failed: number
  maxLatencyMs: number
  /** Answers by the version that gave them. */
  readonly byVersion: Record<string, number>
  /** Failures by errno or message. */
  readonly errors: Record<string, number>
}

export interface Load extends Disposable {
  readonly counts: () => Counts
  /** Lets requests in flight end and gives the final counts; fails when the clients ended by themselves. */
  readonly stop: () => Promise<Counts>
}

const NOTHING: Counts = { requests: 0, failed: 0, maxLatencyMs: 0, byVersion: {}, errors: {} }

/**
 * @example
 * using load = startLoad({ port: 8080 })
 * // ...
 * const { failed } = await load.stop()
 */
export const startLoad = (options: LoadOptions): Load => {
  let counts = NOTHING
  const child = fork(join(import.meta.dirname, "LoadClient.ts"), [JSON.stringify(options)], { execArgv: [] })
  child.on("message", (message) => {
    counts = message as Counts
  })
  const ended = new Promise<number | null>((resolve) => child.once("exit", (code) => resolve(code)))
  return {
    counts: () => counts,
    stop: async () => {
      if (child.connected) child.send("stop")
      const code = await ended
      if (code !== 0) throw new Error(`the load's clients ended with status ${code}`)
      return counts
    },
    [Symbol.dispose]: () => {
      child.kill("SIGKILL")
    }
  }
}

export interface WrkReport {
  readonly requests: number
  /** Connections refused or reset, answers cut or late (wrk's socket errors), and answers other than 2xx or 3xx. */
  readonly failed: number
  /** wrk's own words. */
  readonly text: string
}

/** Reads what wrk prints at its end. */
export const parseWrk = (text: string): WrkReport => {
  const requests = /^\s*(\d+) requests in /m.exec(text)?.[1]
  if (requests === undefined) throw new Error(`not a report of wrk:\n${text}`)
  const socket = /Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)/.exec(text)
  const status = /Non-2xx or 3xx responses: (\d+)/.exec(text)
  const failed = [...(socket?.slice(1) ?? []), status?.[1] ?? "0"].reduce((sum, part) => sum + Number(part), 0)
  return { requests: Number(requests), failed, text }
}

export interface Wrk extends Disposable {
  readonly stop: () => Promise<WrkReport>
}

/** wrk with keep-alive connections, or with one connection for each request. `seconds` bounds it whatever happens. */
export const startWrk = (
  program: string,
  options: {
    readonly port: number
    readonly connections: number
    readonly seconds: number
    readonly fresh?: boolean
    readonly path?: string
  }
): Wrk => {
  const fresh = options.fresh === true ? ["-H", "Connection: close"] : []
  const child = spawn(
    program,
    [
      ...["-t1", `-c${options.connections}`, `-d${options.seconds}s`, "--timeout", "10s"],
      ...fresh,
      `http://127.0.0.1:${options.port}${options.path ?? "/"}`
    ],
    { stdio: ["ignore", "pipe", "inherit"] }
  )
  let text = ""
  child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
    text += chunk
  })
  const ended = new Promise<void>((resolve, reject) => {
    child.once("error", reject)
    child.once("close", () => resolve())
  })
  ended.catch(() => undefined)
  return {
    stop: async () => {
      child.kill("SIGINT")
      await ended
      return parseWrk(text)
    },
    [Symbol.dispose]: () => {
      child.kill("SIGKILL")
    }
  }
}

/**
 * Ends a server without a failed request.
 *
 * The order, and why:
 *
 * 1. Stop listening with `net.Server.prototype.close`. The `close` of http servers also cuts idle keep-alive connections,
 *    on which a request may be on its way (160 read errors in one measurement).
 * 2. Let each answer end its connection: `Connection: close` for HTTP/1.1; for HTTP/2 the shutdown notice with the next stream,
 *    after which late streams are still answered. Busy clients leave by themselves, without an error.
 * 3. Close what has been idle for `idleMs`: by then a busy client would have sent something. It is decided in the turn's
 *    check phase, right behind the poll phase that read whatever had arrived, so a request that is here is not cut.
 * 4. After `graceMs` cut what is left, and count the requests that were lost with it.
 *
 * Limit: a request that is on the wire while an idle connection is closed is lost, as with any HTTP/1.1 server; the longer
 * `idleMs`, the rarer. A plain TCP server's connections, and upgraded ones (WebSocket), are the application's to end.
 */
import { type Server, Server as TcpServer } from "node:net"
import { type Connection, type Connections, isIdle, notice } from "./Connections.ts"

/** Milliseconds. */
export interface DrainTimes {
  readonly idleMs: number
  readonly graceMs: number
}

const closeQuiet = (connection: Connection, idleMs: number): void => {
  const now = performance.now()
  const { session } = connection
  if (session !== undefined) {
    if (connection.exchanges > 0) notice(connection)
    // The second GOAWAY names the last stream that is answered; the session ends with its open streams.
    const quietSince = connection.noticedAt ?? connection.restSince
    const isDue = connection.noticedAt !== undefined || connection.exchanges === 0
    if (isDue && now - quietSince >= idleMs && !session.closed) session.close()
    return
  }
  // SAFETY: not `end`: a request read after our FIN would be carried out and could not be answered.
  if (isIdle(connection) && now - connection.restSince >= idleMs) connection.socket.destroySoon()
}

const cutAll = (connections: Connections): number => {
  let cut = 0
  for (const connection of connections.all) {
    if (connection.exchanges > 0 || connection.protocol === "raw") cut += Math.max(1, connection.exchanges)
    connection.socket.destroy()
  }
  return cut
}

/** Stops listening and lets connections end; `closed` is called once, when the last one has. Gives the way to stop that. */
const begin = (server: Server, connections: Connections, idleMs: number, closed: () => void): (() => void) => {
  const begun = performance.now()
  for (const connection of connections.all) connection.restSince = Math.max(connection.restSince, begun)
  const sweep = () => {
    for (const connection of connections.all) closeQuiet(connection, idleMs)
  }
  const sweeper = setInterval(() => setImmediate(sweep), Math.min(100, Math.max(5, idleMs / 4)))
  const end = () => {
    clearInterval(sweeper)
    server.off("close", last)
  }
  const last = () => {
    end()
    closed()
  }
  server.once("close", last)
  TcpServer.prototype.close.call(server)
  connections.beginDrain()
  return end
}

/**
 * Drains one server whose connections were watched from the start. Resolves when its last connection is closed, with the
 * number of requests and raw connections that were cut at the end of the grace: normally 0.
 *
 * @example
 * const connections = watch(server)
 * server.listen(8080)
 * process.once("SIGTERM", () => drain(server, connections, { idleMs: 1_000, graceMs: 25_000 }))
 */
export const drain = (server: Server, connections: Connections, times: DrainTimes): Promise<number> =>
  new Promise((resolve) => {
    let cut = 0
    const ender = setTimeout(() => {
      cut = cutAll(connections)
    }, times.graceMs)
    begin(server, connections, times.idleMs, () => {
      clearTimeout(ender)
      resolve(cut)
    })
  })

/**
 * The drain of a handoff, which may be taken back: stops listening and waits for the connections, until the signal is
 * aborted. Cuts nothing, since this process may have to go on; resolves with the number of connections that are left.
 * `connections.endDrain` and listening again undo it.
 */
export const quiesce = (
  server: Server,
  connections: Connections,
  idleMs: number,
  until: AbortSignal
): Promise<number> =>
  new Promise((resolve) => {
    const finish = () => {
      end()
      until.removeEventListener("abort", finish)
      resolve(connections.all.size)
    }
    const end = begin(server, connections, idleMs, finish)
    if (until.aborted) finish()
    else until.addEventListener("abort", finish, { once: true })
  })

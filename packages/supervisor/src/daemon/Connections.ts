/**
 * What each connection of a server is doing: the facts a drain decides on.
 *
 * Node knows which connections are idle, but tells nobody: `closeIdleConnections` closes at once, counts a connection
 * that never sent a request as active, and does not exist for HTTP/2. So this module watches a server's events from
 * before it listens:
 *
 * - `connection` is a TCP or unix connection; for TLS it says nothing yet, `secureConnection` follows and knows by ALPN
 *   whether HTTP/2 is spoken (`session` comes in the same turn) or HTTP/1.1.
 * - `request`, `checkContinue`, `checkExpectation` begin an exchange of HTTP/1.1; it is over when the response is closed
 *   and the request was read to its end. `upgrade` and `connect` hand the connection to the application: raw from then on.
 *
 * Listening for some of these changes what Node does when nobody else listens (an unhandled `upgrade` is an ordinary
 * request), so each is watched only from the moment the application does.
 *
 * Limit: of pipelined requests the last known one is asked to close the connection; what a client has sent behind it is
 * lost with the connection, and the client must send it again (RFC 9112, section 9.3.2). Of HTTP/2 over TLS, streams that
 * cross our GOAWAY on their way are refused, and the client may send them again (RFC 9113, section 8.7).
 */
import type { Server as HttpServer, IncomingMessage, ServerResponse } from "node:http"
import type { Http2Session, Http2Stream } from "node:http2"
import type { Server, Socket } from "node:net"
import type { TLSSocket } from "node:tls"
import { sendShutdownNotice } from "./ShutdownNotice.ts"

type Protocol = "handshake" | "http1" | "http2" | "raw"

/** One connection. Times are `performance.now()` in milliseconds. */
export interface Connection {
  readonly socket: Socket
  protocol: Protocol
  /** Requests whose answer is not out, or whose body is not read; for HTTP/2 the open streams. */
  exchanges: number
  /** The newest response, so that a drain can ask for the connection's end with it. */
  response: ServerResponse | undefined
  /** `socket.bytesRead` when the last exchange ended: more than that is the beginning of a next request. */
  readAtRest: number
  restSince: number
  session: Http2Session | undefined
  /** For HTTP/2: when the client was told to open no more streams. */
  noticedAt: number | undefined
}

export interface Connections {
  readonly all: ReadonlySet<Connection>
  /** From now on each answer ends its connection, and each session is told to open no more streams. */
  readonly beginDrain: () => void
  /** Answers keep their connections again. What was told to a client cannot be taken back. */
  readonly endDrain: () => void
}

/** True when nothing of a request is under way. A session of HTTP/2 ends by itself and is never idle here. */
export const isIdle = (connection: Connection): boolean => {
  switch (connection.protocol) {
    case "handshake":
      return connection.socket.bytesRead === 0
    case "http1":
      return connection.exchanges === 0 && connection.socket.bytesRead === connection.readAtRest
    case "http2":
    case "raw":
      return false
  }
}

const hasBody = (request: IncomingMessage): boolean =>
  request.headers["transfer-encoding"] !== undefined || Number(request.headers["content-length"] ?? 0) > 0

const askToClose = (response: ServerResponse): void => {
  if (!response.headersSent) response.setHeader("Connection", "close")
}

/**
 * Ends the connection with this response, but only when the body was read by then: a connection closed over unread
 * bytes is reset, and the reset may overtake the response. Otherwise it stays, and is closed when it is idle.
 */
const endWith = (request: IncomingMessage, response: ServerResponse): void => {
  if (request.complete || !hasBody(request)) askToClose(response)
  else request.once("end", () => askToClose(response))
}

const isTls = (server: Server): boolean => "setSecureContext" in server
const isHttp2 = (server: Server): boolean => "updateSettings" in server
const isHttp1 = (server: Server): server is HttpServer => "closeIdleConnections" in server

class ServerConnections implements Connections {
  readonly all = new Set<Connection>()
  readonly #bySocket = new WeakMap<Socket, Connection>()
  /** The connection whose session is being made in this turn. */
  #newest: Connection | undefined
  #draining = false

  constructor(server: Server) {
    const protocol = isHttp2(server) ? "http2" : isHttp1(server) ? "http1" : "raw"
    const tls = isTls(server)
    server.prependListener("connection", (socket: Socket) => this.#open(socket, tls ? "handshake" : protocol))
    if (tls) server.prependListener("secureConnection", (socket: TLSSocket) => this.#secured(socket, protocol))
    if (isHttp2(server)) server.on("session", (session: Http2Session) => this.#sessionOpened(session))
    for (const event of ["request", "checkContinue", "checkExpectation"]) {
      follow(server, event, (request: IncomingMessage, response: ServerResponse) => this.#exchange(request, response))
    }
    for (const event of ["upgrade", "connect"]) {
      follow(server, event, (request: IncomingMessage) => {
        const connection = this.#bySocket.get(request.socket)
        if (connection !== undefined) connection.protocol = "raw"
      })
    }
  }

  beginDrain(): void {
    this.#draining = true
    for (const connection of this.all) {
      // An idle session is told with its next stream, as an idle connection of HTTP/1.1 is.
      if (connection.exchanges > 0) notice(connection)
      if (connection.response !== undefined) endWith(connection.response.req, connection.response)
    }
  }

  endDrain(): void {
    this.#draining = false
  }

  #open(socket: Socket, protocol: Protocol): void {
    const connection: Connection = {
      socket,
      protocol,
      exchanges: 0,
      response: undefined,
      readAtRest: 0,
      restSince: performance.now(),
      session: undefined,
      noticedAt: undefined
    }
    this.all.add(connection)
    this.#bySocket.set(socket, connection)
    this.#newest = connection
    socket.once("close", () => this.all.delete(connection))
  }

  /** A second entry besides the connection it runs over, which Node ends with it. */
  #secured(socket: TLSSocket, protocol: Protocol): void {
    this.#open(socket, protocol === "http2" && socket.alpnProtocol !== "h2" ? "http1" : protocol)
  }

  #sessionOpened(session: Http2Session): void {
    const connection = this.#newest
    if (connection === undefined || connection.protocol !== "http2") return
    connection.session = session
    session.on("stream", (stream: Http2Stream) => {
      connection.exchanges += 1
      stream.once("close", () => {
        connection.exchanges -= 1
        connection.restSince = performance.now()
      })
      if (this.#draining) setImmediate(notice, connection)
    })
  }

  #exchange(request: IncomingMessage, response: ServerResponse): void {
    if (request.httpVersionMajor !== 1) return
    const connection = this.#bySocket.get(request.socket)
    if (connection === undefined) return
    connection.exchanges += 1
    connection.response = response
    if (this.#draining) endWith(request, response)
    response.once("close", () => {
      if (request.complete || request.destroyed) rest(connection, response)
      else request.once("close", () => rest(connection, response))
    })
  }
}

const rest = (connection: Connection, response: ServerResponse): void => {
  connection.exchanges -= 1
  connection.readAtRest = connection.socket.bytesRead
  connection.restSince = performance.now()
  if (connection.response === response) connection.response = undefined
}

/**
 * Tells the client of an HTTP/2 session to go elsewhere. Where the notice cannot be sent (TLS), the session closes at
 * once: its open streams are answered, and a client that asks one thing after the other has nothing else on its way.
 */
export const notice = (connection: Connection): void => {
  if (connection.session === undefined || connection.noticedAt !== undefined) return
  const result = sendShutdownNotice(connection.socket)
  if (result === "later") return
  connection.noticedAt = performance.now()
  if (result === "never") connection.session.close()
}

/** Listens first to an event that the application listens to, now or later. */
const follow = <A extends ReadonlyArray<never>>(
  server: Server,
  event: string,
  listener: (...args: A) => void
): void => {
  if (server.listenerCount(event) > 0) {
    server.prependListener(event, listener as () => void)
    return
  }
  const wait = (added: string) => {
    if (added !== event) return
    server.off("newListener", wait)
    server.prependListener(event, listener as () => void)
  }
  server.on("newListener", wait)
}

const watched = new WeakMap<Server, Connections>()

/** Watches a server's connections. Call it before the server listens; the second time it gives the same. */
export const watch = (server: Server): Connections => {
  const known = watched.get(server)
  if (known !== undefined) return known
  const connections = new ServerConnections(server)
  watched.set(server, connections)
  return connections
}

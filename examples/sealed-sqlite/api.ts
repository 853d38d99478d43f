/**
 * The service's HTTP:
 *
 *   PUT /kv/KEY       the body becomes the value   {"revision":7,"pid":4711}
 *   DELETE /kv/KEY                                 {"revision":8,"pid":4711}
 *   GET /kv/KEY       the value, its revision in the header Revision; 404 when there is none
 *   GET /revision                                  {"revision":8,"pid":4711}
 *
 * An answer to PUT or DELETE means that the write is on the disk. 503 while the database is closed: only a connection that
 * a drain did not wait for can meet it.
 */
import type { IncomingMessage, ServerResponse } from "node:http"
import type { Store } from "./Store.ts"

const MOST_BYTES = 1024 * 1024

/** The body; undefined when it is too large. */
const bodyOf = async (request: IncomingMessage): Promise<Buffer | undefined> => {
  const chunks: Array<Buffer> = []
  let size = 0
  for await (const chunk of request) {
    size += chunk.length
    if (size > MOST_BYTES) return undefined
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

const refuse = (response: ServerResponse, status: number, why: string): void => {
  response.writeHead(status, { "Content-Type": "text/plain" }).end(`${why}\n`)
}

const tell = (response: ServerResponse, revision: bigint): void => {
  response.setHeader("Content-Type", "application/json")
  response.end(`{"revision":${revision},"pid":${process.pid}}\n`)
}

const answer = async (store: Store, request: IncomingMessage, response: ServerResponse): Promise<void> => {
  const path = request.url ?? "/"
  const key = /^\/kv\/([^/?]+)$/.exec(path)?.[1]
  const body = await bodyOf(request)
  if (body === undefined) return refuse(response.setHeader("Connection", "close"), 413, "the value is too large")
  if (!store.isOpen) return refuse(response, 503, "the database is closed")
  if (request.method === "GET" && path === "/revision") return tell(response, store.revision())
  if (key === undefined) return refuse(response, 404, "there is /kv/KEY and /revision")
  switch (request.method) {
    case "PUT":
      return tell(response, store.put(key, body))
    case "DELETE":
      return tell(response, store.delete(key))
    case "GET": {
      const entry = store.get(key)
      if (entry === undefined) return refuse(response, 404, "no such key")
      response.setHeader("Revision", String(entry.revision)).end(entry.value)
      return
    }
    default:
      return refuse(response, 405, "a key is read, put or deleted")
  }
}

export const api =
  (store: Store) =>
  (request: IncomingMessage, response: ServerResponse): void => {
    answer(store, request, response).catch((error: unknown) => {
      console.error(error)
      if (response.headersSent) response.destroy()
      else refuse(response, 500, "the request failed, see the log")
    })
  }

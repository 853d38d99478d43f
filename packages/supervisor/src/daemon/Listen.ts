/**
 * Makes a Node server listen: on a descriptor it inherited, or on an address when it was started by hand.
 *
 * Listening and accepting are one step in Node. On an inherited socket the kernel has queued connections all along, and
 * `listen(fd)` begins to accept them; it also sets the queue's length anew, for all who share the socket, so the length
 * is given (Node's own default, 511, would shrink the supervisor's 4096).
 */
import { lstatSync, rmSync } from "node:fs"
import { createConnection, type ListenOptions, type Server } from "node:net"
import type { Address } from "@handoff/core/Address"

/** Connections the kernel may queue; it caps the number at net.core.somaxconn. */
export const BACKLOG = 4096

export type Place =
  | { readonly _tag: "Inherited"; readonly fd: number }
  | { readonly _tag: "Address"; readonly address: Address; readonly text: string }

const isSocketFile = (path: string): boolean => lstatSync(path, { throwIfNoEntry: false })?.isSocket() ?? false

/** True when a unix socket's path is there and nobody listens at it: its owner was killed. */
const isStale = (path: string): Promise<boolean> =>
  new Promise((resolve) => {
    if (!isSocketFile(path)) return resolve(false)
    const probe = createConnection({ path })
    probe.once("connect", () => {
      probe.destroy()
      resolve(false)
    })
    probe.once("error", (error: NodeJS.ErrnoException) => resolve(error.code === "ECONNREFUSED"))
  })

const start = (server: Server, listen: () => void): Promise<void> =>
  new Promise((resolve, reject) => {
    const listening = () => {
      server.off("error", failed)
      resolve()
    }
    const failed = (error: Error) => {
      server.off("listening", listening)
      reject(error)
    }
    server.once("listening", listening)
    server.once("error", failed)
    listen()
  })

const optionsOf = (address: Address): ListenOptions => {
  if (address._tag === "Unix") return { path: address.path, backlog: BACKLOG }
  // No host: Node binds "::" for both families, and 0.0.0.0 where there is no IPv6.
  return { port: address.port, backlog: BACKLOG, ...(address.host === "" ? {} : { host: address.host }) }
}

/** Rejects with Node's own error when the address cannot be bound. A stale unix socket is replaced. */
export const listen = async (server: Server, place: Place): Promise<void> => {
  if (place._tag === "Inherited") {
    await start(server, () => server.listen({ fd: place.fd }, BACKLOG))
    return
  }
  const { address } = place
  if (address._tag === "Unix" && (await isStale(address.path))) rmSync(address.path, { force: true })
  await start(server, () => server.listen(optionsOf(address)))
}

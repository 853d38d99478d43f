/**
 * What Node keeps under its sockets and servers and tells nobody: the descriptor, and the bytes that wait to be written.
 *
 * They are properties of libuv's handle at `_handle`, which is not documented and so is looked at here and nowhere else.
 * The descriptor stays Node's: it is closed with its owner, and the number may be another file's after that. So it is read
 * anew each time it is used, and never across an `await`.
 *
 * Limit: a handle is there from listen or connect until close.
 */
import type { Server, Socket } from "node:net"

const NO_DESCRIPTOR = -1

const numberAt = (owner: Server | Socket, name: string): number | undefined => {
  const handle: unknown = Reflect.get(owner, "_handle")
  const value: unknown = typeof handle === "object" && handle !== null ? Reflect.get(handle, name) : undefined
  return typeof value === "number" ? value : undefined
}

/** The descriptor of a TCP or unix socket, listening or connected; -1, with which every call fails (EBADF), if it has none. */
export const descriptorOf = (owner: Server | Socket): number => numberAt(owner, "fd") ?? NO_DESCRIPTOR

/** How many bytes libuv holds for a connection because the kernel did not take them yet; undefined without a handle. */
export const queuedBytes = (socket: Socket): number | undefined => numberAt(socket, "writeQueueSize")

/**
 * Connected stream sockets of a simulated kernel: pairs, connections to a listening path or address, and the bytes in them.
 *
 * What one end sends waits at the other, at most {@link BUFFER_BYTES}. An end whose other end is closed reads what is left
 * and then the end of the stream. A connection waits at its listener until the process accepts it, and is closed with the
 * listener; programs as data (Program.ts) only count connections, so it is a test that accepts and speaks for a process:
 *
 * @example
 * const fd = yield* simulation.call((kernel) => SimulatedStreams.accept(kernel, daemon, 3))
 * const channel = yield* simulation.channelsOf(daemon).open(fd)
 *
 * Limits: no abstract names, no half-closed connections; no ECONNRESET where bytes were left unread or a connection was
 * never accepted, only the end of the stream that follows it.
 */
import type { Address } from "../Address.ts"
import type { PeerCredentials } from "../backend/Sockets.ts"
import type { ErrnoName } from "../Errno.ts"
import type { Fd } from "../Fd.ts"
import * as FileTree from "./FileTree.ts"
import * as SimulatedKernel from "./SimulatedKernel.ts"
import type { SimulatedProcess } from "./SimulatedProcess.ts"

type Kernel = SimulatedKernel.Kernel
type Done<A> = SimulatedKernel.Done<A>
type Stream = Extract<SimulatedKernel.Description, { readonly _tag: "Stream" }>

/** net.core.wmem_default of Linux. */
export const BUFFER_BYTES = 212_992

const credentials = ({ pid, identity }: SimulatedProcess): PeerCredentials => ({
  pid,
  uid: identity.uid,
  gid: identity.gid
})

const end = (inode: number, creator: PeerCredentials, peer: number): Stream => ({
  _tag: "Stream",
  name: `socket:[${inode}]`,
  inode,
  creator,
  peer,
  received: []
})

const withDescription = (kernel: Kernel, key: number, description: SimulatedKernel.Description): Kernel => ({
  ...kernel,
  descriptions: SimulatedKernel.withEntry(kernel.descriptions, key, description)
})

/** The numbers of two new ends, and the kernel that has given them out. */
const reserve = (kernel: Kernel) => {
  const { inode, description } = kernel.next
  return { inode, key: description, kernel: { ...kernel, next: { ...kernel.next, inode: inode + 2 } } }
}

/** socketpair(2) */
export const pair = (kernel: Kernel, pid: number): Done<readonly [Fd, Fd]> | ErrnoName => {
  const owner = SimulatedKernel.alive(kernel, pid)
  if (owner === undefined) return "ESRCH"
  const creator = credentials(owner)
  const reserved = reserve(kernel)
  const { inode, key } = reserved
  const one = SimulatedKernel.install(reserved.kernel, pid, end(inode, creator, key + 1))
  if (typeof one === "string") return one
  const two = SimulatedKernel.install(one.kernel, pid, end(inode + 1, creator, key))
  return typeof two === "string" ? two : { kernel: two.kernel, value: [one.value, two.value] }
}

type Listening = readonly [key: number, listener: Extract<SimulatedKernel.Description, { readonly _tag: "Listener" }>]

const listeningAt = (kernel: Kernel, path: string, who: SimulatedProcess): Listening | ErrnoName => {
  const node = FileTree.lookUp(kernel.files, FileTree.absolute(path, who.workingDirectory), who.identity, 2)
  if (typeof node === "string") return node
  if (node._tag !== "Socket") return "ECONNREFUSED"
  for (const [key, one] of kernel.descriptions) {
    if (one._tag === "Datagram" && one.inode === node.inode) return "EPROTOTYPE"
    if (one._tag === "Listener" && one.inode === node.inode) return [key, one]
  }
  return "ECONNREFUSED"
}

const listeningOn = (kernel: Kernel, address: Address): Listening | ErrnoName => {
  const key = SimulatedKernel.listenerAt(kernel, address)
  const listener = key === undefined ? undefined : kernel.descriptions.get(key)
  return key === undefined || listener?._tag !== "Listener" ? "ECONNREFUSED" : [key, listener]
}

/** connect(2) of a socket that does not wait, to a path or an address: EAGAIN when the listener's queue is full. */
export const connect = (kernel: Kernel, pid: number, to: string | Address): Done<Fd> | ErrnoName => {
  const client = SimulatedKernel.alive(kernel, pid)
  if (client === undefined) return "ESRCH"
  const path = typeof to === "string" ? to : to._tag === "Unix" ? to.path : undefined
  const found = path === undefined ? listeningOn(kernel, to as Address) : listeningAt(kernel, path, client)
  if (typeof found === "string") return found
  const [listenerKey, listener] = found
  // Linux takes one more than the backlog says.
  if (listener.waiting.length > listener.backlog) return "EAGAIN"
  const reserved = reserve(kernel)
  const { inode, key } = reserved
  const ours = SimulatedKernel.install(reserved.kernel, pid, end(inode, listener.creator, key + 1))
  if (typeof ours === "string") return ours
  const theirs = withDescription(ours.kernel, key + 1, end(inode + 1, credentials(client), key))
  const next = { ...theirs, next: { ...theirs.next, description: key + 2 } }
  return {
    kernel: withDescription(next, listenerKey, { ...listener, waiting: [...listener.waiting, key + 1] }),
    value: ours.value
  }
}

/** accept4(2) of a listener that does not wait: EAGAIN when no connection is there. */
export const accept = (kernel: Kernel, pid: number, fd: Fd): Done<Fd> | ErrnoName => {
  const key = SimulatedKernel.keyOf(kernel, pid, fd)
  const listener = key === undefined ? undefined : kernel.descriptions.get(key)
  if (key === undefined || listener === undefined) return "EBADF"
  if (listener._tag === "File") return "ENOTSOCK"
  if (listener._tag !== "Listener") return listener._tag === "Datagram" ? "EOPNOTSUPP" : "EINVAL"
  const [first, ...waiting] = listener.waiting
  if (first === undefined) return "EAGAIN"
  const taken = SimulatedKernel.share(kernel, pid, first)
  if (typeof taken === "string") return taken
  return { kernel: withDescription(taken.kernel, key, { ...listener, waiting }), value: taken.value }
}

const streamAt = (kernel: Kernel, pid: number, fd: Fd): readonly [number, Stream] | ErrnoName => {
  const key = SimulatedKernel.keyOf(kernel, pid, fd)
  const found = key === undefined ? undefined : kernel.descriptions.get(key)
  if (key === undefined || found === undefined) return "EBADF"
  if (found._tag === "Stream") return [key, found]
  return found._tag === "File" ? "ENOTSOCK" : "ENOTCONN"
}

/** What recv(2) gives for a socket that is no stream; datagrams are not modelled here, so none is there. */
const unreceivable = (found: SimulatedKernel.Description | undefined): ErrnoName => {
  if (found?._tag === "Datagram") return "EAGAIN"
  return found?._tag === "Listener" && found.address._tag === "Unix" ? "EINVAL" : "ENOTCONN"
}

const size = (chunks: ReadonlyArray<Uint8Array>): number => chunks.reduce((sum, chunk) => sum + chunk.length, 0)

const join = (chunks: ReadonlyArray<Uint8Array>): Uint8Array => {
  if (chunks.length === 1 && chunks[0] !== undefined) return chunks[0]
  const whole = new Uint8Array(size(chunks))
  let at = 0
  for (const chunk of chunks) {
    whole.set(chunk, at)
    at += chunk.length
  }
  return whole
}

/** send(2): how many of the bytes there was room for; they are kept and must not change. EPIPE when the other end is closed, EAGAIN when it is full. */
export const send = (kernel: Kernel, pid: number, fd: Fd, bytes: Uint8Array): Done<number> | ErrnoName => {
  const found = streamAt(kernel, pid, fd)
  if (typeof found === "string") return found
  const peer = kernel.descriptions.get(found[1].peer)
  if (peer?._tag !== "Stream") return "EPIPE"
  if (bytes.length === 0) return { kernel, value: 0 }
  const room = BUFFER_BYTES - size(peer.received)
  const sent = bytes.length <= room ? bytes : bytes.slice(0, room)
  if (sent.length === 0) return "EAGAIN"
  const received = [...peer.received, sent]
  return { kernel: withDescription(kernel, found[1].peer, { ...peer, received }), value: sent.length }
}

/**
 * recv(2): what there is, at most `limit` bytes; no bytes are the end of the stream. EAGAIN when there is nothing yet.
 * A stream knows nothing of the slices in which it was sent: a limit cuts it anywhere.
 */
export const receive = (
  kernel: Kernel,
  pid: number,
  fd: Fd,
  limit = Number.POSITIVE_INFINITY
): Done<Uint8Array> | ErrnoName => {
  const found = streamAt(kernel, pid, fd)
  if (found === "ENOTCONN") return unreceivable(SimulatedKernel.describe(kernel, pid, fd))
  if (typeof found === "string") return found
  const [key, stream] = found
  if (stream.received.length === 0 && kernel.descriptions.has(stream.peer)) return "EAGAIN"
  const taken: Array<Uint8Array> = []
  const left: Array<Uint8Array> = []
  let room = limit
  for (const chunk of stream.received) {
    if (room > 0) taken.push(chunk.length <= room ? chunk : chunk.slice(0, room))
    if (chunk.length > room) left.push(room > 0 ? chunk.slice(room) : chunk)
    room = Math.max(0, room - chunk.length)
  }
  return { kernel: withDescription(kernel, key, { ...stream, received: left }), value: join(taken) }
}

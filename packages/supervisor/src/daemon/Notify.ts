/**
 * Tells whoever started this process about its state: sd_notify(3) over a datagram socket of a moment.
 *
 * Node cannot open unix datagram sockets, so this goes through the FFI. The socket does not block: when the receiver's
 * queue is full (EAGAIN) it is tried again a little later, and the event loop goes on meanwhile.
 */
import { closeSync } from "node:fs"
import { setTimeout as sleep } from "node:timers/promises"
import * as Libc from "@handoff/backend-ffi/Libc"
import { AF_UNIX, encodeUnix, UNIX_PATH_LIMIT } from "@handoff/backend-ffi/SocketAddress"
import * as SocketCalls from "@handoff/backend-ffi/SocketCalls"
import * as Result from "effect/Result"

const TRIES = 50
const PAUSE_MS = 20
/** The peer may be gone: its error is wanted, not SIGPIPE (send(2)). */
const MSG_NOSIGNAL = 0x4000

/**
 * Sends one datagram of newline separated `KEY=VALUE` lines to the path, or `@name`, that NOTIFY_SOCKET had. Rejects with
 * the failed call and its errno; ECONNREFUSED and ENOENT mean that nobody listens any more.
 *
 * @example
 * await send(process.env.NOTIFY_SOCKET, "READY=1\nSTATUS=serving")
 */
export const send = async (path: string, text: string): Promise<void> => {
  if (Buffer.byteLength(path) > UNIX_PATH_LIMIT)
    throw new Error(`NOTIFY_SOCKET is longer than ${UNIX_PATH_LIMIT} bytes`)
  const libc = Libc.open()
  if (Result.isFailure(libc)) throw libc.failure
  const calls = SocketCalls.of(libc.success)
  const type = SocketCalls.SOCK_DGRAM | SocketCalls.SOCK_CLOEXEC | SocketCalls.SOCK_NONBLOCK
  const socket = calls.socket(AF_UNIX, type)
  if (Result.isFailure(socket)) throw new Error(`socket = ${socket.failure.errno}`)
  try {
    for (let tries = 1; ; tries += 1) {
      const sent = calls.sendto(socket.success, Buffer.from(text), MSG_NOSIGNAL, encodeUnix(path))
      if (Result.isSuccess(sent)) return
      if (sent.failure.errno !== "EAGAIN" || tries === TRIES) throw new Error(`sendto ${path} = ${sent.failure.errno}`)
      await sleep(PAUSE_MS)
    }
  } finally {
    closeSync(socket.success)
  }
}

/**
 * The first of the two GOAWAY frames of a graceful HTTP/2 shutdown (RFC 9113, section 6.8): last stream 2^31-1, no error.
 *
 * It asks the client to open no more streams here, while every stream it has sent meanwhile is still answered. Node has
 * no call for it. `session.goaway(0, 2 ** 31 - 1)` sends the same bytes, but nghttp2 then ignores the streams that come
 * after: seen over a link of 60 ms, 24 of 70 requests were never answered, and with `session.close()` alone 24 failed.
 * With this frame, written where nghttp2 does not know of it, 71 of 71 were answered.
 *
 * SAFETY: it must not go through `socket.write`. The session has consumed the handle, and the end of a foreign write is
 * reported to it: Node then aborts (`Assertion failed: is_write_in_progress()`; for TLS always, for TCP once the send
 * buffer is full). So the 17 bytes go straight to the descriptor, and only while libuv has nothing queued for it: Node
 * hands nghttp2's output over in whole frames, a header block with its continuations, so that ours falls between two.
 *
 * Limits: TLS cannot be served this way (the bytes need encryption). And it must not precede the server's SETTINGS frame.
 */
import { writeSync } from "node:fs"
import type { Socket } from "node:net"
import { descriptorOf, queuedBytes } from "../internal/NodeHandle.ts"

const FRAME = Buffer.from([
  ...[0, 0, 8], // length of the payload
  ...[7, 0], // GOAWAY, no flags
  ...[0, 0, 0, 0], // stream 0: the connection
  ...[0x7f, 0xff, 0xff, 0xff], // last stream: any
  ...[0, 0, 0, 0] // NO_ERROR
])

/** `"later"`: the peer reads slowly, try again. `"never"`: not on this kind of connection, or it is broken. */
export type NoticeResult = "sent" | "later" | "never"

/** Sends the notice over the connection that carries an HTTP/2 session. */
export const sendShutdownNotice = (socket: Socket): NoticeResult => {
  const fd = descriptorOf(socket)
  const queued = queuedBytes(socket)
  if (socket.destroyed || "encrypted" in socket || fd < 0 || queued === undefined) return "never"
  if (queued > 0) return "later"
  try {
    if (writeSync(fd, FRAME) === FRAME.length) return "sent"
    // Half a frame is out: nothing that follows could be understood.
    socket.destroy()
    return "never"
  } catch (error) {
    return error instanceof Error && Reflect.get(error, "code") === "EAGAIN" ? "later" : "never"
  }
}

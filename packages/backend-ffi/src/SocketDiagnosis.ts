/**
 * Established TCP connections asked of the kernel directly (sock_diag(7)), filtered by local port.
 *
 * /proc/net/tcp prints every socket, those in TIME_WAIT too: on a machine under load it was 5.7 MB and took 41 ms, where
 * this question took 2 ms. It goes over a netlink socket that lives for one question: a dump is complete, or waiting to be
 * read, when send returns, so nothing here waits.
 *
 * Limit: a kernel without tcp_diag, or a sandbox without netlink, has no answer; the table in /proc has it then.
 */
import { closeSync } from "node:fs"
import type { Fd } from "@handoff/core/Fd"
import * as Result from "effect/Result"
import * as Libc from "./Libc.ts"
import * as ProcNet from "./ProcNet.ts"
import * as SocketAddress from "./SocketAddress.ts"
import * as Calls from "./SocketCalls.ts"

const AF_NETLINK = 16
const SOCK_RAW = 3
const NETLINK_SOCK_DIAG = 4
const SOCK_DIAG_BY_FAMILY = 20
const NLM_F_REQUEST_DUMP = 0x301
const NLMSG_DONE = 3
const IPPROTO_TCP = 6
const ESTABLISHED_ONLY = 1 << 1
const MSG_DONTWAIT = 0x40

/** `struct sockaddr_nl` of the kernel. */
const KERNEL = Buffer.from([AF_NETLINK, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])

/** `struct nlmsghdr` (16 bytes) and `struct inet_diag_req_v2` (56): local port in network order at 24. */
const request = (family: number, port: number): Buffer => {
  const bytes = Buffer.alloc(72)
  bytes.writeUInt32LE(bytes.length, 0)
  bytes.writeUInt16LE(SOCK_DIAG_BY_FAMILY, 4)
  bytes.writeUInt16LE(NLM_F_REQUEST_DUMP, 6)
  bytes.writeUInt8(family, 16)
  bytes.writeUInt8(IPPROTO_TCP, 17)
  bytes.writeUInt32LE(ESTABLISHED_ONLY, 20)
  bytes.writeUInt16BE(port, 24)
  // INET_DIAG_NOCOOKIE
  bytes.fill(0xff, 64, 72)
  return bytes
}

/** Adds the rows of one read to `rows`: true at the end of the dump, undefined for an error. */
const readRows = (bytes: Buffer, hostLength: number, rows: Array<ProcNet.TcpRow>): boolean | undefined => {
  for (let at = 0; at + 16 <= bytes.length; ) {
    const length = bytes.readUInt32LE(at)
    const type = bytes.readUInt16LE(at + 4)
    if (type === NLMSG_DONE) return true
    // struct inet_diag_msg after the header: the local address at 8, the inode at 68.
    if (type !== SOCK_DIAG_BY_FAMILY || length < 88 || at + length > bytes.length) return undefined
    const message = at + 16
    const host = [...bytes.subarray(message + 8, message + 8 + hostLength)]
    rows.push({
      host: ProcNet.hexHost(host),
      state: ProcNet.TCP_ESTABLISHED,
      inode: bytes.readUInt32LE(message + 68)
    })
    at += (length + 3) & ~3
  }
  return false
}

const ask = (libc: Libc.Libc, fd: Fd, family: number, port: number): ReadonlyArray<ProcNet.TcpRow> | undefined => {
  const rows: Array<ProcNet.TcpRow> = []
  if (Result.isFailure(Calls.of(libc).sendto(fd, request(family, port), 0, KERNEL))) return undefined
  const buffer = Buffer.allocUnsafeSlow(65_536)
  for (;;) {
    const types = ["i32", "bytes", "i64", "i32"] as const
    const { value } = libc.call("recv", "i64", types, [fd, buffer, buffer.length, MSG_DONTWAIT])
    if (value <= 0) return undefined
    const done = readRows(buffer.subarray(0, value), family === SocketAddress.AF_INET ? 4 : 16, rows)
    if (done !== false) return done === true ? rows : undefined
  }
}

/** Established connections at a local port, of IPv4 or of IPv6 sockets; undefined when the kernel does not answer. */
export const established = (table: "tcp" | "tcp6", port: number): ReadonlyArray<ProcNet.TcpRow> | undefined => {
  const libc = Libc.open()
  if (Result.isFailure(libc)) return undefined
  const type = SOCK_RAW | Calls.SOCK_CLOEXEC
  const types = ["i32", "i32", "i32"] as const
  const socket = libc.success.call("socket", "i32", types, [AF_NETLINK, type, NETLINK_SOCK_DIAG])
  if (socket.errno !== undefined) return undefined
  const family = table === "tcp" ? SocketAddress.AF_INET : SocketAddress.AF_INET6
  try {
    return ask(libc.success, socket.value, family, port)
  } finally {
    closeSync(socket.value)
  }
}

/**
 * The kernel's tables of sockets (/proc/net/tcp, tcp6, unix: proc_net_tcp(5), proc(5)) and who holds which of them.
 *
 * The tables are those of this process's network namespace. A socket's inode links a row to /proc/PID/fd, which only the
 * same user and root can read: a holder that can't be looked at is not found. A connection that still waits in a
 * listener's queue has inode 0.
 *
 * Limits: one descriptor is kept to look with when the process can have no more. Where the limit was lowered below even that,
 * what is looked for is not found.
 */
import { closeSync, openSync, readdirSync, readlinkSync, readSync } from "node:fs"
import type { Address } from "@handoff/core/Address"
import * as SocketAddress from "./SocketAddress.ts"

// Never larger for a long table: a file of /proc/sys refuses a read of more than 4 MB (ENOMEM).
const CHUNK = 65_536
const chunk = Buffer.allocUnsafeSlow(CHUNK)

const readAll = (fd: number): string => {
  let text = ""
  for (;;) {
    const read = readSync(fd, chunk, 0, CHUNK, null)
    if (read === 0) return text
    text += chunk.toString("latin1", 0, read)
  }
}

const isShortage = (error: unknown): boolean => {
  const { code } = error as NodeJS.ErrnoException
  return code === "EMFILE" || code === "ENFILE"
}

/** A descriptor for when no other is to be had: a process that can't be looked at would be taken for gone. */
let spare: number | undefined

const openSpare = (): number | undefined => {
  try {
    return openSync("/dev/null", "r")
  } catch {
    return undefined
  }
}

const looking = <A>(look: () => A, otherwise: A): A => {
  try {
    return look()
  } catch (error) {
    if (spare === undefined || !isShortage(error)) return otherwise
    closeSync(spare)
    spare = undefined
    try {
      return look()
    } catch {
      return otherwise
    }
  } finally {
    spare ??= openSpare()
  }
}

const readOpened = (path: string): string => {
  const fd = openSync(path, "r")
  try {
    return readAll(fd)
  } finally {
    closeSync(fd)
  }
}

/** A text of /proc, or "" when it is gone or closed to us. Three times as fast as readFileSync, which asks for the size. */
export const readText = (path: string): string => looking(() => readOpened(path), "")

/** Names in a directory of /proc; none when it is gone or closed to us. */
export const readNames = (path: string): ReadonlyArray<string> => looking(() => readdirSync(path), [])

/** The target of a link of /proc, or "". */
export const readLink = (path: string): string => {
  try {
    return readlinkSync(path)
  } catch {
    return ""
  }
}

export const TCP_ESTABLISHED = "01"
export const TCP_LISTEN = "0A"

export interface TcpRow {
  /** As the kernel prints it: words of the address in host order, in hex. */
  readonly host: string
  readonly state: string
  readonly inode: number
}

/** The host as /proc/net/tcp and tcp6 print it: each 32-bit word in host order, which is little-endian. */
export const hexHost = (bytes: ReadonlyArray<number>): string => {
  let text = ""
  for (let word = 0; word < bytes.length; word += 4) {
    for (let byte = word + 3; byte >= word; byte--) text += (bytes[byte] ?? 0).toString(16).padStart(2, "0")
  }
  return text.toUpperCase()
}

const hexPort = (port: number): string => port.toString(16).toUpperCase().padStart(4, "0")

/** Rows of a TCP table (`"tcp"` or `"tcp6"`) whose local port is `port`, in one of these states. */
export const tcpRows = (
  table: string,
  port: number,
  states: ReadonlyArray<string> = [TCP_ESTABLISHED, TCP_LISTEN]
): ReadonlyArray<TcpRow> => {
  const wanted = hexPort(port)
  const rows: Array<TcpRow> = []
  for (const line of table.split("\n")) {
    // Local address and port come first; looking for the port before splitting spares most lines of a busy machine.
    const colon = line.indexOf(":", line.indexOf(":") + 1)
    if (colon < 0 || !line.startsWith(wanted, colon + 1)) continue
    const fields = line.trim().split(/\s+/)
    const state = fields[3] ?? ""
    if (!states.includes(state)) continue
    rows.push({ host: (fields[1] ?? "").split(":")[0] ?? "", state, inode: Number(fields[9]) })
  }
  return rows
}

/** The table that lists the sockets of a listener at this address. */
export const tcpTable = (host: string): "tcp" | "tcp6" => (SocketAddress.ipBytes(host)?.length === 16 ? "tcp6" : "tcp")

/** True for rows that a listener at `host` may have taken in: the same host, or any for a wildcard. */
export const hostMatches = (host: string): ((row: TcpRow) => boolean) => {
  const bytes = SocketAddress.ipBytes(host) ?? []
  if (bytes.every((byte) => byte === 0)) return () => true
  const wanted = hexHost(bytes)
  return (row) => row.host === wanted
}

export interface UnixRow {
  readonly listening: boolean
  readonly connected: boolean
  readonly inode: number
  /** The name as bound; abstract names begin with `@`. */
  readonly path: string
}

/** Rows of /proc/net/unix that have a name. An accepted socket has that of its listener. */
export const unixRows = (table: string): ReadonlyArray<UnixRow> => {
  const rows: Array<UnixRow> = []
  for (const line of table.split("\n")) {
    const match = /^\S+: \S+ \S+ (\S+) (\S+) (\S+) +(\S+) (.+)$/.exec(line)
    if (match === null) continue
    const [, flags, , state, inode, path = ""] = match
    rows.push({ listening: flags === "00010000", connected: state === "03", inode: Number(inode), path })
  }
  return rows
}

/** The inode in a link such as `socket:[1234]`; undefined for anything but a socket. */
export const socketInode = (link: string): number | undefined =>
  link.startsWith("socket:[") ? Number(link.slice(8, -1)) : undefined

export interface Holder {
  readonly pid: number
  readonly command: string
}

/** A process by its pid, with its command line (or its name, when it has none). */
export const holder = (pid: number): Holder => {
  const words = readText(`/proc/${pid}/cmdline`).split("\0").join(" ").trim()
  return { pid, command: words === "" ? readText(`/proc/${pid}/comm`).trim() : words }
}

/** Some process that has one of these sockets open, other than this one if possible. */
const holderOf = (inodes: ReadonlySet<number>): Holder | undefined => {
  if (inodes.size === 0) return undefined
  let own: Holder | undefined
  for (const name of readNames("/proc")) {
    if (!/^[0-9]+$/.test(name)) continue
    for (const fd of readNames(`/proc/${name}/fd`)) {
      const inode = socketInode(readLink(`/proc/${name}/fd/${fd}`))
      if (inode === undefined || !inodes.has(inode)) continue
      const found = holder(Number(name))
      if (found.pid !== process.pid) return found
      own = found
    }
  }
  return own
}

const tcpListeners = (host: string, port: number): ReadonlySet<number> => {
  const bytes = SocketAddress.ipBytes(host) ?? []
  const any = bytes.every((byte) => byte === 0)
  const exact = hostMatches(host)
  const isWildcard = (row: TcpRow): boolean => /^0+$/.test(row.host)
  // A v6 wildcard takes IPv4's ports too unless told otherwise: both tables may hold what is in the way.
  const rows = ["tcp", "tcp6"].flatMap((table) => tcpRows(readText(`/proc/net/${table}`), port, [TCP_LISTEN]))
  return new Set(rows.filter((row) => any || exact(row) || isWildcard(row)).map((row) => row.inode))
}

const unixListeners = (names: (path: string) => boolean): ReadonlySet<number> =>
  new Set(
    unixRows(readText("/proc/net/unix"))
      .filter((row) => row.listening && names(row.path))
      .map((row) => row.inode)
  )

/**
 * Who listens where we wanted to, if /proc tells. Looks at every descriptor of every process: for errors only.
 * `boundAs` tells the names under which a unix path may have been bound.
 */
export const findHolder = (
  address: Address,
  boundAs: (path: string) => boolean = (path) => address._tag === "Unix" && path === address.path
): Holder | undefined =>
  holderOf(address._tag === "Tcp" ? tcpListeners(address.host, address.port) : unixListeners(boundAs))

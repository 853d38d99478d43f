/**
 * Socket addresses as the kernel stores them (`struct sockaddr_in`, `_in6`, `_un`: ip(7), ipv6(7), unix(7)), both ways.
 *
 * x86-64 and arm64 lay them out alike: the family in host order (little-endian), ports and addresses in network order.
 * A unix path that begins with `@` names an abstract socket: the `@` stands for the NUL byte and nothing ends the name.
 */
import { isIP } from "node:net"
import type { Address } from "@handoff/core/Address"

export const AF_UNIX = 1
export const AF_INET = 2
export const AF_INET6 = 10

/** Bytes of `sun_path` less the NUL that must end a path. */
export const UNIX_PATH_LIMIT = 107

/** The largest of the three structures: family and 108 bytes of path. */
export const MAX_SOCKADDR_BYTES = 110

const ipv4Bytes = (text: string): ReadonlyArray<number> => text.split(".").map(Number)

/** The 16 bytes of a valid IPv6 address without a zone, `::ffff:1.2.3.4` included. */
const ipv6Bytes = (text: string): ReadonlyArray<number> => {
  const groups = (half: string): ReadonlyArray<number> =>
    half === ""
      ? []
      : half.split(":").flatMap((group) => {
          if (group.includes(".")) return ipv4Bytes(group)
          const value = Number.parseInt(group, 16)
          return [value >> 8, value & 0xff]
        })
  const [head = "", tail] = text.split("::")
  const before = groups(head)
  const after = tail === undefined ? [] : groups(tail)
  return [...before, ...new Array<number>(16 - before.length - after.length).fill(0), ...after]
}

/** The bytes of a literal IP address, 4 or 16 of them; undefined when it is none. A zone (`%eth0`) is left out. */
export const ipBytes = (text: string): ReadonlyArray<number> | undefined => {
  const kind = isIP(text)
  if (kind === 0) return undefined
  return kind === 4 ? ipv4Bytes(text) : ipv6Bytes(text.split("%")[0] ?? text)
}

/** `sockaddr_in` or `sockaddr_in6` of a literal address. `scope` is an interface's index, for link-local addresses. */
export const encodeIp = (host: ReadonlyArray<number>, port: number, scope = 0): Buffer => {
  const v6 = host.length === 16
  const bytes = Buffer.alloc(v6 ? 28 : 16)
  bytes.writeUInt16LE(v6 ? AF_INET6 : AF_INET, 0)
  bytes.writeUInt16BE(port, 2)
  bytes.set(host, v6 ? 8 : 4)
  if (v6) bytes.writeUInt32LE(scope, 24)
  return bytes
}

/** `sockaddr_un` of a path or, with `@`, of an abstract name. The caller has checked the length. */
export const encodeUnix = (path: string): Buffer => {
  const abstract = path.startsWith("@")
  const name = Buffer.from(abstract ? `\0${path.slice(1)}` : `${path}\0`, "utf8")
  const bytes = Buffer.alloc(2 + name.length)
  bytes.writeUInt16LE(AF_UNIX, 0)
  bytes.set(name, 2)
  return bytes
}

const hexGroups = (bytes: Uint8Array): ReadonlyArray<string> => {
  const groups: Array<string> = []
  for (let index = 0; index < 16; index += 2) {
    groups.push((((bytes[index] ?? 0) << 8) | (bytes[index + 1] ?? 0)).toString(16))
  }
  return groups
}

/** The longest run of zero groups, at least two of them: that is what `::` replaces (RFC 5952, section 4.2). */
const zeroRun = (groups: ReadonlyArray<string>): { readonly start: number; readonly length: number } => {
  let best = { start: -1, length: 1 }
  let start = 0
  for (let index = 0; index <= groups.length; index++) {
    if (groups[index] === "0") continue
    if (index - start > best.length) best = { start, length: index - start }
    start = index + 1
  }
  return best
}

const ipv6Text = (bytes: Uint8Array): string => {
  const mapped = bytes.subarray(0, 10).every((byte) => byte === 0) && bytes[10] === 0xff && bytes[11] === 0xff
  if (mapped) return `::ffff:${bytes.subarray(12).join(".")}`
  const groups = hexGroups(bytes)
  const run = zeroRun(groups)
  if (run.start < 0) return groups.join(":")
  return `${groups.slice(0, run.start).join(":")}::${groups.slice(run.start + run.length).join(":")}`
}

/**
 * The address in the first `length` bytes; undefined for another family. An unnamed unix socket has the path `""`.
 */
export const decode = (bytes: Uint8Array, length: number): Address | undefined => {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, length)
  switch (length < 2 ? -1 : view.readUInt16LE(0)) {
    case AF_INET:
      return { _tag: "Tcp", host: view.subarray(4, 8).join("."), port: view.readUInt16BE(2) }
    case AF_INET6: {
      const scope = view.readUInt32LE(24)
      const host = ipv6Text(view.subarray(8, 24))
      return { _tag: "Tcp", host: scope === 0 ? host : `${host}%${scope}`, port: view.readUInt16BE(2) }
    }
    case AF_UNIX: {
      const name = view.subarray(2)
      if (name.length === 0) return { _tag: "Unix", path: "" }
      if (name[0] === 0) return { _tag: "Unix", path: `@${name.toString("utf8", 1)}` }
      const end = name.indexOf(0)
      return { _tag: "Unix", path: name.toString("utf8", 0, end < 0 ? name.length : end) }
    }
    default:
      return undefined
  }
}

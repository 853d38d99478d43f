/** What the kernel tells of locks, sockets and descriptors. */
import { readdirSync, readFileSync, readlinkSync } from "node:fs"

/** How many locks there are on a file, however they came about: a lock that is waited for does not count. */
export const locksOn = (inode: number): number =>
  readFileSync("/proc/locks", "utf8")
    .split("\n")
    .filter((line) => new RegExp(`^\\d+: FLOCK .*:${inode} `).test(line)).length

interface TcpSocket {
  readonly state: string
  readonly inode: string
}

const LISTENING = "0A"
const TIME_WAIT = "06"

/** Sockets of this machine with that local port. */
const socketsAt = (port: number): ReadonlyArray<TcpSocket> =>
  readFileSync("/proc/net/tcp", "utf8")
    .split("\n")
    .slice(1)
    .flatMap((line) => {
      const [, local = "", , state = "", , , , , , inode = ""] = line.trim().split(/\s+/)
      return local.endsWith(`:${port.toString(16).toUpperCase().padStart(4, "0")}`) ? [{ state, inode }] : []
    })

/** Inodes of the sockets that listen at a port. */
export const listenersAt = (port: number): ReadonlyArray<string> =>
  socketsAt(port)
    .filter(({ state }) => state === LISTENING)
    .map(({ inode }) => inode)

const descriptorsOf = (pid: number): ReadonlyArray<string> => {
  try {
    return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
      try {
        return [readlinkSync(`/proc/${pid}/fd/${fd}`)]
      } catch {
        return [] // Closed since the listing.
      }
    })
  } catch {
    return [] // The process is gone.
  }
}

/** How many of a process's descriptors are connections that came in at the port. */
export const connectionsOf = (pid: number, port: number): number => {
  const inodes = new Set(
    socketsAt(port)
      .filter(({ state }) => state !== LISTENING && state !== TIME_WAIT)
      .map(({ inode }) => `socket:[${inode}]`)
  )
  return descriptorsOf(pid).filter((target) => inodes.has(target)).length
}

/** How many descriptors a process has of each kind, without numbers of one moment, and without connections at the port. */
export const descriptorKinds = (pid: number, port: number): ReadonlyMap<string, number> => {
  const counts = new Map<string, number>()
  for (const target of descriptorsOf(pid)) {
    // libuv keeps /dev/null for when it can open nothing more, and / once it has needed it.
    const kind = target === "/" ? "/dev/null" : target.replace(/\[\d+\]/, "").replace(/-\d+\./, "-N.")
    counts.set(kind, (counts.get(kind) ?? 0) + 1)
  }
  counts.set("socket:", (counts.get("socket:") ?? 0) - connectionsOf(pid, port))
  return counts
}

/**
 * The socket at which a daemon waits for a supervisor that wants to replace it.
 *
 * Order: it is bound under a temporary name in the directory of its path, with mode 0600, and listens; later it is renamed
 * over the path. So whoever finds the path can connect, and it passes from one process to the next in one instant, without
 * a moment of ENOENT. The path is removed only while it still leads to this socket. What a process left that was killed
 * before its rename is removed by the next one that prepares, and by an incumbent that serves again ({@link reclaim}). The
 * temporary name is a new one each time: libuv unlinks the name that a server was bound to when it closes it, and must not
 * find a successor's there.
 *
 * Only this user and root are heard (SO_PEERCRED); others are closed without a word.
 *
 * One connection is served at a time. Node cannot stop accepting without closing the listener, so the connections behind
 * the first are accepted, held without a word being read or written, and given out in their order by {@link take}; beyond
 * `MOST_HELD` they are closed. A failed accept (EMFILE) costs that connection and never the socket.
 *
 * Limit: a program that calls chdir may do so, the path is made absolute at the beginning; it then has at most 107 bytes.
 */
import { chmodSync, lstatSync, readdirSync, renameSync, type Stats, unlinkSync } from "node:fs"
import { createServer, type Server, type Socket } from "node:net"
import { dirname, join, resolve } from "node:path"
import { UNIX_PATH_LIMIT } from "@handoff/backend-ffi/SocketAddress"
import { messageOf } from "../internal/ErrorText.ts"
import { descriptorOf } from "../internal/NodeHandle.ts"
import { DaemonError } from "./DaemonError.ts"
import * as Native from "./internal/Native.ts"

const BACKLOG = 64
const MOST_HELD = 16
/** Between two attempts to take the path back: milliseconds. */
const RETRY_MS = 1_000

const statOf = (path: string): Stats | undefined => lstatSync(path, { throwIfNoEntry: false })

/** rename(2) would replace a file, too. */
const checkPlace = (path: string): void => {
  if (statOf(path)?.isSocket() === false) throw new Error("something else than a socket is in its place")
}

const isFriend = (socket: Socket): boolean => {
  const uid = Native.peerOf(descriptorOf(socket))?.uid
  return uid !== undefined && (uid === 0 || uid === process.geteuid?.())
}

const listenAt = (server: Server, path: string): Promise<void> =>
  new Promise((done, failed) => {
    server.once("error", failed)
    server.listen({ path, backlog: BACKLOG }, () => {
      server.off("error", failed)
      done()
    })
  })

const randomName = (): string => `.~${Math.floor(Math.random() * 36 ** 6).toString(36)}`

const TEMPORARY = /^\.~[0-9a-z]{1,6}$/

const unlinkQuietly = (path: string): void => {
  try {
    unlinkSync(path)
  } catch {
    // Gone already.
  }
}

/** Removes sockets of such names that nobody listens on. */
const removeDead = (directory: string): void => {
  try {
    const names = readdirSync(directory).filter((name) => TEMPORARY.test(name))
    for (const path of names.map((name) => join(directory, name))) {
      if (statOf(path)?.isSocket() && Native.isDead(path)) unlinkQuietly(path)
    }
  } catch {
    // A directory that can't be read keeps what it has.
  }
}

export class HandoffSocket {
  readonly path: string
  #server: Server
  #temporary: string
  #stats: Stats
  readonly #held: Array<Socket> = []
  #taker: ((socket: Socket) => void) | undefined
  #reclaiming = false
  /** The attempts to take the path back, one behind the other: never two at once. */
  #attempts: Promise<void> = Promise.resolve()
  #retry: NodeJS.Timeout | undefined
  #warned = false

  private constructor(path: string, temporary: string, server: Server) {
    this.path = path
    this.#temporary = temporary
    this.#server = server
    this.#stats = lstatSync(temporary)
    server.on("connection", (socket: Socket) => this.#accepted(socket))
    server.on("error", (error) => process.emitWarning(`handoff socket: ${error.message}`, "HandoffWarning"))
  }

  /** Listens under a temporary name beside `path`. Rejects with a DaemonError. */
  static async prepare(givenPath: string): Promise<HandoffSocket> {
    const path = resolve(givenPath)
    const temporary = join(dirname(path), randomName())
    const failed = (detail: string) => new DaemonError({ reason: { _tag: "HandoffSocketFailed", path, detail } })
    const bytes = Math.max(Buffer.byteLength(path), Buffer.byteLength(temporary))
    if (bytes > UNIX_PATH_LIMIT) throw failed(`it takes ${bytes} bytes, a unix socket's path has ${UNIX_PATH_LIMIT}`)
    const server = createServer({ pauseOnConnect: true })
    removeDead(dirname(path))
    try {
      checkPlace(path)
      await listenAt(server, temporary)
      chmodSync(temporary, 0o600)
      return new HandoffSocket(path, temporary, server)
    } catch (error) {
      server.close()
      throw failed(messageOf(error))
    }
  }

  /** Renames it over the path, whoever was there; throws a DaemonError when something else than a socket is. */
  publish(): void {
    const { path } = this
    const failed = (detail: string) => new DaemonError({ reason: { _tag: "HandoffSocketFailed", path, detail } })
    try {
      checkPlace(path)
      renameSync(this.#temporary, path)
    } catch (error) {
      throw failed(messageOf(error))
    }
  }

  /** Whether the path leads here. */
  get ownsPath(): boolean {
    try {
      const now = statOf(this.path)
      return now !== undefined && now.ino === this.#stats.ino && now.dev === this.#stats.dev
    } catch {
      return false
    }
  }

  /** Gives the next connection, at once or when one comes. One taker at a time. */
  take(taker: (socket: Socket) => void): void {
    const socket = this.#held.shift()
    if (socket === undefined) this.#taker = taker
    else taker(socket)
  }

  /** Nobody is heard any more; the path stays as it is, it may be another's by now. */
  abandon(): void {
    this.stopReclaiming()
    this.#taker = undefined
    for (const socket of this.#held.splice(0)) socket.destroy()
    this.#server.close()
  }

  /**
   * After a successor that is gone, with the data lock held: removes what it has left before its rename, and leads the
   * path here again if it had taken it, or no supervisor would find this process any more. What is in the way (ENOSPC,
   * EMFILE) may pass: a failure is a warning, and it is tried again until the path leads here. Resolves after the first
   * attempt; never rejects. Before the lock is given back, {@link stopReclaiming} must be called.
   */
  reclaim(): Promise<void> {
    this.#reclaiming = true
    this.#attempts = this.#attempts.then(() => this.#attempt())
    return this.#attempts
  }

  /** From here on the path is not taken back, not even by an attempt under way: it may be another's. */
  stopReclaiming(): void {
    this.#reclaiming = false
    this.#warned = false
    clearTimeout(this.#retry)
  }

  /** Nobody is heard any more; resolves when nothing of it stays in the file system. */
  close(): Promise<void> {
    if (this.ownsPath) unlinkQuietly(this.path)
    unlinkQuietly(this.#temporary)
    this.abandon()
    return this.#attempts
  }

  async #attempt(): Promise<void> {
    clearTimeout(this.#retry)
    try {
      await this.#takeBack()
      this.#warned = false
    } catch (error) {
      if (!this.#reclaiming) return
      const consequence = "no supervisor finds this process; taking the path back is tried again every second"
      if (!this.#warned) process.emitWarning(`${messageOf(error)}; ${consequence}`, "HandoffWarning")
      this.#warned = true
      this.#retry = setTimeout(() => this.reclaim(), RETRY_MS).unref()
    }
  }

  async #takeBack(): Promise<void> {
    removeDead(dirname(this.path))
    if (this.ownsPath) return
    // The name of the old socket is gone for good, and a socket without a name can't be given one.
    const fresh = await HandoffSocket.prepare(this.path)
    // SAFETY: stopped meanwhile, the lock may be another's, and the path with it. Nothing is awaited up to the rename.
    if (!this.#reclaiming) return fresh.close()
    try {
      fresh.publish()
    } catch (error) {
      fresh.close()
      throw error
    }
    this.#server.close()
    this.#server = fresh.#server
    this.#temporary = fresh.#temporary
    this.#stats = fresh.#stats
    this.#server.removeAllListeners("connection")
    this.#server.on("connection", (socket: Socket) => this.#accepted(socket))
  }

  #accepted(socket: Socket): void {
    socket.on("error", () => undefined)
    if (!isFriend(socket) || this.#held.length >= MOST_HELD) {
      socket.destroy()
      return
    }
    const taker = this.#taker
    this.#taker = undefined
    if (taker === undefined) this.#held.push(socket)
    else taker(socket)
  }
}

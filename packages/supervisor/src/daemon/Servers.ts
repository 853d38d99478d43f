/**
 * The servers of a daemon: which listener each has, and whether it accepts.
 *
 * A server is **staged** first: its listener is claimed, nothing is accepted. Activated, it listens. A handoff **pauses**
 * all of them: they stop listening and their connections end, but the sockets stay open here, so that after an abort the
 * same servers listen again on the same open file descriptions, whose queues the kernel has kept.
 *
 * Node closes the descriptor of a server that stops listening. So, where a handoff may come (`keeper`), a listener is held
 * by a descriptor that Node never sees, and each time a server listens it gets a copy. The copy for listening again is
 * made before the server stops: a process that ran out of descriptors meanwhile still comes back.
 */
import { closeSync } from "node:fs"
import { type Server, Server as TcpServer } from "node:net"
import { parse } from "@handoff/core/Address"
import * as Result from "effect/Result"
import { descriptorOf } from "../internal/NodeHandle.ts"
import { type Connections, watch } from "./Connections.ts"
import { DaemonError, type DaemonErrorReason } from "./DaemonError.ts"
import { type DrainTimes, drain, quiesce } from "./HttpDrain.ts"
import type { InheritedListener } from "./Inheritance.ts"
import { BACKLOG, listen, type Place } from "./Listen.ts"

/** The calls that holding a listener takes. They throw. */
export interface Keeper {
  readonly duplicate: (fd: number) => number
  readonly bindUnix: (path: string, backlog: number) => { readonly fd: number; readonly unlink: () => void }
}

/** A listener that outlasts the server that listens on it. */
interface Kept {
  readonly fd: number
  /** The copy for the next time. */
  spare: number | undefined
  readonly unlink: () => void
}

export interface Entry {
  readonly server: Server
  readonly name: string
  readonly place: Place
  readonly connections: Connections
  readonly claim: InheritedListener | undefined
  kept: Kept | undefined
}

const failure = (reason: DaemonErrorReason) => new DaemonError({ reason })

export class Servers {
  readonly #named: boolean
  readonly #keeper: Keeper | undefined
  #listeners: ReadonlyArray<InheritedListener> = []
  readonly #taken = new Set<InheritedListener>()
  readonly #namesTaken = new Set<string>()
  readonly #staged: Array<Entry> = []
  readonly #active = new Set<Entry>()
  /** Those that stopped listening for a handoff. */
  #paused: ReadonlyArray<Entry> | undefined

  /** `named`: whether the inherited listeners have names of their own. */
  constructor(named: boolean, keeper: Keeper | undefined) {
    this.#named = named
    this.#keeper = keeper
  }

  /** The inherited listeners, which servers then get by their names. */
  inherit(listeners: ReadonlyArray<InheritedListener>): void {
    this.#listeners = listeners
  }

  /** Inherited listeners that nobody asked for yet. */
  get missing(): ReadonlyArray<InheritedListener> {
    return this.#listeners.filter((listener) => !this.#taken.has(listener))
  }

  /** Names of the servers that do not listen yet. */
  get staged(): ReadonlyArray<string> {
    return this.#staged.map(({ name }) => name)
  }

  /** Where the servers listen, or will, as text. */
  get addresses(): ReadonlyArray<string> {
    return [...this.#active, ...this.#staged].map(({ claim, place, server }) => {
      if (claim !== undefined) return claim.address
      const bound = server.address()
      if (typeof bound === "object" && bound !== null) {
        return bound.family === "IPv6" ? `[${bound.address}]:${bound.port}` : `${bound.address}:${bound.port}`
      }
      return place._tag === "Address" ? place.text : ""
    })
  }

  stage(server: Server, name: string, address: string | undefined): Entry {
    if (server.listening) throw failure({ _tag: "AlreadyListening", name })
    const entry = this.#claim(server, name, address)
    this.#staged.push(entry)
    return entry
  }

  /** Makes sure that what is staged can listen, without accepting anything. Throws a DaemonError. */
  reserve(): void {
    for (const entry of this.#staged) {
      if (entry.claim === undefined) continue
      try {
        this.#keep(entry)
      } catch (error) {
        throw listenFailed(entry, error)
      }
    }
  }

  /** Every staged server listens now; while paused, when that is over. */
  async activate(): Promise<void> {
    if (this.#paused !== undefined) return
    await Promise.all(this.#staged.splice(0).map((entry) => this.#activate(entry)))
  }

  /** Ends every server; the number of requests and connections that were cut. */
  async drain(times: DrainTimes): Promise<number> {
    const cuts = await Promise.all([...this.#active].map((entry) => drain(entry.server, entry.connections, times)))
    for (const { kept } of this.#active) {
      if (kept !== undefined) release(kept)
    }
    return cuts.reduce((sum, cut) => sum + cut, 0)
  }

  /** Lets go of every listener without waiting for anything; what lies in the file system stays, it may be another's. */
  abandon(): void {
    for (const { server, kept } of this.#active) {
      if (server.listening) TcpServer.prototype.close.call(server)
      if (kept !== undefined) release({ ...kept, unlink: () => undefined })
    }
    this.#active.clear()
  }

  /** Nothing is accepted from here on; resolves with the number of connections that are left when `until` is aborted. */
  async pause(idleMs: number, until: AbortSignal): Promise<number> {
    const running = [...this.#active].filter(({ server }) => server.listening)
    for (const entry of running) this.#keep(entry)
    this.#paused = running
    const left = await Promise.all(
      running.map(({ server, connections }) => quiesce(server, connections, idleMs, until))
    )
    return left.reduce((sum, count) => sum + count, 0)
  }

  /** Undoes {@link pause}, or what was done of it. */
  async resume(): Promise<void> {
    const paused = this.#paused ?? []
    for (const { connections } of paused) connections.endDrain()
    await Promise.all(paused.map((entry) => this.#listen(entry)))
    this.#paused = undefined
    await this.activate()
  }

  async #activate(entry: Entry): Promise<void> {
    this.#active.add(entry)
    try {
      await this.#listen(entry)
    } catch (error) {
      this.#active.delete(entry)
      if (entry.claim === undefined) this.#namesTaken.delete(entry.name)
      else this.#taken.delete(entry.claim)
      throw listenFailed(entry, error)
    }
  }

  async #listen(entry: Entry): Promise<void> {
    const { server, place } = entry
    if (this.#keeper === undefined) return listen(server, place)
    const isBoundByNode = entry.kept === undefined && place._tag === "Address" && place.address._tag === "Tcp"
    if (isBoundByNode) {
      await listen(server, place)
      entry.kept = { fd: this.#keeper.duplicate(descriptorOf(server)), spare: undefined, unlink: () => undefined }
      return
    }
    const kept = this.#keep(entry)
    const fd = kept.spare ?? kept.fd
    kept.spare = undefined
    await listen(server, { _tag: "Inherited", fd })
  }

  /** The entry's kept listener with a spare copy. */
  #keep(entry: Entry): Kept {
    const { claim, place } = entry
    const keeper = this.#keeper
    if (keeper === undefined) throw new Error("listeners are kept only for a handoff")
    if (entry.kept === undefined && claim !== undefined) {
      entry.kept = { fd: claim.fd, spare: undefined, unlink: () => undefined }
    }
    if (entry.kept === undefined && place._tag === "Address" && place.address._tag === "Unix") {
      entry.kept = { ...keeper.bindUnix(place.address.path, BACKLOG), spare: undefined }
    }
    const { kept } = entry
    if (kept === undefined) throw new Error("the server does not listen yet")
    kept.spare ??= keeper.duplicate(kept.fd)
    return kept
  }

  #claim(server: Server, name: string, address: string | undefined): Entry {
    const common = { server, name, connections: watch(server), kept: undefined }
    if (this.#listeners.length > 0) {
      const claim = this.#claimInherited(name)
      this.#taken.add(claim)
      return { ...common, place: { _tag: "Inherited", fd: claim.fd }, claim }
    }
    if (this.#namesTaken.has(name)) throw failure({ _tag: "TakenTwice", name })
    const place = placeAt(name, address)
    this.#namesTaken.add(name)
    return { ...common, place, claim: undefined }
  }

  #claimInherited(name: string): InheritedListener {
    const matching = this.#named ? this.#listeners.filter((listener) => listener.name === name) : this.#listeners
    const free = matching.find((listener) => !this.#taken.has(listener))
    if (free !== undefined) return free
    const available = this.#listeners.map((listener) => listener.name)
    throw failure(matching.length > 0 ? { _tag: "TakenTwice", name } : { _tag: "UnknownName", name, available })
  }
}

const listenFailed = ({ name, place }: Entry, error: unknown): DaemonError => {
  const where = place._tag === "Inherited" ? `descriptor ${place.fd}` : place.text
  return failure({ _tag: "ListenFailed", name, where, detail: error instanceof Error ? error.message : "unknown" })
}

const release = (kept: Kept): void => {
  kept.unlink()
  if (kept.spare !== undefined) closeSync(kept.spare)
  closeSync(kept.fd)
}

const placeAt = (name: string, text: string | undefined): Place => {
  if (text === undefined) {
    throw failure({
      _tag: "BadAddress",
      name,
      detail: `no listener was inherited, so serve() needs an address, as in serve(server, "${name}", "127.0.0.1:8080")`
    })
  }
  const address = parse(text)
  if (Result.isFailure(address)) throw failure({ _tag: "BadAddress", name, detail: address.failure.message })
  return { _tag: "Address", address: address.success, text }
}

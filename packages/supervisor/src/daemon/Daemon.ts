/**
 * A daemon's life, from taking its listeners to its last answer. `index.ts` is the door; this is the state behind it.
 *
 * - **Started**: the stop signal is heeded, the inherited listeners are checked and claimed, the variables consumed.
 * - **Serving**: `serve` gives each server its listener by name. Nobody accepts before everything is in place: in a swap
 *   the old version still serves, and a connection accepted too early could not be given back. So when several listeners
 *   were inherited, all servers begin together with the last one, or with `ready()`; then READY=1 is sent.
 * - **Draining**: on the stop signal, an abort, or `drain()`. STOPPING=1, every server drains (HttpDrain.ts), `onDrain`
 *   runs beside it; then `onDrained`, then the process exits. A second signal changes nothing.
 */
import type { Server } from "node:net"
import { parse } from "@handoff/core/Address"
import * as Result from "effect/Result"
import { type Connections, watch } from "./Connections.ts"
import { DaemonError, type DaemonErrorReason } from "./DaemonError.ts"
import { type DrainTimes, drain } from "./HttpDrain.ts"
import type { Inheritance, InheritedListener } from "./Inheritance.ts"
import { listen, type Place } from "./Listen.ts"

export interface DaemonOptions {
  /** Milliseconds for which a connection must be idle before a drain closes it. Default 1,000. */
  readonly idleGraceMs?: number
  /** Milliseconds for requests in flight, and for both hooks; what is left then is cut. Default 25,000. */
  readonly graceMs?: number
  /**
   * `"auto"` (default): ready once every inherited listener is served, or at once for the first server when none was
   * inherited. `"manual"`: no server listens before `ready()` is called.
   */
  readonly readiness?: "auto" | "manual"
  /** The signal that asks for a drain, SIGTERM by default; the supervisor's `--stop-signal` must match. */
  readonly stopSignal?: NodeJS.Signals | false
  /** Its abort asks for a drain, too. */
  readonly signal?: AbortSignal
  /** Runs when the drain begins: end WebSockets and background work here. The exit waits for it. */
  readonly onDrain?: () => unknown
  /** Runs when the last connection is closed: close the database here. The exit waits for it. */
  readonly onDrained?: (outcome: DrainOutcome) => unknown
  /** Default true: the process exits after the drain, with `process.exitCode` or 0. */
  readonly exit?: boolean
}

export interface DrainOutcome {
  /** Requests and raw connections that were cut at the end of the grace: normally 0. */
  readonly cut: number
  readonly durationMs: number
}

export interface Served {
  readonly name: string
  /** `"inherited"`: the listener belongs to whoever started this process. `"bound"`: started by hand. */
  readonly from: "inherited" | "bound"
}

interface Entry {
  readonly server: Server
  readonly name: string
  readonly place: Place
  readonly connections: Connections
  readonly claim: InheritedListener | undefined
}

const failure = (reason: DaemonErrorReason) => new DaemonError({ reason })

const warn = (what: string, error: unknown): void =>
  process.emitWarning(`${what}: ${error instanceof Error ? error.message : String(error)}`, "HandoffWarning")

/** How often it is said what is waited for before anything is accepted: the process would wait in silence. */
const SILENCE_MS = 5_000

/** What `onDrained` gets in any case, even when the connections took the whole grace. */
const LAST_WORD_MS = 2_000

export class Daemon {
  /** Names of the inherited listeners, in the order of their descriptors; empty when started by hand. */
  readonly names: ReadonlyArray<string>
  /** Resolves when everything is drained, before the process exits. Never rejects. */
  readonly drained: Promise<DrainOutcome>
  readonly #options: DaemonOptions
  readonly #inheritance: Inheritance
  readonly #draining = new AbortController()
  readonly #taken = new Set<InheritedListener>()
  readonly #namesTaken = new Set<string>()
  readonly #staged: Array<Entry> = []
  readonly #active = new Set<Entry>()
  readonly #settleDrained: (outcome: DrainOutcome) => void
  #readiness: Promise<void> | undefined
  #silence: NodeJS.Timeout | undefined

  constructor(inheritance: Inheritance, options: DaemonOptions) {
    this.#inheritance = inheritance
    this.#options = options
    this.names = inheritance.listeners.map((listener) => listener.name)
    const { promise, resolve } = Promise.withResolvers<DrainOutcome>()
    this.drained = promise
    this.#settleDrained = resolve
  }

  /** Aborted when the drain begins. */
  get draining(): AbortSignal {
    return this.#draining.signal
  }

  /**
   * Gives a server of `node:http`, `node:https`, `node:http2` or `node:net` the inherited listener of that name. Started
   * by hand, it binds `address` instead: `HOST:PORT`, `:PORT`, `[V6]:PORT` or `unix:PATH`.
   *
   * Resolves when the server accepts; with other inherited listeners not served yet, or `readiness: "manual"`, when it
   * is in place. A name shared by several listeners is taken in the order of their descriptors; listeners that were
   * passed without names go to any name, in that order.
   *
   * Rejects with a {@link DaemonError}; the name can then be served again.
   */
  async serve(server: Server, name: string, address?: string): Promise<Served> {
    if (this.draining.aborted) throw failure({ _tag: "Draining", name })
    if (server.listening) throw failure({ _tag: "AlreadyListening", name })
    const entry = this.#claim(server, name, address)
    this.#staged.push(entry)
    if (this.#readiness !== undefined) await this.#activateStaged()
    else if (this.#options.readiness !== "manual" && this.#isComplete()) await this.ready()
    else this.#watchSilence()
    return { name, from: entry.claim === undefined ? "bound" : "inherited" }
  }

  /**
   * Starts every server in place, then tells whoever started this process (READY=1). Servers given to `serve` later
   * start at once. Call it with `readiness: "manual"`, or to be ready without serving every inherited listener.
   */
  async ready(): Promise<void> {
    this.#readiness ??= this.#becomeReady()
    try {
      await this.#readiness
    } catch (error) {
      this.#readiness = undefined
      throw error
    }
  }

  /** Begins the drain, as the stop signal does; the same promise as `drained`. */
  drain(): Promise<DrainOutcome> {
    if (!this.draining.aborted) {
      this.#draining.abort()
      clearInterval(this.#silence)
      this.#runDrain().then(this.#settleDrained)
    }
    return this.drained
  }

  async #becomeReady(): Promise<void> {
    clearInterval(this.#silence)
    await this.#activateStaged()
    if (!this.draining.aborted) this.#tell("READY=1")
  }

  async #activateStaged(): Promise<void> {
    await Promise.all(this.#staged.splice(0).map((entry) => this.#activate(entry)))
  }

  async #activate(entry: Entry): Promise<void> {
    const { server, name, place } = entry
    if (this.draining.aborted) throw failure({ _tag: "Draining", name })
    this.#active.add(entry)
    try {
      await listen(server, place)
    } catch (error) {
      this.#active.delete(entry)
      this.#release(entry)
      const where = place._tag === "Inherited" ? `descriptor ${place.fd}` : place.text
      throw failure({ _tag: "ListenFailed", name, where, detail: error instanceof Error ? error.message : "unknown" })
    }
  }

  #claim(server: Server, name: string, address: string | undefined): Entry {
    if (this.#inheritance.listeners.length > 0) {
      const claim = this.#claimInherited(name)
      this.#taken.add(claim)
      const place: Place = { _tag: "Inherited", fd: claim.fd }
      return { server, name, place, connections: watch(server), claim }
    }
    if (this.#namesTaken.has(name)) throw failure({ _tag: "TakenTwice", name })
    const place = placeAt(name, address)
    this.#namesTaken.add(name)
    return { server, name, place, connections: watch(server), claim: undefined }
  }

  #claimInherited(name: string): InheritedListener {
    const { listeners, named } = this.#inheritance
    const matching = named ? listeners.filter((listener) => listener.name === name) : listeners
    const free = matching.find((listener) => !this.#taken.has(listener))
    if (free !== undefined) return free
    throw failure(
      matching.length > 0 ? { _tag: "TakenTwice", name } : { _tag: "UnknownName", name, available: this.names }
    )
  }

  #release(entry: Entry): void {
    if (entry.claim === undefined) this.#namesTaken.delete(entry.name)
    else this.#taken.delete(entry.claim)
  }

  #isComplete(): boolean {
    return this.#taken.size === this.#inheritance.listeners.length
  }

  /** The timer also keeps the process alive: before it listens, nothing else may. */
  #watchSilence(): void {
    this.#silence ??= setInterval(() => {
      const missing = this.#inheritance.listeners.filter((listener) => !this.#taken.has(listener))
      const wait = missing.length === 0 ? "ready()" : `${missing.map(({ name }) => `"${name}"`).join(", ")} or ready()`
      warn("nothing is accepted yet", `waiting for ${wait}`)
    }, SILENCE_MS)
  }

  #tell(text: string): void {
    // A supervisor that is gone must cost its daemon nothing.
    this.#inheritance.notify(text).catch((error: unknown) => warn(`${text} could not be sent`, error))
  }

  async #runDrain(): Promise<DrainOutcome> {
    const begun = performance.now()
    const { idleGraceMs = 1_000, graceMs = 25_000, onDrain, onDrained } = this.#options
    const times: DrainTimes = { idleMs: idleGraceMs, graceMs }
    this.#tell("STOPPING=1")
    const hook = this.#hook("onDrain", () => onDrain?.(), graceMs)
    const cuts = await Promise.all([...this.#active].map((entry) => drain(entry.server, entry.connections, times)))
    await hook
    const outcome = { cut: cuts.reduce((sum, cut) => sum + cut, 0), durationMs: performance.now() - begun }
    if (outcome.cut > 0) warn("drain", `${outcome.cut} requests or connections were cut after ${graceMs} ms`)
    await this.#hook("onDrained", () => onDrained?.(outcome), Math.max(LAST_WORD_MS, graceMs - outcome.durationMs))
    return outcome
  }

  /** Runs a hook of the user; neither its failure nor its silence keeps the process from ending. */
  async #hook(name: string, run: () => unknown, withinMs: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(() => {
        warn(name, `not done after ${Math.round(withinMs)} ms, not waited for`)
        resolve()
      }, withinMs)
    })
    try {
      await Promise.race([Promise.resolve().then(run), late])
    } catch (error) {
      warn(`${name} failed`, error)
    } finally {
      clearTimeout(timer)
    }
  }
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

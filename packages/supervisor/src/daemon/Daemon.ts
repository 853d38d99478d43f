/**
 * A daemon's life, from taking its listeners to its last answer. `index.ts` is the door; this is the state behind it.
 *
 * - **Started**: the stop signal is heeded, the inherited listeners are checked and claimed, the variables consumed.
 * - **Serving**: `serve` gives each server its listener by name. Nobody accepts before everything is in place: in a swap
 *   the old version still serves, and a connection accepted too early could not be given back. So when several listeners
 *   were inherited, all servers begin together with the last one, or with `ready()`; then READY=1 is sent.
 * - **Draining**: on the stop signal, an abort, or `drain()`. STOPPING=1, every server drains (HttpDrain.ts), `onDrain`
 *   runs beside it; then `onDrained`, then the process exits. A second signal changes nothing.
 *
 * A daemon that owns data also has an {@link Ownership}, which says when it may accept (a successor: when the supervisor
 * gives the word), and lets it stop only while no handoff runs.
 */
import type { Server } from "node:net"
import { messageOf } from "../internal/ErrorText.ts"
import { DaemonError, type DaemonErrorReason } from "./DaemonError.ts"
import type { Inheritance } from "./Inheritance.ts"
import type { Servers } from "./Servers.ts"

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
  /**
   * Default true: the process exits after the drain, with `process.exitCode` or 0. Even with false it ends two seconds after
   * `drained` when its state could not be opened again after a handoff: it holds the data lock until then.
   */
  readonly exit?: boolean
}

export interface DrainOutcome {
  /** Requests and raw connections that were cut at the end of the grace: normally 0. */
  readonly cut: number
  readonly durationMs: number
  /** `"handed-over"`: another process serves now. `"failed"`: after an abort the state could not be opened again. */
  readonly why: "stopped" | "handed-over" | "failed"
}

export interface Served {
  readonly name: string
  /** `"inherited"`: the listener belongs to whoever started this process. `"bound"`: started by hand. */
  readonly from: "inherited" | "bound"
}

/** How a daemon that owns data comes to serve and ends; a daemon without data has none. */
export interface Ownership {
  /** Calls `accept` as soon as this process may serve; resolves when it accepts. */
  readonly serve: (accept: () => Promise<void>) => Promise<Serving>
  /** Resolves when no handoff runs and none can begin. */
  readonly retire: () => Promise<void>
  /** After the last answer: closes the state and gives the lock back. */
  readonly end: () => Promise<void>
}

export interface Serving {
  /** Resolves when a supervisor can replace this process. */
  readonly published: Promise<void>
}

const failure = (reason: DaemonErrorReason) => new DaemonError({ reason })

const warn = (what: string, error: unknown): void =>
  process.emitWarning(`${what}: ${messageOf(error)}`, "HandoffWarning")

/** How often it is said what is waited for before anything is accepted: the process would wait in silence. */
const SILENCE_MS = 5_000

export const IDLE_GRACE_MS = 1_000
export const GRACE_MS = 25_000

/** What `onDrained` gets in any case, even when the connections took the whole grace. */
const LAST_WORD_MS = 2_000

export class Daemon {
  /** Names of the inherited listeners, in the order of their descriptors; empty when started by hand. */
  readonly names: ReadonlyArray<string>
  /** Resolves when everything is drained, before the process exits. Never rejects. */
  readonly drained: Promise<DrainOutcome>
  readonly #options: DaemonOptions
  readonly #servers: Servers
  readonly #notify: Inheritance["notify"]
  readonly #ownership: Ownership | undefined
  readonly #draining = new AbortController()
  readonly #settleDrained: (outcome: DrainOutcome) => void
  #stopping = false
  #readiness: Promise<void> | undefined
  #silence: NodeJS.Timeout | undefined

  constructor(inheritance: Inheritance, servers: Servers, options: DaemonOptions, ownership?: Ownership) {
    this.names = inheritance.names
    this.#notify = inheritance.notify
    this.#servers = servers
    this.#options = options
    this.#ownership = ownership
    const { promise, resolve } = Promise.withResolvers<DrainOutcome>()
    this.drained = promise
    this.#settleDrained = resolve
  }

  /** Aborted when the drain begins. The drain of a handoff, which may be taken back, does not count. */
  get draining(): AbortSignal {
    return this.#draining.signal
  }

  /**
   * Gives a server of `node:http`, `node:https`, `node:http2` or `node:net` the inherited listener of that name. Started
   * by hand, it binds `address` instead: `HOST:PORT`, `:PORT`, `[V6]:PORT` or `unix:PATH`.
   *
   * Resolves when the server accepts; with other inherited listeners not served yet, or `readiness: "manual"`, when it
   * is in place. A name shared by several listeners is taken in the order of their descriptors; listeners that were
   * passed without names go to any name, in that order. In a successor it accepts when the supervisor has given the word.
   *
   * Rejects with a {@link DaemonError}; the name can then be served again.
   */
  async serve(server: Server, name: string, address?: string): Promise<Served> {
    if (this.draining.aborted) throw failure({ _tag: "Draining", name })
    const { claim } = this.#servers.stage(server, name, address)
    if (this.#readiness !== undefined) {
      if (this.#ownership !== undefined) await this.#readiness
      await this.#accept()
    } else if (this.#options.readiness !== "manual" && this.#servers.missing.length === 0) await this.ready()
    else this.#watchSilence()
    return { name, from: claim === undefined ? "bound" : "inherited" }
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

  /** Begins the drain, as the stop signal does; the same promise as `drained`. While a handoff runs, after that. */
  drain(): Promise<DrainOutcome> {
    if (!this.#stopping) {
      this.#stopping = true
      this.#stop()
    }
    return this.drained
  }

  /** Another process has taken over, or this one cannot go on: nothing is left to drain. */
  async finish(why: "handed-over" | "failed"): Promise<void> {
    this.#stopping = true
    this.#draining.abort()
    clearInterval(this.#silence)
    const outcome = { cut: 0, durationMs: 0, why }
    await this.#hook("onDrained", () => this.#options.onDrained?.(outcome), LAST_WORD_MS)
    this.#settleDrained(outcome)
  }

  async #stop(): Promise<void> {
    if (this.#ownership !== undefined) await this.#ownership.retire()
    // The handoff that was waited for has ended this process: the rest is said by `finish`.
    if (this.draining.aborted) return
    this.#draining.abort()
    clearInterval(this.#silence)
    this.#settleDrained(await this.#runDrain())
  }

  async #becomeReady(): Promise<void> {
    clearInterval(this.#silence)
    if (this.#ownership === undefined) {
      await this.#accept()
      if (!this.draining.aborted) this.#tell("READY=1")
      return
    }
    const { published } = await this.#ownership.serve(() => this.#accept())
    // Whoever reads it may replace this process, for which its handoff socket must be there.
    published.then(() => {
      if (!this.draining.aborted) this.#tell("READY=1")
    })
  }

  async #accept(): Promise<void> {
    const [name] = this.#servers.staged
    if (this.draining.aborted && name !== undefined) throw failure({ _tag: "Draining", name })
    await this.#servers.activate()
  }

  /** The timer also keeps the process alive: before it listens, nothing else may. */
  #watchSilence(): void {
    this.#silence ??= setInterval(() => {
      const { missing } = this.#servers
      const wait = missing.length === 0 ? "ready()" : `${missing.map(({ name }) => `"${name}"`).join(", ")} or ready()`
      warn("nothing is accepted yet", `waiting for ${wait}`)
    }, SILENCE_MS)
  }

  #tell(text: string): void {
    // A supervisor that is gone must cost its daemon nothing.
    this.#notify(text).catch((error: unknown) => warn(`${text} could not be sent`, error))
  }

  async #runDrain(): Promise<DrainOutcome> {
    const begun = performance.now()
    const { idleGraceMs = IDLE_GRACE_MS, graceMs = GRACE_MS, onDrain, onDrained } = this.#options
    this.#tell("STOPPING=1")
    const hook = this.#hook("onDrain", () => onDrain?.(), graceMs)
    const cut = await this.#servers.drain({ idleMs: idleGraceMs, graceMs })
    await hook
    const outcome: DrainOutcome = { cut, durationMs: performance.now() - begun, why: "stopped" }
    if (outcome.cut > 0) warn("drain", `${outcome.cut} requests or connections were cut after ${graceMs} ms`)
    const left = Math.max(LAST_WORD_MS, graceMs - outcome.durationMs)
    await this.#hook("onDrained", () => onDrained?.(outcome), left)
    await this.#hook("close", () => this.#ownership?.end(), left)
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

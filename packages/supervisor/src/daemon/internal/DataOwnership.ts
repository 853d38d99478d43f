/**
 * A daemon that owns data: from the lock to the last word. It joins the hooks of the program, the servers, the lock and
 * the handoff socket to the two machines of the protocol.
 *
 * - **Cold start**: lock, `open`. Ready: the servers listen, the handoff socket is published, then READY=1.
 * - **Successor**: the steps of Successor.ts up to `open`. Ready: announced; on the word the servers listen.
 * - **Incumbent** (IncumbentDriver.ts), both from then on.
 * - **Stop**: a handoff that runs is ended first. A supervisor that takes longer than the grace is sent away; when the way
 *   back takes longer than the grace again, the process ends by force, and the lock with it.
 */
import { join, resolve } from "node:path"
import { messageOf } from "../../internal/ErrorText.ts"
import { GRACE_MS, IDLE_GRACE_MS, type Ownership, type Serving } from "../Daemon.ts"
import { DaemonError } from "../DaemonError.ts"
import { DataDirLock } from "../DataDirLock.ts"
import type { DataOptions, OpenContext, Progress, Sealed, Snapshot } from "../DataOptions.ts"
import { HandoffSocket } from "../HandoffSocket.ts"
import type { End, Incumbent } from "../Incumbent.ts"
import type { Inheritance } from "../Inheritance.ts"
import { programName } from "../ProgramName.ts"
import type { Servers } from "../Servers.ts"
import { greet, type Opened } from "../Successor.ts"
import { IncumbentDriver } from "./IncumbentDriver.ts"
import type { Observe } from "./Points.ts"
import { SuccessorDriver } from "./SuccessorDriver.ts"

export interface Surroundings {
  readonly inheritance: Inheritance
  readonly servers: Servers
  readonly observe: Observe
  /** Another process has taken over, or this one failed: `failure` says why. */
  readonly finished: (failure: string | undefined) => void
  /** This successor will not serve. `mustEnd`: it still has the lock, which only the end of the process gives back. */
  readonly refused: (error: DaemonError, mustEnd: boolean) => void
  /** This process cannot go on, and nothing of it may: ends it. */
  readonly abandon: (why: string) => never
}

const warn = (text: string): void => process.emitWarning(text, "HandoffWarning")

const reached = (signal: AbortSignal): Promise<void> =>
  new Promise((done) => {
    if (signal.aborted) done()
    else signal.addEventListener("abort", () => done(), { once: true })
  })

export class DataOwnership implements Ownership {
  readonly #options: DataOptions
  readonly #surroundings: Surroundings
  readonly #dataDir: string
  readonly #controlSocket: string
  readonly #name: string
  readonly #stopped = new AbortController()
  #lock: DataDirLock
  #successor: SuccessorDriver | undefined
  #opening: Promise<unknown> = Promise.resolve()
  #serving: Promise<unknown> = Promise.resolve()
  #opened: Opened | undefined
  #state: OpenContext["state"] = "closed"
  #retiring = false
  #socket: HandoffSocket | undefined
  #incumbent: Incumbent | undefined

  constructor(options: DataOptions, surroundings: Surroundings) {
    this.#options = options
    this.#surroundings = surroundings
    this.#dataDir = resolve(options.dataDir)
    const { controlSocket = surroundings.inheritance.controlSocket } = options
    this.#controlSocket = resolve(controlSocket ?? join(this.#dataDir, ".handoff.sock"))
    this.#name = options.name ?? programName()
    this.#lock = new DataDirLock(this.#dataDir)
  }

  get stopping(): boolean {
    return this.#stopped.signal.aborted
  }

  /** True while the stop waits for a handoff, or for `open`, to end. */
  get retiring(): boolean {
    return this.#retiring
  }

  /** Lock held, state open. Rejects with a DaemonError. */
  async open(): Promise<void> {
    const descriptor = this.#surroundings.inheritance.handoffFd
    const opening = descriptor === undefined ? this.#openCold() : this.#openAsSuccessor(descriptor)
    this.#opening = opening.catch(() => undefined)
    await opening
  }

  serve(accept: () => Promise<void>): Promise<Serving> {
    const serving = this.#opened === undefined ? this.#serveCold(accept) : this.#serveAfter(this.#opened, accept)
    this.#serving = serving.catch(() => undefined)
    return serving
  }

  async retire(): Promise<void> {
    this.#stopped.abort()
    this.#retiring = true
    const { graceMs = GRACE_MS } = this.#options
    const patience = setTimeout(() => this.#incumbent?.disconnect(), graceMs)
    const limit = setTimeout(() => this.#surroundings.abandon("the stop waited for a handoff in vain"), 2 * graceMs)
    if (this.#incumbent === undefined) this.#successor?.stop()
    await this.#opening
    await this.#serving
    await this.#incumbent?.retire()
    clearTimeout(patience)
    clearTimeout(limit)
    this.#retiring = false
    await this.#socket?.close()
  }

  async end(): Promise<void> {
    if (this.#state !== "closed") {
      this.#state = "closed"
      try {
        await this.#close()
      } catch (error) {
        process.exitCode = 1
        warn(`close failed: ${messageOf(error)}`)
      }
    }
    this.#lock.release()
  }

  async #openCold(): Promise<void> {
    const refused = this.#lock.tryAcquire()
    if (refused !== undefined) throw refused
    try {
      this.#surroundings.servers.inherit(await this.#surroundings.inheritance.take())
      await this.#options.open(this.#context("cold-start", this.#stopped.signal))
      this.#state = "open"
    } catch (cause) {
      this.#lock.release()
      if (cause instanceof DaemonError) throw cause
      const reason = { _tag: "OpenFailed", dataDir: this.#dataDir, detail: messageOf(cause), cause } as const
      throw new DaemonError({ reason })
    }
  }

  async #openAsSuccessor(descriptor: number): Promise<void> {
    const { inheritance, observe, servers } = this.#surroundings
    const options = { descriptor, dataDir: this.#dataDir, controlSocket: this.#controlSocket, name: this.#name }
    const driver = new SuccessorDriver(options, observe)
    this.#successor = driver
    this.#lock = driver.lock
    driver.ended.catch((error: DaemonError) => this.#surroundings.refused(error, driver.lock.held))
    const acquainted = await greet(driver, inheritance.take)
    const begun = await acquainted.begin()
    const equipped = await begun.takeListeners()
    servers.inherit(equipped.listeners)
    const locked = await equipped.lock()
    this.#opened = await locked.open(
      (signal) => this.#options.open(this.#context("successor", signal)),
      () => this.#close()
    )
  }

  async #serveCold(accept: () => Promise<void>): Promise<Serving> {
    this.#socket ??= await HandoffSocket.prepare(this.#controlSocket)
    await accept()
    if (this.#stopped.signal.aborted) return { published: Promise.resolve() }
    try {
      this.#socket.publish()
    } catch (error) {
      this.#socket.close()
      this.#socket = undefined
      throw error
    }
    this.#become(this.#socket)
    return { published: Promise.resolve() }
  }

  async #serveAfter(opened: Opened, accept: () => Promise<void>): Promise<Serving> {
    const { servers } = this.#surroundings
    servers.reserve()
    const { revisions = [], healthy = true } = this.#snapshot() ?? {}
    const serving = await opened.announce({ listeningOn: servers.addresses, healthy, revisions })
    this.#state = "open"
    this.#socket = serving.socket
    try {
      await accept()
    } finally {
      this.#become(serving.socket)
    }
    return serving
  }

  #become(socket: HandoffSocket): void {
    const parts = {
      drain: (withinMs: number, cancelled: AbortSignal) => this.#drain(withinMs, cancelled),
      seal: (progress: Progress) => this.#seal(progress),
      resume: () => this.#resume(),
      ended: (end: End, error: unknown) => this.#ended(end, error)
    }
    const options = { name: this.#name, socket, lock: this.#lock, parts }
    this.#incumbent = new IncumbentDriver(options, this.#surroundings.observe)
  }

  #context(why: OpenContext["why"], signal: AbortSignal): OpenContext {
    return { dataDir: this.#dataDir, why, state: this.#state, signal }
  }

  #close(): unknown {
    const { close, seal } = this.#options
    return close === undefined ? seal(() => undefined) : close()
  }

  /** A snapshot that fails is the one of a state that is not well. */
  #snapshot(): Snapshot | undefined {
    try {
      return this.#options.snapshot?.()
    } catch (error) {
      warn(`snapshot failed: ${messageOf(error)}`)
      return { revisions: [], healthy: false }
    }
  }

  async #drain(withinMs: number, cancelled: AbortSignal): Promise<number> {
    const late = new AbortController()
    const timer = setTimeout(() => late.abort(), withinMs)
    const signal = AbortSignal.any([late.signal, cancelled])
    try {
      const { drain, idleGraceMs = IDLE_GRACE_MS } = this.#options
      const paused = this.#surroundings.servers.pause(idleGraceMs, signal)
      const own = (async () => drain?.({ at: Date.now() + withinMs, signal }))()
      const [left] = await Promise.all([paused, Promise.race([own, reached(late.signal)])])
      return left
    } catch (error) {
      late.abort()
      throw error
    } finally {
      clearTimeout(timer)
    }
  }

  async #seal(progress: Progress): Promise<Sealed> {
    const known = this.#snapshot()
    this.#state = "unclear"
    const sealed = (await this.#options.seal(progress)) ?? {}
    this.#state = "closed"
    return sealed.revisions !== undefined || known === undefined ? sealed : { ...sealed, revisions: known.revisions }
  }

  async #resume(): Promise<void> {
    const { open, resume } = this.#options
    // Not the stop's signal: a stop that waits is carried out with the state open, as any other.
    const context = this.#context("resume", new AbortController().signal)
    if (resume !== undefined) await resume(context)
    else if (context.state !== "open") await open(context)
    this.#state = "open"
    await this.#surroundings.servers.resume()
  }

  #ended({ status, why }: End, error: unknown): void {
    // Nothing is closed by a stop that comes now: the path may be the successor's any moment.
    const socket = this.#socket
    this.#socket = undefined
    try {
      // The lock is not given back: after a commit it is another's, and a state that could not be reopened may be open in
      // part until this process has ended.
      socket?.abandon()
      this.#surroundings.servers.abandon()
    } catch (cause) {
      // The end must come all the same: it is what gives back the rest.
      warn(`not everything could be given back after the handoff: ${messageOf(cause)}`)
    }
    const failure = `the state in ${this.#dataDir} could not be opened again after a handoff failed: ${messageOf(error)}`
    this.#surroundings.finished(why === "resume-failed" || status !== 0 ? failure : undefined)
  }
}

/**
 * The driver of core's machine `protocol/Successor`, whose header is the theory of operation. It carries out what needs no
 * decision of the program (frames, timers, lock, handoff socket); Successor.ts makes the rest steps that a program takes.
 */
import { Socket } from "node:net"
import * as Machine from "@handoff/core/protocol/Successor"
import * as Violation from "@handoff/core/protocol/Violation"
import { messageOf } from "../../internal/ErrorText.ts"
import { DaemonError } from "../DaemonError.ts"
import { DataDirLock } from "../DataDirLock.ts"
import { HandoffSocket } from "../HandoffSocket.ts"
import { Channel } from "./Channel.ts"
import { MachineDriver, Timers } from "./MachineDriver.ts"
import type { Observe } from "./Points.ts"

export interface SuccessorOptions {
  /** The channel to the supervisor (HANDOFF_SOCK_FD). */
  readonly descriptor: number
  readonly dataDir: string
  readonly controlSocket: string
  readonly name: string
}

/** What the machine leaves to the program; `Begin` is to be waited for, since the supervisor has answered. */
type Asked = "Begin" | "TakeListeners" | "Open" | "Accept"

const now = (): number => Date.now()

const warn = (text: string): void => process.emitWarning(`handoff: ${text}`, "HandoffWarning")

export class SuccessorDriver {
  readonly lock: DataDirLock
  /** Rejects with a DaemonError when this process will not serve. */
  readonly ended: Promise<never>
  /** Resolves when the handoff socket's path leads here. */
  readonly published: Promise<void>
  /** Aborted when the open state is not wanted any more. */
  readonly cancelled = new AbortController()
  readonly #options: SuccessorOptions
  readonly #observe: Observe
  readonly #driver: MachineDriver<Machine.State, Machine.Event, Machine.Command, Violation.Violation>
  readonly #timers: Timers<Machine.Timer>
  readonly #channel: Channel
  readonly #asked = new Map<Asked, PromiseWithResolvers<void>>()
  readonly #end: (error: DaemonError) => void
  readonly #publishedNow: () => void
  #socket: HandoffSocket | undefined
  #preparing: Promise<unknown> = Promise.resolve()
  #close: () => unknown = () => undefined
  #isOpen = false
  #detail: string | undefined
  #stopped = false

  constructor(options: SuccessorOptions, observe: Observe) {
    this.#options = options
    this.#observe = observe
    this.lock = new DataDirLock(options.dataDir)
    const ended = Promise.withResolvers<never>()
    ended.promise.catch(() => undefined)
    this.ended = ended.promise
    this.#end = ended.reject
    const published = Promise.withResolvers<void>()
    this.published = published.promise
    this.#publishedNow = published.resolve
    const initial = Machine.initial({ ...Machine.defaults, pid: process.pid, buildId: Buffer.from(options.name) })
    this.#timers = new Timers((timer) => this.report({ _tag: "TimerFired", timer, at: now() }))
    this.#driver = new MachineDriver(initial, {
      step: Machine.step,
      carryOut: (command) => this.#carryOut(command),
      violated: (violation) => {
        this.#detail = Violation.explain(violation)
        warn(this.#detail)
      }
    })
    this.#channel = new Channel(new Socket({ fd: options.descriptor }), {
      received: (message) => this.report({ _tag: "Received", message, at: now() }),
      ended: (why) => {
        this.#detail ??= why
        this.report({ _tag: "Disconnected", at: now() })
      }
    })
  }

  get phase(): Machine.Phase {
    return this.#driver.state.phase
  }

  get handoffId(): string {
    return this.#driver.state.handoffId
  }

  /** Listening; present once it was announced. */
  get socket(): HandoffSocket {
    if (this.#socket === undefined) throw new Error("the handoff socket was not prepared")
    return this.#socket
  }

  /** Resolves when the machine asks for this; rejects when it ends before. */
  asked(what: Asked): Promise<void> {
    return Promise.race([this.#wish(what).promise, this.ended])
  }

  report(event: Machine.Event): void {
    const before = this.phase
    this.#driver.send(event)
    if (before === "greeting" && this.phase !== "greeting" && this.phase !== "exiting") {
      this.#observe("n-after-handshake")
      this.#wish("Begin").resolve()
    }
  }

  start(): void {
    this.#observe("n-before-handshake")
    this.report({ _tag: "Started", at: now() })
  }

  /** Why a step of the program failed, for the message at the end. */
  explain(error: unknown): void {
    this.#detail = messageOf(error)
  }

  async open(open: (signal: AbortSignal) => unknown, close: () => unknown): Promise<void> {
    this.#close = close
    try {
      await open(this.cancelled.signal)
    } catch (error) {
      if (this.phase === "opening") this.explain(error)
      this.report({ _tag: "OpenFailed", at: now() })
      return this.ended
    }
    this.#isOpen = true
    if (this.cancelled.signal.aborted) this.#reportUnwanted()
    return undefined
  }

  /** The process was asked to stop: gives everything back, unless the supervisor may count on it already. */
  stop(): void {
    if (["announced", "publishing", "serving", "exiting"].includes(this.phase)) return
    this.#stopped = true
    this.#channel.close()
    this.report({ _tag: "Disconnected", at: now() })
  }

  #wish(what: Asked): PromiseWithResolvers<void> {
    const known = this.#asked.get(what)
    if (known !== undefined) return known
    const made = Promise.withResolvers<void>()
    this.#asked.set(what, made)
    return made
  }

  #reportUnwanted(): void {
    this.report({ _tag: "Opened", listeningOn: [], healthy: false, revisions: [], at: now() })
  }

  #carryOut(command: Machine.Command): void {
    switch (command._tag) {
      case "Send":
        return this.#tell(command)
      case "CloseChannel":
        return this.#channel.close()
      case "TakeListeners":
        this.#observe("n-after-begin")
        return this.#wish("TakeListeners").resolve()
      case "AcquireLock": {
        const refused = this.lock.tryAcquire()
        if (refused !== undefined) this.explain(refused)
        return this.report({ _tag: refused === undefined ? "LockAcquired" : "LockHeld", at: now() })
      }
      case "ReleaseLock":
        return this.lock.release()
      case "Open":
        this.#detail = undefined
        return this.#wish("Open").resolve()
      case "CancelOpen":
        this.cancelled.abort()
        if (this.#isOpen) this.#reportUnwanted()
        return
      case "Close":
        this.cancelled.abort()
        this.#closeState()
        return
      case "PrepareSocket":
        this.#preparing = this.#prepareSocket()
        return
      case "RemoveSocket":
        this.#preparing = this.#preparing.then(() => this.#socket?.close())
        return
      case "Publish":
        return this.#publish()
      case "Accept":
        return this.#wish("Accept").resolve()
      case "Exit":
        return this.#exit(command.why)
      case "SetTimer":
        return this.#timers.set(command.timer, command.delayMs)
      case "ClearTimer":
        return this.#timers.clear(command.timer)
    }
  }

  #tell({ message, version }: Extract<Machine.Command, { readonly _tag: "Send" }>): void {
    const isReady = message._tag === "Ready"
    if (isReady) this.#observe("n-before-announce-ready")
    this.#channel.send(message, version, () => {
      if (isReady) this.#observe("n-after-announce-ready")
    })
  }

  async #prepareSocket(): Promise<void> {
    try {
      this.#socket = await HandoffSocket.prepare(this.#options.controlSocket)
    } catch (error) {
      this.explain(error)
      return this.report({ _tag: "SocketFailed", at: now() })
    }
    this.report({ _tag: "SocketPrepared", at: now() })
  }

  async #closeState(): Promise<void> {
    await this.#preparing
    try {
      await this.#close()
    } catch (error) {
      warn(`the state could not be closed: ${messageOf(error)}`)
    }
    this.report({ _tag: "Closed", at: now() })
  }

  #publish(): void {
    this.#observe("n-before-publish")
    try {
      this.socket.publish()
    } catch (error) {
      warn(messageOf(error))
      return this.report({ _tag: "PublishFailed", at: now() })
    }
    this.#observe("n-after-publish")
    this.report({ _tag: "Published", at: now() })
    this.#channel.unref()
    this.#publishedNow()
  }

  #exit(why: Machine.Why): void {
    this.#timers.clearAll()
    this.#channel.close()
    const reason = this.#stopped ? "stopped" : why
    const detail = this.#stopped || why === "aborted" || why === "unhealthy" ? undefined : this.#detail
    this.#end(new DaemonError({ reason: { _tag: "HandoffEnded", why: reason, detail } }))
  }
}

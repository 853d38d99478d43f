/**
 * The driver of core's machine `protocol/Incumbent`, whose header is the theory of operation. It only carries out: frames,
 * timers, the lock, and the hooks in `parts` (../Incumbent.ts).
 */
import type { Socket } from "node:net"
import * as Machine from "@handoff/core/protocol/Incumbent"
import { FINGERPRINT_BYTES, type Message } from "@handoff/core/protocol/Message"
import * as Violation from "@handoff/core/protocol/Violation"
import { messageOf } from "../../internal/ErrorText.ts"
import type { Sealed } from "../DataOptions.ts"
import type { Incumbent, IncumbentOptions } from "../Incumbent.ts"
import { Channel } from "./Channel.ts"
import { MachineDriver, Timers } from "./MachineDriver.ts"
import * as Native from "./Native.ts"
import type { Observe } from "./Points.ts"

/** Bytes of an error's text that are told to a supervisor. */
const MOST_ERROR_TEXT = 4_000

const now = (): number => Date.now()

const textOf = (error: unknown): string => messageOf(error).slice(0, MOST_ERROR_TEXT)

const warn = (text: string): void => process.emitWarning(`handoff: ${text}`, "HandoffWarning")

/** What the seal hook gave, fit to be told; throws for what the protocol cannot carry. */
const complete = ({ revisions = [], fingerprint = new Uint8Array(FINGERPRINT_BYTES) }: Sealed): Required<Sealed> => {
  const wrong = revisions.find((revision) => typeof revision !== "bigint" || BigInt.asUintN(64, revision) !== revision)
  if (wrong !== undefined) throw new Error(`the seal gave revision ${wrong}, a revision is a bigint of 64 bits`)
  if (fingerprint.length === FINGERPRINT_BYTES) return { revisions, fingerprint }
  throw new Error(`the seal gave a fingerprint of ${fingerprint.length} bytes, it has ${FINGERPRINT_BYTES}`)
}

export class IncumbentDriver implements Incumbent {
  readonly #options: IncumbentOptions
  readonly #observe: Observe
  readonly #driver: MachineDriver<Machine.State, Machine.Event, Machine.Command, Violation.Violation>
  readonly #timers: Timers<Machine.Timer>
  readonly #idle: Array<() => void> = []
  #channel: Channel | undefined
  #cancelDrain = new AbortController()
  #resumeError: unknown
  #lockFailing = false
  #listening = false
  #retired = false

  constructor(options: IncumbentOptions, observe: Observe) {
    this.#options = options
    this.#observe = observe
    const initial = Machine.initial({ ...Machine.defaults, pid: process.pid, buildId: Buffer.from(options.name) })
    this.#timers = new Timers((timer) => this.#send({ _tag: "TimerFired", timer, at: now() }))
    this.#driver = new MachineDriver(initial, {
      step: Machine.step,
      carryOut: (command) => this.#carryOut(command),
      violated: (violation) => warn(Violation.explain(violation))
    })
    this.#next()
  }

  get serving(): boolean {
    return this.#driver.state.phase === "serving"
  }

  retire(): Promise<void> {
    this.#retired = true
    return new Promise((resolve) => {
      this.#idle.push(resolve)
      this.#settle()
    })
  }

  disconnect(): void {
    const channel = this.#channel
    if (channel === undefined) return
    this.#channel = undefined
    channel.close()
    this.#send({ _tag: "Disconnected", at: now() })
  }

  #send(event: Machine.Event): void {
    this.#driver.send(event)
    if (!this.#driver.busy) this.#settle()
  }

  #settle(): void {
    const { phase } = this.#driver.state
    // Nothing has begun, or all is over: whoever is heard has no claim to be waited for.
    if (this.#retired && (phase === "greeting" || phase === "resumed")) this.disconnect()
    else if (this.#retired && (phase === "serving" || phase === "exiting")) this.#rest()
    else if (phase === "serving") this.#next()
  }

  /** No supervisor is to find this process any more, and its lock may be given back. */
  #rest(): void {
    this.#options.socket.stopReclaiming()
    for (const resolve of this.#idle.splice(0)) resolve()
  }

  /** Takes the next supervisor. */
  #next(): void {
    if (this.#listening) return
    this.#listening = true
    this.#options.socket.take((socket) => {
      this.#listening = false
      this.#open(socket)
    })
  }

  #open(socket: Socket): void {
    if (this.#retired) {
      socket.destroy()
      return
    }
    const channel: Channel = new Channel(socket, {
      received: (message) => {
        if (this.#channel === channel) this.#send({ _tag: "Received", message, at: now() })
      },
      ended: (why) => {
        if (this.#channel !== channel) return
        this.#channel = undefined
        this.#complain(why)
        this.#send({ _tag: "Disconnected", at: now() })
      }
    })
    this.#channel = channel
    this.#send({ _tag: "Connected", at: now() })
  }

  /** Says why a handoff under way lost its supervisor; clients that come and go are not worth a word. */
  #complain(why: string): void {
    const { phase } = this.#driver.state
    if (["greeting", "acquainted", "resumed"].includes(phase)) return
    warn(`the supervisor was lost while ${phase}: ${why}`)
  }

  #carryOut(command: Machine.Command): void {
    switch (command._tag) {
      case "Send":
        return this.#tell(command.message, command.version)
      case "CloseSession":
        this.#channel?.close()
        this.#channel = undefined
        return
      case "Drain":
        this.#drain(command.withinMs)
        return
      case "CancelDrain":
        return this.#cancelDrain.abort()
      case "Seal":
        this.#seal()
        return
      case "ReleaseLock":
        this.#options.socket.stopReclaiming()
        this.#options.lock.release()
        this.#observe("o-after-seal-flock-released")
        return this.#send({ _tag: "LockReleased", at: now() })
      case "AcquireLock":
        return this.#send({ _tag: this.#tryLock() ? "LockAcquired" : "LockHeld", at: now() })
      case "ProbePath": {
        const { socket } = this.#options
        const pid = socket.ownsPath ? process.pid : Native.listenerAt(socket.path)
        return this.#send({ _tag: "PathAnswered", pid, at: now() })
      }
      case "Resume":
        this.#resume()
        return
      case "Exit":
        if (command.why === "committed") this.#observe("o-after-commit-recv")
        this.#timers.clearAll()
        this.#options.socket.stopReclaiming()
        return this.#options.parts.ended(command, this.#resumeError)
      case "SetTimer":
        return this.#timers.set(command.timer, command.delayMs)
      case "ClearTimer":
        return this.#timers.clear(command.timer)
    }
  }

  /** That another has it is what a handoff leads to; that it cannot be had (ENOSPC, EMFILE) is said, once a run. */
  #tryLock(): boolean {
    const refused = this.#options.lock.tryAcquire()
    const failing = refused !== undefined && refused.reason._tag !== "DataLocked"
    if (failing && !this.#lockFailing) {
      warn(`${refused.message}; this process serves again when it has it, which is tried over and over`)
    }
    this.#lockFailing = failing
    return refused === undefined
  }

  #tell(message: Message, version: number): void {
    this.#channel?.send(message, version, () => {
      if (message._tag === "Drained") this.#observe("o-after-drained-sent")
      if (message._tag === "SealComplete") this.#observe("o-after-seal-complete-sent")
    })
  }

  async #drain(withinMs: number): Promise<void> {
    this.#cancelDrain = new AbortController()
    let openConnections: number
    try {
      const running = this.#options.parts.drain(withinMs, this.#cancelDrain.signal)
      this.#observe("o-inside-drain")
      openConnections = await running
    } catch (error) {
      warn(`the drain failed: ${textOf(error)}`)
      this.#send({ _tag: "DrainFailed", at: now() })
      return
    }
    this.#send({ _tag: "Drained", openConnections, acceptClosed: true, at: now() })
  }

  async #seal(): Promise<void> {
    let outcome: Required<Sealed>
    try {
      const running = this.#options.parts.seal((sealed, total, lastRevision = 0n) =>
        this.#send({ _tag: "Progressed", sealed, total, lastRevision, at: now() })
      )
      this.#observe("o-inside-seal")
      outcome = complete(await running)
    } catch (error) {
      this.#send({ _tag: "SealFailed", error: textOf(error), partialState: "", at: now() })
      return
    }
    // Outside the try, as in the others: what carrying this out throws is no failure of the hook, and the machine,
    // which waits for the next fact by then, could do nothing with one.
    this.#send({ _tag: "Sealed", ...outcome, at: now() })
  }

  async #resume(): Promise<void> {
    try {
      // Before anything is accepted, and with the lock held: a successor that is gone may have taken the path.
      await this.#options.socket.reclaim()
      await this.#options.parts.resume()
    } catch (error) {
      this.#resumeError = error
      this.#send({ _tag: "ResumeFailed", at: now() })
      return
    }
    this.#send({ _tag: "Resumed", at: now() })
  }
}

/**
 * The machines of a world's parties, memoised, and which rows of their tables were ever taken.
 */
import type { ProcessIdentity } from "../../backend/Processes.ts"
import * as Incumbent from "../../protocol/Incumbent.ts"
import * as Successor from "../../protocol/Successor.ts"
import type * as Document from "../../swap/Document.ts"
import * as Supervision from "../../swap/Supervision.ts"
import type { Kernel } from "../SimulatedKernel.ts"
import { Frames } from "./Frames.ts"
import { documentText } from "./KernelView.ts"
import { Machine, type Node, Numbers } from "./Machines.ts"
import { takesWrites } from "./Properties.ts"
import { Replacements } from "./Replacements.ts"
import { commandOf, facts, optionsOf, type Settings } from "./Settings.ts"
import type { World } from "./State.ts"

interface Told {
  readonly _tag: string
  readonly message?: { readonly _tag: string }
  readonly timer?: string
  readonly pid?: number | undefined
}

/** What a daemon's machine was told, as its table says it. */
const eventName = (event: Told, self: number): string => {
  switch (event._tag) {
    case "Received":
      return event.message?._tag ?? ""
    case "TimerFired":
      return `timer ${event.timer}`
    case "Disconnected":
      return "gone"
    case "Started":
    case "Connected":
      return event._tag.toLowerCase()
    case "PathAnswered":
      if (event.pid === undefined) return "path answers: nobody"
      return event.pid === self ? "itself" : "path answers: another"
    default:
      return event._tag
  }
}

/** A number that nobody bears any more is given again, or restarts would never come to an end. */
const nextGenerationOf = ({ generations, swap }: Supervision.State): number =>
  1 + Math.max(0, ...generations.map((one) => one.id), swap?.from ?? 0, swap?.to ?? 0, swap?.restored ?? 0)

export class Machines {
  readonly supervision: Machine<Supervision.State, Supervision.Event, Supervision.Action>
  readonly incumbent: Machine<Incumbent.State, Incumbent.Event, Incumbent.Command>
  readonly successor: Machine<Successor.State, Successor.Event, Successor.Command>
  /** A supervisor that does not run. */
  readonly nobody: Node<Supervision.State>
  readonly numbers = new Numbers()
  readonly frames = new Frames()
  readonly replacements = new Replacements()
  /** `machine phase event`, for every step that was ever taken. */
  readonly rows = new Set<string>()
  readonly #documents = new Map<Supervision.State, Document.Document>()
  readonly #decisions = new Map<Document.Document, Map<string, Supervision.Recovered | undefined>>()
  readonly #byText = new Map<string, Document.Document>()
  readonly #rested = new Map<Node<Supervision.State>, Node<Supervision.State>>()
  readonly #serves = new Map<string, boolean>()
  readonly #texts = new Map<Document.Document, string>()
  readonly #inFile = new Map<string, Document.Document>()
  readonly #identities = new Map<string, ProcessIdentity>()
  readonly #settings: Settings

  constructor(settings: Settings) {
    const { policies } = settings
    this.#settings = settings
    // Ended swaps and counts of restarts are told to people; nothing is decided by them but a delay.
    const canonical = (state: Supervision.State): Supervision.State => ({
      ...state,
      history: [],
      startGeneration: state.startRequest === undefined ? undefined : state.startGeneration,
      restarts: { failures: 0, total: 0, nextAt: state.restarts.nextAt },
      nextGeneration: nextGenerationOf(state)
    })
    const supervision = (state: Supervision.State, event: Supervision.Event) => {
      const step = policies.supervision(state, event)
      const { swap } = state
      if (swap?.handoff !== undefined) this.rows.add(`sealed ${swap.handoff.phase} ${sealedEvent(event, swap)}`)
      else if (step.state.swap?.handoff !== undefined) this.rows.add("sealed connecting started")
      else if (swap?.mode !== undefined) this.#leave(swap, phaseAfter(step.state, swap))
      return step
    }
    this.supervision = new Machine(supervision, canonical)
    const same = <A>(state: A): A => state
    // A new session begins from the beginning, whatever the last one left.
    const serving = (state: Incumbent.State): Incumbent.State =>
      state.phase === "serving" ? Incumbent.initial(state.options) : state
    this.incumbent = new Machine(policies.incumbent, serving, (before, event) =>
      this.rows.add(`incumbent ${before.phase} ${eventName(event, before.options.pid)}`)
    )
    this.successor = new Machine(policies.successor, same, (before, event) =>
      this.rows.add(`successor ${before.phase} ${eventName(event, before.options.pid)}`)
    )
    this.nobody = this.supervision.intern(this.fresh())
  }

  #leave({ mode, phase }: Supervision.Swap, next: string): void {
    if (phase !== next) this.rows.add(`${mode} ${phase} -> ${next}`)
  }

  /** A supervisor that has just been started. */
  fresh(): Supervision.State {
    return Supervision.initial(optionsOf(this.#settings.mode), commandOf(1))
  }

  /** One object for equal identities. */
  sameIdentity(identity: ProcessIdentity | undefined): ProcessIdentity | undefined {
    if (identity === undefined) return undefined
    const text = `${identity.pid} ${identity.startTime} ${identity.bootId}`
    const known = this.#identities.get(text) ?? identity
    this.#identities.set(text, known)
    return known
  }

  /** A supervisor's state at rest under other names: worked out once. */
  rested(
    node: Node<Supervision.State>,
    rename: (state: Supervision.State) => Supervision.State
  ): Node<Supervision.State> {
    const known = this.#rested.get(node) ?? this.supervision.intern(rename(node.state))
    this.#rested.set(node, known)
    return known
  }

  incumbentOf(pid: number): Node<Incumbent.State> {
    return this.incumbent.intern(Incumbent.initial({ ...Incumbent.defaults, pid, buildId: NO_BUILD }))
  }

  successorOf(pid: number): Node<Successor.State> {
    return this.successor.intern(Successor.initial({ ...Successor.defaults, pid, buildId: NO_BUILD }))
  }

  /** What was decided in this situation before, or is now. */
  decided(
    document: Document.Document,
    situation: string,
    decide: () => Supervision.Recovered | undefined
  ): Supervision.Recovered | undefined {
    const known = this.#decisions.get(document) ?? new Map<string, Supervision.Recovered | undefined>()
    this.#decisions.set(document, known)
    if (!known.has(situation)) known.set(situation, decide())
    return known.get(situation)
  }

  /** What a document's file has: its number stands for it. */
  textOf(document: Document.Document): string {
    const known = this.#texts.get(document) ?? `document ${this.#texts.size}`
    this.#texts.set(document, known)
    this.#inFile.set(known, document)
    return known
  }

  /** What is read from the document's file; a torn one is set aside, and as none. */
  saved(kernel: Kernel): Document.Document | undefined {
    const text = documentText(kernel, "files")
    return text === undefined ? undefined : this.#inFile.get(text)
  }

  /** Whether the daemon at rest takes writes: asked once per memory and disk. */
  isKnownToServe(world: World, settings: Settings): boolean {
    const key = `${this.numbers.of(world.processes[0]?.memory)} ${this.numbers.of(world.disk)}`
    const serves = this.#serves.get(key) ?? takesWrites(world, settings)
    this.#serves.set(key, serves)
    return serves
  }

  /** One object for equal documents; undefined: the file is removed, since nobody has to know what was. */
  documentOf(state: Supervision.State): Document.Document | undefined {
    if (state.phase === "stopped" || state.phase === "failed") return undefined
    const known = this.#documents.get(state)
    if (known !== undefined) return known
    const made = this.#settings.policies.document(state, facts)
    const text = JSON.stringify(made)
    const document = this.#byText.get(text) ?? made
    this.#byText.set(text, document)
    this.#documents.set(state, document)
    return document
  }
}

/** Where an overlap or exclusive swap is now, or how it ended. */
const phaseAfter = ({ swap, history }: Supervision.State, before: Supervision.Swap): string =>
  swap?.id === before.id ? swap.phase : `ended: ${history.at(-1)?.outcome}`

const NO_BUILD = new Uint8Array(0)

/** The same for a sealed swap's machine, which hears of its parties through the supervision. */
const sealedEvent = (event: Supervision.Event, swap: Supervision.Swap): string => {
  switch (event._tag) {
    case "Handoff":
      return handoffName(event.event, swap)
    case "TimerFired":
      return `timer ${event.timer.replace("handoff:", "")}`
    case "AbortRequested":
    case "StopRequested":
      return "abort"
    case "Exited":
      return event.generation === swap.from ? "O exited" : "N exited"
    case "Gone":
      return "N gone"
    default:
      return event._tag
  }
}

const handoffName = (event: Supervision.HandoffEvent, swap: Supervision.Swap): string => {
  switch (event._tag) {
    case "Received":
      return `${event.from === "incumbent" ? "O" : "N"} ${event.message._tag}`
    case "Lost":
      return `${event.from === "incumbent" ? "O" : "N"} lost`
    case "Connected":
      return event.member ? "connected" : "connected to a stranger"
    case "PathAnswered":
      if (event.pid === undefined) return "path answers: nobody"
      return `path answers: ${event.pid === swap.handoff?.incumbentPid ? "O" : "N"}`
    default:
      return event._tag
  }
}

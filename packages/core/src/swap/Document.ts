/**
 * What a supervisor writes down, so that the one after it finds the truth: one document for state and journal.
 *
 * It is a pure function of the supervision's state, written (atomically, durably) whenever it has changed and before the
 * commands of that change are carried out. So an intent stands in it before the act: a generation before its clone, with
 * the token its environment will have; each phase of a sealed swap before the message that begins it.
 *
 *   journal              written before            what a reader may conclude
 *   Negotiating          the successor's launch    the successor has touched nothing
 *   AwaitingReady        PrepareHandoff            the incumbent may have drained, sealed, released the lock, and the
 *                                                  successor may hold it
 *   Committed            the word to serve         the successor serves, or is about to
 *   ResumingAfterAbort   the successor's end       the incumbent is to serve again
 *
 * From PrepareHandoff to Ready one record is enough: what to do then is decided by who lives, who holds the lock and who
 * answers, and each further record would cost a sync while nobody accepts. The crate's journal also has Draining and
 * Sealing; a reader takes them as it finds them.
 */
import type { ProcessIdentity } from "../backend/Processes.ts"
import type { Phase as JournalPhase } from "../protocol/CrateJournal.ts"
import type { Mode } from "./Mode.ts"
import type * as Sealed from "./Sealed.ts"
import type { Command, Generation, State, Swap, SwapRecord } from "./Supervision.ts"

export type { JournalPhase }

export const FORMAT = 1

export interface SavedGeneration {
  readonly id: number
  readonly command: Command
  readonly phase: Generation["phase"]
  /** The value of HANDOFF_TOKEN in its environment. */
  readonly token: string
  /** Null: its launch was intended, and nothing more is known. */
  readonly process: ProcessIdentity | null
  /** Milliseconds since 1970. */
  readonly launchedAt: number
  readonly readyAt: number | null
  /** It has got its stop signal. Absent: perhaps not. */
  readonly asked?: boolean
  readonly notified: boolean
  readonly handoffSocket: Generation["handoffSocket"]
}

export interface SavedSwap {
  readonly id: number
  readonly kind: Swap["kind"]
  readonly mode: Mode | null
  readonly phase: Swap["phase"]
  /** Of a sealed swap. */
  readonly journal: JournalPhase | null
  readonly handoffId: string
  readonly from: number | null
  readonly to: number | null
  /** The generation that runs the old command again (exclusive). */
  readonly restored: number | null
  readonly command: Command
  readonly requestedAt: number
}

export interface SavedListener {
  readonly name: string
  /** As bound: `HOST:PORT` or `unix:PATH`. */
  readonly address: string
  /** The socket's inode, the same in every process that holds it. */
  readonly inode: number
  readonly backlog: { readonly requested: number; readonly effective: number }
}

export interface Document {
  readonly format: typeof FORMAT
  readonly name: string
  readonly supervisor: { readonly pid: number; readonly version: string; readonly instance: string }
  /** The path at which daemons serve their handoff socket. */
  readonly handoffSocket: string
  readonly listeners: ReadonlyArray<SavedListener>
  /** What a restart starts. */
  readonly command: Command
  readonly previous: State["previous"] | null
  readonly serving: number | null
  readonly mustNotify: boolean
  readonly nextGeneration: number
  readonly nextSwap: number
  readonly generations: ReadonlyArray<SavedGeneration>
  readonly swap: SavedSwap | null
  readonly history: ReadonlyArray<SwapRecord>
}

/** What does not change while a supervisor lives. */
export type Facts = Pick<Document, "name" | "supervisor" | "handoffSocket" | "listeners">

const journals: Readonly<Record<Sealed.Phase, JournalPhase | null>> = {
  connecting: "Negotiating",
  "greeting-incumbent": "Negotiating",
  launching: "Negotiating",
  "greeting-successor": "Negotiating",
  draining: "AwaitingReady",
  sealing: "AwaitingReady",
  opening: "AwaitingReady",
  publishing: "Committed",
  reverting: "ResumingAfterAbort",
  resuming: "ResumingAfterAbort",
  ended: null
}

/** How far a sealed swap has come, in the journal's words. */
export const journalOf = (handoff: Sealed.State | undefined): JournalPhase | null =>
  handoff === undefined ? null : journals[handoff.phase]

const saveGeneration = (generation: Generation): SavedGeneration => ({
  id: generation.id,
  command: generation.command,
  phase: generation.phase,
  token: generation.token,
  process: generation.identity ?? null,
  launchedAt: generation.launchedAt,
  readyAt: generation.readyAt ?? null,
  ...(generation.asked ? { asked: true } : {}),
  notified: generation.notified,
  handoffSocket: generation.handoffSocket
})

const saveSwap = (swap: Swap): SavedSwap => ({
  id: swap.id,
  kind: swap.kind,
  mode: swap.mode ?? null,
  phase: swap.phase,
  journal: journalOf(swap.handoff),
  handoffId: swap.handoffId,
  from: swap.from ?? null,
  to: swap.to ?? null,
  restored: swap.restored ?? null,
  command: swap.command,
  requestedAt: swap.requestedAt
})

/** The document of a state. Processes that have ended are left out: nobody has to look for them. */
export const of = (state: State, facts: Facts): Document => ({
  format: FORMAT,
  ...facts,
  command: state.command,
  previous: state.previous ?? null,
  serving: state.serving ?? null,
  mustNotify: state.mustNotify,
  nextGeneration: state.nextGeneration,
  nextSwap: state.nextSwap,
  generations: state.generations.map(saveGeneration),
  swap: state.swap === undefined ? null : saveSwap(state.swap),
  history: state.history
})

/**
 * What to do after a restart of the supervisor: from what the one before wrote down, and what is seen now, to the state
 * to go on from. Pure and total; every case is in the table of its test.
 *
 * The daemons decide most of it themselves. An incumbent that lost its supervisor resumes; sealed, it takes the lock
 * again, unless somebody else answers on the handoff socket's path. A successor that lost its supervisor leaves, unless
 * it had said Ready: then it serves. So whoever answers on the path serves, and a successor that holds the lock without
 * answering is about to do one or the other: it is waited for (`Wait`), as long as there is patience. Killing a
 * successor that does not answer is safe at any time: it accepts nothing before it answers.
 */

import type { Document, JournalPhase, SavedGeneration, SavedSwap } from "./Document.ts"
import * as Readiness from "./Readiness.ts"
import type { Command, Generation, Options, Recovered, SwapRecord } from "./Supervision.ts"

/** What is seen of one generation now. */
export interface Sighting {
  readonly alive: boolean
  /** It holds the lock of a data directory. */
  readonly holdsLock: boolean
  /** It answers on the handoff socket's path. */
  readonly answers: boolean
}

/** The situation of a swap that was cut short. */
export interface Situation {
  readonly journal: JournalPhase
  readonly incumbentAlive: boolean
  readonly successorAlive: boolean
  readonly lock: "incumbent" | "successor" | "neither"
  /** Who answers on the handoff socket's path. */
  readonly answers: "incumbent" | "successor" | "nobody"
  /** There is still time to wait for what the daemons do by themselves. */
  readonly patient: boolean
}

export type Verdict =
  /** Look again soon. */
  | { readonly _tag: "Wait" }
  /** The incumbent serves, or is on its way; a living successor is killed. */
  | { readonly _tag: "Incumbent" }
  /** The successor serves; a living incumbent is given time to leave. */
  | { readonly _tag: "Successor" }
  /** Nobody is left to serve: start this command. A living successor is killed first. */
  | { readonly _tag: "Start"; readonly command: "old" | "new" }

/** The decision for a sealed swap. */
export const settle = (situation: Situation): Verdict => {
  const { journal, incumbentAlive, successorAlive, lock, answers, patient } = situation
  if (successorAlive && answers === "successor") return { _tag: "Successor" }
  const mayServe = journal === "AwaitingReady" || journal === "Committed"
  if (successorAlive && mayServe && lock === "successor") {
    if (patient) return { _tag: "Wait" }
    // It was told to serve and holds the data: nobody else can.
    if (journal === "Committed") return { _tag: "Successor" }
  }
  if (incumbentAlive) return { _tag: "Incumbent" }
  return { _tag: "Start", command: journal === "Committed" ? "new" : "old" }
}

export type Decision = { readonly _tag: "Wait" } | { readonly _tag: "Go"; readonly recovered: Recovered }

const interruptedRecord = (
  swap: SavedSwap,
  outcome: SwapRecord["outcome"],
  serving: number | undefined,
  at: number
): SwapRecord => ({
  id: swap.id,
  outcome,
  kind: swap.kind,
  mode: swap.mode ?? undefined,
  ...(swap.mode === "sealed" ? { handoffId: swap.handoffId } : {}),
  from: swap.from ?? undefined,
  to: swap.to ?? undefined,
  command: swap.command,
  requestedAt: swap.requestedAt,
  durationMs: at - swap.requestedAt,
  evidence: outcome === "committed" && swap.mode === "sealed" ? "handoff" : undefined,
  failure: outcome === "committed" ? undefined : { _tag: "SupervisorDied" },
  cut: 0,
  killed: false,
  serving
})

interface Plan {
  /** Who serves, who is still to become ready, who ends (asked, and killed after a grace), who is killed. */
  readonly serving?: number | undefined
  readonly starting?: number | undefined
  readonly rejected?: number | undefined
  readonly command: Command
  readonly outcome?: SwapRecord["outcome"]
}

/**
 * What is to become of the generations, without a sealed swap. A new version that was not ready when its supervisor died is
 * not taken for a good one, even if nobody else is left: it may be one that never gets ready.
 */
const plain = (document: Document, isAlive: (id: number | null) => boolean): Plan => {
  const { command, serving, swap } = document
  if (swap === null || swap.phase === "waiting" || swap.phase === "deciding" || swap.mode === null) {
    const starting = document.generations.find((one) => one.phase === "launching" || one.phase === "starting")
    const plan: Plan = { command, ...(swap === null ? {} : { outcome: "rolled-back" as const }) }
    if (isAlive(serving)) return { ...plan, serving: serving ?? undefined }
    return starting !== undefined && isAlive(starting.id) ? { ...plan, starting: starting.id } : plan
  }
  const { from, to, restored } = swap
  const back: Plan = { command, outcome: "rolled-back", rejected: to ?? undefined }
  if (isAlive(from)) return swap.mode === "overlap" ? { ...back, serving: from ?? undefined } : back
  return isAlive(restored) ? { ...back, starting: restored ?? undefined } : back
}

/** `undefined`: wait. */
const sealed = (
  document: Document,
  swap: SavedSwap,
  see: (id: number | null) => Sighting,
  patient: boolean
): Plan | undefined => {
  const [incumbent, successor] = [see(swap.from), see(swap.to)]
  const verdict = settle({
    journal: swap.journal ?? "Negotiating",
    incumbentAlive: incumbent.alive,
    successorAlive: successor.alive,
    lock: successor.holdsLock ? "successor" : incumbent.holdsLock ? "incumbent" : "neither",
    answers: successor.answers ? "successor" : incumbent.answers ? "incumbent" : "nobody",
    patient
  })
  const { from, to } = swap
  switch (verdict._tag) {
    case "Wait":
      return undefined
    case "Incumbent":
      return {
        command: document.command,
        serving: from ?? undefined,
        rejected: to ?? undefined,
        outcome: "rolled-back"
      }
    case "Successor":
      return { command: swap.command, serving: to ?? undefined, outcome: "committed" }
    case "Start":
      return verdict.command === "new"
        ? { command: swap.command, rejected: to ?? undefined, outcome: "committed" }
        : { command: document.command, rejected: to ?? undefined, outcome: "rolled-back" }
  }
}

const phaseIn = (plan: Plan, id: number): Generation["phase"] => {
  if (id === plan.serving) return "serving"
  if (id === plan.starting) return "starting"
  return id === plan.rejected ? "rejected" : "draining"
}

const restoreGeneration = (
  saved: SavedGeneration,
  phase: Generation["phase"],
  accepted: boolean,
  options: Options
): Generation => {
  const policy = saved.command.readiness ?? options.readiness.policy
  const readiness = Readiness.start({ ...options.readiness, policy }, options.listeners, false)
  return {
    id: saved.id,
    command: saved.command,
    phase,
    pid: saved.process?.pid,
    token: saved.token,
    identity: saved.process ?? undefined,
    successor: false,
    handoffSocket: saved.handoffSocket,
    launchedAt: saved.launchedAt,
    readyAt: saved.readyAt ?? undefined,
    stoppingAt: undefined,
    asked: saved.asked === true,
    readiness: readiness.state,
    notified: saved.notified,
    accepted,
    connections: 0,
    exit: undefined,
    failure: phase === "rejected" ? { _tag: "SupervisorDied" } : undefined,
    killed: false
  }
}

/**
 * The decision. `document` names every generation with the process that was found for it (by its identity, or by its
 * token when the launch was not recorded); `see` tells what was found, by id.
 *
 * @param patient there is still time to wait
 */
export const decide = (
  document: Document,
  sightings: ReadonlyMap<number, Sighting>,
  options: Options,
  at: number,
  patient: boolean
): Decision => {
  const nothing: Sighting = { alive: false, holdsLock: false, answers: false }
  const see = (id: number | null): Sighting => (id === null ? nothing : (sightings.get(id) ?? nothing))
  const { swap } = document
  const plan = swap?.mode === "sealed" ? sealed(document, swap, see, patient) : plain(document, (id) => see(id).alive)
  if (plan === undefined) return { _tag: "Wait" }
  const committed = plan.outcome === "committed"
  const generations = document.generations
    .filter((one) => see(one.id).alive && one.process !== null)
    .map((one) => {
      const phase = phaseIn(plan, one.id)
      return restoreGeneration(one, phase, !(phase === "rejected" && swap?.mode === "sealed"), options)
    })
  const interrupted =
    swap === null || plan.outcome === undefined ? undefined : interruptedRecord(swap, plan.outcome, plan.serving, at)
  const saved = generations.find((one) => one.id === plan.serving)
  const alone = options.mode === "exclusive" || swap?.mode === "exclusive"
  const mustGo = ({ id, phase }: Generation) =>
    (phase === "draining" || phase === "rejected") &&
    (alone || see(id).holdsLock || (phase === "rejected" && swap?.mode === "sealed"))
  return {
    _tag: "Go",
    recovered: {
      command: plan.command,
      previous: committed
        ? { command: document.command, notified: document.mustNotify }
        : (document.previous ?? undefined),
      generations,
      serving: saved?.id,
      mustNotify: committed ? (saved?.notified ?? false) : document.mustNotify,
      nextGeneration: document.nextGeneration,
      nextSwap: document.nextSwap,
      history: [...document.history, ...(interrupted === undefined ? [] : [interrupted])].slice(-options.historyLimit),
      interrupted,
      // They may hold what must not be opened twice.
      waitFor: generations.filter(mustGo).map((one) => one.id)
    }
  }
}

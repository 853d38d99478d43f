/**
 * The working copy of a supervision while one event is taken in, and the moves that several events share.
 *
 * A draft lives for one `step`; the states it passes through are values and never change in place.
 */
import * as Readiness from "../swap/Readiness.ts"
import type { Action, Answer, Command, Failure, Generation, Notice, State } from "../swap/Supervision.ts"

/** How often a generation that is starting is looked at: its readiness depends on it. */
export const WATCH_STARTING_MS = 20

/** How often a draining generation is looked at: only to tell how many connections it still holds. */
const WATCH_DRAINING_MS = 500

export interface Draft {
  state: State
  readonly at: number
  readonly commands: Array<Action>
}

export const set = (draft: Draft, change: Partial<State>): void => {
  draft.state = { ...draft.state, ...change }
}

export const emit = (draft: Draft, command: Action): void => {
  draft.commands.push(command)
}

export const tell = (draft: Draft, notice: Notice): void => emit(draft, { _tag: "Tell", notice })

export const answer = (draft: Draft, request: number, given: Answer): void =>
  emit(draft, { _tag: "Answer", request, answer: given })

export const setTimer = (draft: Draft, timer: string, delayMs: number): void =>
  emit(draft, { _tag: "SetTimer", timer, delayMs })

export const clearTimer = (draft: Draft, timer: string): void => emit(draft, { _tag: "ClearTimer", timer })

export const find = (draft: Draft, id: number | undefined): Generation | undefined =>
  draft.state.generations.find((generation) => generation.id === id)

export const patch = (draft: Draft, id: number, change: Partial<Generation>): void =>
  set(draft, {
    generations: draft.state.generations.map((generation) =>
      generation.id === id ? { ...generation, ...change } : generation
    )
  })

/**
 * A new generation in phase launching. A command that names its own policy is not bound by what others sent; a successor
 * of a sealed swap says Ready, and is not looked at.
 */
export const launch = (draft: Draft, command: Command, mustNotify: boolean, successor = false): number => {
  const { options, nextGeneration: id } = draft.state
  const readiness = Readiness.start(
    { ...options.readiness, policy: command.readiness ?? options.readiness.policy },
    options.listeners,
    command.readiness === undefined && mustNotify
  )
  const generation: Generation = {
    id,
    command,
    phase: "launching",
    pid: undefined,
    token: `${options.instance}.${id}`,
    identity: undefined,
    successor,
    handoffSocket: successor ? "served" : "unknown",
    launchedAt: draft.at,
    readyAt: undefined,
    stoppingAt: undefined,
    asked: false,
    readiness: readiness.state,
    notified: false,
    accepted: false,
    connections: 0,
    exit: undefined,
    failure: undefined,
    killed: false
  }
  set(draft, { generations: [...draft.state.generations, generation], nextGeneration: id + 1 })
  tell(draft, { _tag: "GenerationStarting", generation: id, command })
  if (!successor) setTimer(draft, `ready:${id}`, options.readiness.timeoutMs)
  emit(draft, { _tag: "Launch", generation: id, command, successor })
  return id
}

/** Waits for an adopted generation to become ready, as for one just launched. */
export const expectReady = (draft: Draft, generation: Generation): void => {
  const { options } = draft.state
  setTimer(draft, `ready:${generation.id}`, options.readiness.timeoutMs)
  if (generation.readiness.settling) setTimer(draft, `settle:${generation.id}`, options.readiness.settleMs)
  emit(draft, { _tag: "Watch", generation: generation.id, everyMs: WATCH_STARTING_MS })
}

const clearStartTimers = (draft: Draft, generation: Generation): void => {
  if (generation.successor) return
  if (generation.phase !== "launching" && generation.phase !== "starting") return
  clearTimer(draft, `ready:${generation.id}`)
  if (generation.readiness.settling) clearTimer(draft, `settle:${generation.id}`)
}

const requestStop = (draft: Draft, generation: Generation, graceMs: number): void => {
  if (generation.pid === undefined) return
  if (generation.exit === undefined && !generation.asked) {
    emit(draft, { _tag: "Signal", generation: generation.id, signal: draft.state.options.stopSignal, to: "process" })
  }
  setTimer(draft, `grace:${generation.id}`, graceMs)
}

/** Asks a generation that has served to finish what it holds. */
export const drain = (draft: Draft, generation: Generation): void => {
  const { graceMs } = draft.state.options
  patch(draft, generation.id, { phase: "draining", stoppingAt: draft.at })
  tell(draft, { _tag: "GenerationDraining", generation: generation.id, graceMs })
  emit(draft, { _tag: "Watch", generation: generation.id, everyMs: WATCH_DRAINING_MS })
  requestStop(draft, generation, graceMs)
}

/** Gives a generation that was told to end by other means than a signal the grace to do so. */
export const retire = (draft: Draft, generation: Generation): void => {
  const { graceMs } = draft.state.options
  patch(draft, generation.id, { phase: "draining", stoppingAt: draft.at })
  tell(draft, { _tag: "GenerationDraining", generation: generation.id, graceMs })
  if (generation.pid !== undefined) setTimer(draft, `grace:${generation.id}`, graceMs)
}

/** How long a rejected generation gets: one that accepted has clients to finish with, another has not. */
export const rejectGrace = (draft: Draft, generation: Generation): number =>
  generation.accepted
    ? draft.state.options.graceMs
    : Math.min(draft.state.options.rejectGraceMs, draft.state.options.graceMs)

/** Marks a generation as one that will not serve. */
export const dismiss = (draft: Draft, generation: Generation, failure: Failure): void => {
  clearStartTimers(draft, generation)
  patch(draft, generation.id, { phase: "rejected", stoppingAt: draft.at, failure })
  tell(draft, { _tag: "GenerationRejected", generation: generation.id, failure })
}

/** Ends a generation that failed before it served. One not yet launched is stopped as soon as its pid is known. */
export const reject = (draft: Draft, generation: Generation, failure: Failure): void => {
  dismiss(draft, generation, failure)
  if (generation.exit === undefined) requestStop(draft, generation, rejectGrace(draft, generation))
}

/** SIGKILL to the whole group. */
export const kill = (draft: Draft, generation: Generation): void => {
  clearTimer(draft, `grace:${generation.id}`)
  if (generation.pid === undefined) return
  patch(draft, generation.id, { killed: true })
  tell(draft, { _tag: "GenerationKilled", generation: generation.id, connections: generation.connections })
  emit(draft, { _tag: "Signal", generation: generation.id, signal: "SIGKILL", to: "group" })
}

/** The generation serves from now on. */
export const serve = (draft: Draft, generation: Generation, evidence: Readiness.Evidence): void => {
  const { id } = generation
  clearStartTimers(draft, generation)
  emit(draft, { _tag: "Unwatch", generation: id })
  patch(draft, id, { phase: "serving", readyAt: draft.at })
  tell(draft, { _tag: "GenerationReady", generation: id, evidence, afterMs: draft.at - generation.launchedAt })
  set(draft, {
    phase: "serving",
    serving: id,
    mustNotify: generation.notified,
    restarts: { ...draft.state.restarts, nextAt: undefined }
  })
  setTimer(draft, "stable", draft.state.options.backoff.resetAfterMs)
  lookForHandoffSocket(draft, id)
}

/** Asks whether a generation serves a handoff socket, where that decides anything. */
export const lookForHandoffSocket = (draft: Draft, id: number): void => {
  const known = find(draft, id)?.handoffSocket === "served"
  if (draft.state.options.mode === "auto" && !known) emit(draft, { _tag: "LookForHandoffSocket", generation: id })
}

/** Takes a generation out of the table once nobody of its group is left. */
export const remove = (draft: Draft, generation: Generation): void => {
  clearTimer(draft, `grace:${generation.id}`)
  emit(draft, { _tag: "Unwatch", generation: generation.id })
  set(draft, {
    generations: draft.state.generations.filter((other) => other.id !== generation.id),
    waitFor: draft.state.waitFor.filter((id) => id !== generation.id)
  })
  tell(draft, { _tag: "GenerationGone", generation: generation.id })
}

/** Starts the command again after a delay that doubles with each failure in a row; not beside one that must be gone. */
export const scheduleRestart = (draft: Draft): void => {
  const { backoff } = draft.state.options
  if (draft.state.waitFor.length > 0) return set(draft, { phase: "recovering" })
  const failures = draft.state.restarts.failures + 1
  const delayMs = Math.min(backoff.maxMs, backoff.initialMs * backoff.factor ** (failures - 1))
  set(draft, {
    phase: "recovering",
    restarts: { failures, total: draft.state.restarts.total + 1, nextAt: draft.at + delayMs }
  })
  tell(draft, { _tag: "RestartScheduled", delayMs, failures })
  setTimer(draft, "restart", delayMs)
}

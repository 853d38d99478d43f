/**
 * The supervisor's side of a sealed swap: it has the incumbent O drain, seal and let go of the data, then has the
 * successor N take over, and on any failure before that puts everything back.
 *
 * Theory of operation. `step` takes one event and gives the next state and the commands that make it true, in order. It
 * reads no clock and does nothing itself. Four rules carry it:
 *
 *   1. N gets Begin only after O's SealComplete, which O sends after it has released the lock. Until then N has touched
 *      nothing, and an end of the swap costs O only its drain.
 *   2. O is asked to resume only when nobody of N's group is left (SuccessorGone): what N held, the kernel has taken back.
 *   3. A Ready that is healthy, and of a state not older than the sealed one, decides. It is written down before N hears
 *      of it (the state is `publishing`, the word is S closing N's channel); N accepts from then on, and nobody could take
 *      back what it has acknowledged. A Ready that is not is a failure like any other: N has accepted nothing yet.
 *      It need not have heard us: an S that slept finds its timers run out and an N that serves already, by itself. So one
 *      that is late is ended only after a look at the path.
 *   4. O keeps its sealed state until N answers on the handoff socket's path. If N dies before that, O still resumes,
 *      from disk. Commit goes to O last.
 *
 * An O that has not come back to serving in `resumeMs` (a seal or a resume that never ends, a stopped process) is killed:
 * it accepts nothing, and only its end lets its command be started again.
 *
 * From `opening` on O may go: its state is durable and its lock released. A party's death shows twice, as a lost stream
 * and as an exit; the exit tells more, and replaces the other as the failure while N is being ended.
 *
 * A message that has no row is a violation of its sender, with the recovery of `lost`; so is one of another handoff, a
 * Hello of the wrong role, pid or version, and what is no frame. Heartbeats are accepted anywhere, and any frame of the
 * party that is waited for starts the liveness timer anew. What comes after the end, or from a stream that was closed,
 * changes nothing.
 *
 * Transitions (O: incumbent, N: successor):
 *
 *   phase                    event                                                                              next                commands
 *   connecting               started                                                                                                connect
 *                            connected                                                                          greeting-incumbent
 *                            connected to a stranger                                                            ended               close O, roll back
 *                            ConnectFailed, O exited, N exited, abort, timer hello-incumbent, timer deadline    ended               roll back
 *   greeting-incumbent       O Hello                                                                            launching           send O HelloAck, launch
 *                            O lost                                                                             ended               roll back
 *                            O exited, N exited, abort, timer hello-incumbent, timer deadline                   ended               close O, roll back
 *   launching                Launched                                                                           greeting-successor
 *                            LaunchFailed                                                                       ended               close O, roll back
 *                            O lost, N exited, abort, timer deadline                                            reverting           kill
 *                            O exited                                                                           reverting           close O, kill
 *   greeting-successor       N Hello                                                                            draining            send N HelloAck, send O PrepareHandoff
 *                            O lost, abort, timer hello-successor, timer deadline                               reverting           close N, kill
 *                            O exited                                                                           reverting           close O, close N, kill
 *                            N lost, N exited                                                                   reverting           kill
 *   draining                 O Drained                                                                          sealing             send O SealRequest
 *                            O lost, abort, timer drain, timer liveness, timer deadline                         reverting           send N Abort, close N, kill
 *                            O exited                                                                           reverting           close O, send N Abort, close N, kill
 *                            N lost, N exited                                                                   reverting           kill
 *   sealing                  O SealProgress
 *                            O SealComplete                                                                     opening             send N Begin
 *                            O SealFailed, O lost, abort, timer liveness, timer deadline                        reverting           send N Abort, close N, kill
 *                            O exited                                                                           reverting           close O, send N Abort, close N, kill
 *                            N lost, N exited                                                                   reverting           kill
 *   opening                  N Ready                                                                            publishing          close N, probe path
 *                            N Ready, unhealthy, N Ready, behind, abort                                         reverting           send N Abort, close N, kill
 *                            O lost
 *                            O exited                                                                                               close O
 *                            N lost, N exited                                                                   reverting           kill
 *                            timer liveness, timer deadline                                                                         probe path
 *   opening, N late          N Ready, path answers: N                                                           publishing          close N, probe path
 *                            N Ready, unhealthy, N Ready, behind, path answers: nobody, path answers: O, abort  reverting           send N Abort, close N, kill
 *                            O lost
 *                            O exited                                                                                               close O
 *                            N lost, N exited                                                                   reverting           kill
 *   publishing               O lost
 *                            O exited                                                                                               close O
 *                            N exited                                                                           reverting           kill
 *                            path answers: nobody, path answers: O                                                                  wait probe
 *                            path answers: N, timer publish                                                     ended               send O Commit, close O, commit
 *                            timer probe                                                                                            probe path
 *   reverting                LaunchFailed, N gone                                                               resuming            send O ResumeAfterAbort, close O, probe path for Hello
 *                            O lost
 *                            O exited                                                                                               close O
 *   reverting, not prepared  LaunchFailed, N gone                                                               ended               close O, roll back
 *                            O lost
 *                            O exited                                                                                               close O
 *   reverting, O gone        LaunchFailed, N gone                                                               ended               roll back
 *   resuming                 O exited, path answers: O                                                          ended               roll back
 *                            path answers: nobody, path answers: N                                                                  wait probe
 *                            timer resume                                                                                           kill incumbent
 *                            timer probe                                                                                            probe path for Hello
 *
 * Timers: hello-incumbent, hello-successor, drain (the grace and its slack), liveness, deadline (from the start to Ready),
 * publish, resume, probe (between two looks at the path).
 */
import { handoffIdOf, type Message, type Tag } from "../protocol/Message.ts"
import * as Negotiation from "../protocol/Negotiation.ts"
import type { Command, Event, Failure, Options, Party, State, Step, Timer } from "./SealedState.ts"
import { timers, wanted } from "./SealedState.ts"

export type { Command, Event, Failure, Options, Party, Phase, State, Step, Timer } from "./SealedState.ts"
export { defaults, phases } from "./SealedState.ts"

/** A swap about to begin. Its first event is `Started`. */
export const initial = (options: Options, handoffId: string, at: number): State => ({
  phase: "connecting",
  options,
  handoffId,
  startedAt: at,
  incumbentPid: undefined,
  successorPid: undefined,
  session: false,
  channel: false,
  incumbentAlive: true,
  prepared: false,
  versions: { incumbent: options.versions.max, successor: options.versions.max },
  progress: undefined,
  revisions: undefined,
  late: undefined,
  failure: undefined,
  failedIn: undefined
})

const go = (state: State, change: Partial<State>, ...commands: ReadonlyArray<Command>): Step => ({
  state: { ...state, ...change },
  commands
})

const stay = (state: State): Step => go(state, {})

const send = (state: State, to: Party, message: Message): Command => ({
  _tag: "Send",
  to,
  message,
  version: state.versions[to]
})

/** Whose message is waited for, and which. */
const awaited = (state: State): { readonly party: Party; readonly message: Tag } | undefined => {
  switch (state.phase) {
    case "connecting":
    case "greeting-incumbent":
      return { party: "incumbent", message: "Hello" }
    case "launching":
    case "greeting-successor":
      return { party: "successor", message: "Hello" }
    case "draining":
      return { party: "incumbent", message: "Drained" }
    case "sealing":
      return { party: "incumbent", message: "SealComplete" }
    case "opening":
      return { party: "successor", message: "Ready" }
    default:
      return undefined
  }
}

const close = (state: State, to: Party): ReadonlyArray<Command> =>
  (to === "incumbent" ? state.session : state.channel) ? [{ _tag: "Close", to }] : []

/** Nothing of N is left and O serves, or is on its way to, or is gone. */
const rolledBack = (state: State): Step =>
  go(
    state,
    { phase: "ended", session: false },
    ...close(state, "incumbent"),
    ...(state.failure === undefined ? [] : [{ _tag: "RollBack" as const, failure: state.failure }])
  )

/** Nobody of N is left: O serves again. */
const resume = (state: State): Step => {
  if (!state.incumbentAlive || !state.prepared) return rolledBack(state)
  const { handoffId } = state
  const word = state.session ? [send(state, "incumbent", { _tag: "ResumeAfterAbort", handoffId })] : []
  return go(state, { phase: "resuming", session: false }, ...word, ...close(state, "incumbent"), {
    _tag: "Probe",
    hello: true
  })
}

/** The way back from wherever the swap has come. */
const revert = (state: State, failure: Failure): Step => {
  const { phase, handoffId } = state
  if (phase === "reverting" || phase === "resuming" || phase === "ended") return stay(state)
  const failed: State = { ...state, late: undefined, failure, failedIn: phase }
  if (phase === "connecting" || phase === "greeting-incumbent" || failure._tag === "LaunchFailed") {
    return rolledBack(failed)
  }
  const acquainted = state.channel && phase !== "launching" && phase !== "greeting-successor"
  const word = acquainted ? [send(state, "successor", { _tag: "Abort", handoffId, reason: failure._tag })] : []
  return go(failed, { phase: "reverting", channel: false }, ...word, ...close(state, "successor"), { _tag: "Kill" })
}

/** A stream is gone, or has to go. */
const lost = (state: State, from: Party, failure: Failure): Step => {
  const without: State = from === "incumbent" ? { ...state, session: false } : { ...state, channel: false }
  if (state.phase === "publishing") return stay(without)
  // Sealed and released: N can do without it.
  return from === "incumbent" && state.phase === "opening" ? stay(without) : revert(without, failure)
}

const violation = (state: State, from: Party, failure: Failure): Step => {
  const step = lost(state, from, failure)
  return { state: step.state, commands: [...close(state, from), ...step.commands.filter((one) => !isClose(one, from))] }
}

const isClose = (command: Command, to: Party): boolean => command._tag === "Close" && command.to === to

const unexpected = (state: State, from: Party, message: Message): Step =>
  violation(state, from, {
    _tag: "Violation",
    party: from,
    detail: `${message._tag} is not allowed while ${state.phase}`
  })

type HelloMessage = Extract<Message, { readonly _tag: "Hello" }>

/** The version to speak with whoever says Hello, or what is wrong with it. */
const greet = (state: State, from: Party, hello: HelloMessage): number | Failure => {
  const expected = from === "incumbent" ? state.incumbentPid : state.successorPid
  if (hello.role !== (from === "incumbent" ? "Incumbent" : "Successor")) {
    return { _tag: "Violation", party: from, detail: `it says that it is the ${hello.role.toLowerCase()}` }
  }
  if (hello.pid !== expected) return { _tag: "WrongPeer", party: from, expected, pid: hello.pid }
  const chosen = Negotiation.choose(state.options.versions, { min: hello.protoMin, max: hello.protoMax })
  return chosen._tag === "Success"
    ? chosen.success
    : { _tag: "Violation", party: from, detail: Negotiation.explain(chosen.failure) }
}

const receivedFromIncumbent = (state: State, message: Message): Step => {
  const { phase, handoffId } = state
  if (phase === "greeting-incumbent" && message._tag === "Hello") {
    const version = greet(state, "incumbent", message)
    if (typeof version !== "number") return violation(state, "incumbent", version)
    const known: State = { ...state, versions: { ...state.versions, incumbent: version } }
    const ack = send(known, "incumbent", { _tag: "HelloAck", protoVersionChosen: version, handoffId })
    return go(known, { phase: "launching" }, ack, { _tag: "Launch" })
  }
  if (phase === "draining" && message._tag === "Drained") {
    return go(state, { phase: "sealing" }, send(state, "incumbent", { _tag: "SealRequest", handoffId }))
  }
  if (phase === "sealing") {
    if (message._tag === "SealProgress") {
      return go(state, { progress: { sealed: message.shardsSealed, total: message.shardsTotal } })
    }
    if (message._tag === "SealComplete") {
      const revisions = message.lastRevisionPerShard.map(String)
      return go(state, { phase: "opening", revisions }, send(state, "successor", { _tag: "Begin", handoffId }))
    }
    if (message._tag === "SealFailed") {
      const { error, partialState } = message
      // It has resumed, or is about to: it waits for nobody.
      return revert({ ...state, prepared: false }, { _tag: "SealFailed", error, partialState })
    }
  }
  return unexpected(state, "incumbent", message)
}

const PROBE: Command = { _tag: "Probe", hello: false }

/** The successor serves, or is to: the word is the end of its channel. */
const decided = (state: State): Step =>
  go(state, { phase: "publishing", channel: false, late: undefined }, ...close(state, "successor"), PROBE)

type ReadyMessage = Extract<Message, { readonly _tag: "Ready" }>

/** A successor that advertises no revisions at all is not judged by them: not every daemon counts. */
const judge = (state: State, ready: ReadyMessage): Failure | undefined => {
  if (!ready.healthzOk) return { _tag: "Unhealthy" }
  const advertised = ready.advertisedRevisionPerShard
  if (advertised.length === 0) return undefined
  const sealed = state.revisions ?? []
  const shard = sealed.findIndex((revision, index) => (advertised[index] ?? -1n) < BigInt(revision))
  if (shard === -1) return undefined
  return {
    _tag: "RevisionBehind",
    shard,
    sealed: sealed[shard] ?? "",
    advertised: String(advertised[shard] ?? "nothing")
  }
}

const receivedFromSuccessor = (state: State, message: Message, at: number): Step => {
  const { phase, handoffId, options } = state
  if (phase === "greeting-successor" && message._tag === "Hello") {
    const version = greet(state, "successor", message)
    if (typeof version !== "number") return violation(state, "successor", version)
    const known: State = { ...state, versions: { ...state.versions, successor: version }, prepared: true }
    const remainingMs = Math.max(0, Math.floor(state.startedAt + options.deadlineMs - at))
    return go(
      known,
      { phase: "draining" },
      send(known, "successor", { _tag: "HelloAck", protoVersionChosen: version, handoffId }),
      send(known, "incumbent", {
        _tag: "PrepareHandoff",
        handoffId,
        successorPid: message.pid,
        deadlineMs: BigInt(remainingMs),
        drainGraceMs: BigInt(options.drainGraceMs)
      })
    )
  }
  if (phase === "opening" && message._tag === "Ready") {
    const failure = judge(state, message)
    if (failure !== undefined) return revert(state, failure)
    return decided(state)
  }
  return unexpected(state, "successor", message)
}

/** Any frame of the party that is waited for shows that it lives. */
const withLiveness = (before: State, step: Step, from: Party): Step =>
  step.state.phase === before.phase && wanted(before.phase, "liveness") && awaited(before)?.party === from
    ? {
        state: step.state,
        commands: [...step.commands, { _tag: "SetTimer", timer: "liveness", delayMs: before.options.livenessMs }]
      }
    : step

const received = (state: State, from: Party, message: Message, at: number): Step => {
  if (!(from === "incumbent" ? state.session : state.channel)) return stay(state)
  // While N is being ended O may still report what it was asked for before.
  if (message._tag === "Heartbeat" || state.phase === "reverting") return withLiveness(state, stay(state), from)
  const id = handoffIdOf(message)
  if (id !== undefined && id !== state.handoffId) {
    const detail = `${message._tag} belongs to handoff ${id}, this one is ${state.handoffId}`
    return violation(state, from, { _tag: "Violation", party: from, detail })
  }
  const step = from === "incumbent" ? receivedFromIncumbent(state, message) : receivedFromSuccessor(state, message, at)
  return withLiveness(state, step, from)
}

const committed = (state: State): Step => {
  const { handoffId } = state
  const word = state.session ? [send(state, "incumbent", { _tag: "Commit", handoffId })] : []
  return go(state, { phase: "ended", session: false }, ...word, ...close(state, "incumbent"), { _tag: "Commit" })
}

/** A look that began in another phase may answer in this one: only a greeting says that O serves again. */
const pathAnswered = (state: State, pid: number | undefined, hello: boolean): Step => {
  if (state.phase === "opening" && state.late !== undefined) {
    return pid !== undefined && pid === state.successorPid ? decided(state) : revert(state, state.late)
  }
  if (state.phase === "publishing" && pid !== undefined && pid === state.successorPid) return committed(state)
  if (state.phase === "resuming" && hello && pid !== undefined && pid === state.incumbentPid) return rolledBack(state)
  return wanted(state.phase, "probe")
    ? go(state, {}, { _tag: "SetTimer", timer: "probe", delayMs: state.options.probeMs })
    : stay(state)
}

const fired = (state: State, timer: Timer, at: number): Step => {
  if (!wanted(state.phase, timer)) return stay(state)
  switch (timer) {
    case "probe":
      return go(state, {}, { _tag: "Probe", hello: state.phase === "resuming" })
    // It holds the lock and was told to go: taking it back could lose what it has acknowledged.
    case "publish":
      return committed(state)
    // A hook of it hangs, or it was stopped: nobody serves as long as it is there.
    case "resume":
      return go(state, {}, { _tag: "KillIncumbent" })
    default: {
      const waited = awaited(state)
      if (waited === undefined) return stay(state)
      const { party, message: waitedFor } = waited
      const failure: Failure = { _tag: "TimedOut", party, waitedFor, afterMs: at - state.startedAt }
      if (state.phase !== "opening") return revert(state, failure)
      return state.late === undefined ? go(state, { late: failure }, PROBE) : stay(state)
    }
  }
}

const successorExited = (state: State, failure: Failure): Step => {
  if (state.phase === "reverting") {
    return state.failure?._tag === "Lost" && state.failure.party === "successor" ? go(state, { failure }) : stay(state)
  }
  // From publishing on only its end is waited for; the kernel closes its channel as well.
  return revert({ ...state, channel: false }, failure)
}

const incumbentExited = (state: State): Step => {
  const without: State = { ...state, session: false, incumbentAlive: false }
  switch (state.phase) {
    case "opening":
    case "publishing":
    case "reverting":
    case "ended":
      return go(without, {}, ...close(state, "incumbent"))
    case "resuming":
      return rolledBack(without)
    default: {
      const waitedFor = awaited(state)?.message ?? "Hello"
      const step = revert(without, { _tag: "Lost", party: "incumbent", waitedFor, detail: "it exited" })
      return { state: step.state, commands: [...close(state, "incumbent"), ...step.commands] }
    }
  }
}

const transition = (state: State, event: Event): Step => {
  const { phase } = state
  switch (event._tag) {
    case "Started":
      return phase === "connecting" ? go(state, {}, { _tag: "Connect" }) : stay(state)
    case "Connected": {
      // Given up meanwhile.
      if (phase === "ended") return go(state, {}, { _tag: "Close", to: "incumbent" })
      if (phase !== "connecting") return stay(state)
      const open: State = { ...state, session: true }
      if (event.member) return go(open, { phase: "greeting-incumbent", incumbentPid: event.pid })
      return revert(open, { _tag: "WrongPeer", party: "incumbent", expected: undefined, pid: event.pid })
    }
    case "ConnectFailed":
      return phase === "connecting" ? revert(state, { _tag: "Unreachable", detail: event.detail }) : stay(state)
    case "Launched":
      if (phase !== "launching") return go(state, { successorPid: event.pid })
      return go(state, { phase: "greeting-successor", channel: true, successorPid: event.pid })
    case "LaunchFailed":
      if (phase === "launching") return revert(state, { _tag: "LaunchFailed", detail: event.detail })
      return phase === "reverting" ? resume(state) : stay(state)
    case "Received":
      return received(state, event.from, event.message, event.at)
    case "Garbled": {
      if (!(event.from === "incumbent" ? state.session : state.channel)) return stay(state)
      return violation(state, event.from, { _tag: "Violation", party: event.from, detail: event.detail })
    }
    case "Lost": {
      if (!(event.from === "incumbent" ? state.session : state.channel)) return stay(state)
      const waitedFor = awaited(state)?.message ?? "Hello"
      return lost(state, event.from, { _tag: "Lost", party: event.from, waitedFor, detail: event.detail })
    }
    case "IncumbentExited":
      return incumbentExited(state)
    case "SuccessorExited":
      return successorExited(state, { _tag: "Exited", status: event.status })
    case "SuccessorGone":
      return phase === "reverting" ? resume(state) : stay(state)
    case "PathAnswered":
      return pathAnswered(state, event.pid, event.hello)
    case "AbortRequested":
      return phase === "publishing" ? stay(state) : revert(state, { _tag: event.why })
    case "TimerFired":
      return fired(state, event.timer, event.at)
  }
}

/** True when an abort would come too late: the successor was told to serve. */
export const isDecided = (state: State): boolean => state.phase === "publishing" || state.phase === "ended"

/**
 * One event. Total: one that the state has no use for changes nothing.
 *
 * @example
 * const { state, commands } = Sealed.step(Sealed.initial(Sealed.defaults, id, 0), { _tag: "Started", at: 0 })
 * // state.phase: "connecting"; commands: Connect, SetTimer hello-incumbent, SetTimer deadline
 */
export const step = (state: State, event: Event): Step => {
  const next = transition(state, event)
  return {
    state: next.state,
    commands: [...next.commands, ...timers(state, next.state, event._tag === "Started" && state.phase === "connecting")]
  }
}

/** One clause for a person: why it did not commit. */
export const explain = (failure: Failure): string => {
  switch (failure._tag) {
    case "Unreachable":
      return `the serving generation's handoff socket could not be reached, and a sealed swap needs one: ${failure.detail}`
    case "WrongPeer":
      return failure.expected === undefined
        ? `process ${failure.pid} answers on the handoff socket, which is not of the serving generation`
        : `the ${failure.party} says that it is process ${failure.pid}, it is ${failure.expected}`
    case "TimedOut":
      return `the ${failure.party} did not send ${failure.waitedFor} in time`
    case "Lost":
      return `the ${failure.party} was lost before it sent ${failure.waitedFor}: ${failure.detail}`
    case "Violation":
      return `the ${failure.party} broke the protocol: ${failure.detail}`
    case "SealFailed":
      return `the incumbent could not seal its data: ${failure.error}${failure.partialState === "" ? "" : ` (${failure.partialState})`}`
    case "Unhealthy":
      return "the successor reported that it is not healthy"
    case "RevisionBehind":
      return `the successor opened shard ${failure.shard} at revision ${failure.advertised}, sealed was ${failure.sealed}`
    case "LaunchFailed":
      return failure.detail
    case "Exited":
      return "the successor exited before it was ready"
    case "Aborted":
      return "it was aborted by request"
    case "Stopping":
      return "the supervisor was told to stop"
  }
}

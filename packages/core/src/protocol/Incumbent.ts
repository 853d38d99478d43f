/**
 * The incumbent's side of a sealed swap: it serves and holds the data lock, until a supervisor S has it drain, seal and
 * give way to a successor N, or anything goes wrong and it serves again.
 *
 * Theory of operation. `step` takes one event and gives the next state and the commands that make it true, in order. It
 * reads no clock and does nothing itself. Three rules carry it:
 *
 *   1. Between `releasing` and `relocking` the lock may be gone; only there. The state is reopened (`resume`, from disk,
 *      never from memory) only with the lock held, so nothing is written by two processes.
 *   2. Hooks run one at a time. A swap that is given up while `drain` or `seal` runs waits for the hook to end (phases
 *      `...-abandoned`): resuming into a running seal would close the state under the writers.
 *   3. S may fall silent anywhere. Its death ends the session; its sleep ends with the deadline it gave itself. After the
 *      seal only the kernel's lock decides: whoever gets it serves. It exits for a held lock only when the handoff
 *      socket's path answers with another pid, for a held lock alone is not yet a successor that serves.
 *
 * The recovery of a phase is its row `gone`: S closed the session, sent bytes that are no frame, or did not read. A
 * message that has no row, or one of another handoff, is a violation: the session is closed, then the same recovery; the
 * timers hello, prepare, deadline and linger close the session and recover likewise. Abort and ResumeAfterAbort mean the
 * same and keep the session open for S to close. Heartbeats of S are accepted anywhere. A fact without a row is an error
 * of the driver and changes nothing; a timer without a row is stale.
 *
 * The driver takes a connection from the handoff socket's queue only while `serving`, so one session runs at a time.
 *
 * Transitions:
 *
 *   phase                  event                                      next               commands
 *   serving                connected                                  greeting           send Hello
 *   greeting               HelloAck                                   acquainted
 *                          gone                                       serving
 *                          timer hello                                serving            close session
 *   acquainted             PrepareHandoff                             draining           drain
 *                          Abort, ResumeAfterAbort, timer prepare     serving            close session
 *                          gone                                       serving
 *   draining               Abort, ResumeAfterAbort, gone              drain-abandoned    cancel drain
 *                          timer deadline                             drain-abandoned    close session, cancel drain
 *                          timer heartbeat                                               send Heartbeat
 *                          Drained                                    drained            send Drained
 *                          DrainFailed                                resuming           close session, resume
 *   drained                SealRequest                                sealing            seal
 *                          Abort, ResumeAfterAbort, gone              resuming           resume
 *                          timer deadline                             resuming           close session, resume
 *   sealing                Abort, ResumeAfterAbort, gone              seal-abandoned
 *                          timer deadline                             seal-abandoned     close session
 *                          timer heartbeat                                               send Heartbeat
 *                          Progressed                                                    send SealProgress
 *                          Sealed                                     releasing          release lock
 *                          SealFailed                                 resuming           resume
 *   releasing              Abort, ResumeAfterAbort, gone              release-abandoned
 *                          timer deadline                             release-abandoned  close session
 *                          timer heartbeat                                               send Heartbeat
 *                          LockReleased                               sealed             send SealComplete
 *   sealed                 Commit                                     exiting            exit 0: committed
 *                          Abort, ResumeAfterAbort, gone              relocking          acquire lock
 *                          timer deadline                             relocking          close session, acquire lock
 *   drain-abandoned        Abort, ResumeAfterAbort, gone
 *                          Drained, DrainFailed                       resuming           resume
 *   seal-abandoned         Abort, ResumeAfterAbort, gone, Progressed
 *                          Sealed, SealFailed                         resuming           resume
 *   release-abandoned      Abort, ResumeAfterAbort, gone
 *                          LockReleased                               relocking          acquire lock
 *   relocking              Abort, ResumeAfterAbort, gone
 *                          timer relock                                                  acquire lock
 *                          LockAcquired                               resuming           resume
 *                          LockHeld                                                      probe path
 *                          path answers: nobody, itself                                  wait relock
 *                          path answers: another                      exiting            exit 0: replaced
 *   resuming               Abort, ResumeAfterAbort, gone
 *                          Resumed                                    resumed
 *                          ResumeFailed                               exiting            exit 1: resume-failed
 *   resuming, seal failed  Abort, ResumeAfterAbort, gone
 *                          timer heartbeat                                               send Heartbeat
 *                          Resumed                                    resumed            send SealFailed
 *                          ResumeFailed                               exiting            exit 1: resume-failed
 *   resuming, no session   Resumed                                    serving
 *                          ResumeFailed                               exiting            exit 1: resume-failed
 *   resumed                Abort, ResumeAfterAbort
 *                          gone                                       serving
 *                          timer linger                               serving            close session
 *
 * Timers: hello (greeting), prepare (acquainted), deadline (draining to sealed, S's own), heartbeat (every 2 s while a
 * hook runs and S waits for it), relock (25 ms between tries), linger (resumed).
 */
import type { Command, Event, Options, State, Step, Timer } from "./IncumbentState.ts"
import { timers, wanted } from "./IncumbentState.ts"
import { handoffIdOf, type Message } from "./Message.ts"
import * as Negotiation from "./Negotiation.ts"
import { timerMs, type Violation } from "./Violation.ts"

export type { Command, Event, Options, Phase, State, Step, Timer } from "./IncumbentState.ts"
export { defaults, phases } from "./IncumbentState.ts"

/** An incumbent that serves and holds the lock. */
export const initial = (options: Options): State => ({
  phase: "serving",
  options,
  session: false,
  version: options.versions.max,
  handoffId: "",
  deadlineMs: 0,
  seal: undefined,
  sealFailure: undefined
})

const go = (state: State, change: Partial<State>, ...commands: ReadonlyArray<Command>): Step => ({
  state: { ...state, ...change },
  commands,
  violation: undefined
})

const stay = (state: State): Step => go(state, {})

const send = (state: State, message: Message): Command => ({ _tag: "Send", message, version: state.version })

/** The way back to serving from wherever the swap has come. */
const recover = (state: State): Step => {
  switch (state.phase) {
    case "greeting":
    case "acquainted":
    case "resumed":
      return go(state, { phase: "serving" })
    case "draining":
      return go(state, { phase: "drain-abandoned" }, { _tag: "CancelDrain" })
    case "drained":
      return go(state, { phase: "resuming" }, { _tag: "Resume" })
    case "sealing":
      return go(state, { phase: "seal-abandoned" })
    case "releasing":
      return go(state, { phase: "release-abandoned" })
    case "sealed":
      return go(state, { phase: "relocking" }, { _tag: "AcquireLock" })
    default:
      return stay(state)
  }
}

/** This side ends the session, then recovers. */
const endSession = (state: State, violation?: Violation): Step => {
  const step = recover({ ...state, session: false })
  return { state: step.state, commands: [{ _tag: "CloseSession" }, ...step.commands], violation }
}

const greet = (state: State): Step => {
  const { pid, buildId, versions, capabilities } = state.options
  const range = { protoMin: versions.min, protoMax: versions.max }
  const fresh: State = { ...initial(state.options), phase: "greeting", session: true }
  return go(fresh, {}, send(fresh, { _tag: "Hello", role: "Incumbent", pid, buildId, ...range, capabilities }))
}

const unexpected = (state: State, message: Message): Step =>
  endSession(state, { _tag: "UnexpectedMessage", phase: state.phase, message: message._tag })

const received = (state: State, message: Message): Step => {
  const { phase, handoffId: expected, options } = state
  if (message._tag === "Heartbeat") return stay(state)
  if (message._tag === "HelloAck") {
    if (phase !== "greeting") return unexpected(state, message)
    const chosen = Negotiation.confirm(options.versions, message.protoVersionChosen)
    if (chosen._tag === "Failure") return endSession(state, chosen.failure)
    return go(state, { phase: "acquainted", version: chosen.success, handoffId: message.handoffId })
  }
  const id = handoffIdOf(message)
  if (phase !== "greeting" && id !== undefined && id !== expected) {
    return endSession(state, { _tag: "WrongHandoffId", phase, message: message._tag, expected, received: id })
  }
  switch (message._tag) {
    case "PrepareHandoff": {
      if (phase !== "acquainted") return unexpected(state, message)
      const deadlineMs = timerMs(message.deadlineMs)
      const withinMs = Math.min(deadlineMs, timerMs(message.drainGraceMs))
      return go(state, { phase: "draining", deadlineMs }, { _tag: "Drain", withinMs })
    }
    case "SealRequest":
      return phase === "drained" ? go(state, { phase: "sealing" }, { _tag: "Seal" }) : unexpected(state, message)
    case "Commit":
      if (phase !== "sealed") return unexpected(state, message)
      return go(state, { phase: "exiting" }, { _tag: "Exit", status: 0, why: "committed" })
    case "Abort":
    case "ResumeAfterAbort":
      if (phase === "greeting") return unexpected(state, message)
      return phase === "acquainted" ? endSession(state) : phase === "resumed" ? stay(state) : recover(state)
    default:
      return unexpected(state, message)
  }
}

const fired = (state: State, timer: Timer, at: number): Step => {
  if (!wanted(state, timer)) return stay(state)
  switch (timer) {
    case "heartbeat":
      return go(state, {}, send(state, { _tag: "Heartbeat", tsMs: BigInt(at) }), {
        _tag: "SetTimer",
        timer,
        delayMs: state.options.heartbeatMs
      })
    case "relock":
      return go(state, {}, { _tag: "AcquireLock" })
    default:
      return state.session ? endSession(state) : recover(state)
  }
}

/** The results of the commands. Undefined: this phase did not ask for it. */
const fact = (state: State, event: Event): Step | undefined => {
  const { phase } = state
  if (phase === "exiting") return stay(state)
  switch (event._tag) {
    case "Drained":
      if (phase === "drain-abandoned") return go(state, { phase: "resuming" }, { _tag: "Resume" })
      if (phase !== "draining") return undefined
      return go(
        state,
        { phase: "drained" },
        send(state, {
          _tag: "Drained",
          openConnsRemaining: event.openConnections,
          acceptClosed: event.acceptClosed
        })
      )
    case "DrainFailed":
      if (phase === "drain-abandoned") return go(state, { phase: "resuming" }, { _tag: "Resume" })
      return phase === "draining" ? endSession({ ...state, phase: "drained" }) : undefined
    case "Progressed": {
      if (phase === "seal-abandoned") return stay(state)
      if (phase !== "sealing") return undefined
      const { sealed: shardsSealed, total: shardsTotal, lastRevision } = event
      return go(state, {}, send(state, { _tag: "SealProgress", shardsSealed, shardsTotal, lastRevision }))
    }
    case "Sealed":
      // Given up meanwhile: the lock was never let go, so the state is simply opened again.
      if (phase === "seal-abandoned") return go(state, { phase: "resuming" }, { _tag: "Resume" })
      if (phase !== "sealing") return undefined
      return go(
        state,
        { phase: "releasing", seal: { revisions: event.revisions, fingerprint: event.fingerprint } },
        { _tag: "ReleaseLock" }
      )
    case "SealFailed":
      // Given up meanwhile: S knows that this swap is over and does not wait for the reason.
      if (phase === "seal-abandoned") return go(state, { phase: "resuming" }, { _tag: "Resume" })
      if (phase !== "sealing") return undefined
      return go(
        state,
        { phase: "resuming", sealFailure: { error: event.error, partialState: event.partialState } },
        { _tag: "Resume" }
      )
    case "LockReleased":
      if (phase === "release-abandoned") return go(state, { phase: "relocking" }, { _tag: "AcquireLock" })
      return phase === "releasing" && state.seal !== undefined
        ? go(
            state,
            { phase: "sealed" },
            send(state, {
              _tag: "SealComplete",
              handoffId: state.handoffId,
              lastRevisionPerShard: state.seal.revisions,
              dataDirFingerprint: state.seal.fingerprint
            })
          )
        : undefined
    default:
      return wayBack(state, event)
  }
}

const wayBack = (state: State, event: Event): Step | undefined => {
  const { phase, options } = state
  if (phase === "relocking") {
    if (event._tag === "LockAcquired") return go(state, { phase: "resuming" }, { _tag: "Resume" })
    if (event._tag === "LockHeld") return go(state, {}, { _tag: "ProbePath" })
    if (event._tag !== "PathAnswered") return undefined
    return event.pid === undefined || event.pid === options.pid
      ? go(state, {}, { _tag: "SetTimer", timer: "relock", delayMs: options.relockMs })
      : go(state, { phase: "exiting" }, { _tag: "Exit", status: 0, why: "replaced" })
  }
  if (phase !== "resuming") return undefined
  if (event._tag === "ResumeFailed") {
    return go(state, { phase: "exiting" }, { _tag: "Exit", status: 1, why: "resume-failed" })
  }
  if (event._tag !== "Resumed") return undefined
  if (!state.session) return go(state, { phase: "serving" })
  const failure = state.sealFailure
  if (failure === undefined) return go(state, { phase: "resumed" })
  return go(
    state,
    { phase: "resumed", sealFailure: undefined },
    send(state, { _tag: "SealFailed", handoffId: state.handoffId, ...failure })
  )
}

const transition = (state: State, event: Event): Step => {
  switch (event._tag) {
    case "Received":
      // What arrives after this side ended the session is not a violation but late.
      return state.session && state.phase !== "exiting" ? received(state, event.message) : stay(state)
    case "Disconnected":
      return state.session ? recover({ ...state, session: false }) : stay(state)
    case "TimerFired":
      return fired(state, event.timer, event.at)
    case "Connected":
      if (state.phase === "serving") return greet(state)
      break
    default: {
      const step = fact(state, event)
      if (step !== undefined) return step
    }
  }
  return { ...stay(state), violation: { _tag: "UnexpectedFact", phase: state.phase, fact: event._tag } }
}

/**
 * One event.
 *
 * @example
 * const { state, commands } = Incumbent.step(Incumbent.initial(options), { _tag: "Connected", at: 0 })
 * // state.phase: "greeting"; commands: Send Hello, SetTimer hello
 */
export const step = (state: State, event: Event): Step => {
  const next = transition(state, event)
  return { ...next, commands: [...next.commands, ...timers(state, next.state)] }
}

/**
 * The successor's side of a sealed swap: a process that the supervisor S started, from its first word to the moment it
 * serves, or to its end.
 *
 * Theory of operation. `step` takes one event and gives the next state and the commands that make it true, in order; it
 * reads no clock and does nothing itself. Three rules carry it:
 *
 *   1. Before Begin it touches nothing: not the data, not the lock, not the listeners (their O_NONBLOCK flag is shared
 *      with the incumbent, which may still be in accept).
 *   2. A held lock is not a Ready. Without S before Ready it gives everything back and exits. The lock goes only after
 *      the hook that works under it has ended (`cancelling`, `closing`), or with the process itself, when `leave` fires:
 *      the kernel ends both at once. Released under a running `open` it would let in a second writer.
 *   3. From Ready on it may be the only one that can serve, and accepts nothing yet. S closing the channel without an
 *      Abort is the word to go. Silence for `wordMs` is too, if it is healthy: it holds the lock, and S may be gone. An
 *      unhealthy one leaves.
 *
 * The recovery of a phase is its row `gone`: S closed the channel, sent bytes that are no frame, or did not read. A
 * message that has no row, or one of another handoff, is a violation: the channel is closed, then the same recovery; the
 * timer hello does likewise. Heartbeats of S are accepted anywhere, and while `announced` they ask for more time. A fact
 * without a row is an error of the driver and changes nothing; a timer without a row is stale.
 *
 * When `serving` this machine has ended, and the process goes on as an incumbent.
 *
 * Transitions:
 *
 *   phase                 event                                      next        commands
 *   greeting              started                                                send Hello
 *                         HelloAck                                   waiting
 *                         gone                                       exiting     exit 1: supervisor-gone
 *                         timer hello                                exiting     close channel, exit 1: hello-timeout
 *   waiting               Begin                                      taking      take listeners
 *                         Abort                                      exiting     exit 1: aborted
 *                         gone                                       exiting     exit 1: supervisor-gone
 *   taking                Abort                                      exiting     exit 1: aborted
 *                         gone                                       exiting     exit 1: supervisor-gone
 *                         timer heartbeat                                        send Heartbeat
 *                         ListenersTaken                             locking     acquire lock
 *                         ListenersFailed                            exiting     exit 1: no-listeners
 *   locking               Abort                                      exiting     exit 1: aborted
 *                         gone                                       exiting     exit 1: supervisor-gone
 *                         timer heartbeat                                        send Heartbeat
 *                         timer relock                                           acquire lock
 *                         timer lock                                 exiting     exit 1: lock-held
 *                         LockAcquired                               opening     open
 *                         LockHeld                                               wait relock
 *   opening               Abort, gone                                cancelling  cancel open
 *                         timer heartbeat                                        send Heartbeat
 *                         Opened                                     preparing   prepare socket
 *                         OpenFailed                                 exiting     release lock, exit 1: open-failed
 *   preparing             Abort, gone, SocketFailed                  closing     remove socket, close
 *                         timer heartbeat                                        send Heartbeat
 *                         SocketPrepared                             announced   send Ready
 *   announced             Abort                                      closing     remove socket, close
 *                         gone, timer word                           publishing  publish, accept
 *   announced, unhealthy  Abort, gone, timer word                    closing     remove socket, close
 *   publishing            Abort, gone
 *                         timer publish                                          publish
 *                         Published                                  serving
 *                         PublishFailed                                          wait publish
 *   serving               Abort, gone
 *   cancelling            Abort, gone
 *                         timer leave                                exiting     exit 1: aborted
 *                         Opened                                     closing     close
 *                         OpenFailed                                 exiting     release lock, exit 1: aborted
 *   closing               Abort, gone, SocketPrepared, SocketFailed
 *                         timer leave                                exiting     exit 1: aborted
 *                         Closed                                     exiting     release lock, exit 1: aborted
 *
 * Timers: hello (greeting), heartbeat (every 2 s from Begin to Ready), relock (25 ms between tries), lock (how long the
 * lock is tried for), word (announced), leave (cancelling and closing), publish (1 s between tries to take the path).
 */
import { handoffIdOf, type Message } from "./Message.ts"
import * as Negotiation from "./Negotiation.ts"
import type { Command, Event, Options, State, Step, Timer, Why } from "./SuccessorState.ts"
import { timers, wanted } from "./SuccessorState.ts"
import type { Violation } from "./Violation.ts"

export type { Command, Event, Opened, Options, Phase, State, Step, Timer, Why } from "./SuccessorState.ts"
export { defaults, phases } from "./SuccessorState.ts"

/** A process that found itself to be a successor. Its first event is `Started`. */
export const initial = (options: Options): State => ({
  phase: "greeting",
  options,
  channel: true,
  version: options.versions.max,
  handoffId: "",
  opened: undefined,
  why: undefined
})

const go = (state: State, change: Partial<State>, ...commands: ReadonlyArray<Command>): Step => ({
  state: { ...state, ...change },
  commands,
  violation: undefined
})

const stay = (state: State): Step => go(state, {})

const exit = (state: State, why: Why, ...before: ReadonlyArray<Command>): Step =>
  go(state, { phase: "exiting", why }, ...before, { _tag: "Exit", status: 1, why })

/** Gives back what this phase holds, in the order that lets nobody in too early, and ends. */
const leave = (state: State, why: Why): Step => {
  switch (state.phase) {
    case "opening":
      return go(state, { phase: "cancelling", why }, { _tag: "CancelOpen" })
    case "preparing":
    case "announced":
      return go(state, { phase: "closing", why }, { _tag: "RemoveSocket" }, { _tag: "Close" })
    case "publishing":
    case "serving":
    case "cancelling":
    case "closing":
    case "exiting":
      return stay(state)
    default:
      return exit(state, why)
  }
}

/** S has nothing more to say: before Ready there is no successor without it, after Ready there may be no one else. */
const gone = (state: State, why: Why): Step => {
  if (state.phase !== "announced") return leave(state, why)
  if (state.opened?.healthy !== true) return leave(state, "unhealthy")
  return go(state, { phase: "publishing" }, { _tag: "Publish" }, { _tag: "Accept" })
}

const closeChannel = (state: State, why: Why, violation?: Violation): Step => {
  const step = gone({ ...state, channel: false }, why)
  return { state: step.state, commands: [{ _tag: "CloseChannel" }, ...step.commands], violation }
}

const unexpected = (state: State, message: Message): Step =>
  closeChannel(state, "violation", { _tag: "UnexpectedMessage", phase: state.phase, message: message._tag })

const received = (state: State, message: Message): Step => {
  const { phase, handoffId: expected, options } = state
  if (message._tag === "Heartbeat") {
    if (phase !== "announced") return stay(state)
    return go(state, {}, { _tag: "SetTimer", timer: "word", delayMs: options.wordMs })
  }
  if (message._tag === "HelloAck") {
    if (phase !== "greeting") return unexpected(state, message)
    const chosen = Negotiation.confirm(options.versions, message.protoVersionChosen)
    if (chosen._tag === "Failure") return closeChannel(state, "violation", chosen.failure)
    return go(state, { phase: "waiting", version: chosen.success, handoffId: message.handoffId })
  }
  const id = handoffIdOf(message)
  if (phase !== "greeting" && id !== undefined && id !== expected) {
    const violation: Violation = { _tag: "WrongHandoffId", phase, message: message._tag, expected, received: id }
    return closeChannel(state, "violation", violation)
  }
  switch (message._tag) {
    case "Begin":
      if (phase !== "waiting") return unexpected(state, message)
      return go(state, { phase: "taking" }, { _tag: "TakeListeners" })
    case "Abort":
      // In `publishing` and later the word was given: it may have been the silence of a slow S, which ends us by force.
      return phase === "greeting" ? unexpected(state, message) : leave(state, "aborted")
    default:
      return unexpected(state, message)
  }
}

const fired = (state: State, timer: Timer, at: number): Step => {
  if (!wanted(state, timer)) return stay(state)
  switch (timer) {
    case "hello":
      return closeChannel(state, "hello-timeout")
    case "heartbeat":
      return go(
        state,
        {},
        { _tag: "Send", message: { _tag: "Heartbeat", tsMs: BigInt(at) }, version: state.version },
        { _tag: "SetTimer", timer, delayMs: state.options.heartbeatMs }
      )
    case "relock":
      return go(state, {}, { _tag: "AcquireLock" })
    case "lock":
      return leave(state, "lock-held")
    case "word":
      return gone(state, "unhealthy")
    case "leave":
      return exit(state, state.why ?? "supervisor-gone")
    case "publish":
      return go(state, {}, { _tag: "Publish" })
  }
}

const sendReady = (state: State): Step | undefined => {
  const { opened, handoffId, version } = state
  if (opened === undefined) return undefined
  const message: Message = {
    _tag: "Ready",
    handoffId,
    listeningOn: opened.listeningOn,
    healthzOk: opened.healthy,
    advertisedRevisionPerShard: opened.revisions
  }
  return go(state, { phase: "announced" }, { _tag: "Send", message, version })
}

/** The results of the commands. Undefined: this phase did not ask for it. */
const fact = (state: State, event: Event): Step | undefined => {
  const key = `${state.phase} ${event._tag}` as const
  if (state.phase === "exiting") return stay(state)
  switch (key) {
    case "taking ListenersTaken":
      return go(state, { phase: "locking" }, { _tag: "AcquireLock" })
    case "taking ListenersFailed":
      return leave(state, "no-listeners")
    case "locking LockAcquired":
      return go(state, { phase: "opening" }, { _tag: "Open" })
    case "locking LockHeld":
      return go(state, {}, { _tag: "SetTimer", timer: "relock", delayMs: state.options.relockMs })
    case "opening Opened":
      if (event._tag !== "Opened") return undefined
      return go(state, { phase: "preparing", opened: event }, { _tag: "PrepareSocket" })
    case "opening OpenFailed":
      return exit(state, "open-failed", { _tag: "ReleaseLock" })
    case "preparing SocketPrepared":
      return sendReady(state)
    case "preparing SocketFailed":
      return leave(state, "socket-failed")
    case "closing SocketPrepared":
    case "closing SocketFailed":
      return stay(state)
    case "publishing Published":
      return go(state, { phase: "serving" })
    case "publishing PublishFailed":
      return go(state, {}, { _tag: "SetTimer", timer: "publish", delayMs: state.options.publishRetryMs })
    case "cancelling Opened":
      return go(state, { phase: "closing" }, { _tag: "Close" })
    case "cancelling OpenFailed":
    case "closing Closed":
      return exit(state, state.why ?? "supervisor-gone", { _tag: "ReleaseLock" })
    default:
      return undefined
  }
}

const transition = (state: State, event: Event): Step => {
  switch (event._tag) {
    case "Started": {
      if (state.phase !== "greeting") break
      const { pid, buildId, versions, capabilities } = state.options
      const range = { protoMin: versions.min, protoMax: versions.max }
      const message: Message = { _tag: "Hello", role: "Successor", pid, buildId, ...range, capabilities }
      return go(state, {}, { _tag: "Send", message, version: state.version })
    }
    case "Received":
      // What arrives after this side closed the channel is not a violation but late.
      return state.channel && state.phase !== "exiting" ? received(state, event.message) : stay(state)
    case "Disconnected":
      return state.channel ? gone({ ...state, channel: false }, "supervisor-gone") : stay(state)
    case "TimerFired":
      return fired(state, event.timer, event.at)
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
 * const { commands } = Successor.step(Successor.initial(options), { _tag: "Started", at: 0 })
 * // Send Hello, SetTimer hello
 */
export const step = (state: State, event: Event): Step => {
  const next = transition(state, event)
  return { ...next, commands: [...next.commands, ...timers(state, next.state, event)] }
}

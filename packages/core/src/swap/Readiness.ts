/**
 * When a new generation counts as ready: a small pure machine fed with facts.
 *
 *   policy      ready when
 *   notify      it sent READY=1 (sd_notify(3))
 *   accepting   it was seen waiting on every listener
 *   settle      it stayed alive for `settleMs` after its start
 *   auto        it sent READY=1, or it was seen waiting on every listener and then stayed alive for `settleMs`, or it
 *               answers on its handoff socket: a daemon that owns data does so when it has it and serves
 *
 * "Seen waiting" is a hint, not a promise: Go enters epoll before it accepts, and servers built on poll or select do not
 * show at all. So `auto` adds the settle time, and once a generation of a program has sent READY=1 its successors must
 * send it too (`mustNotify`): a version that lost its notification is a version that is not ready. Without a listener
 * there is nothing to see, and `auto` waits for READY=1 or the settle time alone.
 *
 * The machine keeps no time of its own: it asks for the settle timer and is told when it fired. The overall timeout and
 * the death of the process belong to whoever runs it (Supervision).
 */

export type Policy = "auto" | "notify" | "accepting" | "settle"

export interface Options {
  readonly policy: Policy
  /** Not ready after this many milliseconds: given up. */
  readonly timeoutMs: number
  /** How long a generation must stay alive where the policy asks for it, in milliseconds. */
  readonly settleMs: number
}

/** `handoff`: the Ready of a sealed swap, or a handoff socket that answers. */
export type Evidence = "notified" | "accepting" | "settled" | "handoff"

export type Fact =
  | { readonly _tag: "Notified" }
  | { readonly _tag: "Observed"; readonly accepting: boolean }
  | { readonly _tag: "Settled" }
  /** It answers on the handoff socket's path. */
  | { readonly _tag: "HandoffSocketServed" }

export interface State {
  readonly policy: Policy
  readonly mustNotify: boolean
  readonly settling: boolean
  /** There is no listener on which it could be seen. */
  readonly blind: boolean
  readonly evidence: Evidence | undefined
}

export interface Step {
  readonly state: State
  /** Start or stop the settle timer; undefined leaves it as it is. */
  readonly settle: "start" | "stop" | undefined
}

/** The state at launch. `listeners` is how many listeners the generation was given. */
export const start = (options: Options, listeners: number, mustNotify: boolean): Step => {
  const notifyOnly = options.policy === "notify" || (options.policy === "auto" && mustNotify)
  const blind = options.policy === "auto" && listeners === 0
  const settling = !notifyOnly && (options.policy === "settle" || blind)
  return {
    state: { policy: options.policy, mustNotify: notifyOnly, settling, blind, evidence: undefined },
    settle: settling ? "start" : undefined
  }
}

/** True while watching the process for accepting can still change the outcome. */
export const wantsObservation = (state: State): boolean =>
  state.evidence === undefined && !state.mustNotify && (state.policy === "auto" || state.policy === "accepting")

/** What is waited for, in words for a person. */
export const expectation = (state: State): string => {
  if (state.mustNotify) return "READY=1"
  if (state.blind) return "READY=1, or it to stay alive"
  switch (state.policy) {
    case "accepting":
      return "it to accept on every listener"
    case "settle":
      return "it to stay alive"
    default:
      return "READY=1, or it to accept on every listener or to serve its handoff socket"
  }
}

const ready = (state: State, evidence: Evidence): Step => ({
  state: { ...state, settling: false, evidence },
  settle: state.settling ? "stop" : undefined
})

/** Takes one fact in. Once there is evidence, later facts change nothing. */
export const step = (state: State, fact: Fact): Step => {
  if (state.evidence !== undefined) return { state, settle: undefined }
  switch (fact._tag) {
    case "Notified":
      return state.policy === "auto" || state.policy === "notify"
        ? ready(state, "notified")
        : { state, settle: undefined }
    case "Settled":
      return state.settling
        ? ready(state, state.policy === "auto" && !state.blind ? "accepting" : "settled")
        : { state, settle: undefined }
    case "Observed":
      return observed(state, fact.accepting)
    case "HandoffSocketServed":
      return state.policy === "auto" && !state.mustNotify ? ready(state, "handoff") : { state, settle: undefined }
  }
}

const observed = (state: State, accepting: boolean): Step => {
  if (state.mustNotify || state.policy === "notify" || state.policy === "settle") return { state, settle: undefined }
  if (state.policy === "accepting") return accepting ? ready(state, "accepting") : { state, settle: undefined }
  return accepting && !state.settling
    ? { state: { ...state, settling: true }, settle: "start" }
    : { state, settle: undefined }
}

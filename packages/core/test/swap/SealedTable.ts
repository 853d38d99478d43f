/**
 * The transition table of the sealed swap, printed from what `step` does in every phase with every event. The docblock
 * of Sealed.ts holds the same table; Sealed.test.ts compares them.
 */
import type { Message } from "@handoff/core/protocol/Message"
import * as Sealed from "@handoff/core/swap/Sealed"
import { id, layout, merge, messages, otherId, type Row, words } from "../protocol/Machines.ts"

export const O = 10
export const N = 20

/** Every phase with what is open and known in it. */
export const stateIn = (phase: Sealed.Phase, change: Partial<Sealed.State> = {}): Sealed.State => {
  const reached = (first: Sealed.Phase) => Sealed.phases.indexOf(phase) >= Sealed.phases.indexOf(first)
  const failed = phase === "reverting" || phase === "resuming"
  return {
    ...Sealed.initial(Sealed.defaults, id, 0),
    phase,
    session: phase !== "connecting" && phase !== "resuming" && phase !== "ended",
    channel: ["greeting-successor", "draining", "sealing", "opening"].includes(phase),
    incumbentPid: phase === "connecting" ? undefined : O,
    successorPid: reached("greeting-successor") ? N : undefined,
    prepared: reached("draining"),
    revisions: reached("opening") ? ["7"] : undefined,
    failure: failed ? { _tag: "Unhealthy" } : undefined,
    ...change
  }
}

const hello = (role: "Incumbent" | "Successor", pid: number): Message => ({
  _tag: "Hello",
  role,
  pid,
  buildId: new Uint8Array(0),
  protoMin: 1,
  protoMax: 1,
  capabilities: { reserved: 0n }
})

export const ready = (healthzOk: boolean, revisions: ReadonlyArray<bigint>): Message => ({
  _tag: "Ready",
  handoffId: id,
  listeningOn: [],
  healthzOk,
  advertisedRevisionPerShard: revisions
})

const from = (party: Sealed.Party, message: Message): Sealed.Event => ({
  _tag: "Received",
  from: party,
  message,
  at: 1
})

const plain = messages.filter((one) => !["Hello", "Ready", "Heartbeat"].includes(one._tag))

export const timers: ReadonlyArray<Sealed.Timer> = [
  "hello-incumbent",
  "hello-successor",
  "drain",
  "liveness",
  "deadline",
  "publish",
  "resume",
  "probe"
]

export const events: ReadonlyArray<readonly [string, Sealed.Event]> = [
  ["started", { _tag: "Started", at: 1 }],
  ["connected", { _tag: "Connected", pid: O, member: true, at: 1 }],
  ["connected to a stranger", { _tag: "Connected", pid: 11, member: false, at: 1 }],
  ["ConnectFailed", { _tag: "ConnectFailed", detail: "", at: 1 }],
  ["O Hello", from("incumbent", hello("Incumbent", O))],
  ["O Hello, not O's", from("incumbent", hello("Incumbent", 11))],
  ...plain.map((message) => [`O ${message._tag}`, from("incumbent", message)] as const),
  ["Launched", { _tag: "Launched", pid: N, at: 1 }],
  ["LaunchFailed", { _tag: "LaunchFailed", detail: "", at: 1 }],
  ["N Hello", from("successor", hello("Successor", N))],
  ["N Hello, not N's", from("successor", hello("Successor", 11))],
  ["N Ready", from("successor", ready(true, [7n]))],
  ["N Ready, unhealthy", from("successor", ready(false, [7n]))],
  ["N Ready, behind", from("successor", ready(true, [6n]))],
  ...plain.map((message) => [`N ${message._tag}`, from("successor", message)] as const),
  ["O lost", { _tag: "Lost", from: "incumbent", detail: "", at: 1 }],
  ["O garbled", { _tag: "Garbled", from: "incumbent", detail: "", at: 1 }],
  ["O exited", { _tag: "IncumbentExited", at: 1 }],
  ["N lost", { _tag: "Lost", from: "successor", detail: "", at: 1 }],
  ["N garbled", { _tag: "Garbled", from: "successor", detail: "", at: 1 }],
  ["N exited", { _tag: "SuccessorExited", status: { _tag: "Exited", code: 1 }, at: 1 }],
  ["N gone", { _tag: "SuccessorGone", at: 1 }],
  ["path answers: nobody", { _tag: "PathAnswered", pid: undefined, hello: true, at: 1 }],
  ["path answers: O", { _tag: "PathAnswered", pid: O, hello: true, at: 1 }],
  ["path answers: N", { _tag: "PathAnswered", pid: N, hello: true, at: 1 }],
  ["abort", { _tag: "AbortRequested", why: "Aborted", at: 1 }],
  ...timers.map((timer) => [`timer ${timer}`, { _tag: "TimerFired", timer, at: 1 }] as const)
]

const party = { incumbent: "O", successor: "N" } as const

const command = (one: Sealed.Command): ReadonlyArray<string> => {
  switch (one._tag) {
    case "Send":
      return [`send ${party[one.to]} ${one.message._tag}`]
    case "Close":
      return [`close ${party[one.to]}`]
    case "Probe":
      return [one.hello ? "probe path for Hello" : "probe path"]
    case "SetTimer":
      return one.timer === "probe" ? ["wait probe"] : []
    case "ClearTimer":
      return []
    default:
      return [words(one._tag)]
  }
}

const told = (commands: ReadonlyArray<Sealed.Command>): string => commands.flatMap(command).join(", ")

/** A violation has the row of its sender's loss, with the stream closed by us, and is not printed; the text says so. */
const isViolation = (state: Sealed.State, event: Sealed.Event): boolean => {
  if (event._tag !== "Received" && event._tag !== "Garbled") return false
  const lost = Sealed.step(state, { _tag: "Lost", from: event.from, detail: "", at: 1 })
  const closed = [`close ${party[event.from]}`, told(lost.commands)].filter((text) => text !== "").join(", ")
  const step = Sealed.step(state, event)
  return told(step.commands) === closed && step.state.phase === lost.state.phase
}

const LATE: Sealed.Failure = { _tag: "TimedOut", party: "successor", waitedFor: "Ready", afterMs: 1 }

const states: ReadonlyArray<readonly [string, Sealed.State]> = Sealed.phases
  .filter((phase) => phase !== "ended")
  .flatMap((phase): ReadonlyArray<readonly [string, Sealed.State]> => {
    if (phase === "opening")
      return [
        [phase, stateIn(phase)],
        ["opening, N late", stateIn(phase, { late: LATE })]
      ]
    if (phase !== "reverting") return [[phase, stateIn(phase)]]
    return [
      [phase, stateIn(phase)],
      ["reverting, not prepared", stateIn(phase, { prepared: false })],
      ["reverting, O gone", stateIn(phase, { session: false, incumbentAlive: false })]
    ]
  })

export const table = (): ReadonlyArray<string> => {
  const rows = states.flatMap(([label, state]) =>
    events.flatMap(([name, event]): ReadonlyArray<Row> => {
      const { state: next, commands } = Sealed.step(state, event)
      if (isViolation(state, event)) return []
      const still = next.phase === state.phase
      const same = JSON.stringify(next) === JSON.stringify(state) || event._tag === "Launched"
      return still && commands.length === 0 && same ? [] : [[label, name, still ? "" : next.phase, told(commands)]]
    })
  )
  return layout(merge(rows))
}

export { id, otherId }

/**
 * The two machines' transition tables, printed from what `step` does in every phase with every event. The docblock of
 * each machine holds the same table; Machines.test.ts compares them.
 */
import * as Incumbent from "@handoff/core/protocol/Incumbent"
import type { Message } from "@handoff/core/protocol/Message"
import * as Successor from "@handoff/core/protocol/Successor"

export const id = "6f0d2c5e-9a1b-4c3d-8e7f-102132435465"
export const otherId = "00000000-0000-4000-8000-000000000000"

const hello: Message = {
  _tag: "Hello",
  role: "Incumbent",
  pid: 1,
  buildId: new Uint8Array(0),
  protoMin: 1,
  protoMax: 1,
  capabilities: { reserved: 0n }
}

/** One message of each kind, all of the same handoff. */
export const messages: ReadonlyArray<Message> = [
  hello,
  { _tag: "HelloAck", protoVersionChosen: 1, handoffId: id },
  { _tag: "PrepareHandoff", handoffId: id, successorPid: 2, deadlineMs: 60_000n, drainGraceMs: 25_000n },
  { _tag: "Drained", openConnsRemaining: 0, acceptClosed: true },
  { _tag: "SealRequest", handoffId: id },
  { _tag: "SealProgress", shardsSealed: 1, shardsTotal: 2, lastRevision: 3n },
  { _tag: "SealComplete", handoffId: id, lastRevisionPerShard: [], dataDirFingerprint: new Uint8Array(32) },
  { _tag: "SealFailed", handoffId: id, error: "", partialState: "" },
  { _tag: "Begin", handoffId: id },
  { _tag: "Ready", handoffId: id, listeningOn: [], healthzOk: true, advertisedRevisionPerShard: [] },
  { _tag: "Commit", handoffId: id },
  { _tag: "Abort", handoffId: id, reason: "" },
  { _tag: "ResumeAfterAbort", handoffId: id },
  { _tag: "Heartbeat", tsMs: 0n }
]

export const incumbentOptions: Incumbent.Options = { ...Incumbent.defaults, pid: 10, buildId: new Uint8Array(0) }
export const successorOptions: Successor.Options = { ...Successor.defaults, pid: 20, buildId: new Uint8Array(0) }

export type Row = readonly [phase: string, event: string, next: string, commands: string]

interface Outcome {
  readonly state: { readonly phase: string }
  readonly commands: ReadonlyArray<Incumbent.Command | Successor.Command>
  readonly violation: unknown
}

export const words = (name: string): string =>
  name.replaceAll(/(?<=[a-z])[A-Z]/g, (letter) => ` ${letter}`).toLowerCase()

const command = (one: Incumbent.Command | Successor.Command): ReadonlyArray<string> => {
  if (one._tag === "Send") return [`send ${one.message._tag}`]
  if (one._tag === "Exit") return [`exit ${one.status}: ${one.why}`]
  if (one._tag === "SetTimer" || one._tag === "ClearTimer") return []
  return [words(one._tag)]
}

/** Timers that only repeat a try, or a heartbeat, are no transitions; the text names them. */
const row = (phase: string, event: string, outcome: Outcome): ReadonlyArray<Row> => {
  if (outcome.violation !== undefined) return []
  const timers = outcome.commands.flatMap((one) =>
    one._tag === "SetTimer" && ["relock", "publish"].includes(one.timer) ? [`wait ${one.timer}`] : []
  )
  const commands = [...outcome.commands.flatMap(command), ...timers].join(", ")
  const still = outcome.state.phase === phase.split(",")[0]
  if (still && outcome.commands.length === 0 && event.startsWith("timer")) return []
  return [[phase, event, still ? "" : outcome.state.phase, commands]]
}

/** Events of a phase with the same outcome share a line. */
export const merge = (rows: ReadonlyArray<Row>): ReadonlyArray<Row> => {
  const merged = new Map<string, Row>()
  for (const [phase, event, next, commands] of rows) {
    const key = `${phase}|${next}|${commands}`
    const before = merged.get(key)
    merged.set(key, [phase, before === undefined ? event : `${before[1]}, ${event}`, next, commands])
  }
  return [...merged.values()]
}

export const layout = (rows: ReadonlyArray<Row>): ReadonlyArray<string> => {
  const all: ReadonlyArray<Row> = [["phase", "event", "next", "commands"], ...rows]
  const width = (column: 0 | 1 | 2) => Math.max(...all.map((one) => one[column].length)) + 2
  const widths = [width(0), width(1), width(2)] as const
  let last = ""
  return all.map(([phase, event, next, commands]) => {
    const name = phase === last ? "" : phase
    last = phase
    return `${name.padEnd(widths[0])}${event.padEnd(widths[1])}${next.padEnd(widths[2])}${commands}`.trimEnd()
  })
}

const received = messages
  .filter((message) => message._tag !== "Heartbeat")
  .map((message) => [message._tag, { _tag: "Received", message, at: 0 }] as const)

export const incumbentFacts: ReadonlyArray<readonly [string, Incumbent.Event]> = [
  ["Drained", { _tag: "Drained", openConnections: 0, acceptClosed: true, at: 0 }],
  ["DrainFailed", { _tag: "DrainFailed", at: 0 }],
  ["Progressed", { _tag: "Progressed", sealed: 1, total: 2, lastRevision: 3n, at: 0 }],
  ["Sealed", { _tag: "Sealed", revisions: [7n], fingerprint: new Uint8Array(32), at: 0 }],
  ["SealFailed", { _tag: "SealFailed", error: "no space", partialState: "", at: 0 }],
  ["LockReleased", { _tag: "LockReleased", at: 0 }],
  ["LockAcquired", { _tag: "LockAcquired", at: 0 }],
  ["LockHeld", { _tag: "LockHeld", at: 0 }],
  ["path answers: nobody", { _tag: "PathAnswered", pid: undefined, at: 0 }],
  ["itself", { _tag: "PathAnswered", pid: 10, at: 0 }],
  ["path answers: another", { _tag: "PathAnswered", pid: 11, at: 0 }],
  ["Resumed", { _tag: "Resumed", at: 0 }],
  ["ResumeFailed", { _tag: "ResumeFailed", at: 0 }]
]

export const incumbentTimers = ["hello", "prepare", "deadline", "heartbeat", "relock", "linger"] as const

const incumbentStates = (): ReadonlyArray<readonly [string, Incumbent.State]> =>
  Incumbent.phases.flatMap((phase): ReadonlyArray<readonly [string, Incumbent.State]> => {
    const seal = { revisions: [7n], fingerprint: new Uint8Array(32) }
    const base = { ...Incumbent.initial(incumbentOptions), phase, handoffId: id, seal }
    const open: Incumbent.State = { ...base, session: phase !== "serving" }
    if (phase !== "resuming") return [[phase, open]]
    const failed: Incumbent.State = { ...open, sealFailure: { error: "no space", partialState: "" } }
    return [[phase, open] as const, ["resuming, seal failed", failed] as const, ["resuming, no session", base] as const]
  })

export const incumbentTable = (): ReadonlyArray<string> => {
  const events: ReadonlyArray<readonly [string, Incumbent.Event]> = [
    ["connected", { _tag: "Connected", at: 0 }],
    ...received,
    ["gone", { _tag: "Disconnected", at: 0 }],
    ...incumbentTimers.map((timer) => [`timer ${timer}`, { _tag: "TimerFired", timer, at: 0 }] as const),
    ...incumbentFacts
  ]
  const rows = incumbentStates()
    .filter(([phase]) => phase !== "exiting")
    .flatMap(([phase, state]) =>
      events
        .filter(([, event]) => state.session || (event._tag !== "Received" && event._tag !== "Disconnected"))
        .flatMap(([label, event]) => row(phase, label, Incumbent.step(state, event)))
    )
  return layout(merge(rows))
}

export const opened: Successor.Opened = { _tag: "Opened", listeningOn: ["http"], healthy: true, revisions: [7n] }

export const successorFacts: ReadonlyArray<readonly [string, Successor.Event]> = [
  ["ListenersTaken", { _tag: "ListenersTaken", at: 0 }],
  ["ListenersFailed", { _tag: "ListenersFailed", at: 0 }],
  ["LockAcquired", { _tag: "LockAcquired", at: 0 }],
  ["LockHeld", { _tag: "LockHeld", at: 0 }],
  ["Opened", { ...opened, at: 0 }],
  ["OpenFailed", { _tag: "OpenFailed", at: 0 }],
  ["SocketPrepared", { _tag: "SocketPrepared", at: 0 }],
  ["SocketFailed", { _tag: "SocketFailed", at: 0 }],
  ["Published", { _tag: "Published", at: 0 }],
  ["PublishFailed", { _tag: "PublishFailed", at: 0 }],
  ["Closed", { _tag: "Closed", at: 0 }]
]

export const successorTimers = ["hello", "heartbeat", "relock", "lock", "word", "leave", "publish"] as const

const successorStates = (): ReadonlyArray<readonly [string, Successor.State]> =>
  Successor.phases.flatMap((phase): ReadonlyArray<readonly [string, Successor.State]> => {
    const why = phase === "cancelling" || phase === "closing" ? ("aborted" as const) : undefined
    const state: Successor.State = { ...Successor.initial(successorOptions), phase, handoffId: id, opened, why }
    if (phase !== "announced") return [[phase, state]]
    const unhealthy: Successor.State = { ...state, opened: { ...opened, healthy: false } }
    return [[phase, state] as const, ["announced, unhealthy", unhealthy] as const]
  })

export const successorTable = (): ReadonlyArray<string> => {
  const events: ReadonlyArray<readonly [string, Successor.Event]> = [
    ["started", { _tag: "Started", at: 0 }],
    ...received,
    ["gone", { _tag: "Disconnected", at: 0 }],
    ...successorTimers.map((timer) => [`timer ${timer}`, { _tag: "TimerFired", timer, at: 0 }] as const),
    ...successorFacts
  ]
  const rows = successorStates()
    .filter(([phase]) => phase !== "exiting")
    .flatMap(([phase, state]) => events.flatMap(([label, event]) => row(phase, label, Successor.step(state, event))))
  return layout(merge(rows))
}

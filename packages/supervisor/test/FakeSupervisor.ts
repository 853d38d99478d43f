/** A supervisor that does what a test tells it: events are published by hand, answers are given by the test. */
import type * as Mode from "@handoff/core/swap/Mode"
import type * as Supervision from "@handoff/core/swap/Supervision"
import { type Status, Supervisor, type SupervisorEvent, type SwapReport } from "@handoff/supervisor/Supervisor"
import { SwapError } from "@handoff/supervisor/SupervisorError"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as PubSub from "effect/PubSub"
import * as Stream from "effect/Stream"

export const record = (over: Partial<Supervision.SwapRecord> = {}): Supervision.SwapRecord => ({
  id: 1,
  outcome: "committed",
  kind: "swap",
  mode: "overlap",
  from: 1,
  to: 2,
  command: { argv: ["node", "server.js"] },
  requestedAt: 1_000,
  durationMs: 1_234,
  evidence: "notified",
  failure: undefined,
  cut: 0,
  killed: false,
  serving: 2,
  ...over
})

export const rolledBack = (over: Partial<Supervision.SwapRecord> = {}): SwapError =>
  new SwapError({
    reason: {
      _tag: "RolledBack",
      report: {
        record: record({
          outcome: "rolled-back",
          serving: 1,
          evidence: undefined,
          failure: { _tag: "Exited", status: { _tag: "Exited", code: 7 }, afterMs: 20 },
          ...over
        }),
        lastLines: ["reading config", "no such table"]
      }
    }
  })

export const refused = (refusal: Supervision.Refusal): SwapError =>
  new SwapError({ reason: { _tag: "Refused", refusal } })

export const status = (over: Partial<Status> = {}): Status => ({
  name: "web",
  pid: process.pid,
  version: "0.1.0",
  phase: "serving",
  startedAt: 1_700_000_000_000,
  mode: "auto",
  serving: 1,
  listeners: [{ name: "http", address: "127.0.0.1:8080", backlog: 4096 }],
  generations: [
    {
      id: 1,
      phase: "serving",
      pid: 4242,
      command: ["node", "server.js"],
      launchedAt: 1_700_000_000_000,
      readyAt: 1_700_000_000_100,
      evidence: "accepting",
      connections: 3,
      lastLines: []
    }
  ],
  swap: undefined,
  swaps: [],
  restarts: { failures: 0, total: 0, nextAt: undefined },
  canRollBack: false,
  ...over
})

type Outcome = Effect.Effect<SwapReport, SwapError>

export interface Fake {
  readonly layer: Layer.Layer<Supervisor>
  readonly tell: (notice: Supervision.Notice) => Effect.Effect<void>
  /** What `swap` and `rollback` do; by default they publish the events of a swap that commits. */
  swap: (command: Supervision.Command | undefined, kind: "swap" | "rollback") => Outcome
  abort: Effect.Effect<number, SwapError>
  status: Status
  readonly swaps: Array<Supervision.Command | undefined>
  /** The mode of each swap, where it was given. */
  readonly modes: Array<Mode.Wish | undefined>
  stops: number
  readonly finish: Effect.Effect<void>
}

export const make: Effect.Effect<Fake> = Effect.gen(function* () {
  const hub = yield* PubSub.unbounded<SupervisorEvent>()
  const finished = yield* Deferred.make<void>()
  const tell = (notice: Supervision.Notice) => Effect.asVoid(PubSub.publish(hub, { ...notice, at: 5 }))
  /** A real supervisor tells of a roll-back before it answers. */
  const tellEnd = (error: SwapError) =>
    error.reason._tag === "RolledBack" ? tell({ _tag: "SwapEnded", record: error.reason.report.record }) : Effect.void
  const fake: Fake = {
    tell,
    swaps: [],
    modes: [],
    stops: 0,
    status: status(),
    abort: Effect.fail(refused({ _tag: "NoSwap" })),
    swap: (command, kind) =>
      Effect.gen(function* () {
        const wished = command ?? { argv: ["node", "server.js"] }
        yield* tell({ _tag: "SwapRequested", swap: 1, kind, command: wished })
        yield* tell({ _tag: "GenerationStarting", generation: 2, command: wished })
        yield* tell({ _tag: "GenerationReady", generation: 2, evidence: "notified", afterMs: 12 })
        yield* tell({ _tag: "SwapEnded", record: record({ kind, command: wished }) })
        return { record: record({ kind, command: wished }), lastLines: ["listening"] }
      }),
    finish: Effect.andThen(tell({ _tag: "Stopped" }), Effect.asVoid(Deferred.succeed(finished, undefined))),
    layer: Layer.suspend(() =>
      Layer.succeed(
        Supervisor,
        Supervisor.of({
          remarks: [],
          start: Effect.succeed({ generation: 1, durationMs: 5 }),
          swap: (command, { mode } = {}) =>
            Effect.suspend(() => {
              fake.swaps.push(command)
              fake.modes.push(mode)
              return Effect.tapError(fake.swap(command, "swap"), tellEnd)
            }),
          rollback: Effect.suspend(() => Effect.tapError(fake.swap(undefined, "rollback"), tellEnd)),
          abort: Effect.suspend(() => fake.abort),
          stop: Effect.suspend(() => {
            fake.stops += 1
            return Deferred.await(finished)
          }),
          finished: Deferred.await(finished),
          status: Effect.sync(() => fake.status),
          events: Stream.fromPubSub(hub)
        })
      )
    )
  }
  return fake
})

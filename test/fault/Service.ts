/**
 * A whole supervisor for the fault tests: the shipped one (`Supervisor.layer` on the real backend), with one listener, as
 * a process that a test starts, asks through Node's IPC, kills and starts again.
 *
 * It differs from the shipped one in what is observed: the service in packages/supervisor/src/internal/Observer.ts, which
 * is imported by its path in the source tree. The package exports no way to it and reads no variable for it, so that no
 * program of a user can reach a crash point.
 *
 * Its environment: HANDOFF_TEST_SERVICE, a `Settings` as JSON, and the variables of a crash (Crash.ts). It sends `Said`
 * and takes `Asked`; every question has one answer, with its number.
 */
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as FfiBackend from "@handoff/backend-ffi/FfiBackend"
import type { Command, Failure, SwapRecord } from "@handoff/core/swap/Supervision"
import { type Options, type Status, Supervisor } from "@handoff/supervisor/Supervisor"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import { Observer } from "../../packages/supervisor/src/internal/Observer.ts"
import { takeCrashPoint } from "./Crash.ts"

export type Settings = Omit<Options, "record" | "onOutput" | "listeners">

export type Question =
  | { readonly _tag: "Swap"; readonly command?: Command }
  | { readonly _tag: "Abort" }
  | { readonly _tag: "Status" }
  | { readonly _tag: "Stop" }

export type Asked = Question & { readonly id: number }

/** What came of a swap: `message` and `failure` say why it did not commit. */
export interface Verdict {
  readonly committed: boolean
  readonly message: string
  readonly failure: Failure | undefined
  readonly record: SwapRecord | undefined
}

export type Said =
  | { readonly _tag: "Serving"; readonly port: number; readonly remarks: ReadonlyArray<string> }
  | { readonly _tag: "Event"; readonly text: string }
  | { readonly _tag: "Answer"; readonly id: number; readonly value: Verdict | Status | string }

const { env } = process
const observe = takeCrashPoint()
const settings = JSON.parse(env.HANDOFF_TEST_SERVICE ?? "{}") as Settings
delete env.HANDOFF_TEST_SERVICE

const say = (said: Said): void => {
  if (process.connected) process.send?.(said)
}

/** Questions in the order they came; a test that is gone has asked to stop. */
const questions = Effect.gen(function* () {
  const queue = yield* Queue.unbounded<Asked>()
  process.on("message", (message) => void Queue.offerUnsafe(queue, message as Asked))
  process.once("disconnect", () => void Queue.offerUnsafe(queue, { _tag: "Stop", id: 0 }))
  return queue
})

const swap = (supervisor: Supervisor["Service"], command: Command | undefined) =>
  supervisor.swap(command).pipe(
    Effect.map(({ record }): Verdict => ({ committed: true, message: "", failure: undefined, record })),
    Effect.catch((error) => {
      const record = error.reason._tag === "RolledBack" ? error.reason.report.record : undefined
      const { message } = error
      return Effect.succeed<Verdict>({ committed: false, message, failure: record?.failure, record })
    })
  )

const answer = (supervisor: Supervisor["Service"], asked: Asked): Effect.Effect<Verdict | Status | string> => {
  switch (asked._tag) {
    case "Swap":
      return swap(supervisor, asked.command)
    case "Abort":
      return Effect.match(supervisor.abort, { onSuccess: () => "aborting", onFailure: (error) => error.message })
    case "Status":
      return supervisor.status
    case "Stop":
      return Effect.as(supervisor.stop, "stopped")
  }
}

const portOf = ({ listeners }: Status): number => {
  const address = listeners[0]?.address ?? ""
  return Number(address.slice(address.lastIndexOf(":") + 1))
}

const main = Effect.gen(function* () {
  const asked = yield* questions
  const supervisor = yield* Supervisor
  const events = Stream.runForEach(supervisor.events, (event) =>
    Effect.sync(() => say({ _tag: "Event", text: JSON.stringify(event) }))
  )
  yield* Effect.forkScoped(events, { startImmediately: true })
  yield* supervisor.start
  say({ _tag: "Serving", port: portOf(yield* supervisor.status), remarks: supervisor.remarks })
  const one = Effect.flatMap(Queue.take(asked), (next) =>
    Effect.forkScoped(
      Effect.map(answer(supervisor, next), (value) => say({ _tag: "Answer", id: next.id, value })),
      { startImmediately: true }
    )
  )
  yield* Effect.forkScoped(Effect.forever(one))
  yield* supervisor.finished
  yield* Effect.yieldNow
})

const backend = Layer.merge(FfiBackend.layer, NodeFileSystem.layer)
const service = Supervisor.layer({ ...settings, listeners: { http: "127.0.0.1:0" }, onOutput: () => undefined })
await Effect.runPromise(
  Effect.scoped(main).pipe(
    Effect.provide(service.pipe(Layer.provide(backend))),
    Effect.provideService(Observer, observe)
  )
)
// The channel to the test keeps the process alive.
process.disconnect?.()

/**
 * The supervisor of a replay: the shipped one on the real backend, as a process that can be hit at every point of
 * ReplayPoints.ts, and that is asked through Node's IPC.
 *
 * It learns where it is from outside: from the recorder (an event is taken), from the files that it writes (its document
 * is saved), from the launcher, and from the observer of the fault tests, which no exported module can provide.
 */
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as FfiBackend from "@handoff/backend-ffi/FfiBackend"
import { FileError, Files } from "@handoff/core/backend/Files"
import { LaunchError, Launcher } from "@handoff/core/backend/Launcher"
import type { Command, Event, HandoffEvent } from "@handoff/core/swap/Supervision"
import { type Options, type Status, Supervisor } from "@handoff/supervisor/Supervisor"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import { Observer } from "../../packages/supervisor/src/internal/Observer.ts"
import { launched, ordinalOfGeneration, reach } from "./ReplayPoints.ts"

export type Settings = Omit<Options, "record" | "onOutput">

export type Question =
  | { readonly _tag: "Swap"; readonly command: Command }
  | { readonly _tag: "Abort" }
  | { readonly _tag: "Status" }
  | { readonly _tag: "Stop" }

export type Asked = Question & { readonly id: number }

export interface Verdict {
  readonly outcome: "committed" | "rolled back" | "refused"
  readonly message: string
}

export type Said =
  | { readonly _tag: "Serving"; readonly status: Status }
  | { readonly _tag: "Answer"; readonly id: number; readonly value: Verdict | Status | string }

const { env } = process
const settings = JSON.parse(env.HANDOFF_TEST_SERVICE ?? "{}") as Settings
delete env.HANDOFF_TEST_SERVICE

const asked = Queue.unbounded<Asked>()

const say = (said: Said): void => {
  if (process.connected) process.send?.(said)
}

/** The event whose step is being made, in the words of a script. */
let current = ""
let abort: (() => void) | undefined

const at = (point: string): string | undefined => reach(() => "S", point, abort)

const handoffEvent = (event: HandoffEvent): string => {
  switch (event._tag) {
    case "Received":
      return `${event.message._tag} of ${event.from}`
    case "Lost":
      return `the end of ${event.from}`
    case "Connected":
      return "the connection"
    default:
      return ""
  }
}

const eventName = (event: Event): string => {
  switch (event._tag) {
    case "SwapRequested":
      return "the request"
    case "Launched":
      launched(event)
      return `launch of #${ordinalOfGeneration(event.generation)}`
    case "Exited":
      return `exit of #${ordinalOfGeneration(event.generation)}`
    case "Gone":
      return `end of #${ordinalOfGeneration(event.generation)}`
    case "Handoff":
      return handoffEvent(event.event)
    case "TimerFired":
      return event.timer === "restart" ? "time to restart" : ""
    default:
      return ""
  }
}

const record = (event: Event): void => {
  current = eventName(event)
  if (current !== "") at(`takes ${current}`)
}

const isDocument = (path: string): boolean => path.endsWith("/state.json")

/** Saves under way. What is on the disk then was not yet reached by who waits for it to be saved. */
let saves = 0

const files = Layer.effect(
  Files,
  Effect.map(Files, (real) => ({
    ...real,
    replace: (path: string, text: string) =>
      Effect.suspend(() => {
        if (!isDocument(path) || current === "") return real.replace(path, text)
        if (at(`saves ${current}`) === "failed") return Effect.fail(new FileError({ path, errno: "EIO" }))
        saves += 1
        return Effect.ensuring(
          Effect.tap(real.replace(path, text), () => Effect.sync(() => at(`saved ${current}`))),
          Effect.sync(() => {
            saves -= 1
          })
        )
      })
  }))
)

const launcher = Layer.effect(
  Launcher,
  Effect.map(Launcher, (real) => ({
    ...real,
    launch: (plan: Parameters<typeof real.launch>[0]) =>
      Effect.suspend(() => {
        if (at(`launches in ${current}`) !== "failed") return real.launch(plan)
        return Effect.fail(
          new LaunchError({ reason: { _tag: "ParentCallFailed", call: "clone(...)", errno: "EAGAIN" } })
        )
      })
  }))
)

const swap = (supervisor: Supervisor["Service"], command: Command): Effect.Effect<Verdict> =>
  supervisor.swap(command).pipe(
    Effect.map((): Verdict => ({ outcome: "committed", message: "" })),
    Effect.catch(({ reason, message }) =>
      Effect.succeed<Verdict>({ outcome: reason._tag === "RolledBack" ? "rolled back" : "refused", message })
    )
  )

/** The status between two saves: one that is told in the middle of one would be of a moment that a script has not passed. */
const status = (supervisor: Supervisor["Service"]): Effect.Effect<Status> =>
  Effect.suspend(() => (saves === 0 ? supervisor.status : Effect.flatMap(Effect.sleep(5), () => status(supervisor))))

const answer = (supervisor: Supervisor["Service"], question: Question): Effect.Effect<Verdict | Status | string> => {
  switch (question._tag) {
    case "Swap":
      return swap(supervisor, question.command)
    case "Abort":
      return Effect.match(supervisor.abort, { onSuccess: () => "aborting", onFailure: (error) => error.message })
    case "Status":
      return status(supervisor)
    case "Stop":
      return Effect.as(supervisor.stop, "stopped")
  }
}

const main = Effect.gen(function* () {
  const queue = yield* asked
  process.on("message", (message) => void Queue.offerUnsafe(queue, message as Asked))
  process.once("disconnect", () => void Queue.offerUnsafe(queue, { _tag: "Stop", id: 0 }))
  abort = () => void Queue.offerUnsafe(queue, { _tag: "Abort", id: 0 })
  const supervisor = yield* Supervisor
  yield* supervisor.start
  say({ _tag: "Serving", status: yield* supervisor.status })
  const one = Effect.flatMap(Queue.take(queue), (next) =>
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
const service = Supervisor.layer({ ...settings, record, onOutput: () => undefined }).pipe(
  Layer.provide(Layer.merge(files, launcher)),
  Layer.provide(backend)
)
await Effect.runPromise(
  Effect.scoped(main).pipe(
    Effect.provide(service),
    Effect.provideService(Observer, (point) => void at(point))
  )
)
// The channel to the test keeps the process alive.
process.disconnect?.()

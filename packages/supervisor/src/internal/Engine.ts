/**
 * Drives the supervision machine: events in one queue, one fiber that steps and carries the commands out in order.
 *
 * The state is written down after each step and before its commands: an intent stands in the document before the act.
 * Launches run inside that fiber, so that the next event sees their outcome; everything that waits (timers, exits,
 * looks at a process) runs in fibers of its own and comes back as an event. Times are milliseconds since 1970 that never
 * run backwards: the wall clock at the start plus what the monotonic clock has advanced.
 */
import type { Process } from "@handoff/core/backend/Launcher"
import { Processes } from "@handoff/core/backend/Processes"
import type { Fd } from "@handoff/core/Fd"
import * as Supervision from "@handoff/core/swap/Supervision"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberMap from "effect/FiberMap"
import * as PubSub from "effect/PubSub"
import * as Queue from "effect/Queue"
import * as Scope from "effect/Scope"
import * as ReadinessProbes from "../ReadinessProbes.ts"
import type { SupervisorEvent } from "../Supervisor.ts"
import * as GenerationLauncher from "./GenerationLauncher.ts"
import * as HandoffSessions from "./HandoffSessions.ts"
import { Observer } from "./Observer.ts"

type EventBody = Supervision.Event extends infer E ? (E extends unknown ? Omit<E, "at"> : never) : never
type RequestBody =
  Extract<EventBody, { readonly request: number }> extends infer E
    ? E extends unknown
      ? Omit<E, "request">
      : never
    : never

type Answer = Extract<Supervision.Action, { readonly _tag: "Answer" }>

interface Running {
  readonly process: Process
  readonly scope: Scope.Closeable
}

/** An event that changes nothing but lets a state be written that could not be: the next one may be far. */
const SAVE_AGAIN = "save"
const SAVE_AGAIN_MS = 1_000

/** A generation that was running before this supervisor. Its scope is the engine's from now on. */
export interface Adopted extends Running {
  readonly generation: number
}

export interface Setup {
  readonly settings: GenerationLauncher.Settings
  readonly machine: Supervision.State
  readonly adopted: ReadonlyArray<Adopted>
  /** Generations that were to be adopted and are gone. */
  readonly gone: ReadonlyArray<number>
  /** Writes the state down, before the commands that came with it are carried out. */
  readonly save: (state: Supervision.State) => Effect.Effect<void, { readonly message: string }>
  /** Fails with what keeps the state from being written down. */
  readonly canSave: Effect.Effect<void, { readonly message: string }>
  readonly record: ((event: Supervision.Event, commands: ReadonlyArray<Supervision.Action>) => void) | undefined
}

/** How often a starting generation's handoff socket is tried. */
const HANDOFF_SOCKET_LOOK_MS = 100

/** Runs the machine in the scope; what it gives is everything the service needs. */
export const make = Effect.fnUntraced(function* (setup: Setup) {
  const { settings } = setup
  const context = yield* Effect.context<GenerationLauncher.Requirements>()
  const clock = yield* Clock.Clock
  const engineScope = yield* Effect.scope
  const queue = yield* Queue.unbounded<Supervision.Event>()
  const notices = yield* PubSub.sliding<SupervisorEvent>(1024)
  const timers = yield* FiberMap.make<string>()
  const watches = yield* FiberMap.make<number>()
  const finished = yield* Deferred.make<void>()
  const running = new Map<number, Running>(setup.adopted.map((one) => [one.generation, one]))
  const observe = yield* Observer
  const processes = yield* Processes
  const waiting = new Map<number, Deferred.Deferred<Supervision.Answer>>()
  const startedAt = clock.currentTimeMillisUnsafe()
  const origin = clock.monotonicTimeNanosUnsafe()
  let state = setup.machine
  let nextRequest = 1
  let started = false
  /** Why the state could not be written down, if it could not. */
  let unsaved: string | undefined

  const now = () => startedAt + Number((clock.monotonicTimeNanosUnsafe() - origin) / 1000n) / 1000
  const send = (event: EventBody): void => {
    Queue.offerUnsafe(queue, { ...event, at: now() } as Supervision.Event)
  }

  const sessions = yield* HandoffSessions.make(settings.handoffSocket, (swap, event) =>
    send({ _tag: "Handoff", swap, event })
  )

  const onNotify = (generation: number) => (fields: Readonly<Record<string, string>>) => {
    if (fields.READY === "1") send({ _tag: "Notified", generation })
  }

  const launch = ({ generation, command, successor }: Extract<Supervision.Action, { readonly _tag: "Launch" }>) =>
    Effect.gen(function* () {
      // A new version that nobody would find again must not be started. What served is started again all the same.
      if (unsaved !== undefined && state.swap?.to === generation) {
        return send({ _tag: "LaunchFailed", generation, detail: `its start could not be written down: ${unsaved}` })
      }
      const scope = yield* Scope.fork(engineScope)
      const swap = state.swap?.id ?? 0
      let read: Effect.Effect<void> = Effect.void
      const attach = (fd: Fd) =>
        Effect.map(sessions.attach(swap, fd), (begin) => {
          read = begin
        })
      const token = state.generations.find((one) => one.id === generation)?.token ?? ""
      const launched = yield* GenerationLauncher.launch(settings, {
        generation,
        token,
        command,
        onNotify: onNotify(generation),
        attach: successor ? attach : undefined
      }).pipe(Scope.provide(scope), Effect.result)
      if (launched._tag === "Failure") {
        yield* Scope.close(scope, Exit.void)
        return send({ _tag: "LaunchFailed", generation, detail: launched.failure.message })
      }
      const process = launched.success
      running.set(generation, { process, scope })
      const identity = yield* processes.identify(process.pid)
      send({ _tag: "Launched", generation, pid: process.pid, ...(identity === undefined ? {} : { identity }) })
      yield* Effect.forkIn(followExit(generation, process), engineScope)
      yield* read
    })

  const followExit = (generation: number, process: Process) =>
    Effect.gen(function* () {
      const status = yield* process.exit
      send({ _tag: "Exited", generation, status })
      yield* ReadinessProbes.groupEmpty(process.pid)
      const entry = running.get(generation)
      running.delete(generation)
      if (entry !== undefined) yield* Scope.close(entry.scope, Exit.void)
      send({ _tag: "Gone", generation })
    })

  const signal = (command: Extract<Supervision.Action, { readonly _tag: "Signal" }>) => {
    const process = running.get(command.generation)?.process
    if (process === undefined) return Effect.void
    if (command.to === "group") return Effect.ignore(process.signalGroup(command.signal))
    const { generation } = command
    const sent = Effect.map(process.signal(command.signal), (delivered) => {
      if (delivered) send({ _tag: "Asked", generation })
    })
    return Effect.ignore(sent)
  }

  const watch = (generation: number, everyMs: number) => {
    const pid = running.get(generation)?.process.pid
    if (pid === undefined) return Effect.void
    const sockets = settings.listeners.map((listener) => listener.socket)
    const observed = ReadinessProbes.watch(pid, sockets, everyMs, (seen) =>
      send({ _tag: "Observed", generation, ...seen })
    )
    return FiberMap.run(watches, generation, Effect.raceFirst(observed, watchHandoffSocket(generation, pid)))
  }

  /** A daemon that owns data and sends no READY=1 shows itself by its handoff socket. */
  const watchHandoffSocket = (generation: number, pid: number) =>
    Effect.gen(function* () {
      while (state.generations.some((one) => one.id === generation && one.phase === "starting")) {
        yield* Effect.sleep(HANDOFF_SOCKET_LOOK_MS)
        if (yield* sessions.isServedBy(pid)) send({ _tag: "HandoffSocketSeen", generation, served: true })
      }
      return yield* Effect.never
    })

  const look = (generation: number) => {
    const pid = running.get(generation)?.process.pid
    const served = pid === undefined ? Effect.succeed(false) : sessions.isServedBy(pid)
    return Effect.map(served, (answer) => send({ _tag: "HandoffSocketSeen", generation, served: answer }))
  }

  const save = Effect.gen(function* () {
    const saved = yield* Effect.result(setup.save(state))
    const detail = saved._tag === "Failure" ? saved.failure.message : undefined
    if (detail !== undefined && unsaved === undefined) {
      yield* PubSub.publish(notices, { _tag: "StateNotSaved", detail, at: now() })
    }
    unsaved = detail
    if (detail === undefined) return yield* FiberMap.remove(timers, SAVE_AGAIN)
    const again = Effect.sync(() => send({ _tag: "TimerFired", timer: SAVE_AGAIN }))
    yield* FiberMap.run(timers, SAVE_AGAIN, Effect.andThen(Effect.sleep(SAVE_AGAIN_MS), again))
  })

  const carryOut = (command: Supervision.Action): Effect.Effect<unknown, never, GenerationLauncher.Requirements> => {
    switch (command._tag) {
      case "Launch":
        return launch(command)
      case "LookForHandoffSocket":
        return Effect.forkIn(look(command.generation), engineScope)
      case "Handoff": {
        const pid = command.incumbent === undefined ? undefined : running.get(command.incumbent)?.process.pid
        return sessions.carryOut(command.swap, pid, command.command)
      }
      case "Watch":
        return watch(command.generation, command.everyMs)
      case "Unwatch":
        return FiberMap.remove(watches, command.generation)
      case "Signal":
        return signal(command)
      case "SetTimer": {
        const fire = Effect.sync(() => send({ _tag: "TimerFired", timer: command.timer }))
        return FiberMap.run(timers, command.timer, Effect.andThen(Effect.sleep(command.delayMs), fire))
      }
      case "ClearTimer":
        return FiberMap.remove(timers, command.timer)
      case "Answer": {
        const caller = waiting.get(command.request)
        waiting.delete(command.request)
        return caller === undefined ? Effect.void : Deferred.succeed(caller, command.answer)
      }
      case "Tell":
        return PubSub.publish(notices, { ...command.notice, at: now() })
      case "Finish":
        return Deferred.succeed(finished, undefined)
    }
  }

  /**
   * An exclusive swap begins with the end of what serves, and so does a rollback: whether its program is there and the rest
   * can be written down is found out before. One that the machine refuses is left to it. Fails with our own refusal.
   */
  const examine = Effect.fnUntraced(function* (event: Supervision.Event) {
    if (event._tag !== "SwapRequested" && event._tag !== "RollbackRequested") return event
    const { swap } = Supervision.step(state, event).state
    if (swap === undefined || swap.id === state.swap?.id || swap.wish !== "exclusive") return event
    yield* Effect.mapError(GenerationLauncher.lookUp(settings, swap.command), ({ message }): Answer => {
      const refusal: Supervision.Refusal = { _tag: "NoProgram", detail: message }
      return { _tag: "Answer", request: event.request, answer: { _tag: "Refused", refusal } }
    })
    return yield* Effect.match(setup.canSave, {
      onSuccess: () => event,
      onFailure: ({ message }) => ({ ...event, unsaved: message })
    })
  })

  const take = (event: Supervision.Event) =>
    Effect.gen(function* () {
      const before = state.swap
      const next = Supervision.step(state, event)
      state = next.state
      setup.record?.(event, next.commands)
      yield* save
      const ended = before?.mode === "sealed" && state.swap?.id !== before.id ? before.id : undefined
      if (ended !== undefined && state.history.at(-1)?.outcome === "committed") observe("s-after-journal-clear")
      for (const command of next.commands) yield* carryOut(command)
      if (ended !== undefined) yield* sessions.release(ended)
    })
  const examined = Effect.flatMap(Queue.take(queue), examine)
  const loop = Effect.forever(Effect.matchEffect(examined, { onSuccess: take, onFailure: carryOut }))
  for (const { generation, scope } of setup.adopted) {
    // Without it only its READY=1 would be missed.
    yield* Effect.ignore(GenerationLauncher.hear(settings, generation, onNotify(generation)).pipe(Scope.provide(scope)))
  }
  yield* Effect.forkScoped(Effect.provideContext(loop, context))

  /** From the start on: before it the machine knows no generation, and an end that it hears of then would be forgotten. */
  const followAdopted = Effect.gen(function* () {
    for (const generation of setup.gone) {
      send({ _tag: "Exited", generation, status: { _tag: "Unknown" } })
      send({ _tag: "Gone", generation })
    }
    for (const { generation, process } of setup.adopted) {
      yield* Effect.forkIn(followExit(generation, process), engineScope)
    }
  })

  /** Puts a request to the machine and waits for its answer. An interrupted caller leaves the request running. */
  const ask = (request: RequestBody) =>
    Effect.gen(function* () {
      const id = nextRequest++
      const answer = yield* Deferred.make<Supervision.Answer>()
      waiting.set(id, answer)
      send({ ...request, request: id } as EventBody)
      if (request._tag === "StartRequested" && !started) {
        started = true
        yield* Effect.provideContext(followAdopted, context)
      }
      return yield* Deferred.await(answer)
    })

  return { ask, notices, finished: Deferred.await(finished), state: () => state, startedAt }
})

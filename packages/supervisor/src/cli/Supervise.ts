/**
 * The process of `handoff run`.
 *
 * Order: signal handlers first, so that none is lost; then what the service manager gave us; then the name (directory, lock,
 * admin socket), before anything of a living supervisor of the same name could be touched; then listeners, admin API and
 * trigger socket, the first generation. It ends the other way round, and the APIs go before the supervisor, when their
 * streams have seen the end.
 *
 * SIGHUP swaps to a new process of the same command. SIGTERM or SIGINT stops gracefully, the second one kills.
 */
import { join } from "node:path"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import { Locks } from "@handoff/core/backend/Locks"
import * as Notification from "@handoff/core/Notification"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import * as AdminApi from "../AdminApi.ts"
import * as AdminSocket from "../AdminSocket.ts"
import { Supervisor, type SupervisorEvent } from "../Supervisor.ts"
import type { StartError } from "../SupervisorError.ts"
import * as TriggerSocket from "../TriggerSocket.ts"
import { Code, CommandExit } from "./CommandExit.ts"
import * as CrateJournal from "./CrateJournal.ts"
import * as DefaultBackend from "./DefaultBackend.ts"
import * as EventText from "./EventText.ts"
import type { Launch } from "./LaunchFlags.ts"
import * as ServiceManager from "./ServiceManager.ts"
import { socketPath } from "./StateDirectory.ts"

export interface Settings extends Launch {
  readonly name: string
  readonly stateDirectory: string
  readonly json: boolean
}

/** How the supervisor speaks: lifecycle on stderr and output on stdout, or with `--json` both as JSON lines on stdout. */
interface Voice {
  readonly event: (event: SupervisorEvent) => void
  readonly line: (generation: number, text: string) => void
  readonly say: (text: string) => void
}

const voiceOf = (json: boolean): Voice => {
  const say = (text: string) => void process.stderr.write(`handoff: ${text}\n`)
  if (json) {
    const write = (value: unknown) => void process.stdout.write(`${JSON.stringify(value)}\n`)
    return {
      event: write,
      line: (generation, line) => write({ _tag: "Output", generation, line }),
      say
    }
  }
  return {
    event: (event) => {
      const text = EventText.format(event)
      if (text !== undefined) say(text)
    },
    line: (generation, line) => void process.stdout.write(`[gen ${generation}] ${line}\n`),
    say
  }
}

type Signal = "SIGHUP" | "SIGTERM" | "SIGINT"

/** Signals of this process, in order, for the scope's life. */
const signals = Effect.gen(function* () {
  const queue = yield* Queue.unbounded<Signal>()
  for (const name of ["SIGHUP", "SIGTERM", "SIGINT"] as const) {
    const on = () => void Queue.offerUnsafe(queue, name)
    process.on(name, on)
    yield* Effect.addFinalizer(() => Effect.sync(() => process.off(name, on)))
  }
  return queue
})

/** A reader of our output that went away (`handoff run | head`) must not end the supervisor. */
const surviveClosedOutput = Effect.sync(() => {
  for (const stream of [process.stdout, process.stderr]) stream.on("error", () => {})
})

const obey = (queue: Queue.Queue<Signal>, voice: Voice) =>
  Effect.gen(function* () {
    const supervisor = yield* Supervisor
    let stops = 0
    const obeyOne = (signal: Signal) => {
      if (signal === "SIGHUP") {
        voice.say("SIGHUP: swap to the same command")
        // A roll-back is told by its event; a refusal has none.
        const refused = (text: string) => Effect.sync(() => voice.say(`SIGHUP: ${text}`))
        return Effect.catch(Effect.asVoid(supervisor.swap()), (error) =>
          error.reason._tag === "Refused" ? refused(error.message) : Effect.void
        )
      }
      stops += 1
      voice.say(stops === 1 ? `${signal}: stop, again to kill` : `${signal}: kill`)
      return supervisor.stop
    }
    return yield* Effect.forever(
      Effect.flatMap(Queue.take(queue), (signal) => Effect.forkScoped(obeyOne(signal), { startImmediately: true }))
    )
  })

/** Takes the name for the scope's life, or tells who has it. */
const takeName = Effect.fnUntraced(function* (directory: string, path: string) {
  const locks = yield* Locks
  yield* AdminSocket.prepare(directory)
  yield* locks.acquire(join(directory, "lock")).pipe(
    Effect.catchTag("LockError", (error) =>
      Effect.flatMap(AdminSocket.pidOf(path), (answered) => {
        const pid = answered ?? (error.reason._tag === "Held" ? error.reason.holder : undefined)
        const reason = error.reason._tag === "Held" ? ({ _tag: "InUse", pid } as const) : undefined
        return Effect.fail(
          new AdminSocket.AdminSocketError({ path, reason: reason ?? { _tag: "CallFailed", detail: error.message } })
        )
      })
    )
  )
  yield* AdminSocket.claim(path)
})

const startFailed = (error: StartError) => {
  const lines = error.lastLines.map((line) => `\n  | ${line}`).join("")
  const tail = lines === "" ? "" : `\nthe last lines it wrote:${lines}`
  return new CommandExit({ code: Code.failed, text: `${error.message}; nothing serves${tail}` })
}

/** What `systemctl status` is to show of an event; undefined when it changes nothing there. */
const statusOf = (event: SupervisorEvent): string | undefined => {
  switch (event._tag) {
    case "SwapRequested":
    case "SwapEnded":
    case "RestartScheduled":
      return EventText.format(event)
    case "GenerationReady":
      return `generation ${event.generation} is ready`
    default:
      return undefined
  }
}

const tellOf = (manager: ServiceManager.ServiceManager, event: SupervisorEvent): void => {
  if (event._tag === "Stopping") return manager.tell("STOPPING=1")
  const status = statusOf(event)
  if (status !== undefined) manager.tell(Notification.format({ STATUS: status }))
}

/** From the first start to the end of the supervision. */
const serve = Effect.fnUntraced(function* (
  queue: Queue.Queue<Signal>,
  voice: Voice,
  path: string,
  manager: ServiceManager.ServiceManager
) {
  const supervisor = yield* Supervisor
  supervisor.remarks.forEach(voice.say)
  const events = Stream.runForEach(supervisor.events, (event) =>
    Effect.sync(() => {
      voice.event(event)
      tellOf(manager, event)
    })
  )
  yield* Effect.forkScoped(events, { startImmediately: true })
  yield* Effect.forkScoped(obey(queue, voice))
  const stopped = yield* supervisor.start.pipe(
    Effect.as(false),
    Effect.catch((error) =>
      error.failure._tag === "Stopping" ? Effect.succeed(true) : Effect.fail(startFailed(error))
    )
  )
  if (!stopped) {
    const { name, pid, listeners } = yield* supervisor.status
    const where = listeners.map((one) => `${one.name}=${one.address}`).join(", ")
    manager.tell("READY=1\nSTATUS=serving")
    voice.say(`${name} (process ${pid}) serves${where === "" ? "" : ` on ${where}`}; admin socket ${path}`)
  }
  yield* supervisor.finished
  // The last events are on their way to whoever watches.
  yield* Effect.yieldNow
})

/** The supervisor's listeners as they are to be bound or taken, and its sockets, which tell the store of what they bind. */
const manage = Effect.fnUntraced(function* ({ options }: Settings, voice: Voice) {
  const given = yield* Effect.fromResult(ServiceManager.take(process.env, process.pid))
  const manager = ServiceManager.make(given.notifySocket, voice.say)
  const wanted = Object.entries(options.listeners).map(([name, address]) => ({ name, address: String(address) }))
  const { taken, unused, notes } = ServiceManager.assign(
    given.descriptors,
    wanted.map(({ name }) => name)
  )
  notes.forEach(voice.say)
  unused.forEach(manager.drop)
  const listeners = wanted.map(({ name, address }) => {
    const inherited = taken.get(name)
    return [name, inherited === undefined ? address : { address, inherited }] as const
  })
  return {
    manager,
    listeners: Object.fromEntries(listeners),
    sockets: ServiceManager.storingSockets(
      wanted.filter(({ name }) => !taken.has(name)),
      manager.store
    )
  }
})

/** Supervises until the end. Fails with the command's exit. */
export const supervise = (settings: Settings): Effect.Effect<void, CommandExit> => {
  const { name, stateDirectory, json, options, trigger, journal } = settings
  const directory = join(stateDirectory, name)
  const path = socketPath(stateDirectory, name)
  const voice = voiceOf(json)
  return Effect.gen(function* () {
    const queue = yield* signals
    yield* surviveClosedOutput
    const { manager, listeners, sockets } = yield* manage(settings, voice)
    yield* takeName(directory, path)
    const leftover = journal === undefined ? undefined : CrateJournal.setAside(journal)
    if (leftover !== undefined) voice.say(leftover)
    const supervisor = Supervisor.layer({
      ...options,
      listeners,
      name,
      stateDirectory: directory,
      onOutput: voice.line
    }).pipe(Layer.provide(sockets))
    const triggers = trigger === undefined ? Layer.empty : TriggerSocket.layer(trigger)
    const app = Layer.merge(AdminApi.layer(path), triggers).pipe(Layer.provideMerge(supervisor))
    yield* Effect.scoped(serve(queue, voice, path, manager)).pipe(Effect.provide(app))
  }).pipe(
    Effect.scoped,
    Effect.provide([DefaultBackend.layer, NodeFileSystem.layer]),
    Effect.mapError((error) =>
      error instanceof CommandExit ? error : new CommandExit({ code: Code.failed, text: error.message })
    )
  )
}

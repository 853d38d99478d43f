/**
 * Our supervisor in this process, with what each of its sealed swaps took, phase by phase: read off the events that its
 * machine was given, so that nothing is added to what is measured.
 */
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as FfiBackend from "@handoff/backend-ffi/FfiBackend"
import type * as Supervision from "@handoff/core/swap/Supervision"
import { Supervisor } from "@handoff/supervisor/Supervisor"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"

/** Milliseconds. */
export interface Phases {
  /** From the request to the verdict: the successor answers on the handoff socket's path. */
  readonly whole: number
  /** Both are connected, the successor started and acquainted. */
  readonly start: number
  /** From PrepareHandoff, which follows, to Drained. */
  readonly drain: number
  /** To SealComplete. */
  readonly seal: number
  /** To Ready: lock and open. */
  readonly open: number
  /** To the verdict. */
  readonly publish: number
  /** Drain, seal and open: nobody accepts, and then some until the successor hears its word. */
  readonly gap: number
  /** Milliseconds since 1970. */
  readonly preparedAt: number
}

export interface Swapping extends AsyncDisposable {
  readonly port: number
  readonly swap: () => Promise<Phases>
}

type Mark = "requested" | "acquainted" | "drained" | "sealed" | "ready" | "decided"

const markOf = (event: Supervision.Event, commands: ReadonlyArray<Supervision.Action>): Mark | undefined => {
  if (event._tag === "SwapRequested") return "requested"
  if (commands.some(({ _tag }) => _tag === "Answer")) return "decided"
  if (event._tag !== "Handoff" || event.event._tag !== "Received") return undefined
  const { from, message } = event.event
  if (message._tag === "Hello" && from === "successor") return "acquainted"
  if (message._tag === "Drained") return "drained"
  if (message._tag === "SealComplete") return "sealed"
  return message._tag === "Ready" ? "ready" : undefined
}

const phasesOf = (marks: ReadonlyMap<Mark, number>): Phases => {
  const between = (from: Mark, to: Mark) => (marks.get(to) ?? Number.NaN) - (marks.get(from) ?? Number.NaN)
  return {
    whole: between("requested", "decided"),
    start: between("requested", "acquainted"),
    drain: between("acquainted", "drained"),
    seal: between("drained", "sealed"),
    open: between("sealed", "ready"),
    publish: between("ready", "decided"),
    gap: between("acquainted", "ready"),
    preparedAt: marks.get("acquainted") ?? Number.NaN
  }
}

/** Starts the first daemon; state and handoff socket lie in the directory. */
export const startSwapping = async (how: {
  readonly directory: string
  readonly command: ReadonlyArray<string>
  readonly environment: Readonly<Record<string, string>>
}): Promise<Swapping> => {
  const marks = new Map<Mark, number>()
  const layer = Supervisor.layer({
    listeners: { http: "127.0.0.1:0" },
    mode: "sealed",
    command: how.command,
    environment: how.environment,
    stateDirectory: how.directory,
    onOutput: () => undefined,
    record: (event, commands) => {
      const mark = markOf(event, commands)
      if (mark !== undefined) marks.set(mark, event.at)
    }
  })
  const runtime = ManagedRuntime.make(layer.pipe(Layer.provide(FfiBackend.layer), Layer.provide(NodeFileSystem.layer)))
  const supervisor = await runtime.runPromise(Supervisor)
  await runtime.runPromise(supervisor.start)
  const { listeners } = await runtime.runPromise(supervisor.status)
  return {
    port: Number(listeners[0]?.address.split(":").at(-1)),
    swap: () =>
      runtime.runPromise(
        Effect.map(
          Effect.suspend(() => {
            marks.clear()
            return supervisor.swap()
          }),
          () => phasesOf(marks)
        )
      ),
    [Symbol.asyncDispose]: () => runtime.dispose()
  }
}

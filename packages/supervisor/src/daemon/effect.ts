/**
 * `@handoff/supervisor/daemon/effect`: the daemon's side of a swap for programs in Effect.
 *
 * A thin layer over the promise interface: the same state, with typed errors. The process's exit stays with the program:
 * `drained` succeeds when the last answer is out, and the layer's scope drains, too, when it closes first.
 */
import type { Server } from "node:net"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { DaemonOptions as PromiseOptions } from "./Daemon.ts"
import { DaemonError } from "./DaemonError.ts"
import type { Deadline, OpenContext, Progress, DataOptions as PromiseDataOptions, Sealed } from "./DataOptions.ts"
import { type DrainOutcome, daemon, type Served } from "./index.ts"

export { DaemonError, type DaemonErrorReason } from "./DaemonError.ts"
export type { Deadline, OpenContext, Progress, Sealed, Snapshot } from "./DataOptions.ts"
export type { DrainOutcome, Served } from "./index.ts"

/** Those of the promise interface, but for `exit`: the program ends when its main effect does. */
export type DaemonOptions = Omit<PromiseOptions, "exit">

type Hooks = "open" | "drain" | "seal" | "resume" | "close"

/**
 * The promise interface's, with effects for hooks. One that fails is a hook that rejects. `open` and `drain` are
 * interrupted where the promise interface aborts their signal.
 */
export interface DataOptions<R = never> extends Omit<PromiseDataOptions, "exit" | Hooks> {
  readonly open: (context: OpenContext) => Effect.Effect<unknown, unknown, R>
  readonly drain?: (deadline: Deadline) => Effect.Effect<unknown, unknown, R>
  readonly seal: (progress: Progress) => Effect.Effect<Sealed, unknown, R> | Effect.Effect<void, unknown, R>
  readonly resume?: (context: OpenContext) => Effect.Effect<unknown, unknown, R>
  readonly close?: () => Effect.Effect<unknown, unknown, R>
}

const withPromises = <R>(options: DataOptions<R>, context: Context.Context<R>): PromiseDataOptions => {
  const { open, drain, seal, resume, close, ...rest } = options
  const run = Effect.runPromiseWith(context)
  return {
    ...rest,
    exit: false,
    open: (given) => run(open(given), { signal: given.signal }),
    seal: (progress) => run<Sealed | undefined, unknown>(Effect.map(seal(progress), (sealed) => sealed ?? undefined)),
    // Interrupted, it has ended early, as it was asked to.
    ...(drain === undefined
      ? {}
      : {
          drain: (deadline) =>
            run(drain(deadline), { signal: deadline.signal }).catch((error: unknown) => {
              if (!deadline.signal.aborted) throw error
            })
        }),
    ...(resume === undefined ? {} : { resume: (given) => run(resume(given), { signal: given.signal }) }),
    ...(close === undefined ? {} : { close: () => run(close()) })
  }
}

const attempt = <A>(run: () => Promise<A>): Effect.Effect<A, DaemonError> =>
  Effect.tryPromise({ try: run, catch: (cause) => cause }).pipe(
    Effect.catch((cause) => (cause instanceof DaemonError ? Effect.fail(cause) : Effect.die(cause)))
  )

/**
 * @example
 * const program = Effect.gen(function* () {
 *   const handoff = yield* Daemon
 *   yield* handoff.serve(createServer(app), "http", "127.0.0.1:8080")
 *   yield* handoff.drained
 * })
 * NodeRuntime.runMain(program.pipe(Effect.provide(Daemon.layer())))
 *
 * @example
 * Daemon.layer({ dataDir: "./data", open: () => store.open, seal: () => store.flushAndClose })
 */
export class Daemon extends Context.Service<
  Daemon,
  {
    readonly names: ReadonlyArray<string>
    readonly serve: (server: Server, name: string, address?: string) => Effect.Effect<Served, DaemonError>
    readonly ready: Effect.Effect<void, DaemonError>
    /** Succeeds when the drain begins. */
    readonly draining: Effect.Effect<void>
    /** Succeeds when the last connection is closed. */
    readonly drained: Effect.Effect<DrainOutcome>
    readonly drain: Effect.Effect<DrainOutcome>
  }
>()("@handoff/supervisor/daemon/Daemon") {
  static readonly layer = makeLayer
}

function makeLayer<R>(options: DataOptions<R>): Layer.Layer<Daemon, DaemonError, R>
function makeLayer(options?: DaemonOptions & { readonly dataDir?: never }): Layer.Layer<Daemon, DaemonError>
function makeLayer<R>(options: DaemonOptions | DataOptions<R> = {}): Layer.Layer<Daemon, DaemonError, R> {
  return Layer.effect(
    Daemon,
    Effect.gen(function* () {
      const context = yield* Effect.context<R>()
      const handoff = yield* attempt(() =>
        "dataDir" in options ? daemon(withPromises(options, context)) : daemon({ ...options, exit: false })
      )
      const drain = Effect.promise(() => handoff.drain())
      yield* Effect.addFinalizer(() => drain)
      return Daemon.of({
        names: handoff.names,
        serve: (server, name, address) => attempt(() => handoff.serve(server, name, address)),
        ready: attempt(() => handoff.ready()),
        draining: Effect.callback<void>((resume) => {
          const begun = () => resume(Effect.void)
          if (handoff.draining.aborted) return begun()
          handoff.draining.addEventListener("abort", begun, { once: true })
          return Effect.sync(() => handoff.draining.removeEventListener("abort", begun))
        }),
        drained: Effect.promise(() => handoff.drained),
        drain
      })
    })
  )
}

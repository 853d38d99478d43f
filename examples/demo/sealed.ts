/**
 * The second act: a service that owns a SQLite file (examples/sealed-sqlite), swapped under clients that write.
 *
 *   v1 -> v2            committed: v1 closed the file, then v2 opened it
 *   v2 -> v3            v2 cannot seal its data: rolled back, v2 opens the file again
 *   v2 -> v4            v4 is killed while it opens the file: rolled back, v2 opens it again
 *   v2 -> v5            committed
 *
 * Afterwards the file is held against what each client was told.
 */
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as FfiBackend from "@handoff/backend-ffi/FfiBackend"
import { Supervisor, type SwapReport } from "@handoff/supervisor/Supervisor"
import { formatDuration } from "@handoff/supervisor/SupervisorError"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { Counts } from "../../test/support/Load.ts"
import { temporaryDirectory } from "../../test/support/TemporaryDirectory.ts"
import { audit } from "../sealed-sqlite/test/Audit.ts"
import { type Memory, startClients } from "../sealed-sqlite/test/Clients.ts"
import type { Fault } from "../sealed-sqlite/test/faults.ts"
import { makeScreen } from "./screen.ts"
import { inShort, outcome, reportOf, tell, tenths } from "./tell.ts"

const example = (...names: ReadonlyArray<string>) => join(import.meta.dirname, "..", "sealed-sqlite", ...names)
const COMMAND = [
  process.execPath,
  "--conditions=@handoff/source",
  ...["--import", example("test", "faults.ts")],
  example("server.ts")
]

const PLAN: ReadonlyArray<{
  readonly to: string
  readonly fault?: Fault
  readonly expected: SwapReport["record"]["outcome"]
}> = [
  { to: "v2", expected: "committed" },
  { to: "v3", fault: "seal-fails", expected: "rolled-back" },
  { to: "v4", fault: "open-killed-late", expected: "rolled-back" },
  { to: "v5", expected: "committed" }
]

const CLIENTS = 8
/** Milliseconds between swaps. */
const PAUSE_MS = 1_000

/** Answers by the process that gave them. */
const countsOf = ({ requests, failures, longestWaitMs, answered }: Memory): Counts => {
  const byVersion: Record<string, number> = {}
  for (const { pid } of answered) {
    if (pid !== undefined) byVersion[`process ${pid}`] = (byVersion[`process ${pid}`] ?? 0) + 1
  }
  return { requests, failed: failures.length, maxLatencyMs: longestWaitMs, byVersion, errors: {} }
}

const program = (data: string, how: { readonly live: boolean; readonly quiet: boolean }) =>
  Effect.gen(function* () {
    const supervisor = yield* Supervisor
    const port = Number((yield* supervisor.status).listeners[0]?.address.split(":").at(-1))
    yield* supervisor.start
    const clients = yield* Effect.acquireRelease(
      Effect.sync(() => startClients(port, { count: CLIENTS })),
      (clients) => Effect.sync(() => clients[Symbol.dispose]())
    )
    const screen = makeScreen({ ...how, counts: () => countsOf(clients.memory) })
    yield* Effect.addFinalizer(() => Effect.sync(screen.close))
    const serving = Effect.map(
      supervisor.status,
      ({ generations, serving }) => generations.find(({ id }) => id === serving)?.pid
    )
    screen.say(`v1 serves a SQLite file as process ${yield* serving}; ${CLIENTS} clients write to it and read it back`)
    const swaps: Array<SwapReport["record"]> = []
    for (const { to, fault } of PLAN) {
      yield* Effect.sleep(PAUSE_MS)
      screen.say(`swap to ${to} ...`)
      if (fault !== undefined) writeFileSync(join(data, "fault"), fault)
      const result = yield* supervisor.swap().pipe(Effect.catch(reportOf))
      tell(screen, to, result)
      screen.say(`process ${yield* serving} serves`)
      swaps.push(result.record)
    }
    yield* Effect.sleep(PAUSE_MS)
    const memory = yield* Effect.promise(clients.stop)
    const servedAtEnd = yield* serving
    screen.close()
    yield* supervisor.stop
    return { memory, swaps, servedAtEnd }
  }).pipe(Effect.scoped)

/** The summary, and whether all went as it should. */
export const playSealed = async (how: { readonly live: boolean; readonly quiet: boolean }) => {
  using directory = temporaryDirectory("handoff-demo-")
  const data = directory.file("data")
  const layer = Supervisor.layer({
    listeners: { http: "127.0.0.1:0" },
    command: COMMAND,
    environment: { DATA_DIR: data },
    onOutput: () => undefined
  }).pipe(Layer.provide(FfiBackend.layer), Layer.provide(NodeFileSystem.layer))
  const { memory, swaps, servedAtEnd } = await Effect.runPromise(Effect.provide(program(data, how), layer))
  const found = audit(data, memory)
  const summary = {
    requests: memory.requests,
    failed: memory.failures.length,
    writes: memory.revisions.length,
    lostWrites: found.lost.length + Math.abs(found.unaccounted) + found.doubled + found.contradictions.length,
    secondWriters: found.secondWriters.length,
    swaps: swaps.map(inShort),
    longestWaitMs: tenths(memory.longestWaitMs),
    serves: servedAtEnd,
    errors: memory.failures.slice(0, 20)
  }
  const harm = summary.failed + summary.lostWrites + summary.secondWriters
  const good = harm === 0 && PLAN.every(({ expected }, index) => swaps[index]?.outcome === expected)
  const text = `
requests      ${summary.requests}, of them ${summary.writes} writes
failed        ${summary.failed}
lost writes   ${summary.lostWrites}
two writers   ${summary.secondWriters === 0 ? "never" : `${summary.secondWriters} times`}
swaps         ${PLAN.map(({ to }, index) => `${to} ${outcome(swaps[index])}`).join(", ")}
longest wait  ${formatDuration(summary.longestWaitMs)}
serves        process ${summary.serves}`
  return { summary, good, text }
}

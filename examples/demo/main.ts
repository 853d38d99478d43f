/**
 * `npm run demo`: one supervisor, one listener, five versions of a server, and clients that never stop asking.
 *
 *   v1 -> v2            committed
 *   v2 -> v3            v3 exits at its start: rolled back
 *   v2 -> v4            v4 hangs and ignores SIGTERM: rolled back, killed
 *   v2 -> v5            committed
 *
 * A request that takes 3 s is in flight when the first swap begins. Then the second act, sealed.ts: a service that owns its
 * data. With `--json` the summary is one JSON line, the last. The exit status is 0 only if no request failed, no write was
 * lost, and each swap ended as told.
 */
import { get } from "node:http"
import { join } from "node:path"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as FfiBackend from "@handoff/backend-ffi/FfiBackend"
import { Supervisor, type SwapReport } from "@handoff/supervisor/Supervisor"
import { formatDuration } from "@handoff/supervisor/SupervisorError"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import { startLoad, startWrk } from "../../test/support/Load.ts"
import { findTool } from "../../test/support/Tools.ts"
import { makeScreen } from "./screen.ts"
import { playSealed } from "./sealed.ts"
import { inShort, outcome, reportOf, tell, tenths } from "./tell.ts"

const json = process.argv.includes("--json")
const look = { live: process.stdout.isTTY && !json, quiet: json }
const file = (name: string) => join(import.meta.dirname, name)
const CONDITIONS = "--conditions=@handoff/source"
const command = (...args: ReadonlyArray<string>) => [process.execPath, CONDITIONS, file("server.ts"), ...args]

const PLAN = [
  { to: "v2", fault: [], expected: "committed" },
  { to: "v3", fault: ["exit"], expected: "rolled-back" },
  { to: "v4", fault: ["hang"], expected: "rolled-back" },
  { to: "v5", fault: [], expected: "committed" }
] as const

const KEPT = 16
const FRESH = 8
/** Milliseconds that a version may take: a start under this load is well under one second. */
const READY_TIMEOUT_MS = 5_000
/** Milliseconds between swaps. */
const PAUSE_MS = 1_500

const slowRequest = (port: number): Promise<{ readonly ok: boolean; readonly version: string }> =>
  new Promise((resolve) => {
    get({ host: "127.0.0.1", port, path: "/slow", agent: false }, (response) => {
      let body = ""
      response.on("data", (chunk) => {
        body += String(chunk)
      })
      response.on("error", () => resolve({ ok: false, version: "" }))
      response.on("end", () =>
        resolve({ ok: response.complete, version: (JSON.parse(body) as { version: string }).version })
      )
    }).on("error", () => resolve({ ok: false, version: "" }))
  })

/** Our clients, and wrk where there is one; killed with the scope if they have not ended by themselves. */
const load = (port: number) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const clients = startLoad({ port, kept: KEPT, fresh: FRESH })
      const program = findTool("wrk")
      const wrk = program === undefined ? undefined : startWrk(program, { port, connections: KEPT, seconds: 60 })
      return { clients, wrk }
    }),
    ({ clients, wrk }) =>
      Effect.sync(() => {
        clients[Symbol.dispose]()
        wrk?.[Symbol.dispose]()
      })
  )

const program = Effect.gen(function* () {
  const supervisor = yield* Supervisor
  const port = Number((yield* supervisor.status).listeners[0]?.address.split(":").at(-1))
  const { durationMs } = yield* supervisor.start
  const { clients, wrk } = yield* load(port)
  const screen = makeScreen({ ...look, counts: clients.counts })
  yield* Effect.addFinalizer(() => Effect.sync(screen.close))
  screen.say(`v1 serves on 127.0.0.1:${port} after ${formatDuration(durationMs)}`)
  const beside = wrk === undefined ? "" : `; wrk hammers with ${KEPT} more`
  screen.say(`${KEPT} clients keep their connection, ${FRESH} open one for each request${beside}`)
  yield* Effect.sleep(PAUSE_MS)
  const slow = yield* Effect.forkChild(
    Effect.promise(() => slowRequest(port)),
    { startImmediately: true }
  )
  yield* Effect.sleep(200)
  const swaps: Array<SwapReport["record"]> = []
  for (const { to, fault } of PLAN) {
    screen.say(`swap to ${to} ...`)
    const result = yield* supervisor.swap({ argv: command(to, ...fault) }).pipe(Effect.catch(reportOf))
    tell(screen, to, result)
    swaps.push(result.record)
    yield* Effect.sleep(PAUSE_MS)
  }
  const slowAnswer = yield* Fiber.join(slow)
  const counts = yield* Effect.promise(clients.stop)
  const hammered = wrk === undefined ? undefined : yield* Effect.promise(wrk.stop)
  screen.close()
  yield* supervisor.stop
  return { counts, hammered, swaps, slowAnswer }
}).pipe(Effect.scoped)

const layer = Supervisor.layer({
  listeners: { http: "127.0.0.1:0" },
  command: command("v1"),
  readyTimeoutMs: READY_TIMEOUT_MS,
  onOutput: () => undefined
}).pipe(Layer.provide(FfiBackend.layer), Layer.provide(NodeFileSystem.layer))

const { counts, hammered, swaps, slowAnswer } = await Effect.runPromise(Effect.provide(program, layer))
const slowOk = slowAnswer.ok && slowAnswer.version === "v1"
const summary = {
  requests: counts.requests + (hammered?.requests ?? 0) + 1,
  failed: counts.failed + (hammered?.failed ?? 0) + (slowOk ? 0 : 1),
  swaps: swaps.map(inShort),
  byVersion: counts.byVersion,
  maxLatencyMs: tenths(counts.maxLatencyMs),
  wrk: hammered === undefined ? undefined : { requests: hammered.requests, failed: hammered.failed },
  slowRequest: slowAnswer,
  errors: counts.errors
}
const good = summary.failed === 0 && PLAN.every(({ expected }, index) => swaps[index]?.outcome === expected)
if (!good) console.error(`the demo did not go as it should: ${JSON.stringify(summary)}`)
if (!json) {
  const versions = Object.entries(summary.byVersion).map(([version, count]) => `${version} ${count}`)
  const uncounted = hammered === undefined ? "" : `, and ${hammered.requests} of wrk`
  console.log(`
requests      ${summary.requests}
failed        ${summary.failed}
by version    ${versions.join(", ")}${uncounted}
swaps         ${PLAN.map(({ to }, index) => `${to} ${outcome(swaps[index])}`).join(", ")}
worst wait    ${formatDuration(summary.maxLatencyMs)}
3 s request   ${slowOk ? "answered whole by v1, which was being replaced meanwhile" : "cut"}

The second act: a service that owns its data, alone.
`)
}
const sealed = await playSealed(look)
if (!sealed.good) console.error(`the second act did not go as it should: ${JSON.stringify(sealed.summary)}`)
console.log(json ? JSON.stringify({ ...summary, sealed: sealed.summary }) : sealed.text)
process.exit(good && sealed.good ? 0 : 1)

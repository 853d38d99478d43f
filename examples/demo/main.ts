/**
 * `npm run demo`: one supervisor, one listener, five versions of a server, and clients that never stop asking.
 *
 *   v1 -> v2            committed
 *   v2 -> v3            v3 exits at its start: rolled back
 *   v2 -> v4            v4 hangs and ignores SIGTERM: rolled back, killed
 *   v2 -> v5            committed
 *
 * A request that takes 3 s is in flight when the first swap begins. With `--json` the summary is one JSON line, the last.
 * The exit status is 0 only if no request failed and each swap ended as told above.
 */
import { type ChildProcess, fork } from "node:child_process"
import { get } from "node:http"
import { join } from "node:path"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as FfiBackend from "@handoff/backend-ffi/FfiBackend"
import { Supervisor, type SwapReport } from "@handoff/supervisor/Supervisor"
import { formatDuration, formatFailure, type SwapError } from "@handoff/supervisor/SupervisorError"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import type { Counts } from "./load.ts"
import { makeScreen, type Screen } from "./screen.ts"

const json = process.argv.includes("--json")
const file = (name: string) => join(import.meta.dirname, name)
const CONDITIONS = "--conditions=@handoff/source"
const command = (...args: ReadonlyArray<string>) => [process.execPath, CONDITIONS, file("server.ts"), ...args]

const PLAN = [
  { to: "v2", fault: [], expected: "committed" },
  { to: "v3", fault: ["exit"], expected: "rolled-back" },
  { to: "v4", fault: ["hang"], expected: "rolled-back" },
  { to: "v5", fault: [], expected: "committed" }
] as const

const slowRequest = (port: string): Promise<{ readonly ok: boolean; readonly version: string }> =>
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

interface Load {
  readonly counts: () => Counts
  readonly stop: () => Promise<Counts>
}

const NOTHING: Counts = { requests: 0, failed: 0, maxLatencyMs: 0, byVersion: {}, errors: {} }

/** The clients; killed with the scope if they have not ended by themselves. */
const load = (port: string) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      let counts = NOTHING
      const child: ChildProcess = fork(file("load.ts"), ["127.0.0.1", port], { execArgv: [CONDITIONS] })
      child.on("message", (message) => {
        counts = message as Counts
      })
      const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()))
      const stop = () => {
        child.send("stop")
        return ended.then(() => counts)
      }
      return { child, counts: () => counts, stop } satisfies Load & { readonly child: ChildProcess }
    }),
    ({ child }) => Effect.sync(() => child.kill("SIGKILL"))
  )

const tell = (screen: Screen, to: string, result: SwapReport) => {
  const { record, lastLines } = result
  if (record.outcome === "committed") {
    screen.say(`swap to ${to}: committed in ${formatDuration(record.durationMs)} (${record.evidence})`)
    return
  }
  const why = record.failure === undefined ? "" : `: ${formatFailure(record.failure)}`
  const killed = record.killed ? ", killed" : ""
  screen.say(`swap to ${to}: rolled back after ${formatDuration(record.durationMs)}${why}${killed}`)
  for (const line of lastLines) screen.say(`    | ${line}`)
}

const reportOf = (error: SwapError) =>
  error.reason._tag === "RolledBack" ? Effect.succeed(error.reason.report) : Effect.fail(error)

const program = Effect.gen(function* () {
  const supervisor = yield* Supervisor
  const port = (yield* supervisor.status).listeners[0]?.address.split(":").at(-1) ?? ""
  const { durationMs } = yield* supervisor.start
  const clients = yield* load(port)
  const screen = makeScreen({ live: process.stdout.isTTY && !json, quiet: json, counts: clients.counts })
  yield* Effect.addFinalizer(() => Effect.sync(screen.close))
  screen.say(
    `v1 serves on 127.0.0.1:${port} after ${formatDuration(durationMs)}; 16 clients keep their connection, 8 open one a request`
  )
  yield* Effect.sleep(1_500)
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
    yield* Effect.sleep(1_500)
  }
  const slowAnswer = yield* Fiber.join(slow)
  const counts = yield* Effect.promise(clients.stop)
  screen.close()
  yield* supervisor.stop
  return { counts, swaps, slowAnswer }
}).pipe(Effect.scoped)

const layer = Supervisor.layer({
  listeners: { http: "127.0.0.1:0" },
  command: command("v1"),
  readyTimeoutMs: 3_000,
  onOutput: () => undefined
}).pipe(Layer.provide(FfiBackend.layer), Layer.provide(NodeFileSystem.layer))

const { counts, swaps, slowAnswer } = await Effect.runPromise(Effect.provide(program, layer))
const summary = {
  requests: counts.requests,
  failed: counts.failed,
  swaps: swaps.map(({ outcome, durationMs, killed, cut }) => ({ outcome, durationMs, killed, cut })),
  byVersion: counts.byVersion,
  maxLatencyMs: Math.round(counts.maxLatencyMs * 10) / 10,
  slowRequest: slowAnswer,
  errors: counts.errors
}
const asExpected = PLAN.every(({ expected }, index) => swaps[index]?.outcome === expected)
if (json) console.log(JSON.stringify(summary))
else {
  const versions = Object.entries(summary.byVersion).map(([version, count]) => `${version} ${count}`)
  console.log(`
requests      ${summary.requests}, of which failed ${summary.failed}
by version    ${versions.join(", ")}
swaps         ${summary.swaps.map((swap) => `${swap.outcome} in ${formatDuration(swap.durationMs)}`).join(", ")}
worst wait    ${formatDuration(summary.maxLatencyMs)}
3 s request   ${slowAnswer.ok ? `answered whole by ${slowAnswer.version}` : "cut"}`)
}
const good = asExpected && summary.failed === 0 && slowAnswer.ok && slowAnswer.version === "v1"
if (!good) console.error(`the demo did not go as it should: ${JSON.stringify(summary)}`)
process.exit(good ? 0 : 1)

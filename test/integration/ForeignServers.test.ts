/**
 * Servers nobody here wrote, replaced under load: gunicorn, Go's net/http and Python's http.server.
 *
 * Each takes its listener in its own way and shows its readiness in its own way:
 *
 *   gunicorn --preload    LISTEN_FDS, checks LISTEN_PID; its master sends READY=1 after it has imported the application
 *   gunicorn, gthread     sends READY=1 before any worker has imported anything, so that is no evidence: its workers'
 *                         epoll sets, filled after the import, are ("accepting")
 *   net/http              net.FileListener on descriptor 3, epoll
 *   http.server           descriptor 3, sleeps in accept(2)
 *
 * How each must drain, so that no accepted connection is lost, is said in its source.
 *
 * Clients open a connection for each request. Every swap is made with requests in flight, and no request may fail.
 */
import { execFile } from "node:child_process"
import { randomUUID } from "node:crypto"
import { join } from "node:path"
import { promisify } from "node:util"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as FfiBackend from "@handoff/backend-ffi/FfiBackend"
import type * as Readiness from "@handoff/core/swap/Readiness"
import { Supervisor } from "@handoff/supervisor/Supervisor"
import { SwapError } from "@handoff/supervisor/SupervisorError"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest"
import { type Load, startLoad } from "../support/Load.ts"
import { processesMarked } from "../support/ProcessTable.ts"
import { temporaryDirectory } from "../support/TemporaryDirectory.ts"
import { requireTool } from "../support/Tools.ts"

const SOURCES = join(import.meta.dirname, "foreign-servers")
const SWAPS = 5
const WAIT_MS = 15_000

const gunicorn = requireTool("gunicorn")
const python = requireTool("python3")
const go = requireTool("go")

const directory = temporaryDirectory()
afterAll(() => directory[Symbol.dispose]())

const MARK = { name: "HANDOFF_TEST_MARK", value: randomUUID() }
const alive = () => processesMarked(`${MARK.name}=${MARK.value}`)

afterEach(() => {
  for (const pid of alive()) {
    try {
      process.kill(pid, "SIGKILL")
    } catch {
      // Gone meanwhile.
    }
  }
})

interface Server {
  readonly command: (version: string) => ReadonlyArray<string>
  /** A command that fails in the way this server fails, and what it writes then. */
  readonly broken: { readonly command: ReadonlyArray<string>; readonly words: RegExp }
  readonly readiness: Readiness.Policy
  readonly evidence: Readiness.Evidence
}

const until = (what: string, holds: Effect.Effect<boolean>) =>
  Effect.gen(function* () {
    while (!(yield* holds)) yield* Effect.sleep(20)
  }).pipe(
    Effect.timeoutOrElse({
      duration: WAIT_MS,
      orElse: () => Effect.die(new Error(`not within ${WAIT_MS} ms: ${what}`))
    })
  )

const answeredBy = (load: Load, version: string) =>
  until(
    `an answer by ${version}`,
    Effect.sync(() => (load.counts().byVersion[version] ?? 0) > 0)
  )

const expectRolledBack = Effect.fnUntraced(function* (server: Server) {
  const supervisor = yield* Supervisor
  const error = yield* Effect.flip(supervisor.swap({ argv: server.broken.command }))
  expect(error).toBeInstanceOf(SwapError)
  expect(error.message).toMatch(/^rolled back after .*: it exited with status [1-9]/)
  expect(error.reason).toMatchObject({
    report: { record: { outcome: "rolled-back", serving: SWAPS + 1, killed: false, cut: 0 } }
  })
  const lines = error.reason._tag === "RolledBack" ? error.reason.report.lastLines : []
  expect(lines.join("\n")).toMatch(server.broken.words)
})

const swapUnderLoad = Effect.fnUntraced(function* (server: Server, load: Load) {
  const supervisor = yield* Supervisor
  yield* answeredBy(load, "v0")
  for (let swap = 1; swap <= SWAPS; swap++) {
    const { record } = yield* supervisor.swap({ argv: server.command(`v${swap}`) })
    expect(record).toMatchObject({ outcome: "committed", evidence: server.evidence })
    yield* answeredBy(load, `v${swap}`)
  }
  yield* expectRolledBack(server)
  yield* until(
    "one generation",
    Effect.map(supervisor.status, ({ generations }) => generations.length === 1)
  )
  const before = load.counts().requests
  yield* until(
    "50 more requests",
    Effect.sync(() => load.counts().requests > before + 50)
  )
  return { counts: yield* Effect.promise(() => load.stop()), status: yield* supervisor.status }
})

const exercise = (server: Server, signal: AbortSignal) => {
  const layer = Supervisor.layer({
    listeners: { http: "127.0.0.1:0" },
    command: server.command("v0"),
    // No __pycache__ among the sources.
    environment: { [MARK.name]: MARK.value, PYTHONDONTWRITEBYTECODE: "1" },
    workingDirectory: SOURCES,
    readiness: server.readiness,
    settleMs: 50,
    // Longer than any wait here: a server that does not end by itself is not killed, it fails the test.
    graceMs: 60_000,
    generationLimit: SWAPS + 2,
    onOutput: () => undefined
  }).pipe(Layer.provide(FfiBackend.layer), Layer.provide(NodeFileSystem.layer))

  const program = Effect.gen(function* () {
    const supervisor = yield* Supervisor
    yield* supervisor.start
    const port = Number((yield* supervisor.status).listeners[0]?.address.split(":")[1])
    const load = yield* Effect.acquireRelease(
      Effect.sync(() => startLoad({ port, path: "/?ms=10", kept: 0, fresh: 8 })),
      (started) => Effect.sync(() => started[Symbol.dispose]())
    )
    return yield* swapUnderLoad(server, load)
  })
  return Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(layer)), { signal })
}

const check = async (server: Server, signal: AbortSignal) => {
  const { counts, status } = await exercise(server, signal)
  const { failed, errors } = counts
  expect({ failed, errors }).toEqual({ failed: 0, errors: {} })
  expect(Object.keys(counts.byVersion).sort()).toEqual(["v0", "v1", "v2", "v3", "v4", "v5"])
  expect(status.generations).toMatchObject([{ id: SWAPS + 1, phase: "serving" }])
  expect(status.restarts.total).toBe(0)
  expect(alive()).toEqual([])
}

const name = `${SWAPS} swaps under load fail no request, and a broken version is rolled back`

describe("gunicorn", () => {
  const serve = (options: ReadonlyArray<string>, application: string) => [
    gunicorn.path ?? "",
    ...["--workers", "2", "--worker-tmp-dir", directory.path, ...options, application]
  ]
  const gunicornServer = (options: ReadonlyArray<string>) => ({
    command: (version: string) => serve(options, `application:create('${version}')`),
    broken: {
      command: serve(options, "no_such_module:application"),
      words: /ModuleNotFoundError: No module named 'no_such_module'/
    }
  })

  it.skipIf(!gunicorn.available)(`--preload: ${name}${gunicorn.reason}`, { timeout: 90_000 }, ({ signal }) =>
    check({ ...gunicornServer(["--preload"]), readiness: "auto", evidence: "notified" }, signal)
  )

  it.skipIf(!gunicorn.available)(`gthread workers: ${name}${gunicorn.reason}`, { timeout: 90_000 }, ({ signal }) =>
    check(
      {
        ...gunicornServer(["--worker-class", "gthread", "--threads", "4"]),
        readiness: "accepting",
        evidence: "accepting"
      },
      signal
    )
  )
})

describe("Go's net/http on net.FileListener", () => {
  const program = directory.file("filelistener")
  beforeAll(async () => {
    if (!go.available) return
    const env = { ...process.env, GOFLAGS: "-mod=mod", GOTOOLCHAIN: "local", CGO_ENABLED: "0" }
    await promisify(execFile)(go.path, ["build", "-o", program, join(SOURCES, "filelistener.go")], { env })
  }, 300_000)

  it.skipIf(!go.available)(`${name}${go.reason}`, { timeout: 90_000 }, ({ signal }) =>
    check(
      {
        command: (version) => [program, version],
        broken: { command: [program, "broken"], words: /panic: no database to speak to/ },
        readiness: "auto",
        evidence: "accepting"
      },
      signal
    )
  )
})

describe("Python's http.server in a blocking accept", () => {
  const serve = (version: string) => [python.path ?? "", join(SOURCES, "blocking.py"), version]

  it.skipIf(!python.available)(`${name}${python.reason}`, { timeout: 90_000 }, ({ signal }) =>
    check(
      {
        command: serve,
        broken: { command: serve("broken"), words: /RuntimeError: no database to speak to/ },
        readiness: "auto",
        evidence: "accepting"
      },
      signal
    )
  )
})

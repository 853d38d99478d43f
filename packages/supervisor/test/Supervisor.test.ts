import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { request } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as FfiBackend from "@handoff/backend-ffi/FfiBackend"
import * as Supervision from "@handoff/core/swap/Supervision"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { isAlive } from "../../../test/support/ProcessTable.ts"
import { type Options, Supervisor } from "../src/Supervisor.ts"
import { type StartError, SwapError } from "../src/SupervisorError.ts"

/** A server on descriptor 3; its behaviour is chosen by its arguments. */
const SERVER = `
const http = require("node:http")
const net = require("node:net")
const [version, how = ""] = process.argv.slice(2)
if (how === "exit") { console.error("cannot open database"); console.error("giving up"); process.exit(3) }
if (how === "hang") { console.log("thinking"); process.on("SIGTERM", () => {}); setInterval(() => {}, 1000) }
else {
  const server = http.createServer((request, response) => {
    response.setHeader("connection", "close")
    const wait = Number(new URL(request.url, "http://x").searchParams.get("ms") ?? 0)
    setTimeout(() => response.end(JSON.stringify({ version, pid: process.pid, env: process.env.LISTEN_PID })), wait)
  })
  server.listen({ fd: 3 }, () => console.log("listening"))
  process.on("SIGTERM", () => { server.close(() => process.exit(0)) })
}
`

let directory = ""
let script = ""
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "handoff-test-"))
  script = join(directory, "server.cjs")
  writeFileSync(script, SERVER)
})
afterAll(() => rmSync(directory, { recursive: true, force: true }))

const command = (...args: ReadonlyArray<string>) => [process.execPath, script, ...args]

const get = (
  address: string,
  path = "/"
): Promise<{ readonly version: string; readonly pid: number; readonly env: string }> =>
  new Promise((resolve, reject) => {
    const [host, port] = address.split(":")
    request({ host, port: Number(port), path, agent: false }, (response) => {
      let body = ""
      response.on("data", (chunk) => {
        body += String(chunk)
      })
      response.on("end", () => resolve(JSON.parse(body)))
      response.on("error", reject)
    })
      .on("error", reject)
      .end()
  })

const run = <A, E>(
  options: Partial<Options>,
  body: (supervisor: Supervisor["Service"], address: string) => Effect.Effect<A, E>
): Promise<A> => {
  const layer = Supervisor.layer({
    listeners: { http: "127.0.0.1:0" },
    command: command("v1"),
    settleMs: 50,
    graceMs: 5_000,
    onOutput: () => undefined,
    ...options
  }).pipe(Layer.provide(FfiBackend.layer), Layer.provide(NodeFileSystem.layer))
  const program = Effect.gen(function* () {
    const supervisor = yield* Supervisor
    const { listeners } = yield* supervisor.status
    return yield* body(supervisor, listeners[0]?.address ?? "")
  })
  return Effect.runPromise(Effect.provide(program, layer))
}

const answer = (address: string, path?: string) => Effect.promise(() => get(address, path))

/** Until the old version has heard that it is to leave, a new connection may be its. */
const serves = (address: string, version: string) =>
  Effect.promise(() => expect.poll(async () => (await get(address)).version, { timeout: 10_000 }).toBe(version))

describe("a supervisor of real processes", () => {
  it("starts a program that knows nothing of us, replaces it, and stops it", () =>
    run({}, (supervisor, address) =>
      Effect.gen(function* () {
        const started = yield* supervisor.start
        expect(started.generation).toBe(1)
        const before = yield* answer(address)
        expect(before.version).toBe("v1")
        expect(before.env).toBe(String(before.pid))
        const slow = yield* Effect.forkChild(answer(address, "/?ms=700"), { startImmediately: true })
        yield* Effect.sleep(100)
        const { record } = yield* supervisor.swap({ argv: command("v2") })
        expect(record).toMatchObject({ outcome: "committed", from: 1, to: 2, evidence: "accepting" })
        yield* serves(address, "v2")
        expect((yield* Fiber.join(slow)).version).toBe("v1")
        const back = yield* supervisor.rollback
        expect(back.record).toMatchObject({ outcome: "committed", kind: "rollback" })
        yield* serves(address, "v1")
        yield* supervisor.stop
        expect((yield* supervisor.status).generations).toEqual([])
      })
    ))

  it("keeps the old version serving when the new one exits at start, and says what it wrote last", () =>
    run({}, (supervisor, address) =>
      Effect.gen(function* () {
        yield* supervisor.start
        const error = yield* Effect.flip(supervisor.swap({ argv: command("v2", "exit") }))
        expect(error).toBeInstanceOf(SwapError)
        expect(error.message).toMatch(
          /^rolled back after .*, generation 1 keeps serving: generation 2 was rejected: it exited with status 3 /
        )
        expect(error.reason).toMatchObject({ report: { lastLines: ["cannot open database", "giving up"] } })
        expect((yield* answer(address)).version).toBe("v1")
      })
    ))

  it("ends for certain a version that hangs and ignores SIGTERM", () =>
    run({ readyTimeoutMs: 3_000 }, (supervisor, address) =>
      Effect.gen(function* () {
        yield* supervisor.start
        const error = yield* Effect.flip(supervisor.swap({ argv: command("v2", "hang") }))
        expect(error.reason).toMatchObject({
          report: { record: { killed: true, serving: 1, failure: { _tag: "NotReady" } }, lastLines: ["thinking"] }
        })
        expect((yield* supervisor.status).generations.map((one) => one.id)).toEqual([1])
        expect((yield* answer(address)).version).toBe("v1")
      })
    ))

  it("names the program that does not exist", () =>
    run({}, (supervisor) =>
      Effect.gen(function* () {
        yield* supervisor.start
        const error = yield* Effect.flip(supervisor.swap({ argv: ["no-such-program"] }))
        expect(error.message).toContain('"no-such-program"')
      })
    ))

  it("fails to start with the reason when the first version exits", () =>
    run({ command: command("v1", "exit") }, (supervisor) =>
      Effect.gen(function* () {
        const error: StartError = yield* Effect.flip(supervisor.start)
        expect(error.message).toContain("exited with status 3")
        expect(error.lastLines).toEqual(["cannot open database", "giving up"])
        yield* supervisor.finished
      })
    ))

  it("restarts a serving generation that crashed, while connections wait in the queue", () =>
    run({}, (supervisor, address) =>
      Effect.gen(function* () {
        yield* supervisor.start
        const { pid } = yield* answer(address)
        process.kill(pid, "SIGKILL")
        yield* Effect.promise(() => expect.poll(() => isAlive(pid), { timeout: 10_000 }).toBe(false))
        const next = yield* answer(address)
        expect(next.version).toBe("v1")
        expect(next.pid).not.toBe(pid)
        expect((yield* supervisor.status).restarts.total).toBeGreaterThan(0)
      })
    ))

  it("kills the whole group of a wrapper that leaves its child holding the listener", () =>
    run(
      { command: ["sh", "-c", `trap '' TERM; "${process.execPath}" "${script}" v1 & wait; wait`], graceMs: 300 },
      (supervisor, address) =>
        Effect.gen(function* () {
          yield* supervisor.start
          const { pid } = yield* answer(address)
          yield* supervisor.swap({ argv: command("v2") })
          yield* Effect.promise(() => expect.poll(() => isAlive(pid), { timeout: 10_000 }).toBe(false))
          expect((yield* answer(address)).version).toBe("v2")
        })
    ))

  it("leaks no descriptor over 20 swaps, and replays to the same commands", async () => {
    const events: Array<Supervision.Event> = []
    const commands: Array<ReadonlyArray<Supervision.Action>> = []
    const record: Options["record"] = (event, taken) => {
      events.push(event)
      commands.push(taken)
    }
    const count = () => readdirSync("/proc/self/fd").length
    await run({ record, settleMs: 10 }, (supervisor, address) =>
      Effect.gen(function* () {
        yield* supervisor.start
        yield* answer(address)
        yield* supervisor.swap()
        yield* Effect.sleep(300)
        const before = count()
        for (let swap = 0; swap < 20; swap++) yield* supervisor.swap()
        yield* Effect.promise(() => expect.poll(count, { timeout: 10_000 }).toBeLessThanOrEqual(before))
        expect((yield* supervisor.status).generations).toHaveLength(1)
      })
    )
    const options: Supervision.Options = {
      ...Supervision.defaults,
      readiness: { ...Supervision.defaults.readiness, settleMs: 10 },
      graceMs: 5_000,
      listeners: 1,
      instance: "test"
    }
    expect(Supervision.replay(Supervision.initial(options, { argv: command("v1") }), events)).toEqual(commands)
  }, 60_000)
})

describe("two supervisors in one process", () => {
  it("with directories of their own know nothing of each other", () =>
    run({ stateDirectory: join(directory, "one") }, (one, first) =>
      Effect.gen(function* () {
        yield* one.start
        yield* Effect.promise(() =>
          run({ stateDirectory: join(directory, "two"), command: command("w1") }, (two, second) =>
            Effect.gen(function* () {
              yield* two.start
              yield* Effect.all([one.swap({ argv: command("v2") }), two.swap({ argv: command("w2") })], {
                concurrency: 2
              })
              yield* serves(first, "v2")
              yield* serves(second, "w2")
              yield* two.stop
              expect(existsSync(join(directory, "two", "state.json"))).toBe(false)
            })
          )
        )
        expect((yield* answer(first)).version).toBe("v2")
        expect((yield* one.swap({ argv: command("v3") })).record.outcome).toBe("committed")
      })
    ))

  it("with one directory: the second is refused, naming the process that has it", () => {
    const stateDirectory = join(directory, "shared")
    return run({ stateDirectory }, (one, first) =>
      Effect.gen(function* () {
        yield* one.start
        const second = run({ stateDirectory }, () => Effect.void)
        const error = yield* Effect.flip(Effect.tryPromise({ try: () => second, catch: (cause) => cause as Error }))
        expect(error.message).toContain(`${stateDirectory}: is in use by another supervisor, process ${process.pid}`)
        expect((yield* answer(first)).version).toBe("v1")
      })
    )
  })
})

const DAEMON = fileURLToPath(new URL("../../../test/fault/Daemon.ts", import.meta.url))

describe("a supervisor of a daemon that owns data", () => {
  it("leaks no descriptor and no file over 100 swaps that fail in all ways, and the next one commits", async () => {
    const data = join(directory, "data")
    mkdirSync(data)
    const state = join(directory, "sealed")
    const daemon = [process.execPath, "--conditions=@handoff/source", DAEMON]
    const environment = { HANDOFF_DATA_DIR: data }
    const count = () => readdirSync("/proc/self/fd").length
    await run({ command: daemon, environment, stateDirectory: state, settleMs: 20 }, (supervisor, address) =>
      Effect.gen(function* () {
        yield* supervisor.start
        const failing = (change: Readonly<Record<string, string>>, argv: ReadonlyArray<string> = daemon) =>
          Effect.flip(supervisor.swap({ argv, environment: change }, { mode: "sealed" }))
        const { pid } = yield* answer(address)
        yield* failing({ HANDOFF_TEST_UNHEALTHY: "1" })
        yield* failing({}, ["no-such-program"])
        const before = count()
        for (let swap = 0; swap < 94; swap++) {
          const error = yield* failing({}, ["no-such-program"])
          expect(error.message).toContain("generation 1 keeps serving")
        }
        const reasons: Array<string> = []
        for (const change of [
          { HANDOFF_CRASH_AT: "n-before-handshake" },
          { HANDOFF_CRASH_AT: "n-after-handshake" },
          { HANDOFF_CRASH_AT: "n-after-begin" },
          { HANDOFF_CRASH_AT: "n-before-announce-ready" },
          { HANDOFF_TEST_OPEN_FAILS: "1" },
          { HANDOFF_TEST_UNHEALTHY: "1" }
        ]) {
          const { reason } = yield* failing(change)
          const failure = reason._tag === "RolledBack" ? reason.report.record.failure : undefined
          reasons.push(failure?._tag === "HandoffFailed" ? failure.reason._tag : String(failure?._tag))
        }
        expect(reasons.at(0)).toBe("Exited")
        expect(reasons.at(-1)).toBe("Unhealthy")
        expect((yield* answer(address)).pid).toBe(pid)
        yield* Effect.promise(() => expect.poll(count, { timeout: 10_000 }).toBeLessThanOrEqual(before))
        expect((yield* supervisor.status).generations.map((one) => one.id)).toEqual([1])
        expect(readdirSync(state).filter((name) => name.startsWith("notify-"))).toEqual(["notify-1.sock"])
        expect(readdirSync(state).filter((name) => name.startsWith("generation-")).length).toBeLessThanOrEqual(6)
        expect((yield* supervisor.swap()).record).toMatchObject({ outcome: "committed", mode: "sealed", from: 1 })
        const opened = readFileSync(join(data, "generations"), "utf8").trim().split("\n")
        expect(opened.at(-1)).toBe(`open ${(yield* answer(address)).pid}`)
      })
    )
  }, 120_000)
})

import { chmodSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs"
import { createServer, type Server } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as AdminApi from "@handoff/supervisor/AdminApi"
import * as AdminClient from "@handoff/supervisor/AdminClient"
import type { AdminLine } from "@handoff/supervisor/AdminMessages"
import * as AdminSocket from "@handoff/supervisor/AdminSocket"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as HttpRouter from "effect/http/HttpRouter"
import * as Layer from "effect/Layer"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import * as FakeSupervisor from "./FakeSupervisor.ts"

interface Rig {
  readonly fake: FakeSupervisor.Fake
  readonly ask: (method: string, path: string, body?: string) => Promise<Response>
}

const lines = async (response: Response): Promise<Array<AdminLine>> =>
  (await response.text())
    .split("\n")
    .filter((text) => text !== "")
    .map((text) => JSON.parse(text))

const withApi = async (run: (rig: Rig) => Promise<void>) => {
  const fake = await Effect.runPromise(FakeSupervisor.make)
  const app = AdminApi.routes.pipe(Layer.provide(fake.layer))
  const { handler, dispose } = HttpRouter.toWebHandler(app, { disableLogger: true })
  const ask: Rig["ask"] = (method, path, body) =>
    handler(new Request(`http://handoff${path}`, { method, ...(body === undefined ? {} : { body }) }))
  try {
    await run({ fake, ask })
  } finally {
    await dispose()
  }
}

describe("swap", () => {
  it("streams the events of the swap and ends with the verdict", () =>
    withApi(async ({ ask, fake }) => {
      const response = await ask("POST", "/swap", JSON.stringify({ command: { argv: ["node", "v2.js"] } }))
      expect(response.status).toBe(200)
      expect(response.headers.get("content-type")).toBe("application/x-ndjson")
      const got = await lines(response)
      expect(got.map((line) => line._tag)).toEqual([
        "SwapRequested",
        "GenerationStarting",
        "GenerationReady",
        "SwapEnded"
      ])
      expect(got.at(-1)).toMatchObject({ record: { outcome: "committed" }, lastLines: ["listening"] })
      expect(got.at(-1)).toHaveProperty("message", expect.stringContaining("generation 2 serves"))
      expect(fake.swaps).toEqual([{ argv: ["node", "v2.js"] }])
    }))

  it("takes an empty body as the same command", () =>
    withApi(async ({ ask, fake }) => {
      await (await ask("POST", "/swap")).text()
      await (await ask("POST", "/swap", "{}")).text()
      expect(fake.swaps).toEqual([undefined, undefined])
      expect(fake.modes).toEqual([undefined, undefined])
    }))

  it("takes the mode of this one swap", () =>
    withApi(async ({ ask, fake }) => {
      await (await ask("POST", "/swap", '{"mode":"exclusive"}')).text()
      await (await ask("POST", "/swap", '{"command":{"argv":["x"]},"mode":"sealed"}')).text()
      expect(fake.swaps).toEqual([undefined, { argv: ["x"] }])
      expect(fake.modes).toEqual(["exclusive", "sealed"])
    }))

  it("gives a roll-back's reason and last lines", () =>
    withApi(async ({ ask, fake }) => {
      fake.swap = () => Effect.fail(FakeSupervisor.rolledBack())
      const last = (await lines(await ask("POST", "/rollback"))).at(-1)
      expect(last).toMatchObject({
        _tag: "SwapEnded",
        record: { outcome: "rolled-back", serving: 1 },
        lastLines: ["reading config", "no such table"]
      })
      expect(last).toHaveProperty("message", expect.stringContaining("exited with status 7"))
    }))

  it("answers a refusal with 409 and what to do", () =>
    withApi(async ({ ask, fake }) => {
      fake.swap = () => Effect.fail(FakeSupervisor.refused({ _tag: "AlreadySwapping", swap: 4, sinceMs: 2000 }))
      const response = await ask("POST", "/swap")
      expect(response.status).toBe(409)
      expect(await lines(response)).toEqual([
        {
          _tag: "SwapRefused",
          refusal: { _tag: "AlreadySwapping", swap: 4, sinceMs: 2000 },
          message: expect.stringContaining("swap 4")
        }
      ])
    }))

  it("leaves events of before the request out", () =>
    withApi(async ({ ask, fake }) => {
      const usual = fake.swap
      fake.swap = (command, kind) =>
        Effect.andThen(fake.tell({ _tag: "GenerationGone", generation: 9 }), usual(command, kind))
      expect((await lines(await ask("POST", "/swap")))[0]?._tag).toBe("SwapRequested")
    }))

  it.each([
    ["{", "body", "is not JSON"],
    ["[]", "body", ""],
    ['{"comand":{}}', "comand", ""],
    ['{"mode":"sideways"}', "mode", '"exclusive"'],
    ['{"mode":1}', "mode", ""],
    ['{"command":{}}', "command.argv", "Missing"],
    ['{"command":{"argv":"node"}}', "command.argv", ""],
    ['{"command":{"argv":[]}}', "command.argv[0]", ""],
    ['{"command":{"argv":[""]}}', "command.argv[0]", "names no program"],
    ['{"command":{"argv":["node",7]}}', "command.argv[1]", ""],
    ['{"command":{"argv":["node","a\\u0000b"]}}', "command.argv[1]", "NUL"],
    ['{"command":{"argv":["node"],"environment":{"A=B":"1"}}}', "command.environment", '"A=B"'],
    ['{"command":{"argv":["node"],"environment":{"A":1}}}', "command.environment.A", ""],
    ['{"command":{"argv":["node"],"workingDirectory":"here"}}', "command.workingDirectory", "absolute"],
    ['{"command":{"argv":["node"],"argb":1}}', "command.argb", ""]
  ])("refuses the body %s and names %s", (body, at, message) =>
    withApi(async ({ ask, fake }) => {
      const response = await ask("POST", "/swap", body)
      expect(response.status).toBe(400)
      const { error } = (await response.json()) as { error: { at: string; message: string } }
      expect(error.at).toBe(at)
      expect(error.message).toContain(message)
      expect(fake.swaps).toEqual([])
    })
  )

  it("refuses a body that is too long", () =>
    withApi(async ({ ask }) => {
      expect((await ask("POST", "/swap", `"${"x".repeat(300_000)}"`)).status).toBe(413)
    }))
})

describe("the other resources", () => {
  it("gives the status as JSON", () =>
    withApi(async ({ ask }) => {
      expect(await (await ask("GET", "/status")).json()).toMatchObject({ name: "web", serving: 1 })
    }))

  it("counts swaps for Prometheus", () =>
    withApi(async ({ ask, fake }) => {
      await (await ask("POST", "/swap")).text()
      await Effect.runPromise(
        fake.tell({ _tag: "SwapEnded", record: FakeSupervisor.record({ outcome: "rolled-back", cut: 2 }) })
      )
      await new Promise((resolve) => setTimeout(resolve, 5))
      const response = await ask("GET", "/metrics")
      const text = await response.text()
      expect(response.headers.get("content-type")).toContain("version=0.0.4")
      expect(text).toContain('handoff_swaps_total{outcome="committed"} 1\n')
      expect(text).toContain('handoff_swaps_total{outcome="rolled_back"} 1\n')
      expect(text).toContain("handoff_serving_generation 1\n")
      expect(text).toContain("handoff_connections_cut_total 2\n")
      for (const line of text.trimEnd().split("\n")) {
        expect(line).toMatch(/^(# (HELP|TYPE) handoff_\w+ .+|handoff_\w+(\{\w+="[^"]*"(,\w+="[^"]*")*\})? -?[\d.e+]+)$/)
      }
    }))

  it("watches from now on, and ends with the supervisor", () =>
    withApi(async ({ ask, fake }) => {
      const response = await ask("GET", "/events")
      await Effect.runPromise(fake.tell({ _tag: "GenerationGone", generation: 1 }))
      await Effect.runPromise(fake.finish)
      expect((await lines(response)).map((line) => line._tag)).toEqual(["Watching", "GenerationGone", "Stopped"])
    }))

  it("refuses to abort when nothing runs, and says so", () =>
    withApi(async ({ ask, fake }) => {
      const refused = await ask("POST", "/abort")
      expect([refused.status, await refused.json()]).toMatchObject([409, { message: "no swap is running" }])
      fake.abort = Effect.succeed(3)
      expect(await (await ask("POST", "/abort")).json()).toEqual({ _tag: "Aborting", swap: 3 })
    }))

  it("does not kill because a second client asks to stop too", () =>
    withApi(async ({ ask, fake }) => {
      const first = await ask("POST", "/stop")
      fake.status = FakeSupervisor.status({ phase: "stopping" })
      const second = await ask("POST", "/stop")
      expect(fake.stops).toBe(1)
      const third = await ask("POST", "/stop?now")
      expect(fake.stops).toBe(2)
      await Effect.runPromise(fake.finish)
      for (const response of [first, second, third]) expect((await lines(response)).at(-1)?._tag).toBe("Stopped")
    }))

  it("names an unknown resource and a wrong method", () =>
    withApi(async ({ ask }) => {
      const unknown = await ask("GET", "/stats")
      expect([unknown.status, await unknown.json()]).toMatchObject([404, { error: { at: "/stats" } }])
      const wrong = await ask("GET", "/swap")
      expect([wrong.status, wrong.headers.get("allow"), await wrong.json()]).toMatchObject([
        405,
        "POST",
        { error: { at: "GET" } }
      ])
    }))
})

describe("the admin socket", () => {
  let directory: string
  let path: string
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), "handoff-admin-"))
    path = join(directory, "web", "admin.sock")
  })
  afterEach(() => rmSync(directory, { recursive: true, force: true }))

  const serving = <A, E>(use: (fake: FakeSupervisor.Fake) => Effect.Effect<A, E>) =>
    Effect.gen(function* () {
      const fake = yield* FakeSupervisor.make
      yield* AdminSocket.prepare(join(directory, "web"))
      return yield* use(fake).pipe(Effect.provide(AdminApi.layer(path).pipe(Layer.provide(fake.layer))))
    })

  it("is private: 0600 in a directory of 0700, narrowed if need be", async () => {
    await Effect.runPromise(AdminSocket.prepare(join(directory, "web")))
    chmodSync(join(directory, "web"), 0o755)
    await Effect.runPromise(
      serving(() =>
        Effect.sync(() => {
          expect(statSync(path).mode & 0o777).toBe(0o600)
          expect(statSync(join(directory, "web")).mode & 0o777).toBe(0o700)
        })
      )
    )
    expect(() => statSync(path)).toThrow("ENOENT")
  })

  it("refuses a second supervisor of the name and tells the pid of the first", async () => {
    const exit = await Effect.runPromise(serving(() => Effect.exit(serving(() => Effect.void))))
    expect(Exit.isFailure(exit)).toBe(true)
    expect(String(exit)).toContain(`already running as process ${process.pid}`)
  })

  it("replaces the stale socket of a supervisor that died", async () => {
    await Effect.runPromise(AdminSocket.prepare(join(directory, "web")))
    const server: Server = createServer()
    await new Promise<void>((resolve) => server.listen(path, resolve))
    // A process that dies leaves the path: move it away and back around the close.
    const { renameSync } = await import("node:fs")
    renameSync(path, `${path}.kept`)
    await new Promise((resolve) => server.close(resolve))
    renameSync(`${path}.kept`, path)
    const status = await Effect.runPromise(serving(() => AdminClient.status(path)))
    expect(status.name).toBe("web")
  })

  it("does not remove a file that is no socket", async () => {
    await Effect.runPromise(AdminSocket.prepare(join(directory, "web")))
    writeFileSync(path, "precious")
    const exit = await Effect.runPromiseExit(serving(() => Effect.void))
    expect(String(exit)).toContain("is in the way and is no socket")
    expect(statSync(path).size).toBe(8)
  })

  it("refuses a path longer than a socket's may be", async () => {
    const exit = await Effect.runPromiseExit(AdminSocket.claim(`/tmp/${"x".repeat(120)}/admin.sock`))
    expect(String(exit)).toContain("it may have 107")
  })

  it("leaves a swap running when its client goes away", async () => {
    await Effect.runPromise(
      serving((fake) =>
        Effect.gen(function* () {
          const go = yield* Deferred.make<void>()
          const done = yield* Deferred.make<void>()
          const begun = yield* Deferred.make<void>()
          const usual = fake.swap
          fake.swap = (command, kind) =>
            Effect.gen(function* () {
              yield* fake.tell({ _tag: "SwapRequested", swap: 1, kind, command: { argv: ["node"] } })
              yield* Deferred.await(go)
              const report = yield* usual(command, kind)
              yield* Deferred.succeed(done, undefined)
              return report
            })
          const client = yield* Effect.forkChild(
            AdminClient.stream(path, { method: "POST", resource: "/swap" }, () =>
              Deferred.doneUnsafe(begun, Effect.void)
            )
          )
          yield* Deferred.await(begun)
          yield* Fiber.interrupt(client)
          yield* Effect.sleep(30)
          yield* Deferred.succeed(go, undefined)
          yield* Deferred.await(done)
          expect((yield* AdminClient.status(path)).serving).toBe(1)
        })
      )
    )
  })

  it("tells a client that the supervisor was lost in the middle", async () => {
    const exit = await Effect.runPromiseExit(
      Effect.gen(function* () {
        const begun = yield* Deferred.make<void>()
        const client = yield* Effect.forkDetach(
          AdminClient.stream(path, { method: "POST", resource: "/swap" }, () =>
            Deferred.doneUnsafe(begun, Effect.void)
          ).pipe(Effect.delay(50))
        )
        yield* serving((fake) => {
          fake.swap = (_, kind) =>
            Effect.andThen(
              fake.tell({ _tag: "SwapRequested", swap: 1, kind, command: { argv: ["node"] } }),
              Effect.never
            )
          return Deferred.await(begun)
        })
        return yield* Fiber.join(client)
      })
    )
    expect(String(exit)).toContain("the connection to the supervisor was lost")
  })

  it("says that nobody listens", async () => {
    const exit = await Effect.runPromiseExit(AdminClient.status(path))
    expect(String(exit)).toContain("no supervisor listens")
  })
})

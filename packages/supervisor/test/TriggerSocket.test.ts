import { spawn } from "node:child_process"
import { once } from "node:events"
import { chmodSync, existsSync, lstatSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs"
import { createConnection, createServer, type Socket } from "node:net"
import { dirname } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import * as FfiBackend from "@handoff/backend-ffi/FfiBackend"
import * as TriggerSocket from "@handoff/supervisor/TriggerSocket"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { describe, expect, it } from "vitest"
import { type TemporaryDirectory, temporaryDirectory } from "../../../test/support/TemporaryDirectory.ts"
import { requireRoot } from "../../../test/support/Tools.ts"
import * as FakeSupervisor from "./FakeSupervisor.ts"

const NIL = "00000000-0000-0000-0000-000000000000"
const COMMITTED = `ok: handoff_id=${NIL} committed=true abort_reason=None\n`

interface Rig {
  readonly fake: FakeSupervisor.Fake
  readonly directory: TemporaryDirectory
  readonly path: string
  /** Connects, writes, ends its side, and gives everything that is answered. */
  readonly ask: (text: string | Buffer) => Promise<string>
}

const answerOf = async (socket: Socket): Promise<string> => {
  let text = ""
  socket.on("data", (chunk) => {
    text += String(chunk)
  })
  socket.on("error", () => {})
  await new Promise((resolve) => socket.once("close", resolve))
  return text
}

/** Serves a trigger socket over a fake supervisor while `use` runs. */
const withTrigger = async (use: (rig: Rig) => Promise<void>, over: Partial<TriggerSocket.Options> = {}) => {
  using directory = temporaryDirectory()
  const fake = await Effect.runPromise(FakeSupervisor.make)
  const path = over.path ?? directory.file("run", "handoff.trigger")
  const ask: Rig["ask"] = (text) => {
    const socket = createConnection({ path })
    socket.end(text)
    return answerOf(socket)
  }
  for (const name of ["v1", "v2", "other"]) writeFileSync(directory.file(name), "")
  const layer = TriggerSocket.layer({
    path,
    binary: directory.file("v1"),
    args: ["--flag"],
    allowedUids: [],
    allowedBinaries: [directory.file("missing"), directory.file("v2")],
    ...over
  }).pipe(Layer.provide([fake.layer, FfiBackend.layer]))
  await Effect.runPromise(Effect.promise(() => use({ fake, directory, path, ask })).pipe(Effect.provide(layer)))
  expect(existsSync(path)).toBe(false)
}

describe("a command", () => {
  it("swaps to the configured binary and arguments, with or without a newline", () =>
    withTrigger(async ({ ask, fake, directory }) => {
      expect(await ask("handoff\n")).toBe(COMMITTED)
      expect(await ask("  handoff  ")).toBe(COMMITTED)
      const command = { argv: [directory.file("v1"), "--flag"] }
      expect(fake.swaps).toEqual([command, command])
    }))

  it("swaps to a listed binary by its real path, however it is written", () =>
    withTrigger(async ({ ask, fake, directory }) => {
      symlinkSync(directory.file("v2"), directory.file("link"))
      expect(await ask(`handoff ${directory.path}/../${directory.path.split("/").at(-1)}/v2\n`)).toBe(COMMITTED)
      expect(await ask(`handoff ${directory.file("link")}\n`)).toBe(COMMITTED)
      expect(fake.swaps).toEqual([
        { argv: [directory.file("v2"), "--flag"] },
        { argv: [directory.file("v2"), "--flag"] }
      ])
    }))

  it("is refused for a binary that is not listed, also under a listed name that leads elsewhere", () =>
    withTrigger(async ({ ask, fake, directory }) => {
      const other = directory.file("other")
      const refusal = "is not in the configured allowlist (`binary` + `allowed_binaries`)"
      expect(await ask(`handoff ${other}\n`)).toBe(`err: binary ${other} ${refusal}\n`)
      const missing = directory.file("missing")
      expect(await ask(`handoff ${missing}\n`)).toBe(`err: resolve requested binary ${missing}\n`)
      expect(fake.swaps).toEqual([])
    }))

  it.each([
    ["an empty line", "\n", "err: empty command\n"],
    ["another case", "HANDOFF\n", "err: unknown command 'HANDOFF'\n"],
    ["another word", "stop now\n", "err: unknown command 'stop'\n"],
    ["a line too long", `handoff ${"x".repeat(5000)}\n`, "err: command is longer than 4096 bytes\n"],
    ["a flood", "x".repeat(200_000), "err: command is longer than 4096 bytes\n"],
    ["nothing at all", "", ""]
  ])("is not what it takes: %s", (_, text, expected) =>
    withTrigger(async ({ ask, fake }) => {
      expect(await ask(text)).toBe(expected)
      expect(fake.swaps).toEqual([])
    })
  )

  it("that was rolled back says why, quoted as the reference quotes it", () =>
    withTrigger(async ({ ask, fake }) => {
      fake.swap = () =>
        Effect.fail(
          FakeSupervisor.rolledBack({ failure: { _tag: "LaunchFailed", detail: 'no "x"\n\tat\u0007 C:\\it\'s' } })
        )
      expect(await ask("handoff\n")).toBe(
        `ok: handoff_id=${NIL} committed=false abort_reason=Some("no \\"x\\"\\n\\tat\\u{7} C:\\\\it's")\n`
      )
    }))

  it("that led to a sealed swap names it as the wire does", () =>
    withTrigger(async ({ ask, fake }) => {
      const handoffId = "6f0d2c5e-9a1b-4c3d-8e7f-102132435465"
      fake.swap = () => Effect.succeed({ record: FakeSupervisor.record({ mode: "sealed", handoffId }), lastLines: [] })
      expect(await ask("handoff\n")).toBe(`ok: handoff_id=${handoffId} committed=true abort_reason=None\n`)
    }))

  it("during a swap is refused", () =>
    withTrigger(async ({ ask, fake }) => {
      fake.swap = () => Effect.fail(FakeSupervisor.refused({ _tag: "AlreadySwapping", swap: 4, sinceMs: 2000 }))
      expect(await ask("handoff\n")).toMatch(/^err: swap 4 has been running for 2\.0 s: .*\n$/)
    }))

  it("may come byte by byte, and what follows its line is ignored", () =>
    withTrigger(async ({ path, fake }) => {
      const socket = createConnection({ path })
      const answer = answerOf(socket)
      for (const byte of "handoff\nhandoff\n") {
        socket.write(byte)
        await sleep(1)
      }
      expect(await answer).toBe(COMMITTED)
      expect(fake.swaps).toHaveLength(1)
    }))
})

describe("a bad client", () => {
  it("that is silent is cut after the time limit, and others are served meanwhile", () =>
    withTrigger(
      async ({ path, ask }) => {
        const silent = createConnection({ path })
        const said = answerOf(silent)
        expect(await ask("handoff\n")).toBe(COMMITTED)
        expect(await said).toBe("err: no command within 300 ms\n")
      },
      { lineTimeoutMs: 300 }
    ))

  it("that goes away leaves its swap running and the socket serving", () =>
    withTrigger(async ({ path, ask, fake }) => {
      const usual = fake.swap
      const go = await Effect.runPromise(Deferred.make<void>())
      const done = await Effect.runPromise(Deferred.make<void>())
      fake.swap = (command, kind) =>
        Effect.gen(function* () {
          yield* Deferred.await(go)
          const report = yield* usual(command, kind)
          yield* Deferred.succeed(done, undefined)
          return report
        })
      const socket = createConnection({ path })
      socket.write("handoff\n")
      while (fake.swaps.length === 0) await sleep(5)
      socket.destroy()
      await once(socket, "close")
      await sleep(20)
      await Effect.runPromise(Effect.andThen(Deferred.succeed(go, undefined), Deferred.await(done)))
      fake.swap = usual
      expect(await ask("handoff\n")).toBe(COMMITTED)
    }))

  it("does not crowd out for longer than its time: more than 16 at once are told so", () =>
    withTrigger(
      async ({ path, ask }) => {
        const crowd = Array.from({ length: 16 }, () => createConnection({ path }))
        const ends = crowd.map(answerOf)
        await Promise.all(crowd.map((socket) => once(socket, "connect")))
        expect(await ask("handoff\n")).toBe("err: too many clients\n")
        await Promise.all(ends)
        // They see their end before their places are free.
        await expect.poll(() => ask("handoff\n")).toBe(COMMITTED)
      },
      { lineTimeoutMs: 2_000 }
    ))
})

describe("the socket", () => {
  it("is 0600, takes a dead one's place and is gone at the end", async () => {
    using directory = temporaryDirectory()
    const path = directory.file("t")
    const dead = spawn(process.execPath, [
      "-e",
      `require("net").createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, "SIGKILL"))`
    ])
    await once(dead, "close")
    expect(existsSync(path)).toBe(true)
    await withTrigger(
      async ({ ask }) => {
        expect(lstatSync(path).mode & 0o777).toBe(0o600)
        expect(await ask("handoff\n")).toBe(COMMITTED)
      },
      { path }
    )
  })

  it.each([
    ["a live one", "somebody listens there already"],
    ["a file", "is in the way and is no socket"],
    ["a path too long", "it may have 107"]
  ])("is not made over %s", async (what, detail) => {
    using directory = temporaryDirectory()
    const path = directory.file(what === "a path too long" ? "x".repeat(100) : "t")
    const other = createServer()
    if (what === "a file") writeFileSync(path, "precious")
    if (what === "a live one") await once(other.listen(path), "listening")
    const failing = withTrigger(async () => {}, { path })
    await expect(failing).rejects.toThrow(detail)
    expect(existsSync(path)).toBe(what !== "a path too long")
    other.close()
  })

  const root = requireRoot()
  it.skipIf(!root.available)(`serves other uids only when they are allowed${root.reason}`, async () => {
    const askAs = async (uid: number, path: string): Promise<string> => {
      const script = `const s=require("net").connect(${JSON.stringify(path)},()=>s.write("handoff\\n"));s.on("data",(d)=>process.stdout.write(d));s.on("error",(e)=>{console.log(e.code);process.exit()})`
      const child = spawn(process.execPath, ["-e", script], { uid, cwd: "/" })
      let text = ""
      child.stdout.on("data", (chunk) => {
        text += String(chunk)
      })
      await once(child, "close")
      return text
    }
    await withTrigger(
      async ({ path, directory, fake }) => {
        chmodSync(directory.path, 0o755)
        mkdirSync(dirname(path), { recursive: true })
        chmodSync(dirname(path), 0o755)
        expect(await askAs(65534, path)).toBe("EACCES\n")
        chmodSync(path, 0o666)
        expect(await askAs(65534, path)).toBe(COMMITTED)
        expect(await askAs(65533, path)).toBe("err: not permitted\n")
        expect(fake.swaps).toHaveLength(1)
      },
      { allowedUids: [65534] }
    )
  })
})

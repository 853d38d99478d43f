import { fileURLToPath } from "node:url"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as FfiBackend from "@handoff/backend-ffi/FfiBackend"
import { Supervisor } from "@handoff/supervisor/Supervisor"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { expect, it } from "vitest"
import * as ChildProcessLauncher from "../src/ChildProcessLauncher.ts"

const script = fileURLToPath(new URL("./server.js", import.meta.url))
const command = (version: string) => [process.execPath, script, version]

// The launcher is ours, the rest of the backend is taken from elsewhere: the later layer wins.
const backend = Layer.mergeAll(FfiBackend.layer, NodeFileSystem.layer, ChildProcessLauncher.layer)

const layer = Supervisor.layer({
  listeners: { http: "127.0.0.1:0" },
  command: command("v1"),
  settleMs: 50,
  graceMs: 5_000,
  onOutput: () => undefined
}).pipe(Layer.provide(backend))

const ask = (address: string) => Effect.promise(async () => (await fetch(`http://${address}/`)).text())

it("a supervisor on this launcher swaps versions, and keeps the old one when the new one is broken", async () => {
  const program = Effect.gen(function* () {
    const supervisor = yield* Supervisor
    yield* supervisor.start
    const { listeners } = yield* supervisor.status
    const address = listeners[0]?.address ?? ""
    expect(yield* ask(address)).toBe("v1")
    const swapped = yield* supervisor.swap({ argv: command("v2") })
    expect(swapped.record).toMatchObject({ outcome: "committed", from: 1, to: 2 })
    expect(yield* ask(address)).toBe("v2")
    const error = yield* Effect.flip(supervisor.swap({ argv: command("broken") }))
    const lastLines = error.reason._tag === "RolledBack" ? error.reason.report.lastLines : []
    expect(lastLines).toContain("cannot open database")
    expect(yield* ask(address)).toBe("v2")
    yield* supervisor.stop
    expect((yield* supervisor.status).generations).toEqual([])
  })
  await Effect.runPromise(Effect.provide(program, layer))
})

import { expect, it } from "@effect/vitest"
import { Launcher } from "@handoff/core/backend/Launcher"
import { Processes } from "@handoff/core/backend/Processes"
import * as Program from "@handoff/core/testing/Program"
import * as SimulatedBackend from "@handoff/core/testing/SimulatedBackend"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import * as GenerationLauncher from "../src/internal/GenerationLauncher.ts"
import * as OutputLog from "../src/OutputLog.ts"

const backend = SimulatedBackend.layer({ programs: { "/srv/daemon": Program.server({ ignoresStop: true }) } })

/** Killed processes whose end is seen 300 ms late. */
const slowToEnd = Layer.effect(
  Launcher,
  Effect.map(Launcher, (launcher) =>
    Launcher.of({
      ...launcher,
      launch: (plan) =>
        Effect.map(launcher.launch(plan), (started) => ({ ...started, exit: Effect.delay(started.exit, 300) }))
    })
  )
).pipe(Layer.provideMerge(backend))

it.effect("a launch whose channel can't be had fails once nothing of it is left", () =>
  Effect.gen(function* () {
    const output = yield* OutputLog.make({ how: "null", directory: "/tmp", onLine: () => undefined })
    const options = { listeners: {}, command: ["/srv/daemon"] }
    const settings: GenerationLauncher.Settings = {
      ...{ options, output, directory: "/tmp", workingDirectory: "/tmp" },
      ...{ listeners: [], handoffSocket: "/tmp/handoff.sock", environment: {} }
    }
    let launched = 0
    const launch = GenerationLauncher.launch(settings, {
      ...{ generation: 1, token: "t", command: { argv: ["/srv/daemon"] }, onNotify: () => undefined },
      attach: () =>
        Effect.gen(function* () {
          const found = yield* Effect.provide(
            Processes.use((processes) => processes.startedWith("HANDOFF_TOKEN", "t")),
            context
          )
          launched = found[0]?.pid ?? 0
          return yield* Effect.fail({ message: "no channel" })
        })
    })
    const context = yield* Effect.context<Processes>()
    const failing = yield* Effect.forkChild(Effect.flip(launch))
    yield* TestClock.adjust(299)
    expect(launched).toBeGreaterThan(0)
    expect(failing.pollUnsafe()).toBeUndefined()
    yield* TestClock.adjust(2)
    expect(yield* Fiber.join(failing)).toEqual({ message: "no channel" })
    expect(yield* Processes.use((processes) => processes.groupMembers(launched))).toEqual([])
  }).pipe(Effect.provide(slowToEnd))
)

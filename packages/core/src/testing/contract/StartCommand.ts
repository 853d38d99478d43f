/** Starting a program for a case that is not about launching. */
import * as Effect from "effect/Effect"
import { Launcher } from "../../backend/Launcher.ts"
import * as Launch from "../../Launch.ts"
import type { Command } from "./Case.ts"

/** Launches with what the launcher has of seal, own group and signals. What is left is killed when the scope closes. */
export const startCommand = Effect.fnUntraced(function* (
  command: Command,
  wish: Partial<Pick<Launch.LaunchSpec, "environment" | "placements">> = {}
) {
  const launcher = yield* Launcher
  const { spec } = Launch.forCapabilities(
    { program: command.program, argv: command.argv, environment: {}, placements: [], ...wish },
    launcher.capabilities
  )
  const plan = yield* Effect.fromResult(Launch.plan(spec, yield* launcher.facts))
  return yield* Effect.acquireRelease(launcher.launch(plan), (child) =>
    Effect.andThen(
      Effect.ignore(Effect.andThen(child.signalGroup("SIGKILL"), child.signal("SIGKILL"))),
      Effect.asVoid(child.exit)
    )
  )
})

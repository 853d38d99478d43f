/** kill(2) by the process that uses a simulated backend. */
import * as Effect from "effect/Effect"
import { LaunchError } from "../backend/Launcher.ts"
import type { SignalName } from "../Signal.ts"
import type { Kernel } from "./SimulatedKernel.ts"
import * as SimulatedKernel from "./SimulatedKernel.ts"
import type { SimulationDriver } from "./SimulationDriver.ts"

/** Signals those of the targets that may be signalled. False: there are none; EPERM: there are, and not one may. */
export const send = (
  driver: SimulationDriver,
  pid: number,
  name: SignalName,
  targets: (kernel: Kernel) => ReadonlyArray<number>
): Effect.Effect<boolean, LaunchError> =>
  Effect.flatMap(
    driver.use((machine) => {
      const found = targets(machine.kernel)
      let { kernel } = machine
      let refused = 0
      for (const target of found) {
        const sent = SimulatedKernel.kill(kernel, driver.self, target, name)
        if (typeof sent !== "string") kernel = sent.kernel
        else if (sent === "EPERM") refused++
      }
      return { machine: { ...machine, kernel }, value: { found: found.length, refused } }
    }),
    ({ found, refused }) =>
      found > 0 && refused === found
        ? Effect.fail(
            new LaunchError({ reason: { _tag: "ParentCallFailed", call: `kill(${pid}, ${name})`, errno: "EPERM" } })
          )
        : Effect.succeed(found > 0)
  )

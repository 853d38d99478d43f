/** kill(2) by the process that uses a simulated backend. */
import * as Effect from "effect/Effect"
import { LaunchError } from "../backend/Launcher.ts"
import type { SignalName } from "../Signal.ts"
import * as ProgramMachine from "./ProgramMachine.ts"
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
    driver.use((machine, now) => {
      const sender = SimulatedKernel.alive(machine.kernel, driver.self)
      const found = targets(machine.kernel)
      const permitted = found.filter((target) => {
        const one = SimulatedKernel.alive(machine.kernel, target)
        return sender !== undefined && one !== undefined && SimulatedKernel.maySignal(sender, one)
      })
      let next = machine
      for (const target of permitted) next = ProgramMachine.signal(next, target, name, now)
      return { machine: next, value: { found: found.length, permitted: permitted.length } }
    }),
    ({ found, permitted }) =>
      found > 0 && permitted === 0
        ? Effect.fail(
            new LaunchError({ reason: { _tag: "ParentCallFailed", call: `kill(${pid}, ${name})`, errno: "EPERM" } })
          )
        : Effect.succeed(found > 0)
  )

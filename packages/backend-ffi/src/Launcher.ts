/**
 * The launcher on Linux: a plan is compiled, run by a cloned child between clone and exec, and becomes a process that this
 * process reaps.
 *
 * A launch blocks the event loop until the child has executed its program or failed, however large this process is: memory
 * is shared with the child, not copied. It costs four calls through ffi-rs (block signals, clone, restore, pidfd_open).
 *
 * Limits: main thread only (Libc.ts). A group is signalled by number (kill(2) of -pid): once the leader was reaped and its
 * group is empty the kernel may give the number to another process, so signal a group only while something of it can live.
 */
import { closeSync, readdirSync } from "node:fs"
import { LaunchError, Launcher, type LaunchFacts, type Process } from "@handoff/core/backend/Launcher"
import type { ErrnoName } from "@handoff/core/Errno"
import * as Launch from "@handoff/core/Launch"
import * as Signal from "@handoff/core/Signal"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as DescriptorLimit from "./internal/DescriptorLimit.ts"
import * as Pidfd from "./Pidfd.ts"
import * as Platform from "./Platform.ts"
import * as Reaper from "./Reaper.ts"

/** What this machine's launcher can do: everything, and `pid-stamp` where /proc/self names this process. */
export const capabilitiesOf = (machine: { readonly pidStamp: boolean }): ReadonlySet<Launch.LaunchCapability> =>
  new Set(Launch.CAPABILITIES.filter((one) => one !== "pid-stamp" || machine.pidStamp))

const isErrno = (code: unknown): code is ErrnoName => typeof code === "string" && code.startsWith("E")

/** kill(2): false for ESRCH. */
const kill = (target: number, signal: Signal.SignalName): Effect.Effect<boolean, LaunchError> =>
  Effect.suspend(() => {
    try {
      process.kill(target, Signal.number(signal))
      return Effect.succeed(true)
    } catch (error) {
      const code = error instanceof Error && "code" in error ? error.code : undefined
      if (code === "ESRCH") return Effect.succeed(false)
      if (!isErrno(code)) return Effect.die(error)
      return Effect.fail(
        new LaunchError({ reason: { _tag: "ParentCallFailed", call: `kill(${target}, ${signal})`, errno: code } })
      )
    }
  })

const processOf = (reaper: Reaper.Reaper, pid: number, pidfd: number | undefined): Process => {
  const child = reaper.adopt(pid, () => {
    if (pidfd !== undefined) closeSync(pidfd)
  })
  return {
    pid,
    ...(pidfd === undefined ? {} : { pidfd }),
    exit: Effect.callback((resume) => {
      const stop = reaper.wait(child, (status) => resume(Effect.succeed(status)))
      return Effect.sync(stop)
    }),
    // Until it is reaped, which only happens here, the number is its own: kill can't hit another process.
    signal: (signal) =>
      Effect.suspend(() => (reaper.check(child) === undefined ? kill(pid, signal) : Effect.succeed(false))),
    signalGroup: (signal) =>
      Effect.suspend(() => {
        reaper.check(child)
        return kill(-pid, signal)
      })
  }
}

const openDescriptors = (): ReadonlyArray<number> => readdirSync("/proc/self/fd").map(Number)

/** A launcher on a probed machine; `capabilities` may be fewer than it has. */
export const make = (
  machine: Platform.Machine,
  capabilities: ReadonlySet<Launch.LaunchCapability> = capabilitiesOf(machine)
): Launcher["Service"] => {
  const { libc, architecture, closeRange } = machine
  const reaper = Reaper.forProcess(libc)
  const openPidfd = Pidfd.make(libc, architecture)
  const descriptorLimit = DescriptorLimit.make(libc)
  const original = DescriptorLimit.original(descriptorLimit())

  const facts = Effect.sync(
    (): LaunchFacts => ({
      descriptorLimit: descriptorLimit(),
      ...(original === undefined ? {} : { childDescriptorLimit: original }),
      closeRange,
      ...(closeRange ? {} : { openDescriptors: openDescriptors() })
    })
  )

  const launch = (plan: Launch.LaunchPlan): Effect.Effect<Process, LaunchError> =>
    Effect.suspend(() => {
      const refused = Launch.requirements(plan).find(({ capability }) => !capabilities.has(capability))
      if (refused !== undefined) {
        return Effect.fail(new LaunchError({ reason: { _tag: "CapabilityMissing", ...refused } }))
      }
      reaper.start()
      const cloned = machine.clone(plan)
      if (Result.isFailure(cloned)) return Effect.fail(new LaunchError({ reason: cloned.failure }))
      // A process without a pidfd (EMFILE) is a whole process.
      const pidfd = machine.pidfd ? openPidfd(cloned.success) : undefined
      const fd = pidfd !== undefined && Result.isSuccess(pidfd) ? pidfd.success : undefined
      return Effect.succeed(processOf(reaper, cloned.success, fd))
    })

  return { capabilities, facts, launch }
}

/** The launcher of this process. Fails with what is missing where the platform can't be served. */
export const layer: Layer.Layer<Launcher, Platform.UnsupportedPlatform> = Layer.effect(
  Launcher,
  Effect.suspend(() => Effect.map(Effect.fromResult(Platform.machine()), (machine) => Launcher.of(make(machine))))
)

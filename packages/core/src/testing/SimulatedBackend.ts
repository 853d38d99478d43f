/**
 * Every service of a backend over one simulated kernel, and {@link Simulation}, the handle on it.
 *
 * Nothing is forked and no real time passes: programs are data (Program.ts), their time is Effect's Clock, so TestClock
 * drives them. Capabilities can be taken away, to see how something refuses or copes.
 *
 * @example
 * const backend = SimulatedBackend.layer({ programs: { "/srv/app": Program.server({ readyAfterMs: 100, notify: true }) } })
 * const test = Effect.gen(function* () {
 *   const launcher = yield* Launcher
 *   const child = yield* launcher.launch(plan)
 *   yield* TestClock.adjust("1 second")
 * }).pipe(Effect.provide(backend))
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type { FileSystem } from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import type { Channels } from "../backend/Channels.ts"
import type { Executables } from "../backend/Executables.ts"
import type { Files } from "../backend/Files.ts"
import { LaunchError, Launcher, type LaunchFacts, type Process } from "../backend/Launcher.ts"
import type { Locks } from "../backend/Locks.ts"
import type { Notifications } from "../backend/Notifications.ts"
import type { ProcessCapability, Processes } from "../backend/Processes.ts"
import type { Sockets } from "../backend/Sockets.ts"
import type { ErrnoName } from "../Errno.ts"
import * as Launch from "../Launch.ts"
import type { SignalName } from "../Signal.ts"
import type { ChildView } from "./ChildView.ts"
import * as FileTree from "./FileTree.ts"
import * as Program from "./Program.ts"
import * as ProgramMachine from "./ProgramMachine.ts"
import * as SimulatedChannels from "./SimulatedChannels.ts"
import * as SimulatedFileSystem from "./SimulatedFileSystem.ts"
import * as SimulatedKernel from "./SimulatedKernel.ts"
import * as SimulatedLaunch from "./SimulatedLaunch.ts"
import * as SimulatedProcess from "./SimulatedProcess.ts"
import * as SimulatedServices from "./SimulatedServices.ts"
import * as SimulatedSignal from "./SimulatedSignal.ts"
import { Simulation } from "./Simulation.ts"
import * as SimulationDriver from "./SimulationDriver.ts"

/** A program, or what chooses one at each launch. */
export type ProgramChoice =
  | Program.Program
  | ((argv: ReadonlyArray<string>, environment: Readonly<Record<string, string>>) => Program.Program)

export interface Options {
  /** By absolute path; they appear as executable files. A program that is only a file exits with status 0 at once. */
  readonly programs?: Readonly<Record<string, ProgramChoice>>
  /** More files and directories. `/tmp`, `/run` and `/dev/null` are there. */
  readonly files?: Readonly<Record<string, FileTree.Node>>
  /** The process that uses the backend. Default: pid 100, root, 1024 descriptors, stdio open. */
  readonly self?: Partial<SimulatedProcess.SimulatedProcess>
  readonly somaxconn?: number
  /** What the launcher has. Default: everything. */
  readonly capabilities?: ReadonlySet<Launch.LaunchCapability>
  readonly processCapabilities?: ReadonlySet<ProcessCapability>
  /** Default true: close_range(2) exists. */
  readonly closeRange?: boolean
  readonly childDescriptorLimit?: Launch.ResourceLimit
}

export const ALL_CAPABILITIES: ReadonlySet<Launch.LaunchCapability> = new Set(Launch.CAPABILITIES)

const SELF = 100

const boot = (options: Options): SimulatedKernel.Kernel => {
  const self = SimulatedProcess.make({ pid: SELF, ...options.self })
  const programs = Object.keys(options.programs ?? {}).map((path) => [path, FileTree.file("", 0o755)])
  const files = FileTree.add(FileTree.empty, {
    "/tmp": FileTree.directory(0o777),
    "/run": FileTree.directory(),
    "/dev/null": FileTree.file("", 0o666),
    ...Object.fromEntries(programs),
    ...options.files
  })
  const { somaxconn } = options
  let kernel = SimulatedKernel.make({ processes: [self], files, ...(somaxconn === undefined ? {} : { somaxconn }) })
  for (let fd = 0; fd < 3; fd++) {
    const opened = SimulatedKernel.open(kernel, self.pid, "/dev/null", fd === 0 ? "read" : "append")
    if (typeof opened !== "string") kernel = opened.kernel
  }
  return kernel
}

const planProblem = (plan: Launch.LaunchPlan): string | undefined => {
  if (plan.calls.at(-1)?._tag !== "Execute") return "it does not end with execve"
  return JSON.stringify(plan).includes("\\u0000") ? "a string has a NUL character" : undefined
}

/** State of the launcher beside the kernel. */
interface Launches {
  readonly views: Array<ChildView>
  injected: { readonly call: Launch.SystemCall["_tag"]; readonly errno: ErrnoName } | undefined
}

type Outcome = Result.Result<number, LaunchError>

const launchOn =
  (options: Options, self: number, launches: Launches, plan: Launch.LaunchPlan) =>
  (machine: ProgramMachine.ProgramMachine, now: number): { machine: ProgramMachine.ProgramMachine; value: Outcome } => {
    const refuse = (step: number, call: Launch.SystemCall, errno: ErrnoName) => {
      const reason = { _tag: "StepFailed", step, call: Launch.formatCall(call), errno } as const
      return { machine, value: Result.fail(new LaunchError({ reason })) }
    }
    const launched = SimulatedLaunch.run(machine.kernel, self, plan, now)
    const { injected } = launches
    const step = injected === undefined ? -1 : plan.calls.findIndex((call) => call._tag === injected.call)
    const struck = plan.calls[step]
    const earlier = Result.isFailure(launched) && launched.failure.step < step
    if (injected !== undefined && struck !== undefined && !earlier) {
      launches.injected = undefined
      return refuse(step, struck, injected.errno)
    }
    if (Result.isFailure(launched)) {
      return refuse(launched.failure.step, launched.failure.call, launched.failure.errno)
    }
    const { kernel, pid, view } = launched.success
    launches.views.push(view)
    const program = kernel.processes.get(pid)?.program ?? ""
    const choice = options.programs?.[FileTree.absolute(program, view.workingDirectory)] ?? Program.exits(0)
    const chosen = typeof choice === "function" ? choice(view.argv, view.environment) : choice
    return { machine: ProgramMachine.start({ ...machine, kernel }, pid, chosen, now), value: Result.succeed(pid) }
  }

const makeProcess = (driver: SimulationDriver.SimulationDriver, pid: number): Process => {
  const send = (name: SignalName, targets: (kernel: SimulatedKernel.Kernel) => ReadonlyArray<number>) =>
    SimulatedSignal.send(driver, pid, name, targets)
  return {
    pid,
    exit: Deferred.await(driver.exitOf(pid)),
    signal: (name) => send(name, (kernel) => (SimulatedKernel.alive(kernel, pid) === undefined ? [] : [pid])),
    signalGroup: (name) => send(name, (kernel) => SimulatedKernel.groupMembers(kernel, pid))
  }
}

const makeLauncher = (options: Options, driver: SimulationDriver.SimulationDriver, launches: Launches) => {
  const capabilities = options.capabilities ?? ALL_CAPABILITIES
  const facts = Effect.map(driver.machine, ({ kernel }): LaunchFacts => {
    const self = kernel.processes.get(driver.self)
    const limit = self?.limits.NOFILE ?? { soft: 0, hard: 0 }
    const hard = { soft: limit.hard, hard: limit.hard }
    const { childDescriptorLimit, closeRange = true } = options
    return {
      descriptorLimit: {
        soft: SimulatedProcess.descriptorLimit(limit),
        hard: SimulatedProcess.descriptorLimit(hard)
      },
      ...(childDescriptorLimit === undefined ? {} : { childDescriptorLimit }),
      closeRange,
      ...(closeRange ? {} : { openDescriptors: [...(self?.table.entries.keys() ?? [])] })
    }
  })
  const launch = (plan: Launch.LaunchPlan): Effect.Effect<Process, LaunchError> => {
    const detail = planProblem(plan)
    if (detail !== undefined) return Effect.fail(new LaunchError({ reason: { _tag: "PlanInvalid", detail } }))
    const missing = Launch.requirements(plan).find(({ capability }) => !capabilities.has(capability))
    if (missing !== undefined) {
      return Effect.fail(new LaunchError({ reason: { _tag: "CapabilityMissing", ...missing } }))
    }
    return driver.use(launchOn(options, driver.self, launches, plan)).pipe(
      Effect.flatMap(Effect.fromResult),
      Effect.map((pid) => makeProcess(driver, pid))
    )
  }
  return Launcher.of({ capabilities, facts, launch })
}

const makeSimulation = (driver: SimulationDriver.SimulationDriver, launches: Launches) =>
  Simulation.of({
    self: driver.self,
    machine: driver.machine,
    launched: Effect.sync(() => [...launches.views]),
    child: (pid) => Effect.sync(() => launches.views.find((view) => view.pid === pid)),
    output: (pid) =>
      Effect.map(driver.machine, ({ lives }) => {
        const lines = (lives.get(pid)?.output ?? "").split("\n")
        return lines.at(-1) === "" ? lines.slice(0, -1) : lines
      }),
    connect: (address) => driver.use((machine) => ProgramMachine.connect(machine, address)),
    setConnections: (pid, inode, count) =>
      driver.use((machine) => ({
        machine: ProgramMachine.setConnections(machine, pid, inode, count),
        value: undefined
      })),
    end: (pid, status) =>
      driver.call<undefined, never>((kernel) => ({
        kernel: SimulatedKernel.end(kernel, pid, status),
        value: undefined
      })),
    failNext: (call, errno) =>
      Effect.sync(() => {
        launches.injected = { call, errno }
      }),
    update: (change) =>
      driver.use((machine) => ({ machine: { ...machine, kernel: change(machine.kernel) }, value: undefined })),
    call: driver.call,
    channelsOf: (pid) => SimulatedChannels.make({ ...driver, self: pid })
  })

/** The services of a simulated backend. `FileSystem` reads and writes the simulated files. */
export type Services =
  | Launcher
  | Executables
  | Sockets
  | Channels
  | Files
  | Notifications
  | Processes
  | Locks
  | FileSystem
  | Simulation

/** A fresh kernel with every service on it. */
export const layer = (options: Options = {}): Layer.Layer<Services> =>
  Layer.unwrap(
    Effect.map(SimulationDriver.make(boot(options), options.self?.pid ?? SELF), (driver) => {
      const launches: Launches = { views: [], injected: undefined }
      return Layer.mergeAll(
        Layer.succeed(Launcher, makeLauncher(options, driver, launches)),
        Layer.succeed(Simulation, makeSimulation(driver, launches)),
        SimulatedServices.layer(driver, options.processCapabilities),
        SimulatedFileSystem.layer(driver)
      )
    })
  )

/** What every launcher must do, and refuse. */
import * as Effect from "effect/Effect"
import type { Process } from "../../backend/Launcher.ts"
import { LaunchError, Launcher } from "../../backend/Launcher.ts"
import * as Launch from "../../Launch.ts"
import * as Placement from "../../Placement.ts"
import {
  type Command,
  type ContractCase,
  ContractViolation,
  contractCase,
  Harness,
  holds,
  refused,
  same
} from "./Case.ts"

type Wish = Partial<Launch.LaunchSpec>

/** Launches with what the launcher has of seal, own group, signals; what `wish` says in words stays. */
const start = Effect.fnUntraced(function* (command: Command, wish: Wish = {}) {
  const launcher = yield* Launcher
  const whole = { program: command.program, argv: command.argv, environment: {}, placements: [], ...wish }
  const { spec } = Launch.forCapabilities(whole, launcher.capabilities)
  const plan = yield* Effect.fromResult(Launch.plan(spec, yield* launcher.facts))
  return yield* launcher.launch(plan)
})

/** Kills what is left when the case ends, also when it fails. */
const startScoped = (command: Command, wish: Wish = {}) =>
  Effect.acquireRelease(start(command, wish), (child: Process) =>
    Effect.andThen(
      Effect.ignore(Effect.andThen(child.signalGroup("SIGKILL"), child.signal("SIGKILL"))),
      Effect.asVoid(child.exit)
    )
  )

/** Launches an observer, waits for its end, and gives what it saw. */
const observe = Effect.fnUntraced(function* (wish: Wish = {}) {
  const harness = yield* Harness
  const observer = yield* harness.observer
  const child = yield* startScoped(observer, wish)
  yield* same("the observer's exit", yield* child.exit, { _tag: "Exited", code: 0 })
  return { child, view: yield* observer.view(child.pid) }
})

const requires = (capability: Launch.LaunchCapability, capabilities: ReadonlySet<Launch.LaunchCapability>) =>
  capabilities.has(capability) ? undefined : { skipped: `the launcher declares no "${capability}"` }

const stepFailed = Effect.fnUntraced(function* (error: { readonly message: string }, call: string, errno: string) {
  if (!(error instanceof LaunchError) || error.reason._tag !== "StepFailed") {
    return yield* new ContractViolation({ detail: `expected StepFailed with ${errno}, got: ${error.message}` })
  }
  yield* same("errno", error.reason.errno, errno)
  yield* holds(`the failed call is ${error.reason.call}, expected ${call}`, error.reason.call.startsWith(`${call}(`))
})

const PLACED: ReadonlyArray<readonly [string, (fds: ReadonlyArray<number>) => ReadonlyArray<Placement.Placement>]> = [
  ["side by side from 3", (fds) => Placement.contiguous(fds)],
  ["swapped", ([a = 0, b = 0]) => [Placement.move(a, b), Placement.move(b, a)]],
  ["rotated", (fds) => fds.map((fd, index) => Placement.move(fd, fds[(index + 1) % fds.length] ?? fd))],
  ["one source at many targets", ([a = 0]) => [3, 4, 9].map((target) => Placement.move(a, target))],
  ["a source at its own number", ([a = 0]) => [Placement.move(a, a)]],
  ["at stdin, stdout and stderr", (fds) => Placement.contiguous(fds.slice(0, 3), 0)],
  ["sparse", ([a = 0, b = 0]) => [Placement.move(a, 200), Placement.move(b, 5)]]
]

const placementCases = PLACED.map(([name, make]) =>
  contractCase(
    `placements: ${name}`,
    Effect.gen(function* () {
      const { capabilities } = yield* Launcher
      const missing = requires("placement", capabilities)
      if (missing !== undefined) return missing
      const harness = yield* Harness
      const files = yield* harness.openFiles(4)
      const placements = make(files.map(({ fd }) => fd))
      const { view } = yield* observe({ placements })
      for (const { source, target } of placements) {
        const name = files.find(({ fd }) => fd === source)?.name
        yield* same(`descriptor ${target}`, view.descriptors[target], name)
      }
      yield* same("close-on-exec descriptors", view.closeOnExec, [])
      if (capabilities.has("seal")) {
        const targets = placements.map(({ target }) => target).sort((a, b) => a - b)
        yield* same("open descriptors", Object.keys(view.descriptors).map(Number), targets)
      }
      return undefined
    })
  )
)

/** Wishes that need a capability, and what shows in the child's view that they were granted. */
const WISHES: ReadonlyArray<{
  readonly capability: Launch.LaunchCapability
  readonly root?: boolean
  readonly wish: (directory: string) => Wish
  readonly seen: (
    view: Effect.Success<ReturnType<typeof observe>>["view"],
    directory: string
  ) => readonly [unknown, unknown]
}> = [
  { capability: "group", wish: () => ({ leads: "group" }), seen: (view) => [view.group, view.pid] },
  { capability: "session", wish: () => ({ leads: "session" }), seen: (view) => [view.session, view.pid] },
  { capability: "umask", wish: () => ({ umask: 0o27 }), seen: (view) => [view.umask, 0o27] },
  {
    capability: "limits",
    wish: () => ({ limits: { CORE: { soft: 0, hard: 0 }, NOFILE: { soft: 64, hard: 128 } } }),
    seen: ({ limits }) => [
      [limits.CORE, limits.NOFILE],
      [
        { soft: 0, hard: 0 },
        { soft: 64, hard: 128 }
      ]
    ]
  },
  {
    capability: "identity",
    root: true,
    wish: () => ({ identity: { uid: 12_345, gid: 54_321 } }),
    seen: ({ identity }) => [
      [identity.uid, identity.gid],
      [12_345, 54_321]
    ]
  },
  {
    capability: "groups",
    root: true,
    wish: () => ({ identity: { groups: [7, 5] } }),
    seen: ({ identity }) => [identity.groups, [5, 7]]
  },
  {
    capability: "working-directory",
    wish: (directory) => ({ workingDirectory: directory }),
    seen: (view, directory) => [view.workingDirectory, directory]
  },
  {
    capability: "no-new-privileges",
    wish: () => ({ noNewPrivileges: true }),
    seen: (view) => [view.noNewPrivileges, true]
  },
  {
    capability: "parent-death-signal",
    wish: () => ({ parentDeathSignal: "SIGTERM" }),
    seen: (view) => [view.parentDeathSignal, 15]
  },
  {
    capability: "pid-stamp",
    wish: () => ({ stampListenPid: true }),
    seen: (view) => [view.environment.LISTEN_PID, String(view.pid)]
  },
  {
    capability: "signals",
    wish: () => ({ resetSignals: true }),
    seen: (view) => [
      [view.blockedSignals, view.ignoredSignals],
      [[], []]
    ]
  },
  { capability: "seal", wish: () => ({ seal: true }), seen: (view) => [Object.keys(view.descriptors), []] },
  {
    capability: "placement",
    wish: () => ({ placements: [Placement.move(0, 5)] }),
    seen: (view) => ["5" in view.descriptors, true]
  }
]

/** The plan of a wish that keeps what the launcher lacks, and nothing else it lacks. */
const demanding = Effect.fnUntraced(function* (command: Command, wish: Wish) {
  const launcher = yield* Launcher
  const whole = { program: command.program, argv: command.argv, environment: {}, placements: [], ...wish }
  const { spec } = Launch.forCapabilities(whole, launcher.capabilities)
  return yield* Effect.fromResult(Launch.plan({ ...spec, ...wish }, yield* launcher.facts))
})

const wishCases = WISHES.map(({ capability, root = false, wish, seen }) =>
  contractCase(
    `${capability}: granted, or refused by name with nothing started`,
    Effect.gen(function* () {
      const launcher = yield* Launcher
      const harness = yield* Harness
      const directory = yield* harness.temporaryDirectory
      const before = yield* harness.self
      if (root && before.uid !== 0) return { skipped: "only root may change identity" }
      if (launcher.capabilities.has(capability)) {
        const { view } = yield* observe(wish(directory))
        const [found, wanted] = seen(view, directory)
        yield* same(capability, found, wanted)
        return undefined
      }
      const observer = yield* harness.observer
      const plan = yield* demanding(observer, wish(directory))
      const lacking = Launch.requirements(plan).filter((one) => !launcher.capabilities.has(one.capability))
      const error = yield* refused(`a launch that needs ${capability}`, launcher.launch(plan))
      const reasons = lacking.map((one) => JSON.stringify({ _tag: "CapabilityMissing", ...one }))
      const found = JSON.stringify(error.reason)
      yield* holds(`the reason is ${found}, expected one of ${reasons.join(", ")}`, reasons.includes(found))
      yield* holds(`the refusal of "${capability}" names another capability`, found.includes(`"${capability}"`))
      const after = yield* harness.self
      yield* same("children", after.children, before.children)
      yield* same("descriptors", after.descriptors, before.descriptors)
      return undefined
    })
  )
)

const failureCases = [
  contractCase(
    "a missing program fails at execve with ENOENT",
    Effect.gen(function* () {
      const directory = yield* (yield* Harness).temporaryDirectory
      const program = `${directory}/nothing-here`
      yield* stepFailed(yield* refused("the launch", startScoped({ program, argv: ["x"] })), "execve", "ENOENT")
      return undefined
    })
  ),
  contractCase(
    "a directory as program fails at execve with EACCES",
    Effect.gen(function* () {
      const program = yield* (yield* Harness).temporaryDirectory
      yield* stepFailed(yield* refused("the launch", startScoped({ program, argv: ["x"] })), "execve", "EACCES")
      return undefined
    })
  ),
  contractCase(
    "a missing working directory fails at chdir with ENOENT, not at execve",
    Effect.gen(function* () {
      const { capabilities } = yield* Launcher
      const missing = requires("working-directory", capabilities)
      if (missing !== undefined) return missing
      const harness = yield* Harness
      const workingDirectory = `${yield* harness.temporaryDirectory}/nothing-here`
      const observer = yield* harness.observer
      yield* stepFailed(yield* refused("the launch", startScoped(observer, { workingDirectory })), "chdir", "ENOENT")
      return undefined
    })
  ),
  contractCase(
    "a closed source fails with EBADF",
    Effect.gen(function* () {
      const { capabilities } = yield* Launcher
      const missing = requires("placement", capabilities)
      if (missing !== undefined) return missing
      const observer = yield* (yield* Harness).observer
      const placements = [Placement.move(987, 3)]
      yield* stepFailed(yield* refused("the launch", startScoped(observer, { placements })), "dup3", "EBADF")
      return undefined
    })
  ),
  contractCase(
    "failed launches leave no child and no descriptor",
    Effect.gen(function* () {
      const harness = yield* Harness
      const program = `${yield* harness.temporaryDirectory}/nothing-here`
      // The first use may open what stays open for good.
      yield* refused("the launch", startScoped({ program, argv: ["x"] }))
      const before = yield* harness.self
      for (let count = 0; count < 20; count++) yield* refused("the launch", startScoped({ program, argv: ["x"] }))
      yield* same("children", (yield* harness.self).children, before.children)
      yield* same("descriptors", (yield* harness.self).descriptors, before.descriptors)
      return undefined
    })
  )
]

const lifeCases = [
  contractCase(
    "a child has exactly the arguments and the environment of its plan",
    Effect.gen(function* () {
      const environment = { A: "1", EMPTY: "", TEXT: 'a b\n"c" = é', PATH: "/none" }
      const { child, view } = yield* observe({ environment })
      const sorted = (record: Readonly<Record<string, string>>) =>
        Object.entries(record).sort(([a], [b]) => (a < b ? -1 : 1))
      yield* same("environment", sorted(view.environment), sorted(environment))
      yield* same("pid", view.pid, child.pid)
      const harness = yield* Harness
      const self = yield* harness.self
      yield* same("parent", view.parent, self.pid)
      yield* same("working directory", view.workingDirectory, self.workingDirectory)
      yield* same("umask", view.umask, self.umask)
      return undefined
    })
  ),
  contractCase(
    "an exit status is told, to everybody who asks, also later",
    Effect.gen(function* () {
      const harness = yield* Harness
      for (const code of [0, 1, 255]) {
        const child = yield* startScoped(harness.command({ exit: code }))
        const [one, two] = yield* Effect.all([child.exit, child.exit], { concurrency: 2 })
        yield* same("exit", one, { _tag: "Exited", code })
        yield* same("exit of a second caller", two, one)
        yield* same("exit of a late caller", yield* child.exit, one)
        yield* same("signal after the end", yield* child.signal("SIGTERM"), false)
      }
      return undefined
    })
  ),
  contractCase(
    "a signal ends a child, and its name is told",
    Effect.gen(function* () {
      const harness = yield* Harness
      for (const signal of ["SIGTERM", "SIGKILL"] as const) {
        const child = yield* startScoped(harness.command("sleep"))
        yield* same("signal", yield* child.signal(signal), true)
        yield* same("exit", yield* child.exit, { _tag: "Signaled", signal, coreDumped: false })
      }
      return undefined
    })
  ),
  contractCase(
    "a signal to the group reaches the child of a child",
    Effect.gen(function* () {
      const { capabilities } = yield* Launcher
      if (!capabilities.has("group") && !capabilities.has("session")) return { skipped: "no own group or session" }
      const harness = yield* Harness
      const child = yield* startScoped(harness.command("wrap"))
      yield* same("signal to the group", yield* child.signalGroup("SIGKILL"), true)
      yield* same("exit", yield* child.exit, { _tag: "Signaled", signal: "SIGKILL", coreDumped: false })
      return undefined
    })
  ),
  contractCase(
    "20 children at once end each with their own status",
    Effect.gen(function* () {
      const harness = yield* Harness
      const codes = Array.from({ length: 20 }, (_, index) => index)
      const found = yield* Effect.forEach(
        codes,
        (code) => Effect.flatMap(startScoped(harness.command({ exit: code })), (child) => child.exit),
        { concurrency: "unbounded" }
      )
      yield* same(
        "exits",
        found,
        codes.map((code) => ({ _tag: "Exited", code }))
      )
      return undefined
    })
  ),
  contractCase(
    "nothing is left of a child that has exited",
    Effect.gen(function* () {
      const harness = yield* Harness
      yield* observe()
      const before = yield* harness.self
      for (let count = 0; count < 10; count++) yield* observe()
      yield* same("children", (yield* harness.self).children, before.children)
      return undefined
    })
  )
]

export const launcherCases: ReadonlyArray<ContractCase<Launcher>> = [
  ...lifeCases,
  ...placementCases,
  ...wishCases,
  ...failureCases
]

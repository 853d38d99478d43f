import * as BackendContract from "@handoff/core/testing/BackendContract"
import * as FileTree from "@handoff/core/testing/FileTree"
import * as Program from "@handoff/core/testing/Program"
import * as SimulatedBackend from "@handoff/core/testing/SimulatedBackend"
import * as SimulatedKernel from "@handoff/core/testing/SimulatedKernel"
import { Simulation } from "@handoff/core/testing/Simulation"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { describe, expect, it } from "vitest"

const OBSERVER = "/bin/observer"

const observer = (argv: ReadonlyArray<string>): Program.Program => {
  const [, mode, status] = argv
  if (mode === "exit") return Program.exits(Number(status))
  if (mode === "wrap") return Program.wrapper(Program.hangs())
  if (mode === "sleep") return Program.hangs()
  return {
    actions: [
      { afterMs: 0, action: { _tag: "Notify", fields: { READY: "1" } } },
      { afterMs: 0, action: { _tag: "Exit", code: 0 } }
    ],
    signals: {}
  }
}

let directories = 0

const harness = Layer.effect(
  BackendContract.Harness,
  Effect.map(Simulation, (simulation) => {
    const add = (path: string, node: FileTree.Node) =>
      simulation.update((kernel) => ({ ...kernel, files: FileTree.add(kernel.files, { [path]: node }) }))
    const temporaryDirectory = Effect.suspend(() => {
      const path = `/tmp/directory-${directories++}`
      return Effect.as(add(path, FileTree.directory(0o755)), path)
    })
    const openFile = (path: string) => {
      const opened = Effect.gen(function* () {
        yield* add(path, FileTree.file())
        let fd = -1
        yield* simulation.update((kernel) => {
          const done = SimulatedKernel.open(kernel, simulation.self, path, "read")
          if (typeof done === "string") throw new Error(done)
          fd = done.value
          return done.kernel
        })
        return { fd, name: path }
      })
      const close = ({ fd }: { readonly fd: number }) =>
        simulation.update((kernel) => {
          const closed = SimulatedKernel.close(kernel, simulation.self, fd)
          return typeof closed === "string" ? kernel : closed.kernel
        })
      return Effect.acquireRelease(opened, close)
    }
    return BackendContract.Harness.of({
      observer: Effect.succeed({
        program: OBSERVER,
        argv: ["observer", "report"],
        view: (pid) =>
          Effect.flatMap(simulation.child(pid), (view) =>
            view === undefined
              ? Effect.fail(new BackendContract.ContractViolation({ detail: `no child ${pid} was launched` }))
              : Effect.succeed(view)
          )
      }),
      command: (behaviour) => ({
        program: OBSERVER,
        argv: typeof behaviour === "string" ? ["observer", behaviour] : ["observer", "exit", String(behaviour.exit)]
      }),
      openFiles: (count) =>
        Effect.flatMap(temporaryDirectory, (directory) =>
          Effect.forEach(Array.from({ length: count }), (_, index) => openFile(`${directory}/file-${index}`))
        ),
      temporaryDirectory,
      contents: (directory) =>
        Effect.map(simulation.machine, ({ kernel }) =>
          Object.fromEntries(
            [...kernel.files].flatMap(([path, node]) =>
              node._tag === "File" && FileTree.parentOf(path) === directory
                ? [[path.slice(directory.length + 1), { text: node.content, mode: node.mode }]]
                : []
            )
          )
        ),
      self: Effect.map(simulation.machine, ({ kernel }) => {
        const self = kernel.processes.get(simulation.self)
        if (self === undefined) throw new Error("the simulation has lost its own process")
        return {
          pid: self.pid,
          uid: self.identity.uid,
          umask: self.umask,
          workingDirectory: self.workingDirectory,
          descriptors: self.table.entries.size,
          children: [...kernel.processes.values()].filter((one) => one.parent === self.pid).length
        }
      })
    })
  })
)

const run = <R extends SimulatedBackend.Services>(
  { run }: BackendContract.ContractCase<R>,
  options: SimulatedBackend.Options = {}
): Promise<BackendContract.Verdict> => {
  const backend = SimulatedBackend.layer({ programs: { [OBSERVER]: observer }, ...options })
  // A case needs some of what the layer provides, whichever it is.
  const whole: Effect.Effect<
    BackendContract.Verdict,
    { readonly message: string },
    SimulatedBackend.Services | BackendContract.Harness
  > = run
  return Effect.runPromise(whole.pipe(Effect.provide(Layer.provideMerge(harness, backend))))
}

const cases: ReadonlyArray<BackendContract.ContractCase<SimulatedBackend.Services>> = [
  ...BackendContract.launcherCases,
  ...BackendContract.socketCases,
  ...BackendContract.channelCases,
  ...BackendContract.executableCases,
  ...BackendContract.fileCases,
  ...BackendContract.lockCases,
  ...BackendContract.notificationCases,
  ...BackendContract.processCases,
  ...BackendContract.survivalCases
]

describe("the simulated backend keeps the contract", () => {
  it.each(cases)("$name", async (one) => {
    expect(await run(one)).toBe("passed")
  })
})

describe("the simulated backend without a capability still keeps the contract", () => {
  it.each([...SimulatedBackend.ALL_CAPABILITIES])("without %s", async (capability) => {
    const capabilities = new Set([...SimulatedBackend.ALL_CAPABILITIES].filter((one) => one !== capability))
    for (const one of BackendContract.launcherCases) await run(one, { capabilities })
  })

  it("with none at all", async () => {
    for (const one of BackendContract.launcherCases) await run(one, { capabilities: new Set() })
  })
})

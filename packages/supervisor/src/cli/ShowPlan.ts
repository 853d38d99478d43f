/**
 * Works a launch out and prints it: the same planning as a real launch, over this process's own descriptor table.
 *
 * Nothing is bound or opened. The sockets and files that a launch would open are opened in a table that is a value, so they
 * get the numbers that the kernel would give them here; in a running supervisor the numbers on the left differ.
 */
import { readdirSync, readFileSync, readlinkSync } from "node:fs"
import { join } from "node:path"
import * as Address from "@handoff/core/Address"
import { Executables } from "@handoff/core/backend/Executables"
import { Launcher } from "@handoff/core/backend/Launcher"
import * as FdTable from "@handoff/core/FdTable"
import * as Launch from "@handoff/core/Launch"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as GenerationLauncher from "../internal/GenerationLauncher.ts"
import type { Listener } from "../Listeners.ts"
import type { Options } from "../Supervisor.ts"
import { Code, CommandExit } from "./CommandExit.ts"
import * as DefaultBackend from "./DefaultBackend.ts"
import { print } from "./Root.ts"
import type { Settings as RunSettings } from "./Supervise.ts"

type Settings = Omit<RunSettings, "trigger" | "journal">

const O_CLOEXEC = 0o2000000

/** This process's descriptors, as proc(5) shows them. */
const ownTable = (limit: number): FdTable.FdTable => {
  const entries: Array<[number, FdTable.Entry]> = []
  for (const fd of readdirSync("/proc/self/fd")) {
    try {
      const [, flags = "0"] = /^flags:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8")) ?? []
      const closeOnExec = (Number.parseInt(flags, 8) & O_CLOEXEC) !== 0
      entries.push([Number(fd), { description: readlinkSync(`/proc/self/fd/${fd}`), closeOnExec }])
    } catch {
      // The descriptor that read the directory is closed by now.
    }
  }
  return FdTable.make(limit, entries)
}

/** Opens descriptions in the table one after the other. */
const openAll = (table: FdTable.FdTable, descriptions: ReadonlyArray<string>) => {
  let current = table
  const fds = descriptions.map((description) => {
    const opened = Result.getOrThrowWith(FdTable.open(current, description), (errno) => new Error(errno))
    current = opened.table
    return opened.fd
  })
  return { table: current, fds }
}

const outputOf = (options: Options, directory: string): ReadonlyArray<string> => {
  if (options.output === "inherit") return []
  return [options.output === "null" ? "/dev/null" : join(directory, "generation-1.log")]
}

const listenerAt = (name: string, text: string, fd: number): Listener => ({
  name,
  socket: {
    fd,
    address: Result.getOrElse(Address.parse(text), () => ({ _tag: "Unix" as const, path: text })),
    inode: 0,
    backlog: { requested: 0, effective: 0 }
  }
})

const work = Effect.fnUntraced(function* ({ name, stateDirectory, options }: Settings) {
  const launcher = yield* Launcher
  const executables = yield* Executables
  const directory = join(stateDirectory, name)
  const environment = { ...process.env, ...options.environment }
  const workingDirectory = options.workingDirectory ?? process.cwd()
  const program = yield* executables.resolve(options.command[0] ?? "", {
    workingDirectory,
    path: environment.PATH ?? GenerationLauncher.DEFAULT_PATH
  })
  const facts = yield* launcher.facts
  const wishes = Object.entries(options.listeners).map(([key, wish]) => [key, String(wish)] as const)
  const output = outputOf(options, directory)
  const { table, fds } = openAll(ownTable(facts.descriptorLimit.soft), [
    ...wishes.map(([key, address]) => `listener ${key} ${address}`),
    "/dev/null",
    ...output
  ])
  const listeners = wishes.map(([key, address], index) => listenerAt(key, address, fds[index] ?? -1))
  const [stdin = -1, log] = fds.slice(wishes.length)
  const wish = GenerationLauncher.specify(
    {
      options,
      listeners,
      handoffSocket: options.sealed.controlSocket ?? join(directory, "handoff.sock"),
      environment: process.env,
      workingDirectory
    },
    { argv: options.command },
    { program, notifySocket: join(directory, "notify-1.sock"), stdio: [stdin, log ?? 1, log ?? 2] }
  )
  const { spec, dropped } = Launch.forCapabilities(wish, launcher.capabilities)
  const plan = yield* Effect.fromResult(Launch.plan(spec, facts))
  return { program, plan, dropped, spec, picture: Launch.picture(plan, table) }
})

const changedVariables = (environment: Readonly<Record<string, string>>): ReadonlyArray<string> =>
  Object.entries(environment)
    .filter(([key, value]) => process.env[key] !== value)
    .map(([key, value]) => `  ${key}=${value}`)

const indent = (text: string): string => text.replace(/^/gm, "  ")

/** Prints the plan, or with `json` the plan as data. */
export const show = (settings: Settings): Effect.Effect<void, CommandExit> =>
  Effect.gen(function* () {
    const { program, plan, dropped, spec, picture } = yield* work(settings)
    if (settings.json) return yield* print(JSON.stringify({ program, dropped, plan }))
    const lacking = dropped.length === 0 ? [] : [`this backend lacks: ${dropped.join(", ")}`, ""]
    yield* print(
      [
        `program ${program}`,
        `directory ${spec.workingDirectory ?? process.cwd()}`,
        "",
        picture,
        "",
        "variables that differ from ours (LISTEN_PID is stamped by the child itself)",
        ...changedVariables(spec.environment),
        "",
        ...lacking,
        "system calls of the child between clone and exec",
        indent(Launch.explain(plan))
      ].join("\n")
    )
  }).pipe(
    Effect.provide(DefaultBackend.layer),
    Effect.mapError((error) => new CommandExit({ code: Code.failed, text: error.message }))
  )

/**
 * One service of a soak: the built command `handoff run` before a program, started again at once when it was killed, and
 * what its events tell of its processes.
 *
 * Its port is fixed, so that a supervisor that finds nobody alive binds the one that clients know.
 */
import { mkdirSync } from "node:fs"
import { join } from "node:path"
import { createInterface } from "node:readline"
import type { Status, SupervisorEvent } from "@handoff/supervisor/Supervisor"
import * as EventText from "../../packages/supervisor/src/cli/EventText.ts"
import { freePort, HANDOFF } from "../support/Handoff.ts"
import type { Ended, ManagedProcess, ManagedProcesses } from "../support/ManagedProcesses.ts"
import type { Chronicle } from "./Chronicle.ts"
import { clock } from "./Clients.ts"
import { type Excuses, excuses } from "./Excuses.ts"

export type Name = "overlap" | "sealed"

export interface Wish {
  readonly name: Name
  readonly stateDirectory: string
  readonly program: ReadonlyArray<string>
  readonly options: ReadonlyArray<string>
  readonly environment: Readonly<Record<string, string>>
}

export interface Party {
  readonly generation: number
  readonly pid: number
  /** It was started by a supervisor before this one. */
  readonly adopted: boolean
}

export interface Service {
  readonly name: Name
  readonly port: number
  /** Where the supervisor keeps its document, its sockets and the output of generations. */
  readonly directory: string
  readonly excuses: Excuses
  /** Its pid; undefined between its death and the next one's start. */
  readonly supervisor: () => number | undefined
  readonly incumbent: () => Party | undefined
  /** The newest generation that does not serve, while a swap is under way. */
  readonly successor: () => Party | undefined
  readonly generations: () => ReadonlyArray<Party>
  /** `handoff SUBCOMMAND ARGS --json` for this service. */
  readonly command: (subcommand: string, ...args: ReadonlyArray<string>) => Promise<Ended>
  readonly status: () => Promise<Status | undefined>
  /** Resolves at the next event of that tag, with false after so many milliseconds without one. */
  readonly next: (tag: SupervisorEvent["_tag"], withinMs: number) => Promise<boolean>
  /** The supervisor is about to be killed: resolves when the one after it serves. */
  readonly replaced: () => Promise<void>
  /** From now on the end of the supervisor is no surprise, and nobody is started after it. */
  readonly stop: () => Promise<Ended>
}

type Line = SupervisorEvent | { readonly _tag: "Output"; readonly generation: number; readonly line: string }

/** Undefined for what a supervisor was killed while writing. */
const parse = (text: string): Line | undefined => {
  try {
    return JSON.parse(text) as Line
  } catch {
    return undefined
  }
}

/** Milliseconds for a supervisor to come up and serve. */
const START_WITHIN = 20_000

/** What the events of a supervisor tell of its generations. */
const census = () => {
  const generations = new Map<number, Party>()
  let serving: number | undefined
  let swapping = false
  return {
    reset: () => {
      generations.clear()
      serving = undefined
      swapping = false
    },
    take: (event: SupervisorEvent) => {
      switch (event._tag) {
        case "GenerationLaunched":
          generations.set(event.generation, { generation: event.generation, pid: event.pid, adopted: false })
          return
        case "GenerationAdopted":
          generations.set(event.generation, { generation: event.generation, pid: event.pid, adopted: true })
          if (event.phase === "serving") serving = event.generation
          return
        case "GenerationReady":
          if (!swapping) serving = event.generation
          return
        case "GenerationExited":
          generations.delete(event.generation)
          if (serving === event.generation) serving = undefined
          return
        case "SwapRequested":
          swapping = true
          return
        case "SwapEnded":
          swapping = false
          serving = event.record.serving
          return
      }
    },
    serving: () => serving,
    swapping: () => swapping,
    generations
  }
}

/** Starts it, and gives it when it serves. `broken` is told of a supervisor that ends though nobody killed it. */
export const startService = async (
  processes: ManagedProcesses,
  diary: Chronicle,
  wish: Wish,
  broken: (what: string) => void
): Promise<Service> => {
  const { name } = wish
  const port = await freePort()
  const parties = census()
  const excused = excuses()
  const waiting = new Set<{ readonly tag: string; readonly tell: () => void }>()
  const note = (text: string) => diary.note(name, text)
  const where = ["--name", name, "--state-dir", wish.stateDirectory]
  mkdirSync(wish.stateDirectory, { recursive: true })
  let current: ManagedProcess | undefined
  let expected = false

  const take = (line: Line) => {
    if (line._tag === "Output") return note(`gen ${line.generation} | ${line.line}`)
    parties.take(line)
    const text = EventText.format(line)
    if (text !== undefined) note(text)
    if (line._tag === "RestartScheduled") excused.putOff(clock() + line.delayMs)
    for (const one of waiting) if (one.tag === line._tag) one.tell()
  }

  const run = async (): Promise<void> => {
    parties.reset()
    const started = processes.start(
      process.execPath,
      [
        ...[HANDOFF, "run", "--json", ...where, "--listen", `http=127.0.0.1:${port}`],
        ...[...wish.options, "--", ...wish.program]
      ],
      { env: { ...process.env, ...wish.environment } }
    )
    current = started
    expected = false
    note(`supervisor ${started.pid} starts`)
    if (started.child.stdout !== null) {
      createInterface({ input: started.child.stdout }).on("line", (text) => {
        const line = parse(text)
        if (current === started && line !== undefined) take(line)
      })
    }
    if (started.child.stderr !== null) {
      createInterface({ input: started.child.stderr }).on("line", (text) => note(`stderr | ${text}`))
    }
    void started.ended.then(({ code, signal }) => {
      if (current === started) current = undefined
      if (!expected) broken(`supervisor ${started.pid} of ${name} ended by itself (${signal ?? code})`)
    })
    await started.line(/ serves on http=/, START_WITHIN)
  }

  const command: Service["command"] = (subcommand, ...args) =>
    processes.run(process.execPath, [HANDOFF, subcommand, "--json", ...where, ...args])
  const all = () => [...parties.generations.values()]

  await run()
  return {
    name,
    port,
    directory: join(wish.stateDirectory, name),
    excuses: excused,
    supervisor: () => current?.pid,
    incumbent: () => parties.generations.get(parties.serving() ?? 0),
    successor: () =>
      parties.swapping()
        ? all()
            .filter(({ generation }) => generation > (parties.serving() ?? 0))
            .at(-1)
        : undefined,
    generations: all,
    command,
    status: async () => {
      const { code, stdout } = await command("status")
      return code === 0 ? (JSON.parse(stdout) as Status) : undefined
    },
    next: (tag, withinMs) =>
      new Promise((resolve) => {
        const finish = (came: boolean) => {
          waiting.delete(one)
          clearTimeout(timer)
          resolve(came)
        }
        const one = { tag, tell: () => finish(true) }
        const timer = setTimeout(() => finish(false), withinMs)
        waiting.add(one)
      }),
    replaced: async () => {
      const dying = current
      expected = true
      await dying?.ended
      await run()
    },
    stop: async () => {
      expected = true
      const last = current
      await command("stop")
      return (await last?.ended) ?? { code: null, signal: null, stdout: "", stderr: "" }
    }
  }
}

/**
 * One run of the fault tests: a supervisor of our own (Service.ts), its daemons, clients that write, and what must be true
 * of all of them afterwards.
 *
 * A fault is given to the next start of a daemon alone (`arm`), or to one start of the supervisor. What happens is then
 * not steered but waited for: `settle` gives the moment in which the service is whole again, and `problems` compares what
 * is left with the invariants of the design.
 */
import { readdirSync, renameSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import type { Command } from "@handoff/core/swap/Supervision"
import type { Status } from "@handoff/supervisor/Supervisor"
import { type Line, type Place, place, type Variables } from "../interop/Place.ts"
import { damage, type Written, wroteInTurn } from "../interop/Writers.ts"
import { type ManagedProcess, type ManagedProcesses, managedProcesses } from "../support/ManagedProcesses.ts"
import { descriptorsOf, isAlive } from "../support/ProcessTable.ts"
import { temporaryDirectory } from "../support/TemporaryDirectory.ts"
import type { Asked, Question, Said, Settings, Verdict } from "./Service.ts"

const HERE = import.meta.dirname
const SERVICE = join(HERE, "Service.ts")

/** The role program of O and N as an executable that takes the faults armed for its start. */
export const DAEMON = join(HERE, "daemon-with-faults")

/** Milliseconds: what is waited for comes much earlier, or never. */
const PATIENCE = 20_000

export const until = async <A>(what: string, look: () => A | undefined | Promise<A | undefined>): Promise<A> => {
  const deadline = Date.now() + PATIENCE
  for (;;) {
    const found = await look()
    if (found !== undefined) return found
    if (Date.now() > deadline) throw new Error(`waited ${PATIENCE} ms in vain: ${what}`)
    await sleep(10)
  }
}

export interface Service {
  readonly process: ManagedProcess
  readonly port: number
  /** From the start of the process to its first word, in milliseconds. */
  readonly startedMs: number
  /** What it found of the supervisor before it. */
  readonly remarks: ReadonlyArray<string>
  readonly swap: (command?: Command) => Promise<Verdict>
  readonly status: () => Promise<Status>
  readonly abort: () => Promise<string>
  readonly stop: () => Promise<void>
  /** The events so far whose tag this is, as JSON. */
  readonly events: (tag: string) => ReadonlyArray<string>
}

export interface Stage extends AsyncDisposable {
  readonly where: Place
  readonly processes: ManagedProcesses
  readonly stateDirectory: string
  /** Variables for the next daemon that is started, and for that one alone. */
  readonly arm: (faults: Variables) => void
  /** Starts the supervisor, or one after it; `variables` are its own. */
  readonly start: (variables?: Variables) => Promise<Service>
  /** Waits until one generation serves, nothing is under way and nobody else is alive. Gives the status. */
  readonly settle: (service: Service) => Promise<Status>
}

const FAST: Partial<Settings> = { graceMs: 10_000, readyTimeoutMs: 15_000, generationLimit: 3 }

const converse = (child: ManagedProcess) => {
  const waiting = new Map<number, (value: unknown) => void>()
  const events: Array<string> = []
  const serving = Promise.withResolvers<Extract<Said, { readonly _tag: "Serving" }>>()
  let next = 1
  child.child.on("message", (message) => {
    const said = message as Said
    if (said._tag === "Serving") serving.resolve(said)
    else if (said._tag === "Event") events.push(said.text)
    else waiting.get(said.id)?.(said.value)
  })
  // A supervisor that crashes leaves questions unanswered; whoever asked waits for its end as well.
  child.child.on("error", () => undefined)
  const ask = <A>(question: Question): Promise<A> => {
    const id = next++
    const answered = new Promise<A>((resolve) => waiting.set(id, resolve as (value: unknown) => void))
    child.child.send({ ...question, id } satisfies Asked, () => undefined)
    const died = child.ended.then(({ code, signal, stderr }) => {
      throw new Error(`the supervisor ended (${signal ?? code}) before it answered:\n${stderr}`)
    })
    died.catch(() => undefined)
    return Promise.race([answered, died])
  }
  return {
    ask,
    serving: serving.promise,
    events: (tag: string) => events.filter((one) => one.startsWith(`{"_tag":"${tag}"`))
  }
}

export const stage = (settings: Partial<Settings> = {}): Stage => {
  const directory = temporaryDirectory("handoff-fault-")
  const processes = managedProcesses()
  const where = place(directory.path)
  const stateDirectory = directory.file("state")
  const faults = directory.file("faults")

  const arm: Stage["arm"] = (variables) => {
    const lines = Object.entries(variables).map(([name, value]) => `export ${name}='${value}'\n`)
    writeFileSync(`${faults}.new`, lines.join(""))
    renameSync(`${faults}.new`, faults)
  }

  const start: Stage["start"] = async (variables = {}) => {
    const begun = performance.now()
    const wanted: Settings = {
      name: "fault",
      command: [DAEMON],
      stateDirectory,
      ...FAST,
      ...settings,
      sealed: { controlSocket: where.controlSocket, ...settings.sealed }
    }
    const child = processes.start(process.execPath, ["--conditions=@handoff/source", SERVICE], {
      stdio: ["ignore", "pipe", "pipe", "ipc"],
      env: {
        ...process.env,
        ...where.variables,
        HANDOFF_TEST_FAULTS: faults,
        HANDOFF_TEST_SERVICE: JSON.stringify(wanted),
        ...variables
      }
    })
    const { ask, serving, events } = converse(child)
    const failed = child.ended.then(({ stderr }) =>
      Promise.reject(new Error(`the supervisor did not start:\n${stderr}`))
    )
    const { port, remarks } = await Promise.race([serving, failed])
    failed.catch(() => undefined)
    return {
      process: child,
      port,
      startedMs: performance.now() - begun,
      remarks,
      swap: (command) => ask<Verdict>({ _tag: "Swap", ...(command === undefined ? {} : { command }) }),
      status: () => ask<Status>({ _tag: "Status" }),
      abort: () => ask<string>({ _tag: "Abort" }),
      stop: async () => {
        await ask({ _tag: "Stop" })
        await child.ended
      },
      events
    }
  }

  const settle: Stage["settle"] = (service) =>
    until("one generation that serves, and nobody beside it", async () => {
      const status = await service.status()
      const [only, ...others] = status.generations
      if (only?.phase !== "serving" || others.length > 0 || status.swap !== undefined) return undefined
      const expected = [service.process.pid, only.pid].sort()
      return processes.alive().toSorted().join() === expected.toSorted().join() ? status : undefined
    })

  return {
    where,
    processes,
    stateDirectory,
    arm,
    start,
    settle,
    [Symbol.asyncDispose]: async () => {
      await processes[Symbol.asyncDispose]()
      directory[Symbol.dispose]()
    }
  }
}

/** Looks again while something is there for a moment only: the next state.json before its rename, a probe's socket. */
const lasting = async <A>(look: () => ReadonlyArray<A>): Promise<ReadonlyArray<A>> => {
  const deadline = Date.now() + 2_000
  for (;;) {
    const found = look()
    if (found.length === 0 || Date.now() > deadline) return found
    await sleep(25)
  }
}

/** The descriptors of a process by what they refer to, without the numbers, which are of one moment. */
export const descriptorKinds = (pid: number): ReadonlyArray<string> =>
  [...descriptorsOf(pid).values()].map((each) => each.replace(/\d+/g, ""))

const without = (items: ReadonlyArray<string>, taken: ReadonlyArray<string>): ReadonlyArray<string> => {
  const left = [...taken]
  return items.filter((item) => {
    const index = left.indexOf(item)
    if (index >= 0) left.splice(index, 1)
    return index < 0
  })
}

/** What a process has come to hold beside what it held, and what it holds no more. */
export const descriptorChanges = (pid: number, before: ReadonlyArray<string>): Promise<ReadonlyArray<string>> =>
  lasting(() => {
    const now = descriptorKinds(pid)
    return [...without(now, before).map((each) => `+ ${each}`), ...without(before, now).map((each) => `- ${each}`)]
  })

const filesOf = (directory: string): ReadonlyArray<string> => readdirSync(directory).sort()

const strayFilesNow = ({ where, stateDirectory }: Stage, serving: number | undefined): ReadonlyArray<string> => {
  const alive = serving !== undefined
  const kept = new Set(["data", "markers", "state", "log", "generations", ".handoff.lock", "state.lock"])
  if (alive)
    for (const name of ["control.sock", ".handoff.pidfile", "state.json", `notify-${serving}.sock`]) kept.add(name)
  const names = [join(where.dataDir, ".."), where.dataDir, stateDirectory].flatMap(filesOf)
  return names.filter((name) => !kept.has(name) && !/^generation-\d+\.log$/.test(name))
}

/** Files that belong to nobody: `serving` is the generation that lives, undefined when none does. */
export const strayFiles = (it: Stage, serving: number | undefined): Promise<ReadonlyArray<string>> =>
  lasting(() => strayFilesNow(it, serving))

/** The document of the supervisor, as it lies on disk. */
export const readDocument = (text: string): { readonly swap: unknown; readonly serving: number | null } =>
  JSON.parse(text) as { readonly swap: unknown; readonly serving: number | null }

export const lockInode = (where: Place): number => statSync(join(where.dataDir, ".handoff.lock")).ino

/** What is wrong with the log, in words. A write that was not acknowledged may be in it once, or not at all. */
export const logProblems = (
  log: ReadonlyArray<Line>,
  openings: ReadonlyArray<number>,
  written: Written
): ReadonlyArray<string> => {
  const { lost, doubled, moved } = damage(log, written.acknowledged)
  return [
    ...lost.map((line) => `acknowledged and lost: ${line}`),
    ...doubled.map((line) => `written twice: ${line}`),
    ...moved.map(({ text, revision }) => `acknowledged as line ${revision}, and is another: ${text}`),
    ...(wroteInTurn(log, openings) ? [] : ["a process wrote after another had opened the log"])
  ]
}

export { isAlive }

/**
 * Real processes for replays: a supervisor, its daemons and a client that writes, put through one script after the other.
 *
 * A script ends when one generation serves, its supervisor knows it, and nobody else is left; that is then where the next
 * one begins. A supervisor that has died is started again at once.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import type { Document } from "@handoff/core/swap/Document"
import type { Status } from "@handoff/supervisor/Supervisor"
import { type Place, place } from "../interop/Place.ts"
import { type Acknowledged, append, damage, wroteInTurn } from "../interop/Writers.ts"
import { type ManagedProcess, type ManagedProcesses, managedProcesses } from "../support/ManagedProcesses.ts"
import { temporaryDirectory } from "../support/TemporaryDirectory.ts"
import { FOLDERS, launches } from "./ReplayPoints.ts"
import type { Fault, Mode, Outcome, Party, Script } from "./ReplayScript.ts"
import type { Asked, Question, Said, Settings, Verdict } from "./ReplayService.ts"

const SERVICE = join(import.meta.dirname, "ReplayService.ts")
const DAEMON = join(import.meta.dirname, "ReplayDaemon.sh")

/** Milliseconds: what is waited for comes much earlier, or never. */
const PATIENCE = 30_000

/** How long a stopped party sleeps. */
const NAP = 200

/** Restarts of what serves come later and later; a stage that has seen so many is not used any more. */
const MANY_FAILURES = 3

export interface Played {
  readonly outcome: Outcome
  /** What must hold however it ends, and does not. */
  readonly problems: ReadonlyArray<string>
  /** Another script may begin here. */
  readonly reusable: boolean
}

export interface Stage extends AsyncDisposable {
  readonly mode: Mode
  readonly play: (script: Script) => Promise<Played>
}

interface Service {
  readonly process: ManagedProcess
  readonly serving: Promise<Status>
  readonly ask: <A>(question: Question) => Promise<A>
}

const converse = (child: ManagedProcess): Service => {
  const waiting = new Map<number, (value: unknown) => void>()
  const serving = Promise.withResolvers<Status>()
  let next = 1
  child.child.on("message", (message) => {
    const said = message as Said
    if (said._tag === "Serving") serving.resolve(said.status)
    else waiting.get(said.id)?.(said.value)
  })
  // Who dies leaves questions unanswered; whoever asked hears of the end.
  child.child.on("error", () => undefined)
  const died = child.ended.then(({ code, signal, stderr }) => {
    throw new Error(`the supervisor ended (${signal ?? code}):\n${stderr}`)
  })
  died.catch(() => undefined)
  return {
    process: child,
    serving: Promise.race([serving.promise, died]),
    ask: <A>(question: Question): Promise<A> => {
      const id = next++
      const answered = new Promise<A>((resolve) => waiting.set(id, resolve as (value: unknown) => void))
      child.child.send({ ...question, id } satisfies Asked, () => undefined)
      return Promise.race([answered, died])
    }
  }
}

const portOf = ({ listeners }: Status): number => Number(/:(\d+)$/.exec(listeners[0]?.address ?? "")?.[1])

const signal = (pid: number | undefined, name: NodeJS.Signals): void => {
  try {
    if (pid !== undefined) process.kill(pid, name)
  } catch {
    // Gone already.
  }
}

/** One client that writes line after line. */
const writer = (port: number, name: string) => {
  const acknowledged: Array<Acknowledged> = []
  let stopped = false
  const write = async () => {
    for (let line = 0; !stopped; line += 1) {
      const text = `${name} line ${line}`
      try {
        acknowledged.push({ text, revision: await append(port, text) })
      } catch {
        // Cut, or refused while nobody lives.
      }
      await sleep(5)
    }
  }
  const ended = write()
  return {
    count: () => acknowledged.length,
    stop: async () => {
      stopped = true
      await ended
      return acknowledged
    }
  }
}

class RealStage implements Stage {
  readonly mode: Mode
  readonly #directory = temporaryDirectory("handoff-replay-")
  readonly #points = temporaryDirectory("handoff-points-")
  readonly #processes: ManagedProcesses = managedProcesses()
  readonly #where: Place
  readonly #stateDirectory: string
  #service: Service | undefined
  #port = 0
  /** What serves; a supervisor that finds nothing starts it. */
  #version = 1
  #scripts = 0

  constructor(mode: Mode) {
    this.mode = mode
    this.#where = place(this.#directory.path)
    this.#stateDirectory = this.#directory.file("state")
    for (const folder of FOLDERS) mkdirSync(this.#points.file(folder))
  }

  async play(script: Script): Promise<Played> {
    const first = await this.#rest()
    this.#arm(script, first.generations[0]?.id ?? 0, first.generations[0]?.pid ?? 0)
    const client = writer(this.#port, `script ${this.#scripts++}`)
    await this.#until("a client writes", () => (client.count() > 0 ? true : undefined))
    const argv = [DAEMON, `v${this.#version + 1}`]
    let told: string | undefined
    const { ask } = await this.#serve()
    ask<Verdict>({ _tag: "Swap", command: { argv } }).then(
      ({ outcome, message }) => {
        told = outcome === "refused" ? message : outcome
      },
      () => {
        told = "nothing"
      }
    )
    const last = await this.#meanwhile(script, () => this.#rest(() => told !== undefined))
    const serving = last.generations[0]
    if (serving?.command[1] === argv[1]) this.#version += 1
    const outcome: Outcome = {
      told: told ?? "nothing",
      serves: `#${launches(this.#points.path).findIndex(({ pid }) => pid === serving?.pid)}`,
      kept: serving?.command[1] === argv[1] ? "new" : "old",
      happened: script.faults.map((_, index) => (this.#happened(index) ? String(index + 1) : "-")).join("")
    }
    const acknowledged = await client.stop()
    const problems = this.#problems(last, acknowledged)
    return { outcome, problems, reusable: problems.length === 0 && last.restarts.failures < MANY_FAILURES }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#processes[Symbol.asyncDispose]()
    this.#directory[Symbol.dispose]()
    this.#points[Symbol.dispose]()
  }

  #arm(script: Script, generation: number, pid: number): void {
    for (const folder of FOLDERS) {
      for (const name of readdirSync(this.#points.file(folder))) rmSync(join(this.#points.file(folder), name))
    }
    writeFileSync(this.#points.file("launches"), `${generation} ${pid}\n`)
    for (const [index, fault] of script.faults.entries()) {
      const path = this.#points.file(`fault-${index}`)
      writeFileSync(path, JSON.stringify(fault))
      renameSync(path, join(this.#points.file("acts"), String(index)))
    }
  }

  #happened(index: number): boolean {
    return existsSync(join(this.#points.file("done"), String(index)))
  }

  async #until<A>(what: string, look: () => A | undefined | Promise<A | undefined>): Promise<A> {
    const deadline = Date.now() + PATIENCE
    for (;;) {
      const found = await look()
      if (found !== undefined) return found
      if (Date.now() > deadline) throw new Error(`waited ${PATIENCE} ms in vain: ${what}`)
      await sleep(20)
    }
  }

  /** The supervisor that runs; the next one when it has died. */
  async #serve(): Promise<Service> {
    const known = this.#service?.process.child
    if (this.#service !== undefined && known?.exitCode === null && known.signalCode === null) return this.#service
    const sealed = this.mode === "sealed"
    const settings: Settings = {
      name: "replay",
      command: [DAEMON, `v${this.#version}`],
      listeners: { http: `127.0.0.1:${this.#port}` },
      stateDirectory: this.#stateDirectory,
      mode: this.mode === "exclusive" ? "exclusive" : "auto",
      settleMs: 50,
      readyTimeoutMs: 15_000,
      graceMs: 10_000,
      sealed: { controlSocket: this.#where.controlSocket }
    }
    const child = this.#processes.start(process.execPath, ["--conditions=@handoff/source", SERVICE], {
      stdio: ["ignore", "pipe", "pipe", "ipc"],
      env: {
        ...process.env,
        ...this.#where.variables,
        HANDOFF_DATA_DIR: sealed ? this.#where.dataDir : "",
        HANDOFF_REPLAY: this.#points.path,
        HANDOFF_REPLAY_LOG: join(this.#where.dataDir, "log"),
        HANDOFF_TEST_SERVICE: JSON.stringify(settings)
      }
    })
    const service = converse(child)
    this.#service = service
    service.serving.then(
      (status) => {
        this.#port = portOf(status)
      },
      () => undefined
    )
    return service
  }

  #document(): Document {
    return JSON.parse(readFileSync(join(this.#stateDirectory, "state.json"), "utf8")) as Document
  }

  /** It is written after the supervisor has made the step, and later when that fails. */
  #isWritten(pid: number | undefined): boolean {
    const { swap, generations } = this.#document()
    return swap === null && generations.length === 1 && generations[0]?.process?.pid === pid
  }

  /** A party stands still until another was hit. */
  #isStanding(): boolean {
    return readdirSync(this.#points.file("at")).some((id) => !existsSync(join(this.#points.file("go"), id)))
  }

  /** Waits until one generation serves, its supervisor knows it and has written it down, and nobody else is alive. */
  #rest(heard: () => boolean = () => true): Promise<Status> {
    let seen = ""
    return this.#until("one generation that serves, and nobody beside it", async () => {
      try {
        const service = await this.#serve()
        await service.serving
        const status = await service.ask<Status>({ _tag: "Status" })
        const [only, ...others] = status.generations
        seen = JSON.stringify(status)
        if (only?.phase !== "serving" || others.length > 0 || status.swap !== undefined || !heard()) return undefined
        if (!this.#isWritten(only.pid) || this.#isStanding()) return undefined
        const expected = [service.process.pid, only.pid]
        return [...this.#processes.alive()].sort().join() === expected.sort().join() ? status : undefined
      } catch {
        // It has died; the next one is started.
        return undefined
      }
    }).catch((error: Error) => {
      throw new Error(`${error.message}\n${seen}\n${this.#service?.process.output().stderr}`)
    })
  }

  /** Does from outside what a script wants done to another party than the one that stands still. */
  async #meanwhile<A>({ faults }: Script, body: () => Promise<A>): Promise<A> {
    let over = false
    const watch = async () => {
      while (!over) {
        for (const id of readdirSync(this.#points.file("at"))) {
          const fault = faults[Number(id)]
          if (fault === undefined || existsSync(join(this.#points.file("go"), id))) continue
          const after = await this.#act(fault)
          writeFileSync(join(this.#points.file("go"), id), "")
          await after?.()
        }
        await sleep(5)
      }
    }
    const watching = watch()
    try {
      return await body()
    } finally {
      over = true
      await watching
    }
  }

  async #pidOf(party: Party): Promise<number | undefined> {
    if (party === "S") return this.#service?.process.pid
    // Its start may be under way.
    const deadline = Date.now() + 2_000
    for (;;) {
      const pid = launches(this.#points.path)[party]?.pid
      if (pid !== undefined || Date.now() > deadline) return pid
      await sleep(5)
    }
  }

  async #act({ act }: Fault): Promise<(() => Promise<void>) | undefined> {
    switch (act._tag) {
      case "kill":
        signal(await this.#pidOf(act.victim), "SIGKILL")
        return undefined
      case "stop": {
        const pid = await this.#pidOf(act.victim)
        signal(pid, "SIGSTOP")
        return async () => {
          await sleep(NAP)
          signal(pid, "SIGCONT")
        }
      }
      case "abort": {
        const asked = this.#service?.ask({ _tag: "Abort" }).catch(() => undefined)
        await Promise.race([asked, sleep(2_000)])
        return undefined
      }
      default:
        return undefined
    }
  }

  #problems(status: Status, acknowledged: ReadonlyArray<Acknowledged>): ReadonlyArray<string> {
    const problems: Array<string> = []
    const [serving] = status.generations
    const document = this.#document()
    if (String(document.command.argv) !== String(serving?.command)) {
      problems.push(`a restart would start ${document.command.argv}, and ${serving?.command} serves`)
    }
    const log = this.#where.log()
    const { lost, doubled, moved } = damage(log, acknowledged)
    if (lost.length > 0) problems.push(`acknowledged and lost: ${lost}`)
    if (doubled.length > 0) problems.push(`written twice: ${doubled}`)
    if (this.mode !== "sealed") return problems
    if (moved.length > 0) problems.push(`acknowledged in one place, and in another: ${moved.map(({ text }) => text)}`)
    if (!wroteInTurn(log, this.#where.openings())) problems.push("a process wrote after another had opened the log")
    const holders = this.#where.lockHolders(this.#processes.alive())
    if (String(holders) !== String(serving?.pid)) problems.push(`${holders} hold the lock, and ${serving?.pid} serves`)
    return problems
  }
}

export const stage = (mode: Mode): Stage => new RealStage(mode)

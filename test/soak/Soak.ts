/**
 * A soak: two services under a real supervisor each, one replaced side by side (overlap) and one that owns data (sealed), clients that
 * never stop, swaps that never stop, and faults from a seed, for as long as asked.
 *
 * Everything is checked all the time; every 20 s swaps and faults halt until both services rest, and what must hold
 * then is looked at. The first invariant that breaks ends the run. The seed decides which versions, faults and moments are
 * tried; what meets what in the end is up to the machine.
 */
import { execFileSync } from "node:child_process"
import { mkdirSync } from "node:fs"
import { setTimeout as sleep } from "node:timers/promises"
import { random } from "@handoff/core/testing/Arbitraries"
import { place } from "../interop/Place.ts"
import { type ManagedProcesses, managedProcesses } from "../support/ManagedProcesses.ts"
import { temporaryDirectory } from "../support/TemporaryDirectory.ts"
import { type Chronicle, chronicle } from "./Chronicle.ts"
import { type Failure, type Load, startClients } from "./Clients.ts"
import type { Reason } from "./Excuses.ts"
import { type Faults, type Kind, startFaults } from "./Faults.ts"
import { gate } from "./Gate.ts"
import { type Census, checkAtRest, dataProblems, makeLook, type Subject, type Wrong } from "./Invariants.ts"
import { type Name, type Service, startService } from "./Service.ts"
import { type Count, type Counts, PROGRAMS, type Swapper, startSwaps } from "./Swaps.ts"

export interface Options {
  readonly minutes: number
  readonly seed: number
  /** Path of the file that everything is noted in. */
  readonly log: string
  /** Called with what a person should know at once. */
  readonly say: (text: string) => void
}

export interface Broken {
  readonly invariant: string
  readonly detail: string
}

/** What a client may have waited for: the fault that had struck last, or a version that hung. */
export type Cause = Kind | "no fault" | "a version hangs"

export interface Summary {
  readonly minutes: number
  readonly seed: number
  /** What broke; undefined when everything held. */
  readonly broken: Broken | undefined
  /** The last things that happened before that. */
  readonly lastEvents: ReadonlyArray<string>
  /** By mode. */
  readonly swaps: Readonly<Record<string, Count>>
  readonly faults: ReadonlyMap<Kind, number>
  readonly requests: number
  readonly failed: ReadonlyMap<Reason, number>
  /** The longest that a client waited for an answer, in milliseconds, by what it waited for. */
  readonly longestMs: ReadonlyMap<Cause, number>
  readonly acknowledged: number
  readonly lost: number
  /** Faults that could not be tried here, and why. */
  readonly skipped: ReadonlyArray<string>
}

const LOOK_EVERY = 100
const REST_EVERY = 20_000
const LAST_EVENTS = 30
/** Milliseconds between two requests of a client. Twelve clients ask about 200 times a second. */
const PAUSE = 50
const LOAD: Readonly<Record<Name, Omit<Load, "port">>> = {
  overlap: { readers: 6, writers: 0, pauseMs: PAUSE },
  sealed: { readers: 2, writers: 4, pauseMs: PAUSE }
}
const OPTIONS = ["--ready-timeout", "8s", "--grace", "10s"]

/** A small file system at a path, gone with its holder; undefined where we may not mount one. */
const smallDisk = (path: string): Disposable | undefined => {
  mkdirSync(path, { recursive: true })
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=4m,mode=0700", "handoff-soak", path], { stdio: "ignore" })
  } catch {
    return undefined
  }
  return { [Symbol.dispose]: () => void execFileSync("umount", ["--lazy", path]) }
}

/** Which documents lie on a disk of their own: a seed tries the one, the other, or both. */
const onSmallDisk = (seed: number, name: Name): boolean => seed % 3 === 2 || (seed % 3 === 0) === (name === "overlap")

/** The end of a run: by the clock, by what broke, or by whoever asked for it. */
const makeEnd = (minutes: number, diary: Chronicle, interrupted: AbortSignal) => {
  const ended = Promise.withResolvers<void>()
  let broken: Broken | undefined
  let lastEvents: ReadonlyArray<string> = []
  let isOver = false
  const finish = () => {
    isOver = true
    ended.resolve()
  }
  const timer = setTimeout(finish, minutes * 60_000)
  interrupted.addEventListener("abort", finish)
  return {
    wrong: (invariant: string, detail: string) => {
      diary.note("BROKEN", `${invariant}: ${detail}`)
      if (broken !== undefined) return
      broken = { invariant, detail }
      lastEvents = diary.last(LAST_EVENTS)
      finish()
    },
    isOver: () => isOver,
    ended: ended.promise,
    result: () => ({ broken, lastEvents }),
    [Symbol.dispose]: () => clearTimeout(timer)
  }
}

/** What came of the requests of all clients. */
interface Tally {
  readonly failed: Map<Reason, number>
  readonly longestMs: Map<Cause, number>
}

/** The clients of a service; `cause` tells what they may be waiting for. */
const useService = (
  service: Service,
  data: Subject["data"],
  {
    processes,
    diary,
    wrong
  }: { readonly processes: ManagedProcesses; readonly diary: Chronicle; readonly wrong: Wrong },
  { failed, longestMs }: Tally,
  cause: () => Cause
): Subject => {
  const judge = (failure: Failure) => {
    const { error, begun, ended } = failure
    const reason = service.excuses.explain(failure)
    diary.note(service.name, `request failed after ${(ended - begun).toFixed(0)} ms: ${error} (${reason ?? "why?"})`)
    if (reason === undefined) wrong("requests fail only where a fault makes it inevitable", `${service.name}: ${error}`)
    else failed.set(reason, (failed.get(reason) ?? 0) + 1)
  }
  const clients = startClients(processes, { port: service.port, ...LOAD[service.name] }, (news) => {
    news.failures.forEach(judge)
    longestMs.set(cause(), Math.max(longestMs.get(cause()) ?? 0, news.longestMs))
  })
  return { service, clients, data }
}

/** Both services, started one after the other. */
export const soak = async (options: Options, interrupted: AbortSignal): Promise<Summary> => {
  const { minutes, seed, say } = options
  using diary = chronicle(options.log)
  using directory = temporaryDirectory("handoff-soak-")
  using disks = new DisposableStack()
  await using processes = managedProcesses()
  using end = makeEnd(minutes, diary, interrupted)
  const names = ["overlap", "sealed"] as const
  const failed = new Map<Reason, number>()
  const longestMs = new Map<Cause, number>()
  const skipped: Array<string> = []
  const filled = new Set<Name>()
  const subjects: Array<Subject> = []
  const faults = new Map<Name, Faults>()
  const swappers = new Map<Name, Swapper>()
  const causeOf = (name: Name): Cause =>
    swappers.get(name)?.hangs() ? "a version hangs" : (faults.get(name)?.latest() ?? "no fault")

  for (const name of names) {
    const stateDirectory = directory.file(`${name}-state`)
    if (onSmallDisk(seed, name)) {
      const disk = smallDisk(stateDirectory)
      if (disk === undefined) skipped.push(`disk full (${name}): mounting a small file system takes root`)
      else {
        disks.use(disk)
        filled.add(name)
      }
    }
    const data = name === "sealed" ? place(directory.path) : undefined
    const service = await startService(
      processes,
      diary,
      {
        name,
        stateDirectory,
        program: PROGRAMS[name],
        options: [
          ...OPTIONS,
          ...(data === undefined ? [] : ["--control-socket", data.controlSocket, "--deadline", "15s"])
        ],
        environment: { VERSION: "first", HANDOFF_TEST_IDLE_GRACE_MS: "1000", ...data?.variables }
      },
      (what) => {
        if (!end.isOver()) end.wrong("a supervisor lives until it is killed", what)
      }
    )
    const told = { processes, diary, wrong: end.wrong }
    subjects.push(useService(service, data, told, { failed, longestMs }, () => causeOf(name)))
  }
  for (const text of skipped) say(`skipped: ${text}`)

  const looks = subjects.map((subject) => makeLook(subject, processes, end.wrong))
  const ticker = setInterval(() => {
    for (const look of looks) look()
  }, LOOK_EVERY)
  const halt = gate(2 * names.length)
  const stream = (salt: number) => random(seed * 1_000 + salt)
  const around = { processes, diary, disk: directory.path, mayFill: ({ name }: Service) => filled.has(name) }
  for (const [index, { service }] of subjects.entries()) {
    swappers.set(service.name, startSwaps(service, diary, stream(index), halt, end.isOver, end.wrong))
    faults.set(service.name, startFaults(service, around, stream(10 + index), halt, end.isOver))
  }

  const loops = [...swappers.values(), ...faults.values()].map(({ ended }) =>
    ended.catch((error: Error) => end.wrong("a supervisor comes back", error.message))
  )

  const census: Census = new Map()
  const checkpoint = async () => {
    await Promise.race([halt.shut(), end.ended])
    if (end.isOver()) return halt.open()
    diary.note("soak", "at rest?")
    await checkAtRest(subjects, processes, census, end.wrong)
    diary.note("soak", "go on")
    halt.open()
  }
  while (!end.isOver()) {
    await Promise.race([sleep(REST_EVERY), end.ended])
    if (!end.isOver()) await checkpoint()
  }
  await Promise.all(loops)
  if (end.result().broken === undefined) await checkAtRest(subjects, processes, census, end.wrong)
  for (const { clients } of subjects) await clients.stop()
  clearInterval(ticker)
  if (end.result().broken === undefined) {
    for (const { service } of subjects) await service.stop()
    if (processes.alive().length > 0) end.wrong("no process is left after the stop", processes.alive().join(", "))
  }
  const problems = subjects.flatMap(dataProblems)
  for (const problem of problems) end.wrong("no acknowledged write is lost", problem)
  return {
    minutes: diary.elapsed() / 60,
    seed,
    ...end.result(),
    swaps: sumCounts([...swappers.values()].map(({ counts }) => counts)),
    faults: sum([...faults.values()].map(({ counts }) => counts)),
    requests: subjects.reduce((total, { clients }) => total + clients.requests(), 0),
    failed,
    longestMs,
    acknowledged: subjects.reduce((total, { clients }) => total + clients.acknowledged.length, 0),
    lost: problems.filter((problem) => problem.includes("lost")).length,
    skipped
  }
}

const sum = <K>(maps: ReadonlyArray<ReadonlyMap<K, number>>): ReadonlyMap<K, number> => {
  const total = new Map<K, number>()
  for (const map of maps) for (const [key, value] of map) total.set(key, (total.get(key) ?? 0) + value)
  return total
}

const sumCounts = (all: ReadonlyArray<Counts>): Counts => {
  const total: Counts = {}
  for (const [mode, { committed, rolledBack, unknown }] of all.flatMap((counts) => Object.entries(counts))) {
    const before = total[mode] ?? { committed: 0, rolledBack: 0, unknown: 0 }
    total[mode] = {
      committed: before.committed + committed,
      rolledBack: before.rolledBack + rolledBack,
      unknown: before.unknown + unknown
    }
  }
  return total
}

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
import { type TemporaryDirectory, temporaryDirectory } from "../support/TemporaryDirectory.ts"
import { type Chronicle, chronicle } from "./Chronicle.ts"
import { type Failure, type Load, startClients } from "./Clients.ts"
import type { Reason } from "./Excuses.ts"
import { type Faults, type Kind, startFaults } from "./Faults.ts"
import { type Gate, gate } from "./Gate.ts"
import { type Census, checkAtRest, dataProblems, makeLook, type Subject } from "./Invariants.ts"
import { type Name, type Service, startService, type Wish } from "./Service.ts"
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

const NAMES = ["overlap", "sealed"] as const
const LOOK_EVERY = 100
const REST_EVERY = 20_000
const LAST_EVENTS = 30
/** Milliseconds of waiting. */
const WORTH_A_LINE = 1_000
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

type End = ReturnType<typeof makeEnd>

/** Everything of one run. */
interface Run {
  readonly seed: number
  readonly diary: Chronicle
  readonly directory: TemporaryDirectory
  readonly disks: DisposableStack
  readonly processes: ManagedProcesses
  readonly end: End
  readonly failed: Map<Reason, number>
  readonly longestMs: Map<Cause, number>
  readonly skipped: Array<string>
  /** Services whose document lies on a small disk. */
  readonly filled: Set<Name>
  readonly swappers: Map<Name, Swapper>
  readonly faults: Map<Name, Faults>
  readonly census: Census
  readonly halt: Gate
}

const causeOf = ({ swappers, faults }: Run, name: Name): Cause =>
  swappers.get(name)?.hangs() ? "a version hangs" : (faults.get(name)?.latest() ?? "no fault")

const stateDirectoryOf = ({ seed, directory, disks, skipped, filled }: Run, name: Name): string => {
  const path = directory.file(`${name}-state`)
  if (!onSmallDisk(seed, name)) return path
  const disk = smallDisk(path)
  if (disk === undefined) {
    skipped.push(`disk full (${name}): mounting a small file system takes root`)
    return path
  }
  disks.use(disk)
  filled.add(name)
  return path
}

/** A service with its clients, serving. */
const open = async (run: Run, name: Name): Promise<Subject> => {
  const { processes, diary, end, failed, longestMs } = run
  const data = name === "sealed" ? place(run.directory.path) : undefined
  const sealed = data === undefined ? [] : ["--control-socket", data.controlSocket, "--deadline", "15s"]
  const wish: Wish = {
    name,
    stateDirectory: stateDirectoryOf(run, name),
    program: PROGRAMS[name],
    options: [...OPTIONS, ...sealed],
    environment: { VERSION: "first", HANDOFF_TEST_IDLE_GRACE_MS: "1000", ...data?.variables }
  }
  const service = await startService(processes, diary, wish, (what) => {
    if (!end.isOver()) end.wrong("a supervisor lives until it is killed", what)
  })
  const judge = (failure: Failure) => {
    const { error, begun, ended } = failure
    const reason = service.excuses.explain(failure)
    diary.note(name, `request failed after ${(ended - begun).toFixed(0)} ms: ${error} (${reason ?? "why?"})`)
    if (reason === undefined) end.wrong("requests fail only where a fault makes it inevitable", `${name}: ${error}`)
    else failed.set(reason, (failed.get(reason) ?? 0) + 1)
  }
  const clients = startClients(processes, { port: service.port, ...LOAD[name] }, (news) => {
    news.failures.forEach(judge)
    const cause = causeOf(run, name)
    if (news.longestMs > WORTH_A_LINE) diary.note(name, `a client was answered after ${news.longestMs.toFixed(0)} ms`)
    longestMs.set(cause, Math.max(longestMs.get(cause) ?? 0, news.longestMs))
  })
  return { service, clients, data }
}

/** Lets swaps and faults loose; resolves when the run is over and the last of them has ended. */
const drive = (run: Run, subjects: ReadonlyArray<Subject>): Promise<unknown> => {
  const { seed, processes, diary, directory, filled, halt, end, swappers, faults } = run
  const stream = (salt: number) => random(seed * 1_000 + salt)
  const around = { processes, diary, disk: directory.path, mayFill: ({ name }: Service) => filled.has(name) }
  for (const [index, { service }] of subjects.entries()) {
    swappers.set(service.name, startSwaps(service, diary, stream(index), halt, end.isOver, end.wrong))
    faults.set(service.name, startFaults(service, around, stream(10 + index), halt, end.isOver))
  }
  const loops = [...swappers.values(), ...faults.values()].map(({ ended }) =>
    ended.catch((error: Error) => end.wrong("a supervisor comes back", error.message))
  )
  return Promise.all(loops)
}

const checkpoint = async ({ halt, end, diary, processes, census }: Run, subjects: ReadonlyArray<Subject>) => {
  await Promise.race([halt.shut(), end.ended])
  if (!end.isOver()) {
    diary.note("soak", "at rest?")
    await checkAtRest(subjects, processes, census, end.wrong)
    diary.note("soak", "go on")
  }
  halt.open()
}

/** Looks at everything once more at rest, and lets the clients go. */
const settle = async ({ end, processes, census }: Run, subjects: ReadonlyArray<Subject>) => {
  if (end.result().broken === undefined) await checkAtRest(subjects, processes, census, end.wrong)
  for (const { clients } of subjects) await clients.stop()
}

/** Stops the services, which nobody watches any more; gives what is wrong with their data. */
const conclude = async ({ end, processes }: Run, subjects: ReadonlyArray<Subject>) => {
  if (end.result().broken === undefined) {
    for (const { service } of subjects) await service.stop()
    if (processes.alive().length > 0) end.wrong("no process is left after the stop", processes.alive().join(", "))
  }
  const problems = subjects.flatMap(dataProblems)
  for (const problem of problems) end.wrong("no acknowledged write is lost", problem)
  return problems
}

/** Runs for as long as asked, or until an invariant breaks or `interrupted` is aborted, and ends everything it started. */
export const soak = async (options: Options, interrupted: AbortSignal): Promise<Summary> => {
  const { minutes, seed, say } = options
  using diary = chronicle(options.log)
  using directory = temporaryDirectory("handoff-soak-")
  using disks = new DisposableStack()
  await using processes = managedProcesses()
  using end = makeEnd(minutes, diary, interrupted)
  const run: Run = {
    ...{ seed, diary, directory, disks, processes, end },
    ...{ failed: new Map(), longestMs: new Map(), skipped: [], filled: new Set() },
    ...{ swappers: new Map(), faults: new Map(), census: new Map(), halt: gate(2 * NAMES.length) }
  }
  const subjects: Array<Subject> = []
  for (const name of NAMES) subjects.push(await open(run, name))
  for (const text of run.skipped) say(`skipped: ${text}`)

  const looks = subjects.map((subject) => makeLook(subject, processes, end.wrong))
  const ticker = setInterval(() => {
    for (const look of looks) look()
  }, LOOK_EVERY)
  const driven = drive(run, subjects)
  while (!end.isOver()) {
    await Promise.race([sleep(REST_EVERY), end.ended])
    if (!end.isOver()) await checkpoint(run, subjects)
  }
  await driven
  await settle(run, subjects)
  clearInterval(ticker)
  const problems = await conclude(run, subjects)
  return {
    minutes: diary.elapsed() / 60,
    seed,
    ...end.result(),
    swaps: sumCounts([...run.swappers.values()].map(({ counts }) => counts)),
    faults: sum([...run.faults.values()].map(({ counts }) => counts)),
    requests: subjects.reduce((total, { clients }) => total + clients.requests(), 0),
    failed: run.failed,
    longestMs: run.longestMs,
    acknowledged: subjects.reduce((total, { clients }) => total + clients.acknowledged.length, 0),
    lost: problems.filter((problem) => problem.includes("lost")).length,
    skipped: run.skipped
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

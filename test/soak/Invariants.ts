/**
 * What must hold of a service at every moment, and what must hold of it when it has come to rest.
 *
 *   always    at most one lock on the data, and on the same file; one listener at the port, the same one while anybody
 *             holds it; no client waits longer than 3 s for an answer, counted from the end of what makes it wait (longer where there is more to do than processors)
 *   at rest   one generation and its supervisor, no process, file or descriptor beside them; no broken version ever
 *             committed; every acknowledged line is in the log, once, where it was acknowledged, and the writers of the log were
 *             writers one after the other
 */
import { existsSync, readdirSync, statSync } from "node:fs"
import { availableParallelism, loadavg } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import type { Status } from "@handoff/supervisor/Supervisor"
import type { Place } from "../interop/Place.ts"
import { damage, wroteInTurn } from "../interop/Writers.ts"
import type { ManagedProcesses } from "../support/ManagedProcesses.ts"
import { describeProcess } from "../support/ProcessTable.ts"
import { type Clients, clock } from "./Clients.ts"
import { descriptorKinds, listenersAt, locksOn } from "./Kernel.ts"
import type { Service } from "./Service.ts"
import { isBroken } from "./Swaps.ts"

export type Wrong = (invariant: string, detail: string) => void

/** A service with those who use it. */
export interface Subject {
  readonly service: Service
  readonly clients: Clients
  /** Where its data are, if it owns any. */
  readonly data: Place | undefined
}

/** Milliseconds in which somebody is answered when nothing hinders it. */
const ANSWERED_WITHIN = 3_000

/** Only every so many looks are for what is costly to find out. */
const SLOW_LOOKS = 4

/** How much slower than on an idle machine anything may be here and now. */
const shortage = (): number => Math.max(1, (loadavg()[0] ?? 0) / availableParallelism())

/** Milliseconds in which a service comes to rest once nobody disturbs it. */
const REST_WITHIN = 20_000

/** Looks at what must hold at every moment; to be called again and again. */
export const makeLook = (
  { service, clients, data }: Subject,
  processes: ManagedProcesses,
  wrong: Wrong
): (() => void) => {
  const { name, port, excuses } = service
  const lock = data === undefined ? undefined : join(data.dataDir, ".handoff.lock")
  let inode = lock === undefined ? 0 : statSync(lock).ino
  let listener = listenersAt(port).join()

  const lookAtLock = (path: string, where: Place) => {
    const now = existsSync(path) ? statSync(path).ino : 0
    if (now !== inode) wrong("the data lock is one file", `${name}: inode ${now}, was ${inode}`)
    inode = now
    const locks = locksOn(inode)
    const holders = where.lockHolders(service.generations().map(({ pid }) => pid))
    if (locks > 1 || holders.length > 1) {
      wrong("at most one holder of the data lock", `${name}: ${locks} locks, held by ${holders.join(" and ")}`)
    }
  }

  const lookAtListener = () => {
    const now = listenersAt(port).join()
    const wasVacant = excuses.wasVacant()
    if (now !== listener && !wasVacant) {
      const all = processes.alive().join(", ")
      wrong(
        "the listener lives as long as a holder",
        `${name}: socket ${now || "none"}, was ${listener}; alive are ${all}`
      )
    }
    listener = now
  }

  const lookAtClients = () => {
    const now = clock()
    const longest = Math.max(0, ...clients.waiting().map((since) => now - excuses.countsFrom(since)))
    const most = ANSWERED_WITHIN * shortage()
    if (longest > most) {
      const [waited, allowed] = [longest, most].map((each) => each.toFixed(0))
      wrong(
        "an answer in time",
        `${name}: a client has waited for ${waited} ms, with this load ${allowed} ms are allowed`
      )
    }
  }

  let turn = 0
  return () => {
    lookAtClients()
    turn += 1
    if (turn % SLOW_LOOKS !== 0) return
    if (lock !== undefined && data !== undefined) lookAtLock(lock, data)
    lookAtListener()
  }
}

/** Files that belong to nobody. */
const strayFiles = ({ service, data }: Subject, serving: number): ReadonlyArray<string> => {
  const own = new Set(["lock", "admin.sock", "state.lock", "state.json", `notify-${serving}.sock`])
  const stray = readdirSync(service.directory).filter((file) => !own.has(file) && !/^generation-\d+\.log$/.test(file))
  if (data === undefined) return stray
  const kept = new Set([".handoff.lock", ".handoff.pidfile", "log", "generations"])
  const around = readdirSync(join(data.dataDir, "..")).filter((file) => file.startsWith("control.sock."))
  return [...stray, ...around, ...readdirSync(data.dataDir).filter((file) => !kept.has(file))]
}

/** What is wrong with a service's data, in words. */
export const dataProblems = ({ clients, data }: Subject): ReadonlyArray<string> => {
  if (data === undefined) return []
  // Taken first: a line that is acknowledged while the log is read need not be seen.
  const acknowledged = [...clients.acknowledged]
  const log = data.log()
  const { lost, doubled, moved } = damage(log, acknowledged)
  return [
    ...lost.map((line) => `acknowledged and lost: ${line}`),
    ...doubled.map((line) => `written twice: ${line}`),
    ...moved.map(({ text, revision }) => `acknowledged as line ${revision}, and is another: ${text}`),
    ...(wroteInTurn(log, data.openings()) ? [] : ["a process wrote after another had opened the log"])
  ]
}

const atRest = (status: Status | undefined): status is Status => {
  const [only, ...others] = status?.generations ?? []
  return only?.phase === "serving" && others.length === 0 && status?.swap === undefined
}

/** Waits until a service rests; gives what its status was last. */
const rest = async (service: Service): Promise<Status | undefined> => {
  const deadline = performance.now() + REST_WITHIN
  for (;;) {
    const status = await service.status()
    if (atRest(status) || performance.now() > deadline) return status
    await sleep(200)
  }
}

/** The fewest descriptors that a supervisor had at rest, by kind; one that serves what it took over has others than one that started it. */
export type Census = Map<string, ReadonlyMap<string, number>>

const grown = (kinds: ReadonlyMap<string, number>, before: ReadonlyMap<string, number>): ReadonlyArray<string> =>
  [...kinds]
    .filter(([kind, count]) => count > (before.get(kind) ?? 0))
    .map(([kind, count]) => `${count} ${kind}, were ${before.get(kind) ?? 0}`)

/** Descriptors that a supervisor has more of than before; those of a moment (a status is being answered) are waited for. */
const descriptorProblems = async (
  { service }: Subject,
  pid: number,
  census: Census
): Promise<ReadonlyArray<string>> => {
  const key = `${pid} ${service.incumbent()?.adopted}`
  const before = census.get(key)
  let kinds = descriptorKinds(pid, service.port)
  for (let tries = 0; tries < 30 && (before === undefined ? tries < 5 : grown(kinds, before).length > 0); tries += 1) {
    await sleep(100)
    kinds = descriptorKinds(pid, service.port)
  }
  if (before === undefined) census.set(key, kinds)
  return before === undefined ? [] : grown(kinds, before).map((what) => `the supervisor has descriptors more: ${what}`)
}

/** What is wrong with one service that should rest. */
const restProblems = async (subject: Subject, status: Status, census: Census): Promise<ReadonlyArray<string>> => {
  const stray = strayFiles(subject, status.generations[0]?.id ?? 0)
  const broken = status.swaps.filter(({ outcome, command }) => outcome === "committed" && isBroken(command))
  return [
    ...(stray.length > 0 ? [`files that belong to nobody: ${stray.join(", ")}`] : []),
    ...broken.map(({ id }) => `swap ${id} to a broken version committed`),
    ...(await descriptorProblems(subject, status.pid, census)),
    ...dataProblems(subject)
  ]
}

/** Waits until the services rest, and looks at what must hold then. `census` is kept from one look to the next. */
export const checkAtRest = async (
  subjects: ReadonlyArray<Subject>,
  processes: ManagedProcesses,
  census: Census,
  wrong: Wrong
): Promise<void> => {
  const expected = subjects.map(({ clients }) => clients.pid)
  for (const subject of subjects) {
    const { name } = subject.service
    const status = await rest(subject.service)
    if (!atRest(status)) {
      wrong("one generation is left at rest", `${name} after ${REST_WITHIN} ms: ${JSON.stringify(status)}`)
      return
    }
    expected.push(status.pid, ...status.generations.map(({ pid = 0 }) => pid))
    const problems = await restProblems(subject, status, census)
    for (const problem of problems) wrong("nothing is lost or left over", `${name}: ${problem}`)
  }
  const alive = () => processes.alive().filter((pid) => !expected.includes(pid))
  for (let tries = 0; tries < 20 && alive().length > 0; tries += 1) await sleep(50)
  const others = alive()
  if (others.length === 0) return
  const strays = others.map(describeProcess).join(", ")
  wrong("no process is left over", `${strays} beside ${expected.join(", ")}`)
}

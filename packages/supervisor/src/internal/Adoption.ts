/**
 * Takes over from a supervisor of the same name that died: finds the processes it wrote down, gets the listeners back
 * from them, and waits until what the daemons do by themselves is settled (core's Recovery decides).
 *
 * A process is taken for the one that was written down only if pid, start time and boot are the same, or, when its launch
 * was not recorded, if its environment carries the generation's token. A listener is taken only from such a process, by
 * the inode of its socket; an address that somebody else holds stays theirs, and binding it fails as it would for anyone.
 */
import type { Address } from "@handoff/core/Address"
import * as AddressText from "@handoff/core/Address"
import { isSame, Processes, type ProcessIdentity } from "@handoff/core/backend/Processes"
import type { ListeningSocket } from "@handoff/core/backend/Sockets"
import * as DataLock from "@handoff/core/protocol/DataLock"
import type { Document, SavedGeneration, SavedListener } from "@handoff/core/swap/Document"
import * as Recovery from "@handoff/core/swap/Recovery"
import type { Options as MachineOptions, Recovered } from "@handoff/core/swap/Supervision"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { SetupError } from "../SupervisorError.ts"
import * as HandoffPath from "./HandoffPath.ts"

/** How long what the daemons do by themselves is waited for: a successor's own times, and a margin. */
const PATIENCE_MS = 5_000
const LOOK_MS = 50

/** A generation of the document whose process lives. */
type Living = SavedGeneration & { readonly process: ProcessIdentity }

/** The document with the generations that live, and only those. */
export type Found = Document & {
  readonly generations: ReadonlyArray<Living>
  /** Who outlived the leader of a generation's group. */
  readonly orphans: ReadonlyArray<ProcessIdentity>
}

const started = ({ token }: SavedGeneration) =>
  Processes.use((processes) => processes.startedWith("HANDOFF_TOKEN", token))

/** Whether it leads a process group, as generations do; where groups can't be seen, whoever it is. */
const leads = Effect.fnUntraced(function* (pid: number) {
  const processes = yield* Processes
  return !processes.capabilities.has("group") || (yield* processes.groupMembers(pid)).includes(pid)
})

/** The process of a generation; by its token it is the one that leads a group, not a child that has the token from it. */
const findProcess = Effect.fnUntraced(function* (generation: SavedGeneration) {
  const { process } = generation
  if (process !== null) return (yield* isAlive(process)) ? process : undefined
  for (const one of yield* started(generation)) if (yield* leads(one.pid)) return one
  return undefined
})

const isAlive = Effect.fnUntraced(function* (process: ProcessIdentity) {
  const processes = yield* Processes
  const seen = yield* processes.identify(process.pid)
  return seen !== undefined && isSame(seen, process)
})

/** Who outlived the process of a generation, in the group that it led. Only for one whose process was not found. */
const findOrphans = Effect.fnUntraced(function* (generation: SavedGeneration) {
  const { process } = generation
  const processes = yield* Processes
  if (!processes.capabilities.has("group")) return []
  if (process === null) return yield* started(generation)
  // A pid is not used again while it is the number of a group: whoever has this one, the group is theirs.
  if ((yield* processes.identify(process.pid)) !== undefined) return []
  const members = yield* processes.groupMembers(process.pid)
  // The number may be another group's by now; the token is nobody else's.
  return members.length === 0 ? [] : (yield* started(generation)).filter(({ pid }) => members.includes(pid))
})

/** What lives of the document's generations. */
export const find = Effect.fnUntraced(function* (document: Document) {
  const generations: Array<Living> = []
  const orphans: Array<ProcessIdentity> = []
  for (const generation of document.generations) {
    const process = yield* findProcess(generation)
    if (process !== undefined) generations.push({ ...generation, process })
    else orphans.push(...(yield* findOrphans(generation)))
  }
  return { ...document, generations, orphans } satisfies Found
})

const kill = Effect.fnUntraced(function* (identity: ProcessIdentity, generation: number) {
  const processes = yield* Processes
  const process = yield* processes.adopt(identity)
  if (process === undefined) return
  yield* Effect.mapError(
    process.signal("SIGKILL"),
    ({ message }) =>
      new SetupError({
        subject: `process ${identity.pid}`,
        detail: `it is left of generation ${generation}, whose process is gone, and can not be killed: ${message}. End it, and start again`
      })
  )
  yield* process.exit
}, Effect.scoped)

/**
 * Ends what outlived the leaders of these generations, as the supervisor before this one would have done: whoever of a
 * group is left may hold the listeners and the data of a version that is gone. Gives who that was.
 */
export const endOrphans = Effect.fnUntraced(function* (generations: ReadonlyArray<SavedGeneration>) {
  const killed: Array<number> = []
  for (const generation of generations) {
    for (;;) {
      const orphans = yield* findOrphans(generation)
      if (orphans.length === 0) break
      yield* Effect.forEach(orphans, (orphan) => kill(orphan, generation.id), { concurrency: "unbounded" })
      killed.push(...orphans.map(({ pid }) => pid))
    }
  }
  return killed
})

/** The saved listener with an address as it was asked for, if the wish is still the same. */
export const savedListener = (found: Found | undefined, name: string, wish: Address): SavedListener | undefined => {
  const saved = found?.listeners.find((one) => one.name === name)
  if (saved === undefined) return undefined
  return sameWish(saved.address, wish) ? saved : undefined
}

/** Port 0 is answered by any port, a host without one by the wildcard of either family. */
const sameWish = (bound: string, wish: Address): boolean => {
  const parsed = AddressText.parse(bound)
  if (Result.isFailure(parsed)) return false
  const address = parsed.success
  if (address._tag === "Unix" || wish._tag === "Unix") {
    return address._tag === "Unix" && wish._tag === "Unix" && wish.path === address.path
  }
  const hosts = wish.host === "" ? ["::", "0.0.0.0"] : [wish.host]
  const sameHost = wish.host === "localhost" || hosts.includes(address.host)
  return sameHost && (wish.port === 0 || wish.port === address.port)
}

/** The listener's socket out of one of the living processes; undefined when none of them holds it. */
export const takeListener = Effect.fnUntraced(function* (found: Found, saved: SavedListener) {
  const processes = yield* Processes
  for (const { process } of [...found.generations, ...found.orphans.map((process) => ({ process }))]) {
    const { pid } = process
    const copied = yield* Effect.result(processes.copySocket(pid, saved.inode))
    if (copied._tag === "Success") {
      const address = yield* Effect.fromResult(AddressText.parse(saved.address))
      return { fd: copied.success, address, inode: saved.inode, backlog: saved.backlog } satisfies ListeningSocket
    }
    if (copied.failure.reason._tag !== "NotHeld") {
      return yield* new SetupError({
        subject: `listener "${saved.name}"`,
        detail:
          `${copied.failure.message}. Process ${pid} of the supervisor before this one still serves on ${saved.address}, ` +
          "and goes on without a supervisor; give this one the permission, or stop that process to start anew"
      })
    }
  }
  return undefined
})

const see = Effect.fnUntraced(function* ({ process }: Living, answering: number | undefined) {
  const processes = yield* Processes
  if (!(yield* isAlive(process))) return { alive: false, holdsLock: false, answers: false } satisfies Recovery.Sighting
  return {
    alive: true,
    holdsLock: yield* processes.holdsLock(process.pid, DataLock.FILE_NAME),
    answers: answering !== undefined && (yield* HandoffPath.isMember(process.pid, answering))
  } satisfies Recovery.Sighting
})

/** Looks until it is clear how to go on. */
export const decide = Effect.fnUntraced(function* (found: Found, options: MachineOptions, handoffSocket: string) {
  const started = yield* Clock.currentTimeMillis
  for (;;) {
    const answering = yield* HandoffPath.listener(handoffSocket)
    const sightings = new Map<number, Recovery.Sighting>()
    for (const generation of found.generations) {
      sightings.set(generation.id, yield* see(generation, answering))
    }
    const now = yield* Clock.currentTimeMillis
    const decision = Recovery.decide(found, sightings, options, now, now - started < PATIENCE_MS)
    if (decision._tag === "Go") return decision.recovered
    yield* Effect.sleep(LOOK_MS)
  }
})

/** In words, what differs between what runs and what was asked for. */
export const differences = (
  recovered: Recovered,
  command: ReadonlyArray<string>,
  found: Found,
  listeners: ReadonlyArray<SavedListener>
): ReadonlyArray<string> => {
  const kept = recovered.command.argv
  const sameCommand = kept.length === command.length && kept.every((part, index) => part === command[index])
  const running = recovered.generations.length > 0
  const saved = running ? found.listeners : []
  const dropped = saved.filter((one) => !listeners.some(({ name }) => name === one.name))
  const fresh = running ? listeners.filter((one) => !saved.some(({ inode }) => inode === one.inode)) : []
  return [
    ...(sameCommand
      ? []
      : [
          `the command line says ${command.join(" ")}, kept is ${kept.join(" ")}: swap to change it, \`handoff swap -- ${command.join(" ")}\``
        ]),
    ...dropped.map(
      (one) => `listener "${one.name}" (${one.address}) is not on the command line: it goes with the next swap`
    ),
    ...fresh.map((one) => {
      const before = saved.find(({ name }) => name === one.name)
      const was = before === undefined ? "" : `, not ${before.address} any more`
      return `listener "${one.name}" is now ${one.address}${was}: nobody accepts on it before the next swap`
    })
  ]
}

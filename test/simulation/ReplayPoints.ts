/**
 * The moments at which the programs of a replay can be hit: each says where it is, and does what a script wants there.
 *
 * A directory, $HANDOFF_REPLAY, is all that test and programs share. `acts/N` is a fault that waits for its point; whoever
 * comes there first takes it by renaming it into `done`. If another party is to be hit, the one that has come there writes
 * `at/N` and stands still until the test has written `go/N`: nothing of it runs meanwhile. `launches` has a line with the
 * generation and the pid of each process, so that processes are counted alike by all.
 */
import { appendFileSync, existsSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type { Fault, Party } from "./ReplayScript.ts"

const { HANDOFF_REPLAY: DIRECTORY = "" } = process.env

export const FOLDERS = ["acts", "done", "at", "go"] as const

export interface Launched {
  readonly generation: number
  readonly pid: number
}

/** In the order of their starts; the first is the one that served when the script began. */
export const launches = (directory = DIRECTORY): ReadonlyArray<Launched> => {
  const path = join(directory, "launches")
  if (!existsSync(path)) return []
  const known = new Map<number, Launched>()
  for (const line of readFileSync(path, "utf8").split("\n")) {
    const [generation = 0, pid = 0] = line.split(" ").map(Number)
    if (pid > 0 && !known.has(pid)) known.set(pid, { generation, pid })
  }
  return [...known.values()]
}

/** Told by the supervisor and by the process itself: either may die before it has. */
export const launched = ({ generation, pid }: Launched): void =>
  appendFileSync(join(DIRECTORY, "launches"), `${generation} ${pid}\n`)

export const ordinalOf = (pid: number): number => launches().findIndex((one) => one.pid === pid)

/** The generation's process. Numbers begin anew after a supervisor that could not start: the last one is meant. */
export const ordinalOfGeneration = (generation: number): number =>
  launches().findLastIndex((one) => one.generation === generation)

const sleep = new Int32Array(new SharedArrayBuffer(4))

const take = (id: string): boolean => {
  try {
    renameSync(join(DIRECTORY, "acts", id), join(DIRECTORY, "done", id))
    return true
  } catch {
    return false // Another has come here, or the script is over.
  }
}

/** Died while nothing was run or flushed. Not process.exit, which runs the handlers of "exit". */
const die = (): void => {
  Reflect.get(process, "reallyExit")(99)
}

const standStill = (id: string): void => {
  writeFileSync(join(DIRECTORY, "at", id), String(process.pid))
  const deadline = Date.now() + 20_000
  while (!existsSync(join(DIRECTORY, "go", id)) && Date.now() < deadline) Atomics.wait(sleep, 0, 0, 2)
}

/**
 * This party is at the point. Gives what of its own is to fail there. `abort` asks for the swap's end without waiting:
 * a supervisor that stood still would not hear of it.
 */
export const reach = (party: () => Party, point: string, abort?: () => void): string | undefined => {
  if (DIRECTORY === "") return undefined
  let fails: string | undefined
  for (const id of readdirSync(join(DIRECTORY, "acts"))) {
    const fault = read(id)
    if (fault === undefined || fault.point !== point || fault.party !== party() || !take(id)) continue
    const { act } = fault
    if (act._tag === "dies") die()
    else if (act._tag === "fails") fails = act.how
    else if (act._tag === "abort" && abort !== undefined) abort()
    else standStill(id)
  }
  return fails
}

const read = (id: string): Fault | undefined => {
  try {
    return JSON.parse(readFileSync(join(DIRECTORY, "acts", id), "utf8")) as Fault
  } catch {
    return undefined
  }
}

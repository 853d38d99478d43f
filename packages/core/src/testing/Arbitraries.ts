/**
 * Random placements, tables and launches from a seed, for differential and property tests.
 *
 * Every generator takes a {@link Random} and draws from it in a fixed order: the same seed gives the same values, so a test
 * prints the seed of what failed. Sizes are kept small on purpose; the hazards of descriptor plans (swaps, rotations, a
 * source in the target range, stdio) are dense where numbers are few.
 */
import type { Fd } from "../Fd.ts"
import * as FdTable from "../FdTable.ts"
import { type LaunchSpec, type LimitValue, RESOURCES, type Resource, type ResourceLimit } from "../Launch.ts"
import type { Placement } from "../Placement.ts"
import type { SignalName } from "../Signal.ts"

/** A stream of random numbers: each call gives an integer from 0 up to, and not including, `bound`. */
export type Random = (bound: number) => number

/** A stream from a seed (mulberry32). */
export const random = (seed: number): Random => {
  let state = seed >>> 0
  return (bound) => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000) * bound)
  }
}

/** True once in `times`. */
export const oneIn = (next: Random, times: number): boolean => next(times) === 0

export const pick = <A>(next: Random, from: readonly [A, ...ReadonlyArray<A>]): A => from[next(from.length)] ?? from[0]

/** A list in random order. */
export const shuffle = <A>(next: Random, list: ReadonlyArray<A>): ReadonlyArray<A> => {
  const rest = [...list]
  const result: Array<A> = []
  while (rest.length > 0) result.push(...rest.splice(next(rest.length), 1))
  return result
}

/** A table with up to `size` descriptors under `below`, some of them close-on-exec, some sharing a description. */
export const table = (next: Random, size: number, below: number, limit = 1024): FdTable.FdTable => {
  const count = next(size + 1)
  const entries = new Map<Fd, FdTable.Entry>()
  for (let index = 0; index < count; index++) {
    entries.set(next(below), { description: next(count), closeOnExec: oneIn(next, 2) })
  }
  return FdTable.make(limit, entries)
}

/** Up to `most` placements from these sources, with distinct targets: mostly near the sources, stdio and 3, some anywhere. */
export const placements = (
  next: Random,
  sources: readonly [Fd, ...ReadonlyArray<Fd>],
  most: number,
  below: number
): ReadonlyArray<Placement> => {
  const targets = new Set<Fd>()
  const result: Array<Placement> = []
  for (let count = next(most + 1); count > 0; count--) {
    const target = pick(next, [next(12), next(12), pick(next, sources), next(below)])
    if (targets.has(target)) continue
    targets.add(target)
    result.push({ source: pick(next, sources), target })
  }
  return result
}

const NAMES = ["A", "PATH", "LISTEN_FDS", "LONG_NAME_1", "x"] as const
const VALUES = ["", "1", "a b", "é=ü", 'quo"te\\', "line\nbreak", "/usr/bin:/bin"] as const

/** A small environment. */
export const environment = (next: Random): Readonly<Record<string, string>> =>
  Object.fromEntries(NAMES.filter(() => oneIn(next, 2)).map((name) => [name, pick(next, VALUES)]))

// Under these a small program still starts: memory and time are not what a launch is tested for.
const LEAST: Partial<Readonly<Record<Resource, number>>> = {
  CPU: 100,
  FSIZE: 1 << 24,
  DATA: 1 << 28,
  STACK: 1 << 23,
  NPROC: 4000,
  NOFILE: 64,
  AS: 1 << 30
}
const resourceLimit = (next: Random, resource: Resource): ResourceLimit => {
  const least = LEAST[resource] ?? 0
  const value = (): LimitValue =>
    resource !== "NOFILE" && oneIn(next, 4) ? "unlimited" : least + next(resource === "NOFILE" ? 1000 : 1_000_000)
  const [one, two] = [value(), value()]
  // Now and then the wrong way around: EINVAL.
  const swapped = one === "unlimited" || (two !== "unlimited" && one > two)
  return swapped !== oneIn(next, 20) ? { soft: two, hard: one } : { soft: one, hard: two }
}

export interface SpecOptions {
  readonly program: string
  readonly argv: ReadonlyArray<string>
  /** Descriptors to place. Some of them may be closed. */
  readonly sources: readonly [Fd, ...ReadonlyArray<Fd>]
  /** Targets are under this number. */
  readonly below: number
  readonly directories: readonly [string, ...ReadonlyArray<string>]
  /** Whether the launching process is root: others can't change identity. */
  readonly root: boolean
}

const SIGNALS = ["SIGTERM", "SIGHUP", "SIGKILL"] as const satisfies ReadonlyArray<SignalName>

const identity = (next: Random): NonNullable<LaunchSpec["identity"]> => ({
  ...(oneIn(next, 2) ? { uid: pick(next, [0, 1, 12_345, 65_534]) } : {}),
  ...(oneIn(next, 2) ? { gid: pick(next, [0, 5, 54_321]) } : {}),
  ...(oneIn(next, 2) ? { groups: pick(next, [[], [5], [9, 5, 7], [5, 5, 1_000_000]]) } : {})
})

/** A wish for a launch; what it does not say is the parent's. */
export const launchSpec = (next: Random, options: SpecOptions): LaunchSpec => {
  const { program, argv, sources, below, directories, root } = options
  const limits = RESOURCES.filter(() => oneIn(next, 8))
  return {
    program,
    argv,
    environment: environment(next),
    placements: placements(next, sources, 8, below),
    strategy: pick(next, ["direct", "staged"]),
    leads: pick(next, ["group", "session", "none"]),
    seal: !oneIn(next, 3),
    resetSignals: !oneIn(next, 3),
    stampListenPid: oneIn(next, 2),
    noNewPrivileges: oneIn(next, 4),
    ...(oneIn(next, 3) ? { umask: next(0o1000) } : {}),
    ...(oneIn(next, 3) ? { workingDirectory: pick(next, directories) } : {}),
    ...(oneIn(next, 6) ? { parentDeathSignal: pick(next, SIGNALS) } : {}),
    ...(oneIn(next, 2)
      ? { limits: Object.fromEntries(limits.map((resource) => [resource, resourceLimit(next, resource)])) }
      : {}),
    ...(root && oneIn(next, 3) ? { identity: identity(next) } : {})
  }
}

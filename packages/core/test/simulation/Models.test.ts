/**
 * Models, settings and options that are wrong: each is refused by name. A search that went on with one would visit a part
 * of what was meant, and call it complete.
 */
import * as Explorer from "@handoff/core/testing/Explorer"
import type { Daemon } from "@handoff/core/testing/World"
import * as World from "@handoff/core/testing/World"
import * as Machines from "@handoff/core/testing/world/Machines"
import { describe, expect, it } from "vitest"

/** A set of writes as a sorted list, and whether it was sealed. */
interface Memory {
  readonly requests: ReadonlyArray<number>
  readonly sealed: boolean
}

type Disk = ReadonlyArray<number>

const listing: Daemon<Memory, Disk> = {
  name: "x",
  disk: [],
  open: () => ({ requests: [], sealed: false }),
  request: (memory, write) => ({ ...memory, requests: [...memory.requests, write].sort() }),
  work: ({ requests: [write, ...requests], sealed }, disk) => {
    if (write === undefined) return []
    const memory = { requests, sealed }
    return sealed
      ? [{ memory, disk, refuses: write }]
      : [{ memory, disk: [...disk, write].sort(), acknowledges: write }]
  },
  drain: (memory) => memory,
  isDrained: ({ requests }) => requests.length === 0,
  seal: (memory, disk) => ({ memory: { ...memory, sealed: true }, disk }),
  resume: (memory) => memory,
  has: (disk, write) => disk.includes(write)
}

/** Members may be anything, as in a model that no compiler has seen. */
const explore = (change: Partial<Record<keyof Daemon<Memory, Disk>, unknown>>) => {
  const daemon = { ...listing, ...change } as Daemon<Memory, Disk>
  return Explorer.explore(World.make({ daemon, writes: 2 }))
}

const thrown = (run: () => unknown): Error => {
  try {
    run()
  } catch (error) {
    if (error instanceof Error) return error
  }
  throw new Error("nothing was thrown")
}

describe("values of a daemon", () => {
  const cycle: { self?: unknown } = {}
  cycle.self = cycle
  class Queue {
    readonly #items = [1]
    size = () => this.#items.length
  }

  it.each([
    ["a Map", new Map()],
    ["a Set", new Set()],
    ["a Queue", new Queue()],
    ["a Date", new Date(0)],
    ["a function", () => 1],
    ["a symbol", Symbol("q")],
    ["a bigint", 1n],
    ["NaN", Number.NaN],
    ["Infinity", Number.POSITIVE_INFINITY],
    ["undefined", undefined]
  ])("refuses %s in a memory", (kind, q) => {
    const { message } = thrown(() => explore({ request: (memory: Memory) => ({ ...memory, q }) }))
    expect(message).toBe(
      `daemon "x": memory.q given by request() is ${kind}; ` +
        "Memory and Disk are numbers, texts, booleans, null, arrays and plain objects"
    )
  })

  it("refuses a cycle, and what is keyed by a symbol", () => {
    expect(() => explore({ disk: [cycle] })).toThrow("disk[0].self is the value that it is a part of")
    expect(() => explore({ open: () => ({ [Symbol("q")]: 1 }) })).toThrow(
      "memory.Symbol(q) given by open() is keyed by"
    )
  })

  it("refuses what is no value at the root: on the disk, of a seal, of work, after a power cut", () => {
    expect(() => explore({ disk: new Map() })).toThrow('daemon "x": disk is a Map; Memory')
    expect(() => explore({ open: () => undefined })).toThrow("memory given by open() is undefined")
    expect(() => explore({ seal: (memory: Memory) => ({ memory, disk: new Set() }) })).toThrow(
      "disk given by seal() is a Set"
    )
    const work = (memory: Memory) => [{ memory, disk: [undefined] }]
    expect(() => explore({ work })).toThrow("disk[0] given by work() is undefined")
    expect(() => explore({ survives: () => Number.NaN })).toThrow("disk given by survives() is NaN")
  })

  it("takes lists, plain objects and parts that are shared", () => {
    const shared = { a: [1, "1", true, null] }
    const open = () => ({ requests: [], sealed: false, shared, again: shared })
    const { broken, complete, states } = explore({ open })
    expect({ broken, complete }).toEqual({ broken: undefined, complete: true })
    expect(states).toBeGreaterThan(1_000)
  })

  it("tells a text from the value that reads like it", () => {
    const numbers = new Machines.Numbers()
    const all = [null, "null", 1 << 20, `${1 << 20}`, `#${1 << 20}`, true, "true", { a: 1 }, '{"a":1}'].map((one) =>
      numbers.of(one)
    )
    expect(new Set(all).size).toBe(all.length)
    expect(numbers.of({ a: 1 })).toBe(all.at(-2))
  })
})

describe("hooks of a daemon", () => {
  it("names the hook that throws, with its cause", () => {
    const cause = new Error("boom")
    const error = thrown(() =>
      explore({
        work: () => {
          throw cause
        }
      })
    )
    expect(error).toMatchObject({ message: 'daemon "x": work() threw: boom', cause })
  })

  it.each([
    ["work() gave null, not an array", { work: () => null }],
    ["work() gave a promise, not an array", { work: async () => [] }],
    ["work() gave an object with memory at 0, not an object with memory and disk", { work: () => [{ memory: 1 }] }],
    ["work() gave undefined at 0, not an object with memory and disk", { work: () => [undefined] }],
    ["memory given by open() is a promise", { open: async () => 0 }],
    ["isDrained() gave undefined, not true or false", { isDrained: () => undefined }],
    ["isDrained() gave a promise, not true or false", { isDrained: async () => true }],
    ["has() gave 1, not true or false", { has: () => 1 }],
    ["seal() gave a promise, not an object with memory and disk", { seal: async () => 0 }]
  ])("%s", (text, change) => {
    expect(thrown(() => explore(change)).message).toContain(`daemon "x": ${text}`)
  })

  it("refuses an answer to a write that was never requested, and two answers at once", () => {
    const answering = (answer: object) => ({
      work: (memory: Memory, disk: Disk) => [{ memory, disk, ...answer }]
    })
    expect(() => explore(answering({ acknowledges: 7 }))).toThrow("work() acknowledges 7, a write that was never")
    expect(() => explore(answering({ refuses: "0" }))).toThrow('work() refuses "0", a write that was never requested')
    expect(() => explore(answering({ refuses: 0, acknowledges: 0 }))).toThrow(
      "acknowledges 0 and refuses 0 in one step"
    )
  })

  it("throws where a hook changes its argument", () => {
    const request = (memory: { requests: Array<number> }, write: number) => {
      memory.requests.push(write)
      return memory
    }
    const { message } = thrown(() => explore({ request }))
    expect(message).toMatch(/^daemon "x": request\(\) threw: .*not extensible \(what a hook gets is frozen/)
  })

  it("calls them as members of the daemon", () => {
    const daemon = Object.create({ ...listing, open }) as Daemon<Memory, Disk>
    function open(this: object) {
      return this === daemon ? { requests: [], sealed: false } : 0
    }
    expect(Explorer.explore(World.make({ daemon })).broken).toBeUndefined()
  })
})

describe("settings of a world", () => {
  it.each([
    ['mode: "foo" is none of sealed, overlap, exclusive', { mode: "foo" }],
    ["faults: 1.5 is not a whole number from 0", { faults: 1.5 }],
    ["faults: NaN is not a whole number from 0", { faults: Number.NaN }],
    ["swaps: -1 is not a whole number from 0", { swaps: -1 }],
    ['writes: "2" is not a whole number from 0', { writes: "2" }],
    ["aborts: undefined is not a whole number from 0", { aborts: undefined }],
    ['kinds: "kill" is not a list; kinds are kill, crash, ', { kinds: "kill" }],
    ['kinds: "nonsense" is none of kill, crash, ', { kinds: ["kill", "nonsense"] }],
    ['cuts: "middle" is none of ends, anywhere', { cuts: "middle" }],
    ['unknown setting "fautls"; there are mode, faults, ', { fautls: 1 }],
    ["daemon: null is not an object", { daemon: null }],
    ['daemon "x": drain is undefined, not a function', { daemon: { ...listing, drain: undefined } }],
    ['daemon "x": survives is 1, not a function', { daemon: { ...listing, survives: 1 } }],
    ['daemon "x" has no disk', { daemon: { ...listing, disk: undefined } }],
    ["backend.replace is undefined, not a function", { backend: { ...World.linux, replace: undefined } }],
    ['unknown policies member "saveFirst"; there are ', { policies: { ...World.shipped, saveFirst: true } }],
    ["policies.savesFirst is 1, not a boolean", { policies: { ...World.shipped, savesFirst: 1 } }],
    ['policies.reclaimsPath: "twice" is none of ', { policies: { ...World.shipped, reclaimsPath: "twice" } }],
    ['writes: 9 is more than the 8 that daemon "careful" takes', { writes: 9 }],
    ['writes: 257 is more than the 256 that daemon "x" takes', { writes: 257, daemon: listing }]
  ])("%s", (text, wish) => {
    expect(thrown(() => World.make(wish as Parameters<typeof World.make>[0])).message).toContain(`World.make: ${text}`)
  })

  it("takes as many writes as the daemon does", () => {
    expect(World.make({ writes: 8 }).settings.writes).toBe(8)
    expect(World.make({ mode: "overlap", writes: 9 }).settings.writes).toBe(9)
  })
})

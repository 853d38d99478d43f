/**
 * A daemon as its author would model it: what it keeps in memory and on disk, and what its hooks do to them.
 *
 * `Memory` and `Disk` are values: numbers (finite), texts, booleans, null, and arrays and plain objects of those. No
 * Map, Set or class instance, no bigint (use a number or a text), no undefined (leave the property out, or use null).
 * Two values with one JSON text are one state; so keep out what decides nothing (counters, histories, times), or there
 * is no end of states, and keep properties in one order.
 *
 * Hooks are functions of their arguments alone: no clock, no random number, no variable outside, no promise. They give
 * a new value and never change an argument: what they get is frozen, and so is, from then on, what they have given.
 *
 * A write is a small number. A world checks what the daemon says: an acknowledged write must be on the disk (what
 * `survives` of it), and only the holder of the data lock may change it. Every write that was accepted must be answered
 * once, acknowledged or refused, or its client waits for ever, which breaks liveness.
 */

/** One thing that a daemon may do next by itself. */
export interface Work<Memory, Disk> {
  readonly memory: Memory
  readonly disk: Disk
  /** The client is told that this write is done, or that it is refused: one write at most in one step. */
  readonly acknowledges?: number
  readonly refuses?: number
}

export interface Daemon<Memory, Disk> {
  readonly name: string
  /** An empty disk. */
  readonly disk: Disk
  /** Opens the state from disk: at a cold start, as a successor, and (instead of `resume`) to go on after a seal. */
  readonly open: (disk: Disk) => Memory
  /** A write has come in. */
  readonly request: (memory: Memory, write: number) => Memory
  /** Everything that it may do next. Also asked for after the seal, until the process has ended. */
  readonly work: (memory: Memory, disk: Disk) => ReadonlyArray<Work<Memory, Disk>>
  /** The drain hook begins; nothing is accepted any more. */
  readonly drain: (memory: Memory) => Memory
  /** The drain hook may report that it is done. It must become true by `work` alone, whatever was accepted before. */
  readonly isDrained: (memory: Memory) => boolean
  /** The seal hook: everything is made durable, the state is closed. */
  readonly seal: (memory: Memory, disk: Disk) => { readonly memory: Memory; readonly disk: Disk }
  /** Goes on after a drain that no seal followed; after a seal it is `open` that is called. */
  readonly resume: (memory: Memory) => Memory
  readonly has: (disk: Disk, write: number) => boolean
  /** What is left of the disk after a power cut. Default: all of it. */
  readonly survives?: (disk: Disk) => Disk
  /** The most writes that the model can tell apart; default: as many as a world has. */
  readonly maxWrites?: number
}

const MAX_WRITES = 8
const CLOSED = 1 << MAX_WRITES

const first = (set: number): number => 31 - Math.clz32(set & -set)

/** Writes each request through to the disk, then acknowledges it. Memory and disk are sets of writes, as bits. */
export const careful: Daemon<number, number> = {
  name: "careful",
  maxWrites: MAX_WRITES,
  disk: 0,
  open: () => 0,
  request: (memory, write) => memory | (1 << write),
  work: (memory, disk) => {
    const inFlight = memory & (CLOSED - 1)
    if (inFlight === 0) return []
    const write = first(inFlight)
    const without = memory & ~(1 << write)
    if (memory & CLOSED) return [{ memory: without, disk, refuses: write }]
    return [{ memory: without, disk: disk | (1 << write), acknowledges: write }]
  },
  drain: (memory) => memory,
  isDrained: (memory) => (memory & (CLOSED - 1)) === 0,
  seal: (memory, disk) => ({ memory: memory | CLOSED, disk }),
  resume: (memory) => memory,
  has: (disk, write) => (disk & (1 << write)) !== 0
}

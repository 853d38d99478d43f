/**
 * A daemon as its author would model it: what it keeps in memory and on disk, and what its hooks do to them.
 *
 * `Memory` and `Disk` are values (numbers, texts, plain objects); every function gives a new one. A write is a small
 * number. A world checks what the daemon says: an acknowledged write must be on the disk (what `survives` of it), and
 * only the holder of the data lock may change it.
 */

/** One thing that a daemon may do next by itself. */
export interface Work<Memory, Disk> {
  readonly memory: Memory
  readonly disk: Disk
  /** The client is told that this write is done, or that it is refused. */
  readonly acknowledges?: number
  readonly refuses?: number
}

export interface Daemon<Memory, Disk> {
  readonly name: string
  /** An empty disk. */
  readonly disk: Disk
  /** Opens the state from disk: at a cold start, as a successor, and to resume after a seal. */
  readonly open: (disk: Disk) => Memory
  /** A write has come in. */
  readonly request: (memory: Memory, write: number) => Memory
  /** Everything that it may do next. Also asked for after the seal, until the process has ended. */
  readonly work: (memory: Memory, disk: Disk) => ReadonlyArray<Work<Memory, Disk>>
  /** The drain hook begins; nothing is accepted any more. */
  readonly drain: (memory: Memory) => Memory
  /** The drain hook may report that it is done. */
  readonly isDrained: (memory: Memory) => boolean
  /** The seal hook: everything is made durable, the state is closed. */
  readonly seal: (memory: Memory, disk: Disk) => { readonly memory: Memory; readonly disk: Disk }
  /** Undoes a drain that no seal followed. */
  readonly resume: (memory: Memory) => Memory
  readonly has: (disk: Disk, write: number) => boolean
  /** What is left of the disk after a power cut. Default: all of it. */
  readonly survives?: (disk: Disk) => Disk
}

const CLOSED = 1 << 8

const first = (set: number): number => 31 - Math.clz32(set & -set)

/** Writes each request through to the disk, then acknowledges it. Memory and disk are sets of writes, as bits. */
export const careful: Daemon<number, number> = {
  name: "careful",
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

/**
 * A daemon that owns data, as a model of its hooks: does it keep every acknowledged write, whatever happens?
 */
import * as Explorer from "@handoff/core/testing/Explorer"
import * as World from "@handoff/core/testing/World"

/** Requests that came in and are not answered yet, and whether the state was sealed. */
interface Memory {
  readonly requests: ReadonlyArray<number>
  readonly sealed: boolean
}

/** What the disk has: the writes, in order. */
type Disk = ReadonlyArray<number>

/** Answers the first request: to the disk first, if the state is still open. */
const answer = ({ requests: [write, ...others], sealed }: Memory, disk: Disk) =>
  write === undefined
    ? []
    : [{ memory: { requests: others, sealed }, disk: sealed ? disk : [...disk, write], acknowledges: write }]

/** `isDrained`: when the drain hook says that it is done. */
const daemon = (isDrained: (memory: Memory) => boolean): World.Daemon<Memory, Disk> => ({
  name: "example",
  disk: [],
  open: () => ({ requests: [], sealed: false }),
  request: (memory, write) => ({ ...memory, requests: [...memory.requests, write] }),
  work: answer,
  drain: (memory) => memory,
  isDrained,
  seal: (memory, disk) => ({ memory: { ...memory, sealed: true }, disk }),
  resume: (memory) => memory,
  has: (disk, write) => disk.includes(write)
})

/** One that seals at once, and one that waits for the requests under way. */
export const hasty = daemon(() => true)
export const patient = daemon((memory) => memory.requests.length === 0)

/** Every order of events of one swap, in which nobody fails and nobody is slow. */
export const explore = (of: World.Daemon<Memory, Disk>) =>
  Explorer.explore(World.make({ mode: "sealed", faults: 0, aborts: 0, daemon: of }))

if (import.meta.main) {
  for (const one of [hasty, patient]) {
    const { broken, states } = explore(one)
    console.log(broken === undefined ? `${states} states: every acknowledged write is kept` : Explorer.explain(broken))
  }
}

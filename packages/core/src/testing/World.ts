/**
 * A whole handoff as a model for the explorer: the production machines of every party, composed with a kernel, a disk and
 * clients in which anything may fail.
 *
 * The machines are the shipped ones (swap/Supervision with Sealed, Overlap and Exclusive, swap/Document, swap/Recovery,
 * protocol/Incumbent, protocol/Successor), not copies; the drivers in world/ carry their commands out in the order in
 * which the shipped drivers do. See world/Moves.ts for what can happen, world/Settings.ts for the kinds of faults, and
 * world/Properties.ts for what is checked, with which faults.
 *
 * Time. The clock stands still: a timer that is set may fire, whatever its delay. A slow timer (one that fires only when
 * somebody is late) fires by itself when nothing else is under way, or when its process was stopped meanwhile; at any
 * other moment it costs a fault. So every order of timers and events is covered with enough faults, and a world without
 * faults is one in which nobody is slow.
 *
 * @example
 * const result = Explorer.explore(World.make({ mode: "sealed", faults: 1 }))
 */
import * as Result from "effect/Result"
import * as Frame from "../protocol/Frame.ts"
import type { Message } from "../protocol/Message.ts"
import type { Model } from "./Explorer.ts"
import * as FileTree from "./FileTree.ts"
import * as SimulatedKernel from "./SimulatedKernel.ts"
import * as SimulatedProcess from "./SimulatedProcess.ts"
import { checked } from "./world/CheckedDaemon.ts"
import * as KernelView from "./world/KernelView.ts"
import { BOOT, CLIENT, LOCK_FILE, PROGRAM } from "./world/Layout.ts"
import { Moves } from "./world/Moves.ts"
import { Machines } from "./world/Parties.ts"
import * as Properties from "./world/Properties.ts"
import { renumber } from "./world/Renumber.ts"
import { checkedSettings, type Settings } from "./world/Settings.ts"
import type { Move, World } from "./world/State.ts"
import * as View from "./world/View.ts"

export type { Backend, Calls, LaunchRequest } from "./world/Backend.ts"
export { linux, skipping } from "./world/Backend.ts"
export type { Daemon, Work } from "./world/Daemon.ts"
export { careful } from "./world/Daemon.ts"
export type { FaultKind, Policies, Settings } from "./world/Settings.ts"
export { defaults, faultKinds, shipped } from "./world/Settings.ts"
export type { Move, World } from "./world/State.ts"

export interface WorldModel extends Model<World, Move> {
  readonly settings: Settings
  /** `machine phase event` of every step that a machine has taken so far. */
  readonly rows: ReadonlySet<string>
  /** Why a world may not last as it is. */
  readonly unsettled: (world: World) => string | undefined
}

/** A machine on which nothing of a handoff has happened yet. */
const boot = (): SimulatedKernel.Kernel => {
  const kernel = SimulatedKernel.make({
    processes: [SimulatedProcess.make({ pid: CLIENT, argv: ["client"] })],
    files: FileTree.add(FileTree.empty, {
      [PROGRAM]: FileTree.file("", 0o755),
      [LOCK_FILE]: FileTree.file(),
      "/run": FileTree.directory()
    })
  })
  return { ...kernel, bootId: BOOT, next: { ...kernel.next, pid: 0 } }
}

const blank = (settings: Settings, machines: Machines): World => ({
  supervisor: {
    life: "dead",
    machine: machines.nobody,
    timers: [],
    watches: [],
    looks: [],
    facts: [],
    sessions: [],
    probes: [],
    unsaved: false,
    listener: -1
  },
  processes: [],
  kernel: boot(),
  disk: settings.daemon.disk,
  writes: Array.from({ length: settings.writes }, () => "unsent" as const),
  connections: Array.from({ length: settings.writes }, () => -1),
  excused: [],
  promised: 0,
  lapsed: false,
  faults: 0,
  swaps: 0,
  aborts: settings.aborts,
  stops: settings.stops,
  faultless: true,
  broken: undefined
})

/** What the document's file has: one text per document. */
export const documentOf = ({ kernel }: World): string | undefined => KernelView.documentText(kernel, "files")

/** What was sent to daemons, and not read yet. */
export const unread = ({ kernel, processes }: World): ReadonlyArray<Message> =>
  processes.flatMap(({ pid, session }) => {
    const end = SimulatedKernel.describe(kernel, pid, session)
    const decoder = new Frame.Decoder()
    const frames = end?._tag === "Stream" ? end.received.flatMap((bytes) => decoder.push(bytes)) : []
    return frames.flatMap((frame) => (Result.isSuccess(frame) ? [frame.success.message] : []))
  })

/** The supervisor starts its first generation, and all goes well: it looks at a daemon that is wholly there. */
const begin = (settings: Settings, machines: Machines, moves: Moves): World => {
  let world = blank(settings, machines)
  for (let steps = 0; steps < 100; steps++) {
    if (Properties.unsettled(world, settings) === undefined) {
      return renumber({ ...world, faults: settings.faults, swaps: settings.swaps }, machines)
    }
    const fair = moves.next(world).filter((one) => one.fair)
    const next = fair.find((one) => one.move.party !== "S") ?? fair[0]
    if (next === undefined) break
    world = next.next
  }
  throw new Error(`the first generation does not come to serve: ${Properties.unsettled(world, settings)}`)
}

/** Negative: of what the call is to send, a part is sent. */
const fate = (fuse: number): string =>
  fuse === 0 ? "" : ` and dies ${fuse < 0 ? "in the middle of" : "before"} its system call ${Math.abs(fuse)}`

/**
 * The model of a world with these bounds. What is not said is as in {@link defaults}. Throws on a setting that is none; and
 * while it is explored, on a hook of the daemon that throws or gives what it may not (see {@link Daemon}).
 */
export const make = <Memory = number, Disk = number>(wish: Partial<Settings<Memory, Disk>> = {}): WorldModel => {
  const wanted = checkedSettings(wish)
  const settings = { ...wanted, daemon: checked(wanted.daemon) }
  const machines = new Machines(settings)
  const moves = new Moves(settings, machines)
  return {
    settings,
    rows: machines.rows,
    initial: begin(settings, machines, moves),
    next: (world) => moves.next(world),
    key: (world) => View.keyOf(world, machines),
    check: (world) => Properties.check(world, settings),
    settled: (world) => world.lapsed || Properties.unsettled(world, settings) === undefined,
    unsettled: (world) => Properties.unsettled(world, settings),
    name: ({ party, event, fuse }) => `${party} ${event}${fate(fuse)}`,
    describe: (world, move) => {
      const { next, log } = moves.retell(world, move)
      return {
        party: move.party,
        event: `${move.event}${fate(move.fuse)}`,
        commands: log,
        parties: View.columns(next ?? world, machines)
      }
    }
  }
}

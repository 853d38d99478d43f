/**
 * The working copy of a world while one move is made: system calls, deaths, what clients see.
 *
 * A draft lives for one move; the worlds it passes through are values and never change in place. Every system call of a
 * supervisor or daemon is a moment in which it may die: the draft keeps the world of that moment ({@link Crash}).
 */
import * as Result from "effect/Result"
import type { ExitStatus } from "../../backend/Launcher.ts"
import type { ErrnoName } from "../../Errno.ts"
import { type Fd, FIRST_INHERITED_FD } from "../../Fd.ts"
import type { Done, Kernel } from "../SimulatedKernel.ts"
import * as SimulatedKernel from "../SimulatedKernel.ts"
import type { SimulatedProcess } from "../SimulatedProcess.ts"
import * as SimulatedStreams from "../SimulatedStreams.ts"
import type { CallName } from "./Backend.ts"
import * as KernelView from "./KernelView.ts"
import { CLIENT, childOf, generationOf, STATE_FILE, SUPERVISOR } from "./Layout.ts"
import type { Machines } from "./Parties.ts"
import type { Settings } from "./Settings.ts"
import type { Fact, Process, Supervisor, World, WriteStatus } from "./State.ts"

type Mutable<T> = { -readonly [K in keyof T]: T[K] }

/** The world right before a system call of `pid`, which was its call of this number in the move. */
export interface Crash {
  readonly effect: number
  readonly pid: number
  readonly world: World
  readonly log: ReadonlyArray<string> | undefined
  /** Something has happened in this move before it. */
  readonly isNew: boolean
  /** The bytes that it was about to send. */
  readonly sending: { readonly fd: Fd; readonly bytes: Uint8Array } | undefined
}

/** A call that a fault makes fail: the first of this name in the move. */
export interface Failure {
  readonly call: CallName
  readonly errno: ErrnoName
}

export interface DraftOptions {
  readonly failure?: Failure | undefined
  readonly log?: Array<string> | undefined
  /** Filled with every moment of the move in which its party may die. */
  readonly crashes?: Array<Crash> | undefined
}

export class Draft {
  readonly world: Mutable<World>
  readonly settings: Settings
  readonly machines: Machines
  /** What was done, for a trace. */
  readonly log: Array<string> | undefined
  readonly #crashes: Array<Crash> | undefined
  #failure: Failure | undefined
  #effects = 0
  /** The world of the last moment that was kept, and whether a call since then left anything. */
  #last: World
  #seen = false
  readonly #made: Array<CallName> = []

  constructor(world: World, settings: Settings, machines: Machines, { failure, log, crashes }: DraftOptions = {}) {
    this.world = { ...world }
    this.settings = settings
    this.machines = machines
    this.log = log
    this.#last = world
    this.#failure = failure
    this.#crashes = crashes
  }

  /** A system call. */
  call<A>(
    pid: number,
    name: CallName,
    f: (kernel: Kernel) => Done<A> | ErrnoName,
    sending?: Crash["sending"]
  ): Result.Result<A, ErrnoName> {
    if (pid !== CLIENT) {
      this.#effects++
      this.#made.push(name)
      if (this.#crashes !== undefined) this.#mark(this.#crashes, pid, sending)
      if (this.#failure?.call === name) {
        const { errno } = this.#failure
        this.#failure = undefined
        return Result.fail(errno)
      }
    }
    const before = this.world.kernel
    const done = f(before)
    if (typeof done === "string") return Result.fail(done)
    this.world.kernel = tidy(before, done.kernel)
    if (!OWN.has(name) || isSeen(before, done.kernel)) this.#seen = true
    return Result.succeed(done.value)
  }

  /** Whether the party made a call of this name. */
  made(name: CallName): boolean {
    return this.#made.includes(name)
  }

  /** No fault is left that could hit this move: nobody asks for the calls that it makes. */
  get isSafe(): boolean {
    return this.world.faults === 0 && this.#crashes === undefined && this.#failure === undefined
  }

  /** What the kernel does by itself, or a fault to it. */
  happen(f: (kernel: Kernel) => Kernel): void {
    this.world.kernel = tidy(this.world.kernel, f(this.world.kernel))
  }

  /** A moment in which the caller may die, unless nothing that stays has happened since the last such moment. */
  #mark(crashes: Array<Crash>, pid: number, sending: Crash["sending"]): void {
    const { disk, promised } = this.world
    const last = this.#last
    const isNew = this.#seen || disk !== last.disk || promised !== last.promised
    if (!isNew && sending === undefined) return
    const world = { ...this.world }
    const log = this.log === undefined ? undefined : [...this.log]
    crashes.push({ effect: this.#effects, pid, world, log, sending, isNew })
    this.#last = world
    this.#seen = false
  }
}

/** What these change is the caller's own and goes with it, but for files. */
const OWN: ReadonlySet<CallName> = new Set([
  "open",
  "write",
  "fsync",
  "close",
  "stat",
  "environ",
  "recv",
  "socketpair",
  "look"
])

/** Whether the change of the files is one for those who come after: a name, the document, and what is durable of it. */
const isSeen = (before: Kernel, after: Kernel): boolean =>
  (before.files !== after.files || before.durable !== after.durable) &&
  (before.files.size !== after.files.size ||
    before.files.get(STATE_FILE) !== after.files.get(STATE_FILE) ||
    before.durable.get(STATE_FILE) !== after.durable.get(STATE_FILE))

/** The next names are the lowest: worlds in which the same is open meet, whatever was open before. */
const tidy = (before: Kernel, kernel: Kernel): Kernel => {
  if (kernel.descriptions === before.descriptions && kernel.files === before.files) return kernel
  let description = 0
  let inode = 10_000
  for (const [key, one] of kernel.descriptions) {
    if (key > description) description = key
    if (one._tag !== "File" && one.inode > inode) inode = one.inode
  }
  for (const node of kernel.files.values()) if (node._tag === "Socket" && node.inode > inode) inode = node.inode
  const { next } = kernel
  if (next.description === description + 1 && next.inode === inode + 1) return kernel
  return { ...kernel, next: { ...next, description: description + 1, inode: inode + 1 } }
}

export const breaks = (draft: Draft, property: string, detail: string): void => {
  draft.world.broken ??= { property, detail }
}

export const setSupervisor = (draft: Draft, change: Partial<Supervisor>): void => {
  draft.world.supervisor = { ...draft.world.supervisor, ...change }
}

export const processOf = ({ world }: Draft, pid: number): Process | undefined =>
  world.processes.find((one) => one.pid === pid)

export const setProcess = (draft: Draft, pid: number, change: Partial<Process>): void => {
  draft.world.processes = draft.world.processes.map((one) => (one.pid === pid ? { ...one, ...change } : one))
}

export const close = (draft: Draft, pid: number, fd: Fd): void => {
  if (fd >= 0) draft.call(pid, "close", (kernel) => SimulatedKernel.close(kernel, pid, fd))
}

/** Writes to a stream: false when the other end is closed. */
export const send = (draft: Draft, pid: number, fd: Fd, bytes: Uint8Array): boolean => {
  const sent = draft.call(pid, "send", (kernel) => SimulatedStreams.send(kernel, pid, fd, bytes), { fd, bytes })
  return Result.isSuccess(sent)
}

/** Reads from a stream, at most `limit` bytes; none at its end. */
export const receive = (draft: Draft, pid: number, fd: Fd, limit: number): Uint8Array => {
  const got = draft.call(pid, "recv", (kernel) => SimulatedStreams.receive(kernel, pid, fd, limit))
  return draft.machines.frames.intern(Result.getOrThrow(got))
}

export const setWrite = (draft: Draft, write: number, status: WriteStatus): void => {
  draft.world.writes = draft.world.writes.map((one, index) => (index === write ? status : one))
}

/** What a client is told: that its write is done, or that it is refused. */
export const ACKNOWLEDGED = Uint8Array.of(1)
export const REFUSED = Uint8Array.of(0)

/** Clients hear at once what there is for them to hear. */
export const settleClients = (draft: Draft): void => {
  const { world } = draft
  for (const [write, fd] of world.connections.entries()) {
    if (fd < 0) continue
    const stream = KernelView.stream(world.kernel, CLIENT, fd)
    if (stream === undefined || (stream.first === undefined && !stream.ended)) continue
    const [answer] = receive(draft, CLIENT, fd, 1)
    if (answer === undefined && world.writes[write] === "queued" && world.processes.length > 0) {
      breaks(draft, "4 the listener's queue lives", `write ${write} is refused in its queue, and processes live`)
    }
    setWrite(draft, write, answer === ACKNOWLEDGED[0] ? "acknowledged" : "failed")
    close(draft, CLIENT, fd)
    world.connections = world.connections.map((one, index) => (index === write ? -1 : one))
  }
}

export const addFacts = (draft: Draft, ...facts: ReadonlyArray<Fact>): void => {
  const all = [...draft.world.supervisor.facts, ...facts].sort((one, other) => one.generation - other.generation)
  setSupervisor(draft, { facts: all })
}

/** The process is gone, and with it everything it held; the supervisor will learn of it. */
export const endProcess = (draft: Draft, pid: number, status: ExitStatus = KILLED): void => {
  const process = processOf(draft, pid)
  if (process === undefined) return
  const { world } = draft
  draft.log?.push(`process ${pid} ends`)
  world.processes = world.processes.filter((one) => one.pid !== pid)
  draft.happen((kernel) => SimulatedKernel.end(kernel, pid, status))
  learnOfEnd(draft, pid)
}

export const KILLED: ExitStatus = { _tag: "Signaled", signal: "SIGKILL", coreDumped: false }
export const EXITED: ExitStatus = { _tag: "Exited", code: 0 }
export const FAILED: ExitStatus = { _tag: "Exited", code: 1 }

/** The supervisor reaps its child, or sees the end of the process that it has adopted. */
export const learnOfEnd = (draft: Draft, pid: number): void => {
  const { supervisor } = draft.world
  draft.happen((kernel) => SimulatedKernel.reap(kernel, pid))
  const generation = generationOf(pid)
  const known = supervisor.life !== "dead" && supervisor.machine.state.generations.some((one) => one.id === generation)
  if (known) addFacts(draft, { generation, what: "exited" }, { generation, what: "gone" })
}

/** The process is killed; a child that it started before it served lives on, in its group, and holds the listener. */
export const orphan = (draft: Draft, pid: number): void => {
  draft.happen((kernel) => {
    const leader = kernel.processes.get(pid)
    if (leader === undefined) return kernel
    const entries = new Map([...leader.table.entries].filter(([fd]) => fd === FIRST_INHERITED_FD))
    const table = { ...leader.table, entries }
    return SimulatedKernel.withProcess(kernel, { ...leader, pid: childOf(pid), parent: pid, ...BORN, table })
  })
  endProcess(draft, pid)
}

const BORN = { argv: ["child"], pending: [], stopped: false }

/** The argument vector of a process that is none of ours. */
export const STRANGER = "stranger"

export const isGeneration = ({ pid, group, argv }: SimulatedProcess): boolean =>
  pid > 100 && pid === group && argv[0] !== STRANGER

/** A fault has ended it, or made it useless: nobody is to blame for what it does not do any more. */
export const excuse = (draft: Draft, pid: number): void => {
  const { world } = draft
  if (!world.excused.includes(pid)) world.excused = [...world.excused, pid].sort((one, other) => one - other)
}

/** The supervisor is gone; what it had written is still read, what it had not is lost. */
export const endSupervisor = (draft: Draft): void => {
  const { world } = draft
  draft.log?.push("the supervisor ends")
  // Its disk was full, it said so (StateNotSaved), and now nobody knows what it had started.
  if (world.supervisor.unsaved) {
    const known = draft.machines.saved(world.kernel)?.generations ?? []
    for (const one of world.kernel.processes.values()) {
      const isOurs = isGeneration(one) || one.group !== one.pid
      if (isOurs && known.every(({ id }) => id !== generationOf(one.group))) world.lapsed = true
    }
  }
  draft.happen((kernel) => SimulatedKernel.end(kernel, SUPERVISOR, KILLED))
  setSupervisor(draft, {
    life: "dead",
    machine: draft.machines.nobody,
    timers: [],
    watches: [],
    looks: [],
    facts: [],
    sessions: [],
    probes: [],
    unsaved: false,
    listener: -1
  })
}

/**
 * Programs running on a simulated kernel, as one value: {@link Program}s become lives with actions that are still to come.
 *
 * What a program does about a signal is a disposition of its process, and what was sent to that waits in the kernel: a
 * test may change the kernel as it likes, the programs follow.
 *
 * Time is an argument, in milliseconds. {@link advance} carries out everything that is due, in order of time and then of
 * pid; {@link nextDue} says when to call it again. What leaves the machine is in `datagrams`, for the caller to take.
 */

import * as Result from "effect/Result"
import type { Address } from "../Address.ts"
import type { Notification } from "../backend/Notifications.ts"
import * as ListenEnvironment from "../ListenEnvironment.ts"
import * as Signal from "../Signal.ts"
import * as FileTree from "./FileTree.ts"
import type { Action, Program, Timed } from "./Program.ts"
import * as SimulatedFiles from "./SimulatedFiles.ts"
import type { Kernel } from "./SimulatedKernel.ts"
import * as SimulatedKernel from "./SimulatedKernel.ts"
import type { SimulatedProcess } from "./SimulatedProcess.ts"

/** What a process is doing. It is kept after the end, for its output. */
export interface Life {
  readonly program: Program
  readonly pending: ReadonlyArray<{ readonly at: number; readonly action: Action }>
  /** Inodes of the listeners it waits on. */
  readonly accepting: ReadonlyArray<number>
  /** Established connections by the listener's inode. */
  readonly connections: ReadonlyMap<number, number>
  /** Everything it wrote to any descriptor. */
  readonly output: string
}

export interface Datagram {
  readonly path: string
  readonly notification: Notification
}

export interface ProgramMachine {
  readonly kernel: Kernel
  readonly lives: ReadonlyMap<number, Life>
  /** Sent and not yet taken by the caller. */
  readonly datagrams: ReadonlyArray<Datagram>
}

export const make = (kernel: Kernel): ProgramMachine => ({ kernel, lives: new Map(), datagrams: [] })

const schedule = (actions: ReadonlyArray<Timed>, now: number): Life["pending"] =>
  actions.map(({ afterMs, action }) => ({ at: now + afterMs, action }))

const withLife = (machine: ProgramMachine, pid: number, change: Partial<Life>): ProgramMachine => {
  const life = machine.lives.get(pid)
  if (life === undefined) return machine
  return { ...machine, lives: SimulatedKernel.withEntry(machine.lives, pid, { ...life, ...change }) }
}

/** The kernel with a program's dispositions, on top of those that the process was started with. */
const withDispositions = (kernel: Kernel, pid: number, program: Program): Kernel => {
  let next = kernel
  for (const [text, handler] of Object.entries(program.signals)) {
    const name = Signal.parse(text)
    if (name === undefined) continue
    const done =
      handler === "ignore" ? SimulatedKernel.ignore(next, pid, name) : SimulatedKernel.handle(next, pid, name)
    if (typeof done !== "string") next = done.kernel
  }
  return next
}

/** The process begins to run a program. */
export const start = (machine: ProgramMachine, pid: number, program: Program, now: number): ProgramMachine => ({
  ...machine,
  kernel: withDispositions(machine.kernel, pid, program),
  lives: SimulatedKernel.withEntry(machine.lives, pid, {
    program,
    pending: schedule(program.actions, now),
    accepting: [],
    connections: new Map(),
    output: ""
  })
})

/** A process that has ended does nothing more. A simulated program that forks waits for its children. */
const bury = (machine: ProgramMachine, pid: number, life: Life): ProgramMachine => {
  const parent = machine.kernel.processes.get(pid)?.parent
  const kernel =
    parent !== undefined && machine.lives.has(parent) ? SimulatedKernel.reap(machine.kernel, pid) : machine.kernel
  if (life.pending.length + life.accepting.length + life.connections.size === 0) return { ...machine, kernel }
  return withLife({ ...machine, kernel }, pid, { pending: [], accepting: [], connections: new Map() })
}

/** A process does what it does about the signals that it has caught. */
const takeSignals = (machine: ProgramMachine, pid: number, life: Life, now: number): ProgramMachine => {
  const taken = SimulatedKernel.takeSignals(machine.kernel, pid)
  if (typeof taken === "string") return machine
  let next: ProgramMachine = { ...machine, kernel: taken.kernel }
  for (const name of taken.value) {
    const handler = life.program.signals[name]
    if (handler !== undefined && handler !== "ignore") next = withLife(next, pid, { pending: schedule(handler, now) })
  }
  return next
}

/** The programs learn what has become of their processes: who has ended, who has been sent a signal. */
const follow = (machine: ProgramMachine, now: number): ProgramMachine => {
  let next = machine
  for (const [pid, life] of machine.lives) {
    const running = SimulatedKernel.alive(next.kernel, pid) !== undefined
    next = running ? takeSignals(next, pid, life, now) : bury(next, pid, life)
  }
  return next
}

/** Inodes of the listeners that a process was given by LISTEN_FDS. */
const inherited = (kernel: Kernel, one: SimulatedProcess): ReadonlyArray<number> => {
  const offered = ListenEnvironment.read(one.environment, one.pid)
  if (Result.isFailure(offered)) return []
  return offered.success.listeners.flatMap(({ fd }) => {
    const description = SimulatedKernel.describe(kernel, one.pid, fd)
    return description?._tag === "Listener" ? [description.inode] : []
  })
}

const notify = (
  machine: ProgramMachine,
  one: SimulatedProcess,
  fields: Readonly<Record<string, string>>
): ProgramMachine => {
  const path = one.environment.NOTIFY_SOCKET
  if (path === undefined) return machine
  const node = FileTree.lookUp(machine.kernel.files, path, one.identity, 2)
  if (typeof node === "string" || node._tag !== "Socket") return machine
  const bound = [...machine.kernel.descriptions.values()].some(
    (description) => description._tag === "Datagram" && description.inode === node.inode
  )
  const notification = { pid: one.pid, uid: one.identity.uid, fields }
  return bound ? { ...machine, datagrams: [...machine.datagrams, { path, notification }] } : machine
}

const write = (machine: ProgramMachine, one: SimulatedProcess, fd: number, text: string): ProgramMachine => {
  const output = (machine.lives.get(one.pid)?.output ?? "") + text
  const next = withLife(machine, one.pid, { output })
  const written = SimulatedFiles.write(next.kernel, one.pid, fd, text)
  return typeof written === "string" ? next : { ...next, kernel: written.kernel }
}

const fork = (machine: ProgramMachine, one: SimulatedProcess, program: Program, now: number): ProgramMachine => {
  const pid = machine.kernel.next.pid
  // It runs a program of its own: exec(2) keeps what is ignored, and no handlers.
  const signals = { ...one.signals, caught: [] }
  const child = { ...one, pid, parent: one.pid, parentDeathSignal: undefined, startTime: now, pending: [], signals }
  const kernel = { ...machine.kernel, next: { ...machine.kernel.next, pid: pid + 1 } }
  return start({ ...machine, kernel: SimulatedKernel.withProcess(kernel, child) }, pid, program, now)
}

const act = (machine: ProgramMachine, one: SimulatedProcess, action: Action, now: number): ProgramMachine => {
  switch (action._tag) {
    case "Write":
      return write(machine, one, action.fd ?? 2, action.text)
    case "Notify":
      return notify(machine, one, action.fields)
    case "Accept":
      return takeQueued(withLife(machine, one.pid, { accepting: inherited(machine.kernel, one) }))
    case "StopAccepting":
      return withLife(machine, one.pid, { accepting: [] })
    case "Fork":
      return fork(machine, one, action.program, now)
    case "Exit":
      return { ...machine, kernel: SimulatedKernel.end(machine.kernel, one.pid, { _tag: "Exited", code: action.code }) }
  }
}

const earliest = (
  machine: ProgramMachine
): { readonly pid: number; readonly at: number; readonly index: number } | undefined => {
  let found: { readonly pid: number; readonly at: number; readonly index: number } | undefined
  for (const [pid, life] of machine.lives) {
    if (life.pending.length === 0 || machine.kernel.processes.get(pid)?.stopped === true) continue
    for (const [index, { at }] of life.pending.entries())
      if (found === undefined || at < found.at) found = { pid, at, index }
  }
  return found
}

/** When something is due next, in milliseconds; undefined for never. */
export const nextDue = (machine: ProgramMachine): number | undefined => earliest(machine)?.at

/** Carries out everything that is due at `now`, beginning with what the kernel was told meanwhile. */
export const advance = (machine: ProgramMachine, now: number): ProgramMachine => {
  let next = follow(machine, now)
  for (let due = earliest(next); due !== undefined && due.at <= now; due = earliest(next)) {
    const { pid, at, index } = due
    const life = next.lives.get(pid)
    const one = SimulatedKernel.alive(next.kernel, pid)
    const pending = life?.pending ?? []
    const action = pending[index]?.action
    next = withLife(next, pid, { pending: one === undefined ? [] : pending.filter((_, other) => other !== index) })
    if (one !== undefined && action !== undefined) next = follow(act(next, one, action, at), at)
  }
  return next
}

/** Accepting processes take what waits in the queues of their listeners, the lowest pid first. */
const takeQueued = (machine: ProgramMachine): ProgramMachine => {
  let next = machine
  for (const [key, description] of machine.kernel.descriptions) {
    if (description._tag !== "Listener" || description.queued === 0) continue
    const taker = [...next.lives].find(
      ([pid, life]) => life.accepting.includes(description.inode) && next.kernel.processes.get(pid)?.stopped === false
    )
    if (taker === undefined) continue
    const [pid, life] = taker
    const count = (life.connections.get(description.inode) ?? 0) + description.queued
    next = withLife(next, pid, {
      connections: SimulatedKernel.withEntry(life.connections, description.inode, count)
    })
    const descriptions = SimulatedKernel.withEntry(next.kernel.descriptions, key, { ...description, queued: 0 })
    next = { ...next, kernel: { ...next.kernel, descriptions } }
  }
  return next
}

/** What a client sees of its connect(2). `"dropped"`: the queue is full, the client's SYN stays without an answer. */
export type Connected = "accepted" | "queued" | "refused" | "dropped"

/** A client connects to an address. */
export const connect = (
  machine: ProgramMachine,
  address: Address
): { readonly machine: ProgramMachine; readonly value: Connected } => {
  const key = SimulatedKernel.listenerAt(machine.kernel, address)
  const listener = key === undefined ? undefined : machine.kernel.descriptions.get(key)
  if (key === undefined || listener?._tag !== "Listener") return { machine, value: "refused" }
  const queued = { ...listener, queued: listener.queued + 1 }
  const descriptions = SimulatedKernel.withEntry(machine.kernel.descriptions, key, queued)
  const next = takeQueued({ ...machine, kernel: { ...machine.kernel, descriptions } })
  const after = next.kernel.descriptions.get(key)
  if (after?._tag === "Listener" && after.queued === 0) return { machine: next, value: "accepted" }
  // Linux takes one more than the backlog says.
  return listener.queued > listener.backlog ? { machine, value: "dropped" } : { machine: next, value: "queued" }
}

/** Sets how many connections a process holds that came in through the listener with this inode. */
export const setConnections = (machine: ProgramMachine, pid: number, inode: number, count: number): ProgramMachine =>
  withLife(machine, pid, {
    connections: SimulatedKernel.withEntry(
      machine.lives.get(pid)?.connections ?? new Map<number, number>(),
      inode,
      count === 0 ? undefined : count
    )
  })

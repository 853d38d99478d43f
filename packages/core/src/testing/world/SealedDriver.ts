/**
 * Carries the commands of a daemon that owns data out in a world, as the daemon library does: one event after the other,
 * its commands in order; a command that is carried out at once reports its fact from within, and that fact waits until the
 * commands of the present step are done.
 *
 * A process begins cold (lock, open, publish, accept) or as a successor, and is an incumbent from then on. It hears one
 * supervisor at a time, and the next one only while it serves.
 */
import type * as Incumbent from "../../protocol/Incumbent.ts"
import type { Message } from "../../protocol/Message.ts"
import type * as Successor from "../../protocol/Successor.ts"
import {
  breaks,
  closeProcessEnd,
  type Draft,
  endProcess,
  excuse,
  processOf,
  sendToSupervisor,
  setProcess,
  setStream,
  setSupervisor,
  setWrite
} from "./Draft.ts"
import type { Settings } from "./Settings.ts"
import { generationOf, type Hook, type Process } from "./State.ts"
import { listenerAt } from "./SupervisorDriver.ts"
import * as Timers from "./Timers.ts"

const FINGERPRINT = new Uint8Array(32)

type Body<Event> = Event extends unknown ? Omit<Event, "at"> : never
type Queued = { readonly name: string; readonly event: Body<Incumbent.Event> | Body<Successor.Event> }

/** One event for the process's machine, and every fact that its commands report at once. */
export const feed = (draft: Draft, pid: number, name: string, event: Queued["event"], failing = false): void => {
  const queue: Array<Queued> = [{ name, event }]
  for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
    const process = processOf(draft, pid)
    if (process === undefined) return
    const timed = { ...next.event, at: 0 }
    if (process.incumbent !== undefined) {
      const outcome = draft.machines.incumbent.step(process.incumbent, next.name, timed as Incumbent.Event)
      setProcess(draft, pid, { incumbent: outcome.node })
      for (const command of draft.settings.policies.order(outcome.commands)) {
        if (!incumbentCommand(draft, pid, command as Incumbent.Command, queue)) return
      }
    } else if (process.successor !== undefined) {
      const outcome = draft.machines.successor.step(process.successor, next.name, timed as Successor.Event)
      setProcess(draft, pid, { successor: outcome.node })
      for (const command of draft.settings.policies.order(outcome.commands)) {
        if (!successorCommand(draft, pid, command as Successor.Command, queue, failing)) return
      }
    }
  }
  become(draft, pid)
}

/** Once it serves and accepts, a successor is an incumbent like any other. */
const become = (draft: Draft, pid: number): void => {
  const process = processOf(draft, pid)
  if (process?.successor?.state.phase !== "serving" || !process.accepting) return
  setProcess(draft, pid, {
    role: "incumbent",
    successor: undefined,
    incumbent: draft.machines.incumbentOf(pid),
    timers: []
  })
  closeProcessEnd(draft, pid)
}

const note = (draft: Draft, command: { readonly _tag: string; readonly message?: Message }): void => {
  if (command._tag === "SetTimer" || command._tag === "ClearTimer") return
  draft.log?.push(command._tag === "Send" ? `send ${command.message?._tag}` : command._tag)
}

const hook = (draft: Draft, pid: number, name: Hook): void => {
  const process = processOf(draft, pid)
  if (process !== undefined) setProcess(draft, pid, { hooks: [...process.hooks, name] })
}

/** The process dies of its fuse. */
const blown = (draft: Draft, pid: number): boolean => {
  if (draft.lives()) return false
  excuse(draft, pid)
  endProcess(draft, pid)
  return true
}

const setTimer = (draft: Draft, pid: number, timer: string): void => {
  const process = processOf(draft, pid)
  if (process !== undefined) setProcess(draft, pid, { timers: Timers.set(process.timers, timer) })
}

const clearTimer = (draft: Draft, pid: number, timer: string): void => {
  const process = processOf(draft, pid)
  if (process !== undefined) setProcess(draft, pid, { timers: Timers.clear(process.timers, timer) })
}

export const acquire = (draft: Draft, pid: number): boolean => {
  const { world } = draft
  if (world.lock !== 0 && world.lock !== pid) return false
  world.lock = pid
  setProcess(draft, pid, { locked: true })
  return true
}

export const release = (draft: Draft, pid: number): void => {
  const process = processOf(draft, pid)
  if (process === undefined) return
  if (process.open) breaks(draft, "2 released only after the seal", `process ${pid} releases the lock of an open state`)
  if (draft.world.lock === pid) draft.world.lock = 0
  setProcess(draft, pid, { locked: false })
}

/** False: it is dead. */
const incumbentCommand = (draft: Draft, pid: number, command: Incumbent.Command, queue: Array<Queued>): boolean => {
  note(draft, command)
  const { daemon } = draft.settings
  switch (command._tag) {
    case "Send":
      if (blown(draft, pid)) return false
      sendToSupervisor(draft, pid, command.message)
      return true
    case "CloseSession":
      closeProcessEnd(draft, pid)
      return true
    case "Drain": {
      const memory = daemon.drain(processOf(draft, pid)?.memory)
      setProcess(draft, pid, { accepting: false, memory, cancelled: false })
      hook(draft, pid, "drain")
      return true
    }
    case "CancelDrain":
      setProcess(draft, pid, { cancelled: true })
      return true
    case "Seal":
      hook(draft, pid, "seal")
      return true
    case "ReleaseLock":
      if (blown(draft, pid)) return false
      release(draft, pid)
      queue.push({ name: "LR", event: { _tag: "LockReleased" } })
      return true
    case "AcquireLock":
      queue.push(
        acquire(draft, pid)
          ? { name: "LA", event: { _tag: "LockAcquired" } }
          : { name: "LH", event: { _tag: "LockHeld" } }
      )
      return true
    case "ProbePath": {
      const answering = listenerAt(draft)
      queue.push({ name: `P${answering}`, event: { _tag: "PathAnswered", pid: answering } })
      return true
    }
    case "Resume":
      hook(draft, pid, "resume")
      return true
    case "Exit": {
      if (blown(draft, pid)) return false
      if (command.why !== "resume-failed") leave(draft, pid)
      excuse(draft, pid)
      const process = processOf(draft, pid)
      if (process !== undefined && !draft.settings.policies.removesOwnPathOnly) draft.world.path = 0
      if (process !== undefined) endProcess(draft, pid)
      return false
    }
    case "SetTimer":
      setTimer(draft, pid, command.timer)
      return true
    case "ClearTimer":
      clearTimer(draft, pid, command.timer)
      return true
  }
}

/** Whoever leaves for another to serve must leave somebody who does, or is about to, unless a fault has just hit it. */
const leave = (draft: Draft, pid: number): void => {
  const { world } = draft
  if (world.lock !== 0 && world.lock !== pid && processOf(draft, world.lock)?.open === true) return
  // It hears late of a swap that is done, perhaps while the next one runs.
  if (world.promised > (processOf(draft, pid)?.version ?? 0)) return
  if (world.processes.some((one) => one.pid !== pid && one.role === "incumbent")) return
  if (world.excused.some((one) => one !== pid)) return
  breaks(draft, "6 the incumbent serves on", `process ${pid} leaves, and nobody else has the data open`)
}

const successorCommand = (
  draft: Draft,
  pid: number,
  command: Successor.Command,
  queue: Array<Queued>,
  failing: boolean
): boolean => {
  note(draft, command)
  switch (command._tag) {
    case "Send":
      if (blown(draft, pid)) return false
      sendToSupervisor(draft, pid, command.message)
      return true
    case "CloseChannel":
      closeProcessEnd(draft, pid)
      return true
    case "TakeListeners":
      hook(draft, pid, "take listeners")
      return true
    case "AcquireLock":
      queue.push(
        acquire(draft, pid)
          ? { name: "LA", event: { _tag: "LockAcquired" } }
          : { name: "LH", event: { _tag: "LockHeld" } }
      )
      return true
    case "ReleaseLock":
      if (blown(draft, pid)) return false
      release(draft, pid)
      return true
    case "Open":
      hook(draft, pid, "open")
      return true
    case "CancelOpen":
      setProcess(draft, pid, { cancelled: true })
      return true
    case "Close":
      hook(draft, pid, "close")
      return true
    case "PrepareSocket":
      hook(draft, pid, "prepare socket")
      return true
    case "RemoveSocket":
      hook(draft, pid, "remove socket")
      return true
    case "Publish":
      if (failing) queue.push({ name: "PF", event: { _tag: "PublishFailed" } })
      else {
        if (blown(draft, pid)) return false
        draft.world.path = pid
        setProcess(draft, pid, { socket: "published" })
        queue.push({ name: "PD", event: { _tag: "Published" } })
      }
      return true
    case "Accept":
      hook(draft, pid, "accept")
      return true
    case "Exit":
      if (blown(draft, pid)) return false
      endProcess(draft, pid)
      return false
    case "SetTimer":
      setTimer(draft, pid, command.timer)
      return true
    case "ClearTimer":
      clearTimer(draft, pid, command.timer)
      return true
  }
}

/** What is in the way of a hook's end. */
export const mayEnd = (process: Process, name: Hook, daemon: Settings["daemon"]): boolean =>
  name !== "drain" || process.cancelled || daemon.isDrained(process.memory)

const next = (draft: Draft, pid: number): void => {
  const process = processOf(draft, pid)
  if (process !== undefined) setProcess(draft, pid, { hooks: process.hooks.slice(1) })
}

const writeDisk = (draft: Draft, process: Process, disk: unknown): void => {
  if (draft.machines.numbers.of(disk) === draft.machines.numbers.of(draft.world.disk)) return
  if (draft.world.lock !== process.pid) {
    breaks(draft, "5 only the lock's holder writes", `process ${process.pid} writes without the lock`)
  }
  draft.world.disk = disk
}

/** Requests that were never answered belonged to the state that was closed, and fail. */
const openState = (draft: Draft, pid: number): void => {
  for (const write of processOf(draft, pid)?.requests ?? []) setWrite(draft, write, "failed")
  setProcess(draft, pid, { memory: draft.settings.daemon.open(draft.world.disk), open: true, requests: [] })
  if (draft.world.lock !== pid) breaks(draft, "1 one holder of the data", `process ${pid} opens without the lock`)
}

const seal = (draft: Draft, process: Process): void => {
  const sealed = draft.settings.daemon.seal(process.memory, draft.world.disk)
  writeDisk(draft, process, sealed.disk)
  setProcess(draft, process.pid, { memory: sealed.memory, open: false })
}

/** How the first hook of a process ends. */
export type End = "well" | "failed" | "unhealthy" | "behind"

export const endHook = (draft: Draft, pid: number, end: End): void => {
  const process = processOf(draft, pid)
  const [name] = process?.hooks ?? []
  if (process === undefined || name === undefined) return
  next(draft, pid)
  if (end === "failed" || end === "unhealthy") excuseFailure(draft, pid, name)
  switch (name) {
    case "start":
      return feed(draft, pid, "start", { _tag: "Started" })
    case "lock":
      return acquire(draft, pid) ? undefined : endProcess(draft, pid)
    case "open":
      return opened(draft, process, end)
    case "take listeners":
      return end === "failed"
        ? feed(draft, pid, "TF", { _tag: "ListenersFailed" })
        : feed(draft, pid, "TL", { _tag: "ListenersTaken" })
    case "prepare socket":
      if (end === "failed") return feed(draft, pid, "SF", { _tag: "SocketFailed" })
      // Whoever prepares one removes what others have left.
      draft.world.litter = 0
      setProcess(draft, pid, { socket: "temporary" })
      return feed(draft, pid, "SP", { _tag: "SocketPrepared" })
    case "remove socket":
      return setProcess(draft, pid, { socket: "none" })
    case "close":
      seal(draft, process)
      return feed(draft, pid, "CL", { _tag: "Closed" })
    case "accept":
      setProcess(draft, pid, { accepting: true })
      return become(draft, pid)
    case "drain": {
      if (end === "failed") return feed(draft, pid, "DF", { _tag: "DrainFailed" })
      const left = process.requests.length
      return feed(draft, pid, `DR${left}`, { _tag: "Drained", openConnections: left, acceptClosed: true })
    }
    case "seal": {
      if (end === "failed") return feed(draft, pid, "XS", { _tag: "SealFailed", error: "EIO", partialState: "" })
      seal(draft, process)
      const revisions = [revisionOf(draft)]
      return feed(draft, pid, `SE${revisions[0]}`, { _tag: "Sealed", revisions, fingerprint: FINGERPRINT })
    }
    case "resume":
      if (end === "failed") return feed(draft, pid, "RF", { _tag: "ResumeFailed" })
      // From disk after a seal, never from memory; a state that was not sealed is open still.
      if (process.open) setProcess(draft, pid, { memory: draft.settings.daemon.resume(process.memory) })
      else openState(draft, pid)
      if (draft.settings.policies.reclaimsPath) draft.world.path = pid
      draft.world.litter = 0
      setProcess(draft, pid, { accepting: true })
      return feed(draft, pid, "RE", { _tag: "Resumed" })
  }
}

/** A process whose own hook failed may end by that. */
const excuseFailure = (draft: Draft, pid: number, name: Hook): void => {
  if (name === "resume" || name === "open") excuse(draft, pid)
}

export const revisionOf = (draft: Draft): bigint => {
  const { daemon, writes } = draft.settings
  let revision = 0n
  for (let write = 0; write < writes; write++) if (daemon.has(draft.world.disk, write)) revision++
  return revision
}

const opened = (draft: Draft, process: Process, end: End): void => {
  const { pid } = process
  if (process.role === "cold") {
    if (end === "failed") return endProcess(draft, pid)
    openState(draft, pid)
    draft.world.litter = 0
    if (draft.lives() === false) {
      excuse(draft, pid)
      return endProcess(draft, pid)
    }
    draft.world.path = pid
    setProcess(draft, pid, {
      role: "incumbent",
      incumbent: draft.machines.incumbentOf(pid),
      accepting: true,
      socket: "published"
    })
    return notify(draft, pid)
  }
  if (end === "failed") return feed(draft, pid, "OF", { _tag: "OpenFailed" })
  openState(draft, pid)
  const healthy = end !== "unhealthy"
  const revisions = [revisionOf(draft) - (end === "behind" ? 1n : 0n)]
  feed(draft, pid, `OP${healthy}${revisions[0]}`, { _tag: "Opened", listeningOn: [], healthy, revisions })
}

/** READY=1: a datagram to the generation's socket, lost when there is no supervisor. */
export const notify = (draft: Draft, pid: number): void => {
  const { supervisor } = draft.world
  if (supervisor.life === "dead" || supervisor.life === "recovering") return
  const facts = [...supervisor.facts, { generation: generationOf(pid), what: "notified" as const }]
  setSupervisor(draft, { facts: facts.sort((one, other) => one.generation - other.generation) })
}

/** The next bytes of the stream that it speaks on. */
export const read = (draft: Draft, pid: number, failing = false): void => {
  const stream = draft.world.streams.find((one) => one.pid === pid && one.taken && !one.processClosed)
  if (stream === undefined) return
  const [message, ...rest] = stream.toProcess
  if (message === undefined) {
    closeProcessEnd(draft, pid)
    return feed(draft, pid, "gone", { _tag: "Disconnected" }, failing)
  }
  setStream(draft, stream.id, { toProcess: rest })
  feed(draft, pid, `R${draft.machines.numbers.of(message)}`, { _tag: "Received", message })
}

/** Takes the next supervisor out of the queue of its handoff socket. */
export const take = (draft: Draft, pid: number): void => {
  const stream = draft.world.streams.find((one) => one.pid === pid && !one.taken)
  if (stream === undefined) return
  setStream(draft, stream.id, { taken: true })
  feed(draft, pid, "connected", { _tag: "Connected" })
}

export const fire = (draft: Draft, pid: number, timer: string, failing = false): void => {
  clearTimer(draft, pid, timer)
  // It takes the supervisor's silence for the word. A supervisor that is only slow does not know, and may give up a
  // successor that serves, when the incumbent has left to it.
  if (timer === "word") for (const one of draft.world.processes) excuse(draft, one.pid)
  feed(draft, pid, `T${timer}`, { _tag: "TimerFired", timer } as Queued["event"], failing)
}

/** It hears SIGTERM: what is under way is ended first, then it stops as any daemon does. */
export const hearStop = (draft: Draft, pid: number): void => {
  const process = processOf(draft, pid)
  if (process === undefined) return
  setProcess(draft, pid, { signalled: false, stopping: true })
  if (process.role === "cold") {
    setProcess(draft, pid, { open: false })
    return endProcess(draft, pid)
  }
  const phase = process.successor?.state.phase
  if (phase !== undefined && !["announced", "publishing", "serving", "exiting"].includes(phase)) {
    closeProcessEnd(draft, pid)
    feed(draft, pid, "gone", { _tag: "Disconnected" })
  }
}

/** A handoff that only began is sent away; one that lasts too long, too. */
export const dismiss = (draft: Draft, pid: number): void => {
  closeProcessEnd(draft, pid)
  feed(draft, pid, "gone", { _tag: "Disconnected" })
}

/** Nothing is under way: drains, closes, gives everything back, ends. */
export const stop = (draft: Draft, pid: number): void => {
  const process = processOf(draft, pid)
  if (process === undefined) return
  if (process.open) seal(draft, process)
  release(draft, pid)
  const { world } = draft
  if (world.path === pid || !draft.settings.policies.removesOwnPathOnly) world.path = 0
  endProcess(draft, pid)
}

/** One of the things that the daemon may do by itself. */
export const work = (draft: Draft, pid: number, choice: number): void => {
  const process = processOf(draft, pid)
  if (process === undefined) return
  const done = draft.settings.daemon.work(process.memory, draft.world.disk)[choice]
  if (done === undefined) return
  writeDisk(draft, process, done.disk)
  setProcess(draft, pid, { memory: done.memory })
  for (const [write, status] of [
    [done.acknowledges, "acknowledged"],
    [done.refuses, "failed"]
  ] as const) {
    if (write === undefined || !process.requests.includes(write)) continue
    setWrite(draft, write, status)
    setProcess(draft, pid, { requests: process.requests.filter((one) => one !== write) })
  }
}

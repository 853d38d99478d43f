/**
 * Carries the commands of a daemon that owns data out in a world, as the daemon library does: one event after the other,
 * its commands in order; a command that is carried out at once reports its fact from within, and that fact waits until the
 * commands of the present step are done.
 *
 * A process begins cold (lock, open, publish, accept) or as a successor, and is an incumbent from then on. It hears one
 * supervisor at a time, and the next one only while it serves.
 */
import * as Result from "effect/Result"
import { type Fd, FIRST_INHERITED_FD } from "../../Fd.ts"
import type * as Incumbent from "../../protocol/Incumbent.ts"
import type { Message } from "../../protocol/Message.ts"
import type * as Successor from "../../protocol/Successor.ts"
import * as SimulatedFiles from "../SimulatedFiles.ts"
import * as SimulatedKernel from "../SimulatedKernel.ts"
import * as SimulatedStreams from "../SimulatedStreams.ts"
import {
  ACKNOWLEDGED,
  addFacts,
  breaks,
  close,
  type Draft,
  EXITED,
  endProcess,
  excuse,
  FAILED,
  processOf,
  REFUSED,
  receive,
  send,
  setProcess,
  setWrite
} from "./Draft.ts"
import { NOTHING } from "./Frames.ts"
import * as KernelView from "./KernelView.ts"
import { HANDOFF_SOCKET, LOCK_FILE } from "./Layout.ts"
import type { Settings } from "./Settings.ts"
import { generationOf, type Hook, type Process, type Request } from "./State.ts"
import { listenerAt } from "./SupervisorDriver.ts"
import * as Timers from "./Timers.ts"

const FINGERPRINT = new Uint8Array(32)

type Body<Event> = Event extends unknown ? Omit<Event, "at"> : never
type Queued = { readonly name: string; readonly event: Body<Incumbent.Event> | Body<Successor.Event> }

/** One event for the process's machine, and every fact that its commands report at once. */
export const feed = (draft: Draft, pid: number, name: string, event: Queued["event"]): void => {
  const queue: Array<Queued> = [{ name, event }]
  for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
    const process = processOf(draft, pid)
    if (process === undefined) return
    const timed = { ...next.event, at: 0 }
    if (process.incumbent !== undefined) {
      const outcome = draft.machines.incumbent.step(process.incumbent, next.name, timed as Incumbent.Event)
      setProcess(draft, pid, { incumbent: outcome.node })
      for (const command of draft.settings.policies.order(outcome.commands)) {
        incumbentCommand(draft, pid, command as Incumbent.Command, queue)
      }
    } else if (process.successor !== undefined) {
      const outcome = draft.machines.successor.step(process.successor, next.name, timed as Successor.Event)
      setProcess(draft, pid, { successor: outcome.node })
      for (const command of draft.settings.policies.order(outcome.commands)) {
        successorCommand(draft, pid, command as Successor.Command, queue)
      }
    }
  }
  become(draft, pid)
}

/** Once it serves and accepts, a successor is an incumbent like any other. */
const become = (draft: Draft, pid: number): void => {
  const process = processOf(draft, pid)
  if (process?.successor?.state.phase !== "serving" || !process.accepting) return
  hangUp(draft, pid)
  setProcess(draft, pid, {
    role: "incumbent",
    successor: undefined,
    incumbent: draft.machines.incumbentOf(pid),
    timers: []
  })
  if (!process.stopping) notify(draft, pid)
}

const note = (draft: Draft, command: { readonly _tag: string; readonly message?: Message }): void => {
  if (command._tag === "SetTimer" || command._tag === "ClearTimer") return
  draft.log?.push(command._tag === "Send" ? `send ${command.message?._tag}` : command._tag)
}

const hook = (draft: Draft, pid: number, name: Hook): void => {
  const process = processOf(draft, pid)
  if (process !== undefined) setProcess(draft, pid, { hooks: [...process.hooks, name] })
}

/** Closes the stream that it speaks on. */
const hangUp = (draft: Draft, pid: number): void => {
  const process = processOf(draft, pid)
  if (process === undefined || process.session < 0) return
  close(draft, pid, process.session)
  setProcess(draft, pid, { session: -1, partial: NOTHING })
}

/** A write that finds the other end closed ends the session, and what was not read of it is lost. */
const say = (draft: Draft, pid: number, message: Message, version: number, queue: Array<Queued>): void => {
  const process = processOf(draft, pid)
  if (process === undefined || process.session < 0) return
  if (send(draft, pid, process.session, draft.machines.frames.encode(message, version))) return
  hangUp(draft, pid)
  queue.push({ name: "gone", event: { _tag: "Disconnected" } })
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
  const opened = draft.call(pid, "open", (kernel) => SimulatedKernel.open(kernel, pid, LOCK_FILE, "append"))
  if (Result.isFailure(opened)) return false
  const lock = opened.success
  const locked = draft.call(pid, "flock", (kernel) => SimulatedKernel.lock(kernel, pid, lock))
  if (Result.isFailure(locked)) close(draft, pid, lock)
  else setProcess(draft, pid, { lock })
  return Result.isSuccess(locked)
}

export const release = (draft: Draft, pid: number): void => {
  const process = processOf(draft, pid)
  if (process === undefined || process.lock < 0) return
  const { lock, open } = process
  if (open) breaks(draft, "2 released only after the seal", `process ${pid} releases the lock of an open state`)
  draft.call(pid, "unlock", (kernel) => SimulatedKernel.unlock(kernel, pid, lock))
  close(draft, pid, lock)
  setProcess(draft, pid, { lock: -1 })
}

const holdsLock = ({ world }: Draft, pid: number): boolean => KernelView.lockHolder(world.kernel) === pid

const temporaryName = (pid: number): string => `${HANDOFF_SOCKET}.~${pid}`

/** Sockets under temporary names that nobody listens on. */
const removeDead = (draft: Draft, pid: number): void => {
  if (!KernelView.hasLitter(draft.world.kernel)) return
  draft.call(pid, "unlink", (kernel) => {
    const alive = new Set<number>()
    for (const one of kernel.descriptions.values()) if (one._tag === "Listener") alive.add(one.inode)
    let next = kernel
    for (const [path, node] of kernel.files) {
      if (!path.startsWith(`${HANDOFF_SOCKET}.`) || node._tag !== "Socket" || alive.has(node.inode)) continue
      const unlinked = SimulatedFiles.unlink(next, pid, path)
      if (typeof unlinked !== "string") next = unlinked.kernel
    }
    return { kernel: next, value: undefined }
  })
}

/** A socket that listens under a temporary name. */
const prepareSocket = (draft: Draft, pid: number): Result.Result<Fd, unknown> => {
  removeDead(draft, pid)
  const address = { _tag: "Unix", path: temporaryName(pid) } as const
  return draft.call(pid, "bind", (kernel) =>
    SimulatedKernel.listen(kernel, pid, { address, backlog: 64, nonBlocking: true, mode: 0o600 })
  )
}

const removeSocket = (draft: Draft, pid: number, socket: Fd): void => {
  draft.call(pid, "unlink", (kernel) => SimulatedFiles.unlink(kernel, pid, temporaryName(pid)))
  close(draft, pid, socket)
}

/** Renames it over the path, whoever was there. */
const publish = (draft: Draft, pid: number): boolean =>
  Result.isSuccess(
    draft.call(pid, "rename", (kernel) => SimulatedFiles.rename(kernel, pid, temporaryName(pid), HANDOFF_SOCKET))
  )

/** Whether the path leads to this process's socket. */
const ownsPath = (draft: Draft, pid: number): boolean => KernelView.pathListener(draft.world.kernel) === pid

const removePath = (draft: Draft, pid: number): void => {
  draft.call(pid, "unlink", (kernel) => SimulatedFiles.unlink(kernel, pid, HANDOFF_SOCKET))
}

/** After a successor that is gone, with the lock held: the path leads here again, or it is tried once more later. */
export const reclaim = (draft: Draft, pid: number): void => {
  clearTimer(draft, pid, "reclaim")
  removeDead(draft, pid)
  const process = processOf(draft, pid)
  const { reclaimsPath } = draft.settings.policies
  if (process === undefined || reclaimsPath === "never" || ownsPath(draft, pid)) return
  const fresh = prepareSocket(draft, pid)
  if (Result.isSuccess(fresh) && publish(draft, pid)) {
    close(draft, pid, process.socket)
    return setProcess(draft, pid, { socket: fresh.success })
  }
  if (Result.isSuccess(fresh)) removeSocket(draft, pid, fresh.success)
  if (reclaimsPath === "until it succeeds") setTimer(draft, pid, "reclaim")
}

const tryLock = (draft: Draft, pid: number, queue: Array<Queued>): void => {
  const acquired = acquire(draft, pid)
  queue.push(acquired ? { name: "LA", event: { _tag: "LockAcquired" } } : { name: "LH", event: { _tag: "LockHeld" } })
}

const incumbentCommand = (draft: Draft, pid: number, command: Incumbent.Command, queue: Array<Queued>): void => {
  const process = processOf(draft, pid)
  if (process === undefined) return
  note(draft, command)
  const { daemon, policies } = draft.settings
  switch (command._tag) {
    case "Send":
      return say(draft, pid, command.message, command.version, queue)
    case "CloseSession":
      return hangUp(draft, pid)
    case "Drain":
      setProcess(draft, pid, { accepting: false, memory: daemon.drain(process.memory), cancelled: false })
      return hook(draft, pid, "drain")
    case "CancelDrain":
      return setProcess(draft, pid, { cancelled: true })
    case "Seal":
      return hook(draft, pid, "seal")
    case "ReleaseLock":
      release(draft, pid)
      queue.push({ name: "LR", event: { _tag: "LockReleased" } })
      return
    case "AcquireLock":
      return tryLock(draft, pid, queue)
    case "ProbePath": {
      const answering = listenerAt(draft.world)
      queue.push({ name: `P${answering}`, event: { _tag: "PathAnswered", pid: answering } })
      return
    }
    case "Resume":
      return hook(draft, pid, "resume")
    case "Exit":
      if (command.why !== "resume-failed") leave(draft, pid)
      excuse(draft, pid)
      if (!policies.removesOwnPathOnly) removePath(draft, pid)
      // The kernel takes the lock back with the process, and not before: the state may be open.
      return endProcess(draft, pid, EXITED)
    case "SetTimer":
      return setTimer(draft, pid, command.timer)
    case "ClearTimer":
      return clearTimer(draft, pid, command.timer)
  }
}

/** Whoever leaves for another to serve must leave somebody who does, or is about to, unless a fault has just hit it. */
const leave = (draft: Draft, pid: number): void => {
  const { world } = draft
  const lockHolder = KernelView.lockHolder(world.kernel)
  if (lockHolder !== 0 && lockHolder !== pid && processOf(draft, lockHolder)?.open === true) return
  // It hears late of a swap that is done, perhaps while the next one runs.
  if (world.promised > (processOf(draft, pid)?.version ?? 0)) return
  if (world.processes.some((one) => one.pid !== pid && one.role === "incumbent")) return
  if (world.excused.some((one) => one !== pid)) return
  // Everybody was asked to go, whether or not the supervisor lived to see it.
  if (world.stops < draft.settings.stops) return
  breaks(draft, "6 the incumbent serves on", `process ${pid} leaves, and nobody else has the data open`)
}

const successorCommand = (draft: Draft, pid: number, command: Successor.Command, queue: Array<Queued>): void => {
  if (processOf(draft, pid) === undefined) return
  note(draft, command)
  switch (command._tag) {
    case "Send":
      return say(draft, pid, command.message, command.version, queue)
    case "CloseChannel":
      return hangUp(draft, pid)
    case "TakeListeners":
      return hook(draft, pid, "take listeners")
    case "AcquireLock":
      return tryLock(draft, pid, queue)
    case "ReleaseLock":
      return release(draft, pid)
    case "Open":
      return hook(draft, pid, "open")
    case "CancelOpen":
      return setProcess(draft, pid, { cancelled: true })
    case "Close":
      return hook(draft, pid, "close")
    case "PrepareSocket":
      return hook(draft, pid, "prepare socket")
    case "RemoveSocket":
      return hook(draft, pid, "remove socket")
    case "Publish":
      queue.push(
        publish(draft, pid)
          ? { name: "PD", event: { _tag: "Published" } }
          : { name: "PF", event: { _tag: "PublishFailed" } }
      )
      return
    case "Accept":
      return hook(draft, pid, "accept")
    case "Exit":
      return endProcess(draft, pid, EXITED)
    case "SetTimer":
      return setTimer(draft, pid, command.timer)
    case "ClearTimer":
      return clearTimer(draft, pid, command.timer)
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
  if (!holdsLock(draft, process.pid)) {
    breaks(draft, "5 only the lock's holder writes", `process ${process.pid} writes without the lock`)
  }
  draft.world.disk = disk
}

/** Requests that were never answered belonged to the state that was closed, and fail. */
const openState = (draft: Draft, pid: number): void => {
  for (const { fd } of processOf(draft, pid)?.requests ?? []) close(draft, pid, fd)
  setProcess(draft, pid, { memory: draft.settings.daemon.open(draft.world.disk), open: true, requests: [] })
  if (!holdsLock(draft, pid)) breaks(draft, "1 one holder of the data", `process ${pid} opens without the lock`)
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
      return acquire(draft, pid) ? undefined : endProcess(draft, pid, FAILED)
    case "open":
      return opened(draft, process, end)
    case "publish":
      return published(draft, pid)
    case "take listeners": {
      const listener = SimulatedKernel.describe(draft.world.kernel, pid, FIRST_INHERITED_FD)
      return end === "failed" || listener?._tag !== "Listener"
        ? feed(draft, pid, "TF", { _tag: "ListenersFailed" })
        : feed(draft, pid, "TL", { _tag: "ListenersTaken" })
    }
    case "prepare socket": {
      const socket = prepareSocket(draft, pid)
      if (Result.isFailure(socket)) return feed(draft, pid, "SF", { _tag: "SocketFailed" })
      setProcess(draft, pid, { socket: socket.success })
      return feed(draft, pid, "SP", { _tag: "SocketPrepared" })
    }
    case "remove socket":
      removeSocket(draft, pid, process.socket)
      return setProcess(draft, pid, { socket: -1 })
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
      if (end === "failed") {
        // Nobody knows what is written: it is opened again from the disk.
        setProcess(draft, pid, { open: false })
        return feed(draft, pid, "XS", { _tag: "SealFailed", error: "EIO", partialState: "" })
      }
      seal(draft, process)
      const revisions = [revisionOf(draft)]
      return feed(draft, pid, `SE${revisions[0]}`, { _tag: "Sealed", revisions, fingerprint: FINGERPRINT })
    }
    case "resume":
      // Before anything else: whoever looks for it finds it.
      reclaim(draft, pid)
      if (end === "failed") return feed(draft, pid, "RF", { _tag: "ResumeFailed" })
      // From disk after a seal, never from memory; a state that was not sealed is open still.
      if (process.open) setProcess(draft, pid, { memory: draft.settings.daemon.resume(process.memory) })
      else openState(draft, pid)
      setProcess(draft, pid, { accepting: true })
      return feed(draft, pid, "RE", { _tag: "Resumed" })
  }
}

/** A process whose own hook failed may end by that. */
const excuseFailure = (draft: Draft, pid: number, name: Hook): void => {
  if (name === "resume" || name === "open") excuse(draft, pid)
}

const revisionOf = (draft: Draft): bigint => {
  const { daemon, writes } = draft.settings
  let revision = 0n
  for (let write = 0; write < writes; write++) if (daemon.has(draft.world.disk, write)) revision++
  return revision
}

const opened = (draft: Draft, process: Process, end: End): void => {
  const { pid } = process
  if (process.role === "cold") {
    if (end === "failed") return endProcess(draft, pid, FAILED)
    openState(draft, pid)
    const socket = prepareSocket(draft, pid)
    if (Result.isFailure(socket)) return giveUp(draft, pid)
    setProcess(draft, pid, { accepting: true, socket: socket.success })
    return hook(draft, pid, "publish")
  }
  if (end === "failed") return feed(draft, pid, "OF", { _tag: "OpenFailed" })
  openState(draft, pid)
  const healthy = end !== "unhealthy"
  const revisions = [revisionOf(draft) - (end === "behind" ? 1n : 0n)]
  feed(draft, pid, `OP${healthy}${revisions[0]}`, { _tag: "Opened", listeningOn: [], healthy, revisions })
}

/** It says so and ends, as any daemon that cannot serve. */
const giveUp = (draft: Draft, pid: number): void => {
  excuse(draft, pid)
  endProcess(draft, pid, FAILED)
}

/** A cold start is done: from now on a supervisor finds it. */
const published = (draft: Draft, pid: number): void => {
  if (!publish(draft, pid)) return giveUp(draft, pid)
  setProcess(draft, pid, { role: "incumbent", incumbent: draft.machines.incumbentOf(pid) })
  notify(draft, pid)
}

/** READY=1: a datagram to the generation's socket, lost when there is no supervisor. */
export const notify = (draft: Draft, pid: number): void => {
  const { life } = draft.world.supervisor
  if (life === "running") addFacts(draft, { generation: generationOf(pid), what: "notified" })
}

/** The next bytes of the stream that it speaks on, at most `limit`. */
export const read = (draft: Draft, pid: number, limit: number): void => {
  const process = processOf(draft, pid)
  if (process === undefined || process.session < 0) return
  const bytes = receive(draft, pid, process.session, limit)
  if (bytes.length === 0) return hearEnd(draft, pid)
  const { message, number, partial, isGarbled } = draft.machines.frames.decode(process.partial, bytes)
  if (isGarbled) return hearEnd(draft, pid)
  setProcess(draft, pid, { partial })
  if (message !== undefined) feed(draft, pid, `R${number}`, { _tag: "Received", message })
}

/** The supervisor has closed, has sent what is no frame, or is sent away. */
export const hearEnd = (draft: Draft, pid: number): void => {
  hangUp(draft, pid)
  feed(draft, pid, "gone", { _tag: "Disconnected" })
}

/** Takes the next supervisor out of the queue of its handoff socket. */
export const take = (draft: Draft, pid: number): void => {
  const { socket } = processOf(draft, pid) ?? { socket: -1 }
  const taken = draft.call(pid, "accept", (kernel) => SimulatedStreams.accept(kernel, pid, socket))
  if (Result.isFailure(taken)) return
  setProcess(draft, pid, { session: taken.success })
  feed(draft, pid, "connected", { _tag: "Connected" })
}

export const fire = (draft: Draft, pid: number, timer: string): void => {
  clearTimer(draft, pid, timer)
  // It takes the supervisor's silence for the word. A supervisor that is only slow does not know, and may give up a
  // successor that serves, when the incumbent has left to it.
  if (timer === "word") for (const one of draft.world.processes) excuse(draft, one.pid)
  feed(draft, pid, `T${timer}`, { _tag: "TimerFired", timer } as Queued["event"])
}

/** It hears SIGTERM: what is under way is ended first, then it stops as any daemon does. */
export const hearStop = (draft: Draft, pid: number): void => {
  const process = processOf(draft, pid)
  if (process === undefined) return
  draft.call(pid, "sigwait", (kernel) => SimulatedKernel.takeSignals(kernel, pid))
  // Asked a second time while a handoff is waited for, it ends at once.
  if (process.stopping && process.incumbent?.state.phase !== "serving") {
    excuse(draft, pid)
    return endProcess(draft, pid, FAILED)
  }
  setProcess(draft, pid, { stopping: true })
  if (process.role === "cold") {
    setProcess(draft, pid, { open: false })
    return endProcess(draft, pid, EXITED)
  }
  const phase = process.successor?.state.phase
  if (phase !== undefined && !["announced", "publishing", "serving", "exiting"].includes(phase)) hearEnd(draft, pid)
}

/** Nothing is under way: drains, closes, gives everything back, ends. */
export const stop = (draft: Draft, pid: number): void => {
  const process = processOf(draft, pid)
  if (process === undefined) return
  if (process.open) seal(draft, process)
  release(draft, pid)
  endProcess(draft, pid, EXITED)
}

/** Who stops is found by no supervisor any more. */
export const leavePath = (draft: Draft, pid: number): void => {
  if (ownsPath(draft, pid) || !draft.settings.policies.removesOwnPathOnly) removePath(draft, pid)
  close(draft, pid, processOf(draft, pid)?.socket ?? -1)
  setProcess(draft, pid, { socket: -1, timers: [] })
}

/** The next client out of the listener's queue, and what it asks for. */
export const acceptWrite = (draft: Draft, pid: number): Request | undefined => {
  const fd = FIRST_INHERITED_FD
  const taken = draft.call(pid, "accept", (kernel) => SimulatedStreams.accept(kernel, pid, fd))
  if (Result.isFailure(taken)) return undefined
  setWrite(draft, draft.world.writes.indexOf("queued"), "in flight")
  const [write] = receive(draft, pid, taken.success, 1)
  return write === undefined ? undefined : { write, fd: taken.success }
}

/** Tells a client how its write ended. */
export const answerWrite = (draft: Draft, pid: number, write: number, done: boolean): void => {
  const process = processOf(draft, pid)
  const request = process?.requests.find((one) => one.write === write)
  if (process === undefined || request === undefined) return
  send(draft, pid, request.fd, done ? ACKNOWLEDGED : REFUSED)
  close(draft, pid, request.fd)
  setProcess(draft, pid, { requests: process.requests.filter((one) => one !== request) })
}

/** One of the things that the daemon may do by itself. */
export const work = (draft: Draft, pid: number, choice: number): void => {
  const process = processOf(draft, pid)
  if (process === undefined) return
  const done = draft.settings.daemon.work(process.memory, draft.world.disk)[choice]
  if (done === undefined) return
  writeDisk(draft, process, done.disk)
  setProcess(draft, pid, { memory: done.memory })
  if (done.acknowledges !== undefined) answerWrite(draft, pid, done.acknowledges, true)
  if (done.refuses !== undefined) answerWrite(draft, pid, done.refuses, false)
}

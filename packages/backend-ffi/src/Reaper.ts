/**
 * Learns of the end of children, without polling and without taking other code's children.
 *
 * SIGCHLD says only that some child changed. After it each child known here is asked for with `waitpid(pid, WNOHANG)`; never
 * with -1, which would take the status of a `node:child_process` child from libuv. So that a thousand children don't cost
 * a thousand calls for each one that ends, the kernel is first asked for any ended child with WNOWAIT, which takes nothing;
 * only when that one is foreign must all known ones be asked.
 *
 * Signals coalesce and may be old: a SIGCHLD may find nothing, and one may stand for many. The listener is there before
 * the first child is cloned, and runs in a later turn of the event loop than the launch, so no end is missed between.
 *
 * Node's signal listeners don't keep the event loop alive: a timer is held while somebody waits for a child.
 */
import type { ExitStatus } from "@handoff/core/backend/Launcher"
import * as Signal from "@handoff/core/Signal"
import type { Libc } from "./Libc.ts"

const WNOHANG = 1
const WEXITED = 4
const WNOWAIT = 0x0100_0000
const P_ALL = 0
/** Offset of si_pid in siginfo_t, whose union is aligned to 8 bytes on 64-bit platforms. */
const SI_PID = 16
const LONGEST_TIMER_MILLIS = 0x7fff_ffff

/** A child that was launched here. */
export interface Child {
  readonly pid: number
  /** Undefined while it lives. */
  readonly status: ExitStatus | undefined
}

export interface Reaper {
  /** Starts to watch. Call it before the first child that shall be adopted is cloned. */
  readonly start: () => void
  /** Takes responsibility for a child; `onEnd` is called once, when it has been reaped. */
  readonly adopt: (pid: number, onEnd: () => void) => Child
  /** Reaps this child if it has ended, and tells its status. */
  readonly check: (child: Child) => ExitStatus | undefined
  /** Calls back once with the status, in this turn if it is known. Returns how to stop waiting. */
  readonly wait: (child: Child, callback: (status: ExitStatus) => void) => () => void
}

/** Reads a wait status (wait(2)). */
export const exitStatus = (word: number): ExitStatus => {
  const signal = word & 0x7f
  return signal === 0
    ? { _tag: "Exited", code: (word >> 8) & 0xff }
    : { _tag: "Signaled", signal: Signal.name(signal), coreDumped: (word & 0x80) !== 0 }
}

/**
 * The status of a child whose status somebody else took (waitpid(-1) in native code, SIGCHLD ignored): it has ended, and
 * nobody can tell how.
 */
export const LOST: ExitStatus = { _tag: "Exited", code: -1 }

interface Known {
  readonly pid: number
  status: ExitStatus | undefined
  readonly onEnd: () => void
  readonly waiters: Set<(status: ExitStatus) => void>
}

class ProcessReaper implements Reaper {
  private readonly known = new Map<number, Known>()
  private readonly status = Buffer.alloc(4)
  private readonly info = Buffer.alloc(128)
  private readonly waitpid: (pid: number, status: Uint8Array, options: number) => { readonly value: number }
  private readonly waitid: (
    kind: number,
    id: number,
    info: Uint8Array,
    options: number
  ) => {
    readonly value: number
  }
  private waiting = 0
  private hold: NodeJS.Timeout | undefined

  constructor(libc: Libc) {
    this.waitpid = libc.bind("waitpid", "i32", ["i32", "bytes", "i32"])
    this.waitid = libc.bind("waitid", "i32", ["i32", "i32", "bytes", "i32"])
  }

  private readonly onSignal = (): void => {
    while (this.known.size > 0) {
      const ended = this.anyEnded()
      if (ended === 0) return
      const child = this.known.get(ended)
      if (child === undefined) return this.checkAll()
      if (this.reap(child) === undefined) return
    }
  }

  /** The pid of some ended child that nobody has reaped, or 0. */
  private anyEnded(): number {
    this.info.fill(0)
    const { value } = this.waitid(P_ALL, 0, this.info, WEXITED | WNOHANG | WNOWAIT)
    // ECHILD: there are no children at all, and those known here were taken by somebody else.
    return value === 0 ? this.info.readInt32LE(SI_PID) : -1
  }

  private checkAll(): void {
    for (const child of [...this.known.values()]) this.reap(child)
  }

  private reap(child: Known): ExitStatus | undefined {
    if (child.status !== undefined) return child.status
    const { value } = this.waitpid(child.pid, this.status, WNOHANG)
    if (value === 0) return undefined
    child.status = value === child.pid ? exitStatus(this.status.readInt32LE(0)) : LOST
    this.known.delete(child.pid)
    child.onEnd()
    const waiters = [...child.waiters]
    child.waiters.clear()
    this.release(waiters.length)
    for (const waiter of waiters) waiter(child.status)
    return child.status
  }

  private release(count: number): void {
    this.waiting -= count
    if (this.waiting > 0) return
    clearInterval(this.hold)
    this.hold = undefined
  }

  start(): void {
    // Also when somebody removed all listeners of the signal.
    if (!process.listeners("SIGCHLD").includes(this.onSignal)) process.on("SIGCHLD", this.onSignal)
  }

  adopt(pid: number, onEnd: () => void): Child {
    const child: Known = { pid, status: undefined, onEnd, waiters: new Set() }
    this.known.set(pid, child)
    return child
  }

  check(child: Child): ExitStatus | undefined {
    return this.reap(child as Known)
  }

  wait(child: Child, callback: (status: ExitStatus) => void): () => void {
    const known = child as Known
    if (known.status !== undefined) {
      callback(known.status)
      return () => undefined
    }
    known.waiters.add(callback)
    this.waiting += 1
    this.hold ??= setInterval(() => undefined, LONGEST_TIMER_MILLIS)
    return () => {
      if (known.waiters.delete(callback)) this.release(1)
    }
  }
}

let reaper: Reaper | undefined

/** The reaper of this process. There is one, since there is one SIGCHLD. */
export const forProcess = (libc: Libc): Reaper => {
  reaper ??= new ProcessReaper(libc)
  return reaper
}

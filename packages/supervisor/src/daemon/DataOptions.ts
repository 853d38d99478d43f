/**
 * What a daemon says about the data it owns: where it is, and how it is opened, sealed and closed.
 *
 * In a handoff the hooks run one at a time, in this order: `drain` and `seal` in the old process, which then gives the lock
 * back; `open` in the new one. After an abort the old process has the lock (again) and runs `resume`. Data is written only
 * between `open` (or `resume`) and `seal` (or `close`): only then this process has the lock.
 */
import type { DaemonOptions } from "./Daemon.ts"

export interface OpenContext {
  /** The data directory, as an absolute path. */
  readonly dataDir: string
  readonly why: "cold-start" | "successor" | "resume"
  /**
   * What is left of the state before: `"closed"` at a start and after a seal; `"open"` when a handoff was given up before
   * the seal; `"unclear"` when the seal failed.
   */
  readonly state: "closed" | "open" | "unclear"
  /** Aborted when the result is not wanted any more: reject, or resolve as if nothing had happened. */
  readonly signal: AbortSignal
}

export interface Deadline {
  /** Milliseconds since the epoch. */
  readonly at: number
  /** Aborted when the time is over, or the handoff is given up: end early then. */
  readonly signal: AbortSignal
}

/** Tells the supervisor how far a long seal has come. */
export type Progress = (sealed: number, total: number, lastRevision?: bigint) => void

export interface Sealed {
  /** The last durable revision of each shard; a successor that knows less is rolled back. */
  readonly revisions?: ReadonlyArray<bigint>
  /** 32 bytes. */
  readonly fingerprint?: Uint8Array
}

export interface Snapshot {
  readonly revisions: ReadonlyArray<bigint>
  /** Default true. A successor that is not healthy is rolled back. */
  readonly healthy?: boolean
}

export interface DataOptions extends DaemonOptions {
  /** Its lock is taken before `open` and held as long as the state is open. Created when it is missing. */
  readonly dataDir: string
  /** Opens the state from disk; the lock is held. */
  readonly open: (context: OpenContext) => unknown
  /**
   * Runs beside the drain of the servers: stop accepting writes of your own. Before a handoff, and at the stop. After an
   * abort `resume` undoes it.
   */
  readonly drain?: (deadline: Deadline) => unknown
  /** Makes everything durable and closes the state; the lock is given back afterwards. A rejection keeps it. */
  readonly seal: (progress: Progress) => Promise<Sealed | undefined> | Promise<void>
  /**
   * Undoes `drain` and `seal` when a handoff was aborted; the state is opened again from disk, never taken from memory.
   * Default: `open`, unless the state was not sealed and is open still.
   */
  readonly resume?: (context: OpenContext) => unknown
  /** What this process knows: told when it announces itself, and for a seal that gives no revisions (taken before it). */
  readonly snapshot?: () => Snapshot
  /** Closes the state, at the stop, and when a successor that has opened it is not wanted. Default: `seal`. */
  readonly close?: () => unknown
  /** Path of the handoff socket. Default: HANDOFF_CONTROL_SOCKET, else `<dataDir>/.handoff.sock`. */
  readonly controlSocket?: string
  /** What this build is called towards the supervisor. Default: the program's file name. */
  readonly name?: string
}

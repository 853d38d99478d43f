/**
 * Serves the handoff socket for a process that has its data.
 *
 * One supervisor is heard at a time, and the next one only when this process serves again. A supervisor that dies, sleeps
 * or sends rubbish costs its connection and nothing else; hooks that run at that moment are waited for. After a handoff
 * that was given up, the handoff socket's path is taken back before `resume` runs; what is in the way is a warning, and
 * it is tried again while this process serves.
 */
import type { Command } from "@handoff/core/protocol/Incumbent"
import type { DataDirLock } from "./DataDirLock.ts"
import type { Progress, Sealed } from "./DataOptions.ts"
import type { HandoffSocket } from "./HandoffSocket.ts"
import { IncumbentDriver } from "./internal/IncumbentDriver.ts"
import { observeNothing } from "./internal/Points.ts"

export type End = Extract<Command, { readonly _tag: "Exit" }>

export interface Parts {
  /** Stops accepting and lets everything end; the number of connections left, at the latest after the time. */
  readonly drain: (withinMs: number, cancelled: AbortSignal) => Promise<number>
  readonly seal: (progress: Progress) => Promise<Sealed>
  /** Opens the state again and accepts again. */
  readonly resume: () => Promise<void>
  /** This process has nothing more to do. `error`: why `resume` failed. */
  readonly ended: (end: End, error: unknown) => void
}

export interface IncumbentOptions {
  readonly name: string
  readonly socket: HandoffSocket
  /** Held. */
  readonly lock: DataDirLock
  readonly parts: Parts
}

export interface Incumbent {
  /** Whether it serves and no handoff runs. */
  readonly serving: boolean
  /** Hears no further supervisor; resolves when none is heard any more and this process serves as before. */
  readonly retire: () => Promise<void>
  /** Ends the handoff that runs, if one does, as if its supervisor had died. */
  readonly disconnect: () => void
}

/**
 * What a successor becomes after its last step (Successor.ts). `daemon()` does this itself.
 *
 * @example
 * const { lock, socket } = await opened.announce(announcement)
 * serveHandoffs({ name: "kv", lock, socket, parts })
 */
export const serveHandoffs = (options: IncumbentOptions): Incumbent => new IncumbentDriver(options, observeNothing)

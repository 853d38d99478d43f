/**
 * The fourteen messages of the handoff protocol, version 1, as tagged data.
 *
 * S is the supervisor, O the incumbent (the running daemon, which holds the data lock), N its successor. Their order in
 * {@link tags} is their number on the wire: never reorder, only append.
 *
 * Values are exact. A u64 is a bigint, since revisions may pass 2^53; u16 and u32 are numbers. Bytes are a `Uint8Array`
 * that belongs to the message (decoding copies it out of the receive buffer).
 */
import type { HandoffId } from "./HandoffId.ts"

export type Role = "Incumbent" | "Successor"

/** Reserved for later versions; every bit is kept as it came. */
export interface Capabilities {
  readonly reserved: bigint
}

/** O or N to S, first: who speaks, and which protocol versions it understands (both bounds inclusive). */
export interface Hello {
  readonly _tag: "Hello"
  readonly role: Role
  readonly pid: number
  readonly buildId: Uint8Array
  readonly protoMin: number
  readonly protoMax: number
  readonly capabilities: Capabilities
}

/** S to the peer that said Hello: the version chosen, and the id of this swap. */
export interface HelloAck {
  readonly _tag: "HelloAck"
  readonly protoVersionChosen: number
  readonly handoffId: HandoffId
}

/** S to O: stop accepting, refuse new writes, drain until the earlier of the two times. Both in milliseconds from now. */
export interface PrepareHandoff {
  readonly _tag: "PrepareHandoff"
  readonly handoffId: HandoffId
  readonly successorPid: number
  readonly deadlineMs: bigint
  readonly drainGraceMs: bigint
}

/** O to S: drained, with what remains open. */
export interface Drained {
  readonly _tag: "Drained"
  readonly openConnsRemaining: number
  readonly acceptClosed: boolean
}

/** S to O: make the data durable and release its lock. */
export interface SealRequest {
  readonly _tag: "SealRequest"
  readonly handoffId: HandoffId
}

/** O to S while it seals. */
export interface SealProgress {
  readonly _tag: "SealProgress"
  readonly shardsSealed: number
  readonly shardsTotal: number
  readonly lastRevision: bigint
}

/** O to S: everything is durable and the lock is released. The fingerprint has 32 bytes. */
export interface SealComplete {
  readonly _tag: "SealComplete"
  readonly handoffId: HandoffId
  readonly lastRevisionPerShard: ReadonlyArray<bigint>
  readonly dataDirFingerprint: Uint8Array
}

/** O to S: the seal failed, O kept the lock and serves again. */
export interface SealFailed {
  readonly _tag: "SealFailed"
  readonly handoffId: HandoffId
  readonly error: string
  readonly partialState: string
}

/** S to N: take the listeners and the lock, open the state. */
export interface Begin {
  readonly _tag: "Begin"
  readonly handoffId: HandoffId
}

/** N to S: it holds the lock, its state is open. */
export interface Ready {
  readonly _tag: "Ready"
  readonly handoffId: HandoffId
  readonly listeningOn: ReadonlyArray<string>
  readonly healthzOk: boolean
  readonly advertisedRevisionPerShard: ReadonlyArray<bigint>
}

/** S to O: N serves; exit. */
export interface Commit {
  readonly _tag: "Commit"
  readonly handoffId: HandoffId
}

/** S to N (and to an O that is known to understand it): this swap is off. */
export interface Abort {
  readonly _tag: "Abort"
  readonly handoffId: HandoffId
  readonly reason: string
}

/** S to O: take the lock again and serve as before. */
export interface ResumeAfterAbort {
  readonly _tag: "ResumeAfterAbort"
  readonly handoffId: HandoffId
}

/** Either way: the sender is alive though a hook runs. Milliseconds of the sender's own clock, not to be compared. */
export interface Heartbeat {
  readonly _tag: "Heartbeat"
  readonly tsMs: bigint
}

export type Message =
  | Hello
  | HelloAck
  | PrepareHandoff
  | Drained
  | SealRequest
  | SealProgress
  | SealComplete
  | SealFailed
  | Begin
  | Ready
  | Commit
  | Abort
  | ResumeAfterAbort
  | Heartbeat

export type Tag = Message["_tag"]

/** The tags in wire order: a tag's index is its variant number. */
export const tags = [
  "Hello",
  "HelloAck",
  "PrepareHandoff",
  "Drained",
  "SealRequest",
  "SealProgress",
  "SealComplete",
  "SealFailed",
  "Begin",
  "Ready",
  "Commit",
  "Abort",
  "ResumeAfterAbort",
  "Heartbeat"
] as const satisfies ReadonlyArray<Tag>

/** How many bytes `SealComplete.dataDirFingerprint` has. */
export const FINGERPRINT_BYTES = 32

/** The id of the swap a message belongs to; undefined for the messages that carry none. */
export const handoffIdOf = (message: Message): HandoffId | undefined =>
  "handoffId" in message ? message.handoffId : undefined

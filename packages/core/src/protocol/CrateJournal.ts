/**
 * The journal file of the Rust crate's supervisor, so that a machine whose supervisor is exchanged for this one in the
 * middle of a swap loses nothing. One postcard value, no length, no checksum.
 *
 * This project's own journal is part of its durable document (JSON, readable) and has more in it; this is only the
 * crate's form, read at start where its configuration names a journal, and written where its tests look for one.
 */
import * as Result from "effect/Result"
import type { HandoffId } from "./HandoffId.ts"
import { type ReadError, Reader, type WriteError, Writer } from "./Postcard.ts"

export type Phase = "Negotiating" | "Draining" | "Sealing" | "AwaitingReady" | "Committed" | "ResumingAfterAbort"

/** The phases in wire order. */
export const phases = [
  "Negotiating",
  "Draining",
  "Sealing",
  "AwaitingReady",
  "Committed",
  "ResumingAfterAbort"
] as const satisfies ReadonlyArray<Phase>

export interface CrateJournal {
  readonly handoffId: HandoffId
  readonly phase: Phase
  readonly incumbentPid: number
  readonly successorPid: number | undefined
  /** Milliseconds since 1970, exact. */
  readonly startedAtUnixMs: bigint
}

/** A file's content as the journal it holds. A torn file fails; bytes after the value are accepted, as in messages. */
export const decode = (file: Uint8Array): Result.Result<CrateJournal, ReadError> => {
  const from = new Reader(file)
  const journal: CrateJournal = {
    handoffId: from.handoffId("Journal.handoffId"),
    phase: phases[from.variant("Journal.phase", phases.length)] ?? "Negotiating",
    incumbentPid: from.u32("Journal.incumbentPid"),
    successorPid: from.option("Journal.successorPid", (field) => from.u32(field)),
    startedAtUnixMs: from.u64("Journal.startedAtUnixMs")
  }
  return from.failure === undefined ? Result.succeed(journal) : Result.fail(from.failure)
}

/** The bytes of a journal file. */
export const encode = (journal: CrateJournal): Result.Result<Uint8Array, WriteError> => {
  const out = new Writer(64)
  out.handoffId("Journal.handoffId", journal.handoffId)
  out.varint(phases.indexOf(journal.phase))
  out.u32("Journal.incumbentPid", journal.incumbentPid)
  out.bool(journal.successorPid !== undefined)
  if (journal.successorPid !== undefined) out.u32("Journal.successorPid", journal.successorPid)
  out.u64("Journal.startedAtUnixMs", journal.startedAtUnixMs)
  return out.failure === undefined ? Result.succeed(out.take()) : Result.fail(out.failure)
}

/** Arbitrary messages: every field over its whole range, its edges drawn often. */
import * as HandoffId from "@handoff/core/protocol/HandoffId"
import type { Message } from "@handoff/core/protocol/Message"
import fc from "fast-check"

const u16 = fc.oneof(fc.integer({ min: 0, max: 0xffff }), fc.constantFrom(0, 0x7f, 0x80, 0x3fff, 0x4000, 0xffff))
const u32 = fc.oneof(
  fc.integer({ min: 0, max: 0xffff_ffff }),
  fc.constantFrom(0, 0x7f, 0x80, 0x1f_ffff, 0x0fff_ffff, 0x7fff_ffff, 0xffff_ffff)
)
const powers = Array.from({ length: 64 }, (_, bit) => 1n << BigInt(bit))
const u64 = fc.oneof(
  fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
  fc.constantFrom(...powers, ...powers.map((power) => power - 1n), (1n << 64n) - 1n)
)
const handoffId = fc.uint8Array({ minLength: 16, maxLength: 16 }).map((bytes) => HandoffId.fromBytes(bytes))
const string = fc.oneof(fc.string({ unit: "binary", maxLength: 200 }), fc.constantFrom("", "\ufeffbom", "\u0000", "😀"))
const strings = fc.array(string, { maxLength: 8 })
const revisions = fc.array(u64, { maxLength: 40 })
const tagged = <const T extends Message["_tag"]>(tag: T) => fc.constant(tag)

export const message: fc.Arbitrary<Message> = fc.oneof(
  fc.record({
    _tag: tagged("Hello"),
    role: fc.constantFrom("Incumbent" as const, "Successor" as const),
    pid: u32,
    buildId: fc.uint8Array({ maxLength: 200 }),
    protoMin: u16,
    protoMax: u16,
    capabilities: fc.record({ reserved: u64 })
  }),
  fc.record({ _tag: tagged("HelloAck"), protoVersionChosen: u16, handoffId }),
  fc.record({ _tag: tagged("PrepareHandoff"), handoffId, successorPid: u32, deadlineMs: u64, drainGraceMs: u64 }),
  fc.record({ _tag: tagged("Drained"), openConnsRemaining: u32, acceptClosed: fc.boolean() }),
  fc.record({ _tag: tagged("SealRequest"), handoffId }),
  fc.record({ _tag: tagged("SealProgress"), shardsSealed: u32, shardsTotal: u32, lastRevision: u64 }),
  fc.record({
    _tag: tagged("SealComplete"),
    handoffId,
    lastRevisionPerShard: revisions,
    dataDirFingerprint: fc.uint8Array({ minLength: 32, maxLength: 32 })
  }),
  fc.record({ _tag: tagged("SealFailed"), handoffId, error: string, partialState: string }),
  fc.record({ _tag: tagged("Begin"), handoffId }),
  fc.record({
    _tag: tagged("Ready"),
    handoffId,
    listeningOn: strings,
    healthzOk: fc.boolean(),
    advertisedRevisionPerShard: revisions
  }),
  fc.record({ _tag: tagged("Commit"), handoffId }),
  fc.record({ _tag: tagged("Abort"), handoffId, reason: string }),
  fc.record({ _tag: tagged("ResumeAfterAbort"), handoffId }),
  fc.record({ _tag: tagged("Heartbeat"), tsMs: u64 })
)

export const version = u16

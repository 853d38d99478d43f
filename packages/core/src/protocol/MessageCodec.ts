/**
 * A message as its postcard payload, both ways: the variant's index, then the fields in the order of the protocol.
 *
 * The two switches below are the whole of the format and must stay mirror images; the vectors of the Rust crate and the
 * round-trip property in the tests hold them together. Bytes after the last field are accepted, as the crate does: a later
 * version may append fields.
 */
import * as Result from "effect/Result"
import { FINGERPRINT_BYTES, type Message, type Role, tags } from "./Message.ts"
import { type ReadError, Reader, type WriteError, Writer } from "./Postcard.ts"

const roles = ["Incumbent", "Successor"] as const satisfies ReadonlyArray<Role>

/** Writes the payload of a message; failures are left in the writer. */
export const write = (out: Writer, message: Message): void => {
  out.varint(tags.indexOf(message._tag))
  switch (message._tag) {
    case "Hello":
      out.varint(roles.indexOf(message.role))
      out.u32("Hello.pid", message.pid)
      out.byteString(message.buildId)
      out.u16("Hello.protoMin", message.protoMin)
      out.u16("Hello.protoMax", message.protoMax)
      return out.u64("Hello.capabilities.reserved", message.capabilities.reserved)
    case "HelloAck":
      out.u16("HelloAck.protoVersionChosen", message.protoVersionChosen)
      return out.handoffId("HelloAck.handoffId", message.handoffId)
    case "PrepareHandoff":
      out.handoffId("PrepareHandoff.handoffId", message.handoffId)
      out.u32("PrepareHandoff.successorPid", message.successorPid)
      out.u64("PrepareHandoff.deadlineMs", message.deadlineMs)
      return out.u64("PrepareHandoff.drainGraceMs", message.drainGraceMs)
    case "Drained":
      out.u32("Drained.openConnsRemaining", message.openConnsRemaining)
      return out.bool(message.acceptClosed)
    case "SealProgress":
      out.u32("SealProgress.shardsSealed", message.shardsSealed)
      out.u32("SealProgress.shardsTotal", message.shardsTotal)
      return out.u64("SealProgress.lastRevision", message.lastRevision)
    case "SealComplete":
      out.handoffId("SealComplete.handoffId", message.handoffId)
      out.sequence(message.lastRevisionPerShard, (revision) => out.u64("SealComplete.lastRevisionPerShard", revision))
      return out.fixed("SealComplete.dataDirFingerprint", message.dataDirFingerprint, FINGERPRINT_BYTES)
    case "SealFailed":
      out.handoffId("SealFailed.handoffId", message.handoffId)
      out.string("SealFailed.error", message.error)
      return out.string("SealFailed.partialState", message.partialState)
    case "Ready":
      out.handoffId("Ready.handoffId", message.handoffId)
      out.sequence(message.listeningOn, (address) => out.string("Ready.listeningOn", address))
      out.bool(message.healthzOk)
      return out.sequence(message.advertisedRevisionPerShard, (revision) =>
        out.u64("Ready.advertisedRevisionPerShard", revision)
      )
    case "Abort":
      out.handoffId("Abort.handoffId", message.handoffId)
      return out.string("Abort.reason", message.reason)
    case "SealRequest":
    case "Begin":
    case "Commit":
    case "ResumeAfterAbort":
      return out.handoffId(`${message._tag}.handoffId`, message.handoffId)
    case "Heartbeat":
      return out.u64("Heartbeat.tsMs", message.tsMs)
  }
}

/** Reads one message. Fields are read in the order they are written here: it is the order of the wire. */
const read = (from: Reader): Message => {
  const _tag = tags[from.variant("Message", tags.length)] ?? "Hello"
  switch (_tag) {
    case "Hello":
      return {
        _tag,
        role: roles[from.variant("Hello.role", roles.length)] ?? "Incumbent",
        pid: from.u32("Hello.pid"),
        buildId: from.byteString("Hello.buildId"),
        protoMin: from.u16("Hello.protoMin"),
        protoMax: from.u16("Hello.protoMax"),
        capabilities: { reserved: from.u64("Hello.capabilities.reserved") }
      }
    case "HelloAck":
      return {
        _tag,
        protoVersionChosen: from.u16("HelloAck.protoVersionChosen"),
        handoffId: from.handoffId("HelloAck.handoffId")
      }
    case "PrepareHandoff":
      return {
        _tag,
        handoffId: from.handoffId("PrepareHandoff.handoffId"),
        successorPid: from.u32("PrepareHandoff.successorPid"),
        deadlineMs: from.u64("PrepareHandoff.deadlineMs"),
        drainGraceMs: from.u64("PrepareHandoff.drainGraceMs")
      }
    case "Drained":
      return {
        _tag,
        openConnsRemaining: from.u32("Drained.openConnsRemaining"),
        acceptClosed: from.bool("Drained.acceptClosed")
      }
    case "SealProgress":
      return {
        _tag,
        shardsSealed: from.u32("SealProgress.shardsSealed"),
        shardsTotal: from.u32("SealProgress.shardsTotal"),
        lastRevision: from.u64("SealProgress.lastRevision")
      }
    case "SealComplete":
      return {
        _tag,
        handoffId: from.handoffId("SealComplete.handoffId"),
        lastRevisionPerShard: from.sequence("SealComplete.lastRevisionPerShard", (field) => from.u64(field)),
        dataDirFingerprint: from.fixed("SealComplete.dataDirFingerprint", FINGERPRINT_BYTES)
      }
    case "SealFailed":
      return {
        _tag,
        handoffId: from.handoffId("SealFailed.handoffId"),
        error: from.string("SealFailed.error"),
        partialState: from.string("SealFailed.partialState")
      }
    case "Ready":
      return {
        _tag,
        handoffId: from.handoffId("Ready.handoffId"),
        listeningOn: from.sequence("Ready.listeningOn", (field) => from.string(field)),
        healthzOk: from.bool("Ready.healthzOk"),
        advertisedRevisionPerShard: from.sequence("Ready.advertisedRevisionPerShard", (field) => from.u64(field))
      }
    case "Abort":
      return { _tag, handoffId: from.handoffId("Abort.handoffId"), reason: from.string("Abort.reason") }
    case "SealRequest":
    case "Begin":
    case "Commit":
    case "ResumeAfterAbort":
      return { _tag, handoffId: from.handoffId(`${_tag}.handoffId`) }
    case "Heartbeat":
      return { _tag, tsMs: from.u64("Heartbeat.tsMs") }
  }
}

/** A payload as its message. The bytes may be reused as soon as this returns. */
export const decode = (payload: Uint8Array): Result.Result<Message, ReadError> => {
  const reader = new Reader(payload)
  const message = read(reader)
  return reader.failure === undefined ? Result.succeed(message) : Result.fail(reader.failure)
}

/** A message as its payload, whatever its size. `Frame.encode` is what goes on a socket. */
export const encode = (message: Message): Result.Result<Uint8Array, WriteError> => {
  const writer = new Writer(Number.MAX_SAFE_INTEGER)
  write(writer, message)
  return writer.failure === undefined ? Result.succeed(writer.take()) : Result.fail(writer.failure)
}

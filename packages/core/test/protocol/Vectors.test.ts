import { createHash } from "node:crypto"
import * as CrateJournal from "@handoff/core/protocol/CrateJournal"
import * as Frame from "@handoff/core/protocol/Frame"
import * as MessageCodec from "@handoff/core/protocol/MessageCodec"
import * as Result from "effect/Result"
import { describe, expect, it } from "vitest"
import * as Vectors from "./Vectors.ts"

const { bytes, hex, ofKind, text } = Vectors

/** What the crate calls an error of ours. */
const crateVariant = (error: Frame.DecodeError | Frame.EncodeError | Frame.UnexpectedEnd): string => {
  switch (error._tag) {
    case "UnexpectedEnd":
      return "Io(UnexpectedEof)"
    case "FrameMalformed":
    case "FrameTooLarge":
      return `${error._tag}(${error.length})`
    case "Truncated":
    case "TruncatedVarint":
      return "Codec(DeserializeUnexpectedEnd)"
    case "UnknownVariant":
    case "InvalidIdLength":
      return "Codec(SerdeDeCustom)"
    case "VarintOverflow":
      return "Codec(DeserializeBadVarint)"
    case "InvalidBool":
      return "Codec(DeserializeBadBool)"
    case "InvalidUtf8":
      return "Codec(DeserializeBadUtf8)"
    default:
      return error._tag
  }
}

/** Decodes what must be one whole frame. */
const decodeOne = (frame: Uint8Array): Frame.Frame => {
  const decoder = new Frame.Decoder()
  const results = decoder.push(frame)
  expect(results).toHaveLength(1)
  expect(decoder.hasPartial).toBe(false)
  const [result] = results
  if (result === undefined) throw new Error("no frame")
  return Result.getOrThrow(result)
}

it("knows every kind of vector, so that none is skipped silently", () => {
  const counts = Object.groupBy(Vectors.vectors, (one) => text(one.kind))
  expect(Object.fromEntries(Object.entries(counts).map(([kind, all]) => [kind, all?.length]))).toEqual({
    message: 270,
    malformed: 77,
    lenient: 10,
    stream: 10,
    large: 3,
    encode_error: 1,
    journal: 7
  })
})

describe("message: the crate's bytes, both ways", () => {
  it.each(ofKind("message").map((one) => [text(one.name), one] as const))("%s", (_, one) => {
    const message = Vectors.message(one.message)
    const version = Number(one.version)
    expect(hex(Result.getOrThrow(Frame.encode(message, version)))).toBe(one.frame_hex)
    expect(hex(Result.getOrThrow(MessageCodec.encode(message)))).toBe(one.payload_hex)
    expect(Result.getOrThrow(MessageCodec.decode(bytes(one.payload_hex)))).toEqual(message)
    expect(decodeOne(bytes(one.frame_hex))).toEqual({ version, message })
  })
})

describe("malformed: refused for the crate's reason", () => {
  it.each(ofKind("malformed").map((one) => [text(one.name), one] as const))("%s", (name, one) => {
    const decoder = new Frame.Decoder()
    const results = decoder.push(bytes(one.frame_hex))
    const failed = results.find(Result.isFailure)?.failure
    if (failed !== undefined) {
      expect(crateVariant(failed)).toBe(one.error_variant)
      expect(decoder.failure).toEqual(failed)
      expect(decoder.heldBytes).toBe(0)
      expect(Frame.explain(failed)).not.toBe("")
      return
    }
    // The crate's reader fails at the end of the stream, even between two frames; here that is for the session to judge.
    expect(results).toEqual([])
    expect(one.error_variant).toBe("Io(UnexpectedEof)")
    expect(decoder.hasPartial).toBe(name !== "eof/nothing")
    const ended = decoder.end()
    if (name === "eof/nothing") expect(Result.isSuccess(ended)).toBe(true)
    else expect(Result.isFailure(ended) && crateVariant(ended.failure)).toBe(one.error_variant)
  })

  it("tells a varint cut short from a content cut short, and an overflow from both", () => {
    const reason = (name: string) => {
      const one = ofKind("malformed").find((vector) => vector.name === name)
      const [result] = new Frame.Decoder().push(bytes(one?.frame_hex))
      return result !== undefined && Result.isFailure(result) ? result.failure : undefined
    }
    expect(reason("u64/unfinished")).toMatchObject({ _tag: "TruncatedVarint", field: "Heartbeat.tsMs" })
    expect(reason("string/length-u64-max")).toMatchObject({ _tag: "Truncated", field: "Abort.reason", available: 0 })
    expect(reason("u16/four-bytes")).toMatchObject({ _tag: "VarintOverflow", type: "u16", field: "Hello.protoMin" })
    expect(reason("tag/14")).toMatchObject({ _tag: "UnknownVariant", field: "Message", index: 14 })
    expect(reason("role/255-as-varint")).toMatchObject({ _tag: "UnknownVariant", field: "Hello.role", index: 255 })
  })
})

describe("lenient: read as the crate reads it, written back in the shortest form", () => {
  it.each(ofKind("lenient").map((one) => [text(one.name), one] as const))("%s", (_, one) => {
    const message = Vectors.message(one.message)
    expect(decodeOne(bytes(one.frame_hex))).toEqual({ version: Number(one.version), message })
    expect(hex(Result.getOrThrow(MessageCodec.encode(message)))).toBe(one.canonical_payload_hex)
  })
})

/** Pushes the chunks as the crate's reader polled them, up to the first error. */
const polls = (chunks: ReadonlyArray<Uint8Array>): ReadonlyArray<unknown> => {
  const decoder = new Frame.Decoder()
  const seen: Array<unknown> = []
  for (const [index, chunk] of chunks.entries()) {
    for (const result of decoder.push(chunk)) {
      if (Result.isSuccess(result)) seen.push(result.success)
      else return [...seen, { error: crateVariant(result.failure), has_partial: decoder.hasPartial }]
    }
    if (index < chunks.length - 1) seen.push({ pending: true, has_partial: decoder.hasPartial })
  }
  return [...seen, { end: "eof", has_partial: decoder.hasPartial }]
}

const expectedPolls = (all: ReadonlyArray<Vectors.Json>): ReadonlyArray<unknown> => {
  const seen: Array<unknown> = []
  for (const one of all.map(Vectors.fields)) {
    if (one.error_variant !== undefined) {
      return [...seen, { error: one.error_variant, has_partial: one.has_partial }]
    }
    if (one.message !== undefined) {
      seen.push({ version: one.version, message: Vectors.message(one.message) })
    } else if (one.end !== undefined) seen.push({ end: one.end, has_partial: one.has_partial })
    else seen.push({ pending: true, has_partial: one.has_partial })
  }
  return seen
}

describe("stream: an incremental reader gives the same after each chunk", () => {
  it.each(ofKind("stream").map((one) => [text(one.name), one] as const))("%s", (_, one) => {
    expect(polls(Vectors.list(one.chunks_hex).map(bytes))).toEqual(expectedPolls(Vectors.list(one.polls)))
  })
})

describe("large: frames around the bound of 1 MiB", () => {
  it.each(ofKind("large").map((one) => [text(one.name), one] as const))("%s", (_, one) => {
    const message = Vectors.message(one.message)
    const frame = Result.getOrThrow(Frame.encode(message, 1))
    expect(frame.length).toBe(one.frame_bytes)
    expect(hex(frame).startsWith(text(one.head_hex))).toBe(true)
    expect(createHash("sha256").update(frame).digest("hex")).toBe(one.frame_sha256)
    expect(decodeOne(frame)).toEqual({ version: 1, message })
  })

  it.each(ofKind("encode_error").map((one) => [text(one.name), one] as const))("refused: %s", (_, one) => {
    const result = Frame.encode(Vectors.message(one.message), 1)
    expect(Result.isFailure(result) && crateVariant(result.failure)).toBe(one.error_variant)
  })
})

describe("journal: the crate's file, both ways", () => {
  it.each(ofKind("journal").map((one) => [text(one.name), one] as const))("%s", (_, one) => {
    const from = Vectors.fields(one.journal)
    const journal: CrateJournal.CrateJournal = {
      handoffId: text(from.handoff_id),
      phase: CrateJournal.phases.find((phase) => phase === from.phase) ?? "AwaitingReady",
      incumbentPid: Number(from.incumbent_pid),
      successorPid: Number(from.successor_pid),
      startedAtUnixMs: BigInt(text(from.started_at_unix_ms))
    }
    expect(hex(Result.getOrThrow(CrateJournal.encode(journal)))).toBe(one.file_hex)
    expect(Result.getOrThrow(CrateJournal.decode(bytes(one.file_hex)))).toEqual(journal)
  })

  it("has a form without a successor too, and a torn file is an error", () => {
    const journal: CrateJournal.CrateJournal = {
      handoffId: "6f0d2c5e-9a1b-4c3d-8e7f-102132435465",
      phase: "AwaitingReady",
      incumbentPid: 7,
      successorPid: undefined,
      startedAtUnixMs: 1n
    }
    const file = Result.getOrThrow(CrateJournal.encode(journal))
    expect(Result.getOrThrow(CrateJournal.decode(file))).toEqual(journal)
    for (let end = 0; end < file.length; end++) {
      expect(Result.isFailure(CrateJournal.decode(file.subarray(0, end)))).toBe(true)
    }
  })
})

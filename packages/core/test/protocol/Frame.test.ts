import * as Frame from "@handoff/core/protocol/Frame"
import * as HandoffId from "@handoff/core/protocol/HandoffId"
import type { Message } from "@handoff/core/protocol/Message"
import * as Negotiation from "@handoff/core/protocol/Negotiation"
import * as Result from "effect/Result"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import * as Messages from "./Messages.ts"

const id = "6f0d2c5e-9a1b-4c3d-8e7f-102132435465"

const concat = (parts: ReadonlyArray<Uint8Array>): Uint8Array => Uint8Array.from(Buffer.concat(parts))

const frames = (results: ReadonlyArray<Result.Result<Frame.Frame, Frame.DecodeError>>): ReadonlyArray<Frame.Frame> =>
  results.map(Result.getOrThrow)

describe("round trip", () => {
  it("gives back any messages through any slicing, though the slices are reused at once", () => {
    const cuts = fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1, maxLength: 20 })
    const stream = fc.array(fc.record({ version: Messages.version, message: Messages.message }), { maxLength: 6 })
    fc.assert(
      fc.property(stream, cuts, (sent, sizes) => {
        const bytes = concat(sent.map((one) => Result.getOrThrow(Frame.encode(one.message, one.version))))
        const decoder = new Frame.Decoder()
        const received: Array<Frame.Frame> = []
        for (let at = 0, turn = 0; at < bytes.length; turn++) {
          const slice = bytes.slice(at, at + (sizes[turn % sizes.length] ?? 1))
          at += slice.length
          received.push(...frames(decoder.push(slice)))
          slice.fill(0xff)
        }
        expect(received).toEqual(sent)
        expect(decoder.hasPartial).toBe(false)
        expect(Result.isSuccess(decoder.end())).toBe(true)
      }),
      { numRuns: 1_000, seed: 4 }
    )
  })

  it("suspends at every byte of a frame and loses none", () => {
    const message: Message = { _tag: "Abort", handoffId: id, reason: "why not" }
    const bytes = Result.getOrThrow(Frame.encode(message, 1))
    for (let cut = 1; cut < bytes.length; cut++) {
      const decoder = new Frame.Decoder()
      expect(decoder.push(bytes.subarray(0, cut))).toEqual([])
      expect(decoder.push(new Uint8Array(0))).toEqual([])
      expect(decoder.end()).toEqual(Result.fail({ _tag: "UnexpectedEnd", received: cut }))
      expect(frames(decoder.push(bytes.subarray(cut)))).toEqual([{ version: 1, message }])
    }
  })
})

describe("bounded memory", () => {
  const head = (length: number): Uint8Array => {
    const bytes = new Uint8Array(4)
    new DataView(bytes.buffer).setUint32(0, length, true)
    return bytes
  }

  it("holds nothing for an announcement: 4 bytes must not cost 1 MiB", () => {
    const decoder = new Frame.Decoder()
    expect(decoder.push(head(Frame.MAX_FRAME_BYTES))).toEqual([])
    expect(decoder.heldBytes).toBeLessThanOrEqual(64)
  })

  it("never holds more than the largest frame, and lets it go afterwards", () => {
    const message: Message = { _tag: "Abort", handoffId: id, reason: "x".repeat(Frame.MAX_FRAME_BYTES - 23) }
    const bytes = Result.getOrThrow(Frame.encode(message, 1))
    expect(bytes.length).toBe(Frame.MAX_FRAME_BYTES + 4)
    const decoder = new Frame.Decoder()
    let most = 0
    for (let at = 0; at < bytes.length; at += 1_000) {
      const results = decoder.push(bytes.subarray(at, at + 1_000))
      most = Math.max(most, decoder.heldBytes)
      if (at + 1_000 >= bytes.length) expect(frames(results)).toEqual([{ version: 1, message }])
    }
    expect(most).toBe(Frame.MAX_FRAME_BYTES)
    expect(decoder.heldBytes).toBe(0)
  })

  it("stays dead after a failure: what follows lost framing is not read", () => {
    const good = Result.getOrThrow(Frame.encode({ _tag: "Heartbeat", tsMs: 1n }, 1))
    const decoder = new Frame.Decoder()
    const error = Result.fail({ _tag: "FrameMalformed", length: 1 })
    expect(decoder.push(concat([head(1), good]))).toEqual([error])
    expect(decoder.push(good)).toEqual([error])
    expect(decoder.end()).toEqual(error)
    expect(decoder.failure).toEqual({ _tag: "FrameMalformed", length: 1 })
  })
})

describe("encode refuses what a field cannot hold, and rounds nothing", () => {
  const hello = { _tag: "Hello", role: "Incumbent", buildId: new Uint8Array(0), protoMin: 1, protoMax: 1 } as const
  const cases: ReadonlyArray<readonly [string, Message, string]> = [
    ["a negative pid", { ...hello, pid: -1, capabilities: { reserved: 0n } }, "OutOfRange"],
    ["a pid past u32", { ...hello, pid: 2 ** 32, capabilities: { reserved: 0n } }, "OutOfRange"],
    ["a fraction", { ...hello, pid: 1.5, capabilities: { reserved: 0n } }, "OutOfRange"],
    ["not a number", { ...hello, pid: Number.NaN, capabilities: { reserved: 0n } }, "OutOfRange"],
    ["a version past u16", { _tag: "HelloAck", protoVersionChosen: 65_536, handoffId: id }, "OutOfRange"],
    ["2^64", { _tag: "Heartbeat", tsMs: 1n << 64n }, "OutOfRange"],
    ["a negative u64", { _tag: "Heartbeat", tsMs: -1n }, "OutOfRange"],
    ["a lone surrogate", { _tag: "Abort", handoffId: id, reason: "a\ud800b" }, "IllFormedString"],
    ["a surrogate at the end", { _tag: "Abort", handoffId: id, reason: "\ud83d" }, "IllFormedString"],
    ["an id in capitals", { _tag: "Begin", handoffId: id.toUpperCase() }, "InvalidHandoffId"],
    ["an empty id", { _tag: "Commit", handoffId: "" }, "InvalidHandoffId"],
    [
      "a short fingerprint",
      { _tag: "SealComplete", handoffId: id, lastRevisionPerShard: [], dataDirFingerprint: new Uint8Array(31) },
      "OutOfRange"
    ]
  ]
  it.each(cases)("%s", (_, message, reason) => {
    const result = Frame.encode(message, 1)
    if (Result.isSuccess(result)) throw new Error("was encoded")
    expect(result.failure._tag).toBe(reason)
    expect(Frame.explain(result.failure)).toContain(message._tag)
  })

  it.each([-1, 65_536, 0.5])("a frame version of %s", (version) => {
    expect(Frame.encode({ _tag: "Heartbeat", tsMs: 0n }, version)).toMatchObject({ failure: { _tag: "OutOfRange" } })
  })

  it("reports the whole size of a frame far past the bound", () => {
    const reason = "é".repeat(2_000_000)
    expect(Frame.encode({ _tag: "Abort", handoffId: id, reason }, 1)).toEqual(
      Result.fail({ _tag: "FrameTooLarge", length: 2 + 1 + 17 + 4 + 4_000_000 })
    )
  })
})

describe("handoff id", () => {
  it("made from randomness is a version 4 UUID, whatever the bytes", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), (random) => {
        const made = HandoffId.fromRandom(random)
        expect(made).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
        expect(HandoffId.fromBytes(Result.getOrThrow(HandoffId.toBytes(made)))).toBe(made)
      }),
      { seed: 4 }
    )
  })
})

describe("negotiation", () => {
  it("chooses the highest version both speak, exhaustively over small ranges", () => {
    const all = [0, 1, 2, 3, 4].flatMap((min) => [0, 1, 2, 3, 4].map((max) => ({ min, max })))
    let cases = 0
    for (const ours of all) {
      for (const theirs of all) {
        const both = [0, 1, 2, 3, 4].filter((v) => [ours, theirs].every((range) => range.min <= v && v <= range.max))
        const highest = both.at(-1)
        const expected =
          highest === undefined ? Result.fail({ _tag: "VersionMismatch", ours, theirs }) : Result.succeed(highest)
        expect(Negotiation.choose(ours, theirs)).toEqual(expected)
        cases++
      }
    }
    expect(cases).toBe(625)
  })

  it("names both ranges, and refuses a chosen version that this side does not speak", () => {
    const mismatch = Negotiation.choose({ min: 1, max: 1 }, { min: 3, max: 5 })
    if (Result.isSuccess(mismatch)) throw new Error("agreed")
    expect(Negotiation.explain(mismatch.failure)).toBe(
      "no common protocol version: this side speaks 1 to 1, the other 3 to 5"
    )
    expect(Negotiation.confirm(Negotiation.SUPPORTED, 1)).toEqual(Result.succeed(1))
    expect(Result.isFailure(Negotiation.confirm(Negotiation.SUPPORTED, 0))).toBe(true)
    expect(Result.isFailure(Negotiation.confirm(Negotiation.SUPPORTED, 2))).toBe(true)
  })
})

import * as Frame from "@handoff/core/protocol/Frame"
import * as Result from "effect/Result"
import { expect, it } from "vitest"
import * as Vectors from "./Vectors.ts"

/** A small seeded generator (mulberry32): the same frames in every run. */
const generator = (seed: number) => {
  let state = seed
  return (below: number): number => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below
  }
}

const FRAMES = 1_000_000
const SCRATCH = 1024
const nasty = [0x00, 0x01, 0x02, 0x0e, 0x10, 0x7f, 0x80, 0x81, 0xc0, 0xed, 0xf4, 0xff]

const seeds = ["message", "lenient", "malformed"]
  .flatMap(Vectors.ofKind)
  .map((one) => Vectors.bytes(one.frame_hex))
  .filter((frame) => frame.length > 6 && frame.length < 300)

/** Mutates the `length` bytes in `scratch`; gives the new length. */
const mutate = (scratch: Uint8Array, length: number, random: (below: number) => number): number => {
  let size = length
  const rounds = 1 + random(4)
  for (let round = 0; round < rounds; round++) {
    const at = random(size)
    switch (random(7)) {
      case 0:
        scratch[at] = (scratch[at] ?? 0) ^ (1 << random(8))
        break
      case 1:
        scratch[at] = random(256)
        break
      case 2:
        scratch[at] = nasty[random(nasty.length)] ?? 0
        break
      case 3:
        size = Math.max(1, at)
        break
      case 4:
        scratch.copyWithin(at + 1, at, size)
        scratch[at] = nasty[random(nasty.length)] ?? 0
        size += 1
        break
      case 5:
        scratch.copyWithin(at, at + 1, size)
        size = Math.max(1, size - 1)
        break
      default: {
        const other = seeds[random(seeds.length)] ?? scratch
        const from = random(other.length)
        const tail = other.subarray(from, Math.min(other.length, from + SCRATCH - at))
        scratch.set(tail, at)
        size = Math.max(1, at + tail.length)
      }
    }
    size = Math.min(size, SCRATCH - 8)
  }
  return size
}

/** Three of four frames announce their true length, so that the mutation reaches the payload. */
const repairLength = (scratch: Uint8Array, size: number, random: (below: number) => number): void => {
  if (size < 6 || random(4) === 0) return
  new DataView(scratch.buffer).setUint32(0, size - 4, true)
}

it(`${FRAMES} mutated frames: never throws, never hangs, never holds past what came or past the bound`, () => {
  const random = generator(0x5eed)
  const scratch = new Uint8Array(SCRATCH)
  const outcomes: Record<string, number> = {}
  let reencoded = 0
  for (let turn = 0; turn < FRAMES; turn++) {
    const seed = seeds[turn % seeds.length] ?? scratch
    scratch.set(seed)
    const size = mutate(scratch, seed.length, random)
    repairLength(scratch, size, random)
    const decoder = new Frame.Decoder()
    for (let at = 0; at < size; ) {
      const end = random(3) === 0 ? Math.min(size, at + 1 + random(size)) : size
      for (const result of decoder.push(scratch.subarray(at, end))) {
        const tag = result._tag === "Success" ? result.success.message._tag : result.failure._tag
        outcomes[tag] = (outcomes[tag] ?? 0) + 1
        if (result._tag === "Failure" || turn % 16 !== 0) continue
        // Whatever was read can be written, and reads the same.
        const again = new Frame.Decoder().push(
          Result.getOrThrow(Frame.encode(result.success.message, result.success.version))
        )
        expect(again).toEqual([result])
        reencoded++
      }
      at = end
      const bound = Math.min(Frame.MAX_FRAME_BYTES, 64 + 2 * at)
      if (decoder.heldBytes > bound) throw new Error(`frame ${turn} holds ${decoder.heldBytes} bytes after ${at}`)
      if (decoder.failure !== undefined) break
    }
    const ended = decoder.end()
    const tag = ended._tag === "Success" ? "ended" : ended.failure._tag
    if (tag === "UnexpectedEnd" || tag === "ended") outcomes[tag] = (outcomes[tag] ?? 0) + 1
  }
  expect(reencoded).toBeGreaterThan(10_000)
  // Every message and every error was reached: a mutation that never gets past the head proves nothing.
  for (const tag of [
    ...["Hello", "HelloAck", "PrepareHandoff", "Drained", "SealRequest", "SealProgress", "SealComplete", "SealFailed"],
    ...["Begin", "Ready", "Commit", "Abort", "ResumeAfterAbort", "Heartbeat"],
    ...["FrameMalformed", "FrameTooLarge", "UnexpectedEnd", "Truncated", "TruncatedVarint", "VarintOverflow"],
    ...["UnknownVariant", "InvalidBool", "InvalidUtf8", "InvalidIdLength"]
  ]) {
    expect(outcomes[tag] ?? 0, tag).toBeGreaterThan(100)
  }
}, 120_000)

it("random bytes in one endless stream: a decoder that failed holds nothing, a new one starts clean", () => {
  const random = generator(7)
  let decoder = new Frame.Decoder()
  let failures = 0
  const chunk = new Uint8Array(4096)
  for (let turn = 0; turn < 2_000; turn++) {
    for (let index = 0; index < chunk.length; index++) chunk[index] = random(256)
    // A small announced length now and then, so that the stream does not always die at its first four bytes.
    if (turn % 2 === 0) chunk.set([random(32), 0, 0, 0], 0)
    decoder.push(chunk)
    if (decoder.heldBytes > Frame.MAX_FRAME_BYTES) throw new Error("past the bound")
    if (decoder.failure === undefined) continue
    expect(decoder.heldBytes).toBe(0)
    failures++
    decoder = new Frame.Decoder()
  }
  expect(failures).toBeGreaterThan(500)
})

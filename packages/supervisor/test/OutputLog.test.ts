import { mkdtempSync, readdirSync, rmSync, statSync, writeSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as Files from "@handoff/backend-ffi/Files"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import * as OutputLog from "../src/OutputLog.ts"

let directory = ""
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "handoff-output-"))
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

const live = Layer.mergeAll(Files.layer, NodeFileSystem.layer)

const run = <A, E>(
  change: Partial<OutputLog.Options>,
  body: (output: OutputLog.OutputLog, lines: ReadonlyArray<string>) => Effect.Effect<A, E>
) => {
  const lines: Array<string> = []
  const onLine = (generation: number, line: string) => void lines.push(`${generation} ${line}`)
  const program = Effect.flatMap(OutputLog.make({ how: "log", directory, onLine, ...change }), (output) =>
    body(output, lines)
  )
  return Effect.runPromise(Effect.provide(program, live))
}

describe("the output of a generation", () => {
  it("is passed on line by line, a last one without an end when the generation is gone", () =>
    run({}, (output, lines) =>
      Effect.gen(function* () {
        yield* Effect.scoped(
          Effect.gen(function* () {
            const { stdout, stderr } = yield* output.open(1)
            writeSync(stdout, "one\ntw")
            writeSync(stderr, "o\nunfinished")
            expect(yield* output.lastLines(1)).toEqual(["one", "two"])
          })
        )
        expect(lines).toEqual(["1 one", "1 two", "1 unfinished"])
        expect(yield* output.lastLines(1)).toEqual(["one", "two", "unfinished"])
      })
    ))

  it("keeps a character whole that two reads cut in half", () =>
    run({}, (output) =>
      Effect.scoped(
        Effect.gen(function* () {
          const { stdout } = yield* output.open(1)
          const bytes = Buffer.from("gr\u00fc\u00df\n")
          writeSync(stdout, bytes.subarray(0, 3))
          yield* output.lastLines(1)
          writeSync(stdout, bytes.subarray(3))
          expect(yield* output.lastLines(1)).toEqual(["gr\u00fc\u00df"])
        })
      )
    ))

  it("does not grow without bound: what was read is dropped, and the writer goes on at the start", () =>
    run({ maxBytes: 10_000, keptLines: 2 }, (output, lines) =>
      Effect.scoped(
        Effect.gen(function* () {
          const { stdout } = yield* output.open(1)
          for (let line = 0; line < 300; line++) {
            writeSync(stdout, `${String(line).padEnd(99, ".")}\n`)
            if (line % 50 === 49) yield* output.lastLines(1)
          }
          expect(statSync(join(directory, "generation-1.log")).size).toBeLessThan(20_000)
          expect(lines).toHaveLength(300)
          expect((yield* output.lastLines(1)).map((line) => Number.parseInt(line, 10))).toEqual([298, 299])
        })
      )
    ))

  it("splits a line that never ends, so that it cannot fill the memory", () =>
    run({}, (output, lines) =>
      Effect.scoped(
        Effect.gen(function* () {
          const { stdout } = yield* output.open(1)
          writeSync(stdout, "x".repeat(20_000))
          yield* output.lastLines(1)
          expect(lines.map((line) => line.length)).toEqual([8_194, 8_194])
        })
      )
    ))

  it("leaves the files of the last few generations only, and only its owner may read them", () =>
    run({ keptFiles: 2 }, (output) =>
      Effect.gen(function* () {
        for (let generation = 1; generation <= 5; generation++) yield* Effect.scoped(output.open(generation))
        expect(readdirSync(directory).sort()).toEqual(["generation-4.log", "generation-5.log"])
        expect(statSync(join(directory, "generation-5.log")).mode & 0o777).toBe(0o600)
      })
    ))

  it("writes no file when it is inherited or thrown away", () =>
    run({ how: "null" }, (output) =>
      Effect.scoped(
        Effect.gen(function* () {
          const { stdout } = yield* output.open(1)
          writeSync(stdout, "gone\n")
          expect(yield* output.lastLines(1)).toEqual([])
          expect(readdirSync(directory)).toEqual([])
        })
      )
    ))

  it("keeps the file and the lines of one that still runs, however many came after it", () =>
    run({ keptFiles: 2, maxBytes: 100 }, (output, lines) =>
      Effect.scoped(
        Effect.gen(function* () {
          const { stdout } = yield* output.open(1)
          for (let generation = 2; generation <= 6; generation++) yield* Effect.scoped(output.open(generation))
          expect(readdirSync(directory).sort()).toEqual([1, 5, 6].map((id) => `generation-${id}.log`))
          writeSync(stdout, `${"x".repeat(120)}\n`)
          expect(yield* output.lastLines(1)).toHaveLength(1)
          expect(lines).toHaveLength(1)
          expect(statSync(join(directory, "generation-1.log")).size).toBe(0)
        })
      )
    ))
})

import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as Files from "@handoff/backend-ffi/Files"
import * as FilesContract from "@handoff/core/backend/Files"
import * as Document from "@handoff/core/swap/Document"
import * as Supervision from "@handoff/core/swap/Supervision"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { describe, expect, it } from "vitest"
import { temporaryDirectory } from "../../../test/support/TemporaryDirectory.ts"
import * as StateStore from "../src/StateStore.ts"

const limits: Supervision.Options = {
  ...Supervision.defaults,
  listeners: 1,
  instance: "0123"
}

const facts: Document.Facts = {
  name: "web",
  supervisor: { pid: 7, version: "1", instance: "0123" },
  handoffSocket: "/run/web/handoff.sock",
  listeners: [{ name: "http", address: "127.0.0.1:80", inode: 5, backlog: { requested: 4096, effective: 128 } }]
}

type Body = Supervision.Event extends infer E ? (E extends unknown ? Omit<E, "at"> : never) : never

const identity = (pid: number) => ({ pid, startTime: pid * 10, bootId: "b" })

/** A life with everything that a document can hold: environment, readiness, a rollback's target, a running swap. */
const life: ReadonlyArray<Body> = [
  { _tag: "StartRequested", request: 1 },
  { _tag: "Launched", generation: 1, pid: 11, identity: identity(11) },
  { _tag: "Notified", generation: 1 },
  {
    _tag: "SwapRequested",
    request: 2,
    handoffId: "a",
    mode: "overlap",
    command: { argv: ["v2", "\u2603"], environment: { A: "b" }, workingDirectory: "/srv", readiness: "settle" }
  },
  { _tag: "Launched", generation: 2, pid: 12, identity: identity(12) },
  { _tag: "TimerFired", timer: "settle:2" },
  { _tag: "SwapRequested", request: 3, handoffId: "b", mode: "overlap", command: { argv: ["v3"] } },
  { _tag: "LaunchFailed", generation: 3, detail: "ENOENT" },
  { _tag: "Exited", generation: 1, status: { _tag: "Exited", code: 0 } },
  { _tag: "Gone", generation: 1 },
  { _tag: "SwapRequested", request: 4, handoffId: "c", mode: "sealed", command: { argv: ["v4"] } },
  { _tag: "Handoff", swap: 3, event: { _tag: "Connected", pid: 12, member: true } }
]

/** The documents after each event of that life. */
const documents = (): ReadonlyArray<Document.Document> => {
  let state = Supervision.initial(limits, { argv: ["v1"] })
  return life.map((body, index) => {
    state = Supervision.step(state, { ...body, at: 1_000 + index } as Supervision.Event).state
    return Document.of(state, facts)
  })
}

const within = <A>(
  body: (store: StateStore.StateStore, directory: string) => Effect.Effect<A, unknown>
): Promise<A> => {
  const directory = temporaryDirectory()
  const program = Effect.flatMap(StateStore.make(directory.path), (store) => body(store, directory.path))
  return Effect.runPromise(Effect.provide(program, Layer.mergeAll(Files.layer, NodeFileSystem.layer))).finally(() =>
    directory[Symbol.dispose]()
  )
}

const reopen = (directory: string) =>
  Effect.flatMap(StateStore.make(directory), (store) => store.load).pipe(
    Effect.provide(Layer.mergeAll(Files.layer, NodeFileSystem.layer))
  )

describe("the document of a supervisor", () => {
  it("is read back as it was written, at every step of a life", () =>
    within((store, directory) =>
      Effect.gen(function* () {
        for (const document of documents()) {
          yield* store.save(document)
          const loaded = yield* reopen(directory)
          // JSON has no undefined: a field that is there with that value is a field that is not there.
          expect(loaded).toEqual({ _tag: "Found", document: JSON.parse(JSON.stringify(document)) })
        }
        expect(documents().at(-1)).toMatchObject({ swap: { mode: "sealed", journal: "Negotiating" }, serving: 2 })
      })
    ))

  it("is nobody else's to read, and leaves no temporary file", () =>
    within((store, directory) =>
      Effect.gen(function* () {
        for (const document of documents()) yield* store.save(document)
        expect(statSync(store.path).mode & 0o777).toBe(0o600)
        expect(readdirSync(directory)).toEqual(["state.json"])
      })
    ))

  it("is not written again when nothing has changed", () =>
    within((store) =>
      Effect.gen(function* () {
        const [document] = documents()
        if (document === undefined) throw new Error("no document")
        yield* store.save(document)
        const { ino } = statSync(store.path)
        yield* store.save(document)
        expect(statSync(store.path).ino).toBe(ino)
      })
    ))

  it("is written again when a later one may or may not have come to the disk", async () => {
    const failing = Layer.effect(
      FilesContract.Files,
      Effect.map(FilesContract.Files, (files) => ({
        ...files,
        // As an fsync of the directory fails: the new text is there.
        replace: (path: string, text: string) =>
          Effect.andThen(
            files.replace(path, text),
            text.includes("lost") ? Effect.fail(new FilesContract.FileError({ path, errno: "EIO" })) : Effect.void
          )
      }))
    ).pipe(Layer.provide(Files.layer))
    using directory = temporaryDirectory()
    const [document] = documents()
    if (document === undefined) throw new Error("no document")
    const program = Effect.gen(function* () {
      const store = yield* StateStore.make(directory.path)
      yield* store.save(document)
      yield* Effect.flip(store.save({ ...document, name: "lost" }))
      yield* store.save(document)
      return readFileSync(store.path, "utf8")
    })
    const text = await Effect.runPromise(Effect.provide(program, Layer.mergeAll(failing, NodeFileSystem.layer)))
    expect(text).not.toContain("lost")
  })

  it("is written again to find out whether it can be", () =>
    within((store) =>
      Effect.gen(function* () {
        yield* store.rewrite
        expect(yield* store.load).toEqual({ _tag: "None" })
        const [document] = documents()
        if (document !== undefined) yield* store.save(document)
        const { ino } = statSync(store.path)
        yield* store.rewrite
        expect(statSync(store.path).ino).not.toBe(ino)
        rmSync(store.path)
        mkdirSync(join(store.path, "in-the-way"), { recursive: true })
        expect(yield* Effect.flip(store.rewrite)).toMatchObject({ _tag: "FileError", path: store.path })
      })
    ))

  it("is not there before the first save, and not after clear", () =>
    within((store) =>
      Effect.gen(function* () {
        expect(yield* store.load).toEqual({ _tag: "None" })
        yield* store.clear
        const [document] = documents()
        if (document !== undefined) yield* store.save(document)
        yield* store.clear
        expect(yield* store.load).toEqual({ _tag: "None" })
      })
    ))

  it("that can't be written says which file and why, and the one before stays", () =>
    within((store, directory) =>
      Effect.gen(function* () {
        const [first, second] = documents()
        if (first === undefined || second === undefined) throw new Error("no documents")
        mkdirSync(store.path)
        const error = yield* Effect.flip(store.save(first))
        expect(error).toMatchObject({ _tag: "FileError", path: store.path })
        expect(readdirSync(directory)).toEqual(["state.json"])
        rmSync(store.path, { recursive: true })
        // The failed one counts as not written.
        yield* store.save(first)
        expect(existsSync(store.path)).toBe(true)
      })
    ))
})

const whole = () => JSON.parse(JSON.stringify(documents().at(-1))) as Record<string, unknown>

describe("a document that can't be read", () => {
  it.each([
    ["empty", ""],
    ["no JSON", "{"],
    ["cut in half", JSON.stringify(whole()).slice(0, 300)],
    ["another thing", "[]"],
    ["of a later format", JSON.stringify({ ...whole(), format: 2 })],
    ["without its generations", JSON.stringify({ ...whole(), generations: undefined })],
    [
      "with a phase nobody knows",
      JSON.stringify({ ...whole(), swap: { ...(whole().swap as object), phase: "flying" } })
    ],
    ["with a pid that is no number", JSON.stringify(whole()).replace('"pid":12', '"pid":"12"')]
  ])("(%s) is set aside under a name of its own, and reported", (_, text) =>
    within((store, directory) =>
      Effect.gen(function* () {
        for (const n of [1, 2]) {
          writeFileSync(store.path, text)
          const loaded = yield* store.load
          expect(loaded).toMatchObject({ _tag: "Damaged", movedTo: join(directory, `state.json.damaged-${n}`) })
          expect(readFileSync(join(directory, `state.json.damaged-${n}`), "utf8")).toBe(text)
          expect(loaded._tag === "Damaged" && loaded.detail.length > 0).toBe(true)
        }
        expect(yield* store.load).toEqual({ _tag: "None" })
      })
    )
  )

  it("for another reason than its content is left where it is, and the reason told", () =>
    within((store, directory) =>
      Effect.gen(function* () {
        mkdirSync(store.path)
        expect((yield* Effect.flip(store.load)).message).toContain("EISDIR")
        expect(readdirSync(directory)).toEqual(["state.json"])
      })
    ))

  it("but whole with fields that a later version may add is read", () =>
    within((store) =>
      Effect.gen(function* () {
        writeFileSync(store.path, JSON.stringify({ ...whole(), later: true }))
        expect(yield* store.load).toMatchObject({ _tag: "Found", document: { name: "web" } })
      })
    ))
})

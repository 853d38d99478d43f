/**
 * The durable document of a supervisor: `state.json` in its state directory, readable by a person.
 *
 * It is replaced whole and synced at each change. One whose content says nothing (torn by hand, of a later format) is set
 * aside as `state.json.damaged-N` and reported, and is no reason not to start. One that can not be read (EMFILE, EACCES,
 * EIO) is: it may well say what runs, and is left where it is.
 */
import { type FileError, Files } from "@handoff/core/backend/Files"
import * as Document from "@handoff/core/swap/Document"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Schema from "effect/Schema"
import { messageOf } from "./internal/ErrorText.ts"

const Command = Schema.Struct({
  argv: Schema.Array(Schema.String),
  environment: Schema.optionalKey(Schema.Record(Schema.String, Schema.String)),
  workingDirectory: Schema.optionalKey(Schema.String),
  readiness: Schema.optionalKey(Schema.Literals(["auto", "notify", "accepting", "settle"]))
})

const Generation = Schema.Struct({
  id: Schema.Int,
  command: Command,
  phase: Schema.Literals(["launching", "starting", "serving", "draining", "rejected"]),
  token: Schema.String,
  process: Schema.NullOr(Schema.Struct({ pid: Schema.Int, startTime: Schema.Number, bootId: Schema.String })),
  launchedAt: Schema.Number,
  readyAt: Schema.NullOr(Schema.Number),
  asked: Schema.optionalKey(Schema.Boolean),
  notified: Schema.Boolean,
  handoffSocket: Schema.Literals(["unknown", "none", "served"])
})

const Swap = Schema.Struct({
  id: Schema.Int,
  kind: Schema.Literals(["swap", "rollback"]),
  mode: Schema.NullOr(Schema.Literals(["sealed", "overlap", "exclusive"])),
  phase: Schema.Literals(["waiting", "deciding", "clearing", "running", "rolling-back", "restoring"]),
  journal: Schema.NullOr(
    Schema.Literals(["Negotiating", "Draining", "Sealing", "AwaitingReady", "Committed", "ResumingAfterAbort"])
  ),
  handoffId: Schema.String,
  from: Schema.NullOr(Schema.Int),
  to: Schema.NullOr(Schema.Int),
  restored: Schema.NullOr(Schema.Int),
  command: Command,
  requestedAt: Schema.Number
})

const Listener = Schema.Struct({
  name: Schema.String,
  address: Schema.String,
  inode: Schema.Int,
  backlog: Schema.Struct({ requested: Schema.Int, effective: Schema.Int })
})

/** Records of ended swaps are shown and nothing is decided by them: they are kept as they were written. */
const Saved = Schema.Struct({
  format: Schema.Literal(Document.FORMAT),
  name: Schema.String,
  supervisor: Schema.Struct({ pid: Schema.Int, version: Schema.String, instance: Schema.String }),
  handoffSocket: Schema.String,
  listeners: Schema.Array(Listener),
  command: Command,
  previous: Schema.NullOr(Schema.Struct({ command: Command, notified: Schema.Boolean })),
  serving: Schema.NullOr(Schema.Int),
  mustNotify: Schema.Boolean,
  nextGeneration: Schema.Int,
  nextSwap: Schema.Int,
  generations: Schema.Array(Generation),
  swap: Schema.NullOr(Swap),
  history: Schema.Array(Schema.Any)
})

const decode = Schema.decodeUnknownEffect(Schema.fromJsonString(Saved))

export type Loaded =
  | { readonly _tag: "None" }
  | { readonly _tag: "Found"; readonly document: Document.Document }
  | { readonly _tag: "Damaged"; readonly movedTo: string; readonly detail: string }

export interface StateStore {
  readonly path: string
  /** A file that is there and cannot be read is no damage: it is left, and the error is the caller's. */
  readonly load: Effect.Effect<Loaded, { readonly message: string }>
  /** Writes it if it is not what was written last. */
  readonly save: (document: Document.Document) => Effect.Effect<void, FileError>
  /** Writes again what was written last: whether it can be done. */
  readonly rewrite: Effect.Effect<void, FileError>
  /** Nothing is left that anybody would have to look for. */
  readonly clear: Effect.Effect<void>
}

export const make = Effect.fnUntraced(function* (directory: string) {
  const fileSystem = yield* FileSystem.FileSystem
  const files = yield* Files
  const path = `${directory}/state.json`
  let written: string | undefined
  /** A save that failed may have left the old document or the new one. */
  let isCertain = true

  const setAside = Effect.gen(function* () {
    for (let n = 1; ; n++) {
      const name = `${path}.damaged-${n}`
      if (yield* Effect.orElseSucceed(fileSystem.exists(name), () => false)) continue
      yield* Effect.ignore(fileSystem.rename(path, name))
      return name
    }
  })

  const load = Effect.gen(function* () {
    const text = yield* fileSystem.readFileString(path).pipe(
      Effect.catch(({ reason }) =>
        // The cause has the errno.
        reason._tag === "NotFound"
          ? Effect.succeed(undefined)
          : Effect.fail({ message: messageOf(reason.cause ?? reason) })
      )
    )
    if (text === undefined) return { _tag: "None" } satisfies Loaded
    return yield* Effect.matchEffect(decode(text), {
      onSuccess: (document) => Effect.succeed<Loaded>({ _tag: "Found", document: document as Document.Document }),
      onFailure: (error) =>
        Effect.map(setAside, (movedTo): Loaded => ({ _tag: "Damaged", movedTo, detail: error.message }))
    })
  })

  const save = (document: Document.Document) =>
    Effect.suspend(() => {
      const text = `${JSON.stringify(document, null, 2)}\n`
      if (isCertain && text === written) return Effect.void
      isCertain = false
      return Effect.tap(files.replace(path, text), () =>
        Effect.sync(() => {
          written = text
          isCertain = true
        })
      )
    })

  const rewrite = Effect.suspend(() => (written === undefined ? Effect.void : files.replace(path, written)))
  const clear = Effect.ignore(fileSystem.remove(path, { force: true }))
  return { path, load, save, rewrite, clear } satisfies StateStore
})

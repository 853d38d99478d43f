/**
 * The role program of the fault tests for S: hands a running daemon over once, by "the contract of an external fault
 * test", and leaves the successor running.
 *
 * It is the shipped supervisor, which takes the incumbent over as it would one of a supervisor that died: a document that
 * names it is put in the state directory (beside the journal, `JOURNAL.state`), unless the one before left one that does.
 * So a death is recovered from by the shipped adoption, whichever supervisor died. HANDOFF_JOURNAL itself is written in the
 * form of the Rust crate, so that its supervisor can follow this one.
 *
 * Environment: HANDOFF_CONTROL_SOCKET, HANDOFF_JOURNAL, HANDOFF_PRIMITIVE_BINARY, HANDOFF_TEST_DEADLINE_MS,
 * HANDOFF_TEST_DRAIN_GRACE_MS, HANDOFF_CRASH_AT_FOR_N, and those of a crash (Crash.ts). Status 0: committed; 2: aborted, the
 * incumbent serves; 3: neither. Markers: supervisor-resume-from-journal, supervisor-committed, supervisor-aborted.
 *
 * The crash points come through packages/supervisor/src/internal/Observer.ts, imported by its path in the source tree:
 * the package exports no way to it and reads no variable for it.
 */
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync
} from "node:fs"
import { createConnection } from "node:net"
import { dirname } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as FfiBackend from "@handoff/backend-ffi/FfiBackend"
import { Files } from "@handoff/core/backend/Files"
import { Processes } from "@handoff/core/backend/Processes"
import * as CrateJournal from "@handoff/core/protocol/CrateJournal"
import * as Frame from "@handoff/core/protocol/Frame"
import { type Document, FORMAT } from "@handoff/core/swap/Document"
import { type Options, Supervisor } from "@handoff/supervisor/Supervisor"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import { Observer } from "../../packages/supervisor/src/internal/Observer.ts"
import { mark, takeCrashPoint } from "./Crash.ts"

const STATUS = { committed: 0, aborted: 2, failed: 3 } as const

/** Milliseconds: what daemons do by themselves after a supervisor's death takes less. */
const PATIENCE = 10_000

const { env } = process
const observe = takeCrashPoint()

const required = (name: string): string => {
  const value = env[name]
  if (value !== undefined && value !== "") return value
  process.stderr.write(`${name} is not set\n`)
  process.exit(STATUS.failed)
}

const controlSocket = required("HANDOFF_CONTROL_SOCKET")
const journal = required("HANDOFF_JOURNAL")
const program = required("HANDOFF_PRIMITIVE_BINARY")
const stateDirectory = `${journal}.state`
const documentPath = `${stateDirectory}/state.json`

/** The pid in the Hello of whoever serves at the path: an incumbent in the middle of a handoff says nothing. */
const greeted = (): Promise<number | undefined> =>
  new Promise((resolve) => {
    const socket = createConnection(controlSocket)
    const decoder = new Frame.Decoder()
    const answer = (pid: number | undefined) => {
      socket.destroy()
      resolve(pid)
    }
    socket.setTimeout(1_000, () => answer(undefined))
    socket.on("error", () => answer(undefined))
    socket.on("close", () => answer(undefined))
    socket.on("data", (bytes: Buffer) => {
      const [frame] = decoder.push(bytes)
      if (frame === undefined) return
      answer(Result.isSuccess(frame) && frame.success.message._tag === "Hello" ? frame.success.message.pid : undefined)
    })
  })

const findIncumbent = async (): Promise<number | undefined> => {
  const deadline = Date.now() + (existsSync(journal) || existsSync(controlSocket) ? PATIENCE : 0)
  for (;;) {
    const pid = await greeted()
    if (pid !== undefined || Date.now() >= deadline) return pid
    await sleep(50)
  }
}

const readDocument = (): Document | undefined => {
  try {
    return JSON.parse(readFileSync(documentPath, "utf8")) as Document
  } catch {
    return undefined
  }
}

/** Makes sure that the document names the incumbent, which may have been started since by somebody else. */
const describe = Effect.fnUntraced(function* (pid: number) {
  const processes = yield* Processes
  const files = yield* Files
  const identity = yield* processes.identify(pid)
  const known = readDocument()?.generations.some((one) => one.process?.pid === pid)
  if (known === true || identity === undefined) return
  const command = { argv: [program] }
  const now = Date.now()
  const document: Document = {
    format: FORMAT,
    name: "fault",
    supervisor: { pid: process.pid, version: "", instance: "" },
    handoffSocket: controlSocket,
    listeners: [],
    command,
    previous: null,
    serving: 1,
    mustNotify: false,
    nextGeneration: 2,
    nextSwap: 1,
    generations: [
      {
        id: 1,
        command,
        phase: "serving",
        token: "",
        process: identity,
        launchedAt: now,
        readyAt: now,
        notified: false,
        handoffSocket: "served"
      }
    ],
    swap: null,
    history: []
  }
  mkdirSync(stateDirectory, { recursive: true, mode: 0o700 })
  yield* files.replace(documentPath, JSON.stringify(document))
})

const journalOf = ({ swap, generations }: Document): Uint8Array | undefined => {
  if (swap === null || swap.journal === null) return undefined
  const pidOf = (id: number | null) => generations.find((one) => one.id === id)?.process?.pid
  const written = CrateJournal.encode({
    handoffId: swap.handoffId,
    phase: swap.journal,
    incumbentPid: pidOf(swap.from) ?? 0,
    successorPid: pidOf(swap.to),
    startedAtUnixMs: BigInt(Math.floor(swap.requestedAt))
  })
  return Result.getOrThrow(written)
}

const writeJournal = (bytes: Uint8Array | undefined): void => {
  if (bytes === undefined) rmSync(journal, { force: true })
  else {
    const file = openSync(`${journal}.new`, "w", 0o600)
    writeSync(file, bytes)
    fsyncSync(file)
    closeSync(file)
    renameSync(`${journal}.new`, journal)
  }
  const directory = openSync(dirname(journal), "r")
  fsyncSync(directory)
  closeSync(directory)
}

/** The backend's files, and the journal of each document that is written. */
const journaling = Layer.effect(
  Files,
  Effect.map(Files, (files) => ({
    ...files,
    replace: (path: string, text: string) =>
      Effect.tap(files.replace(path, text), () =>
        Effect.sync(() => {
          if (path === documentPath) writeJournal(journalOf(JSON.parse(text) as Document))
        })
      )
  }))
).pipe(Layer.provide(FfiBackend.layer))

const options: Options = {
  name: "fault",
  command: [program],
  listeners: {},
  stateDirectory,
  output: "inherit",
  sealed: {
    controlSocket,
    deadlineMs: Number(env.HANDOFF_TEST_DEADLINE_MS ?? 60_000),
    drainGraceMs: Number(env.HANDOFF_TEST_DRAIN_GRACE_MS ?? 30_000)
  }
}

const command = {
  argv: [program],
  environment: { HANDOFF_CRASH_AT: env.HANDOFF_CRASH_AT_FOR_N ?? "", HANDOFF_CRASH_ROLE: "successor" }
}

/** Until nobody but the successor is left: the incumbent has heard the Commit. */
const incumbentGone = Effect.fnUntraced(function* (supervisor: Supervisor["Service"]) {
  const deadline = Date.now() + PATIENCE
  while (Date.now() < deadline && (yield* supervisor.status).generations.length > 1) yield* Effect.sleep(10)
})

const handOver = Effect.gen(function* () {
  const supervisor = yield* Supervisor
  yield* supervisor.start
  const ended = yield* Effect.result(supervisor.swap(command, { mode: "sealed" }))
  if (Result.isSuccess(ended)) {
    mark("supervisor-committed")
    yield* incumbentGone(supervisor)
    return STATUS.committed
  }
  const { reason, message } = ended.failure
  process.stderr.write(`${message}\n`)
  if (reason._tag === "Refused" || reason.report.record.serving === undefined) return STATUS.failed
  mark("supervisor-aborted", message)
  return STATUS.aborted
})

const complain = (error: { readonly message: string }): Effect.Effect<void> =>
  Effect.sync(() => void process.stderr.write(`${error.message}\n`))

const main = Effect.gen(function* () {
  if (existsSync(journal)) mark("supervisor-resume-from-journal")
  const pid = yield* Effect.promise(findIncumbent)
  if (pid === undefined) return yield* Effect.fail(new Error(`nobody serves at ${controlSocket}`))
  yield* describe(pid)
  // The process ends within the layer's life: its end would stop the daemons.
  const ended = handOver.pipe(
    Effect.catch((error) => Effect.as(complain(error), STATUS.failed)),
    Effect.flatMap((status) => Effect.sync(() => process.exit(status)))
  )
  return yield* Effect.provide(ended, Supervisor.layer(options).pipe(Layer.provide(journaling)))
})

const backend = Layer.merge(FfiBackend.layer, NodeFileSystem.layer)
await Effect.runPromise(
  main.pipe(
    Effect.provide(backend),
    Effect.provideService(Observer, observe),
    Effect.catch(complain),
    Effect.andThen(Effect.sync(() => process.exit(STATUS.failed)))
  )
)

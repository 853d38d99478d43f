/**
 * The trigger socket: one line of text starts a swap, as the reference supervisor of the Rust crate `beyond-handoff` has it,
 * so that a deploy script written for that one goes on working. A layer above Supervisor, as the admin API is.
 *
 *   client writes              answer
 *   handoff                    a swap to the configured program
 *   handoff BINARY             a swap to that file, with the configured arguments
 *
 *   ok: handoff_id=UUID committed=true abort_reason=None
 *   ok: handoff_id=UUID committed=false abort_reason=Some("why")      rolled back, the old version serves
 *   err: why                                                          nothing was begun
 *
 * `handoff_id` is the nil UUID for a swap without the handoff protocol, which has no such id. The end of the client's
 * stream ends its line, too. Words after the second are ignored.
 *
 * Who may: our own effective uid, root, and `allowedUids` (SO_PEERCRED, latched by the kernel at connect). The socket is
 * bound under a temporary name, made 0600 while nobody knows it, and renamed onto the path; so for another uid somebody
 * must open mode and directory as well. What may: `binary` and `allowedBinaries`, compared by their real paths at the
 * time of asking; what runs is the real path that was compared.
 *
 * A client has 10 s for a line of at most 4,096 bytes, and 16 clients are heard at once. Each is heard on its own: one that
 * is silent, floods, or goes away harms nobody. A swap goes on when its client has gone.
 *
 * Stricter than the reference: a live socket at the path is not replaced, and a trigger during a swap is refused instead
 * of made to wait.
 *
 * @example echo handoff | socat - UNIX-CONNECT:/run/app/handoff.trigger
 */
import { chmod, lstat, mkdir, realpath, rename, unlink } from "node:fs/promises"
import { createServer, type Server, type Socket } from "node:net"
import { dirname, join } from "node:path"
import { Sockets } from "@handoff/core/backend/Sockets"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as AdminSocket from "./AdminSocket.ts"
import { messageOf } from "./internal/ErrorText.ts"
import { descriptorOf } from "./internal/NodeHandle.ts"
import { Supervisor, type SwapReport } from "./Supervisor.ts"
import { formatFailure, type SwapError } from "./SupervisorError.ts"

export interface Options {
  readonly path: string
  /** What `handoff` swaps to. */
  readonly binary: string
  readonly args: ReadonlyArray<string>
  readonly allowedUids: ReadonlyArray<number>
  readonly allowedBinaries: ReadonlyArray<string>
  /** Milliseconds for a client's line [10000]. */
  readonly lineTimeoutMs?: number
}

export class TriggerSocketError extends Data.TaggedError("TriggerSocketError")<{
  readonly path: string
  readonly detail: string
}> {
  override get message(): string {
    return `trigger socket ${this.path}: ${this.detail}`
  }
}

const LINE_TIMEOUT_MS = 10_000
const MAX_LINE_BYTES = 4096
const MAX_CLIENTS = 16
const LINGER_MS = 1000
const NIL_ID = "00000000-0000-0000-0000-000000000000"

const attempt = <A>(path: string, run: () => Promise<A>): Effect.Effect<A, TriggerSocketError> =>
  Effect.tryPromise({
    try: run,
    catch: (error) => new TriggerSocketError({ path, detail: messageOf(error) })
  })

/** Text as Rust's `{:?}` shows it, which is how the reference prints a reason. */
export const debugText = (text: string): string => {
  const escaped = text.replace(/["\\]/g, "\\$&").replace(/\n/g, "\\n").replace(/\r/g, "\\r").replace(/\t/g, "\\t")
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not reach a terminal.
  return `"${escaped.replace(/[\0-\x1f\x7f]/g, (one) => (one === "\0" ? "\\0" : `\\u{${one.charCodeAt(0).toString(16)}}`))}"`
}

const committed = ({ record: { handoffId = NIL_ID } }: SwapReport): string =>
  `ok: handoff_id=${handoffId} committed=true abort_reason=None`

const notCommitted = (error: SwapError): string => {
  if (error.reason._tag === "Refused") return `err: ${error.message}`
  const { record } = error.reason.report
  const why = record.failure === undefined ? error.message : formatFailure(record.failure)
  return `ok: handoff_id=${record.handoffId ?? NIL_ID} committed=false abort_reason=Some(${debugText(why)})`
}

const realPath = (path: string): Effect.Effect<string | undefined> =>
  Effect.promise(() => realpath(path).catch(() => undefined))

/** The real path of a program that a client named, or the line that refuses it. */
const resolveBinary = Effect.fnUntraced(function* (options: Options, requested: string) {
  const found = yield* realPath(requested)
  if (found === undefined) return yield* Effect.fail(`err: resolve requested binary ${requested}`)
  const allowed = yield* Effect.forEach([options.binary, ...options.allowedBinaries], realPath)
  if (allowed.includes(found)) return found
  return yield* Effect.fail(
    `err: binary ${requested} is not in the configured allowlist (\`binary\` + \`allowed_binaries\`)`
  )
})

/** Carries one line out and gives the answer to it. */
const obey = Effect.fnUntraced(function* (options: Options, line: string) {
  const supervisor = yield* Supervisor
  const [verb, requested] = line.split(/\s+/).filter((word) => word !== "")
  if (verb === undefined) return "err: empty command"
  if (verb !== "handoff") return `err: unknown command '${verb}'`
  const program = requested === undefined ? options.binary : yield* resolveBinary(options, requested)
  return yield* Effect.match(supervisor.swap({ argv: [program, ...options.args] }), {
    onSuccess: committed,
    onFailure: notCommitted
  })
})

/** A client's line. Fails with the line that refuses it, or with nothing when there is nobody to tell. */
const readLine = (socket: Socket, timeoutMs: number): Effect.Effect<string, string | undefined> =>
  Effect.callback<string, string | undefined>((resume) => {
    const chunks: Array<Buffer> = []
    let bytes = 0
    const end = (outcome: Effect.Effect<string, string | undefined>) => {
      stop()
      resume(outcome)
    }
    const take = (chunk: Buffer) => {
      const newline = chunk.indexOf(0x0a)
      const part = newline < 0 ? chunk : chunk.subarray(0, newline)
      bytes += part.length
      if (bytes > MAX_LINE_BYTES) return end(Effect.fail(`err: command is longer than ${MAX_LINE_BYTES} bytes`))
      chunks.push(part)
      if (newline >= 0) end(Effect.succeed(Buffer.concat(chunks).toString("utf8")))
    }
    const finish = () =>
      end(bytes === 0 ? Effect.fail(undefined) : Effect.succeed(Buffer.concat(chunks).toString("utf8")))
    const leave = () => end(Effect.fail(undefined))
    const timer = setTimeout(() => end(Effect.fail(`err: no command within ${timeoutMs} ms`)), timeoutMs)
    const stop = () => {
      clearTimeout(timer)
      socket.off("data", take).off("end", finish).off("close", leave)
    }
    socket.on("data", take).on("end", finish).on("close", leave)
    return Effect.sync(stop)
  })

/**
 * Writes the answer and ends our side. The client may still be writing: closed at once it would get EPIPE or a reset instead
 * of the answer, so what it writes is read and thrown away until it ends, too, or for a second.
 */
const answer = (socket: Socket, line: string): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    if (socket.closed) return resume(Effect.void)
    const timer = setTimeout(() => socket.destroy(), LINGER_MS)
    socket.once("close", () => {
      clearTimeout(timer)
      resume(Effect.void)
    })
    socket.resume().end(`${line}\n`)
  })

const peerUid = Effect.fnUntraced(function* (socket: Socket) {
  const sockets = yield* Sockets
  return (yield* sockets.peerCredentials(descriptorOf(socket))).uid
})

const converse = Effect.fnUntraced(function* (options: Options, socket: Socket) {
  const timeoutMs = options.lineTimeoutMs ?? LINE_TIMEOUT_MS
  const uid = yield* Effect.orElseSucceed(peerUid(socket), () => undefined)
  if (uid === undefined) return void socket.destroy()
  const permitted = uid === process.geteuid?.() || uid === 0 || options.allowedUids.includes(uid)
  if (!permitted) return yield* answer(socket, "err: not permitted")
  const reply = yield* readLine(socket, timeoutMs).pipe(
    Effect.flatMap((line) => obey(options, line)),
    Effect.catch((refusal) => Effect.succeed(refusal))
  )
  if (reply === undefined) socket.destroy()
  else yield* answer(socket, reply)
})

const listenAt = (server: Server, path: string): Promise<void> =>
  new Promise((resolve, reject) => {
    server.once("error", reject)
    server.listen(path, () => {
      server.off("error", reject)
      resolve()
    })
  })

/** Nobody else's socket or file is replaced; what a dead process left is. */
const checkPath = Effect.fnUntraced(function* (path: string) {
  const found = yield* AdminSocket.probe(path)
  if (found === "absent") return
  if (found === "live") return yield* new TriggerSocketError({ path, detail: "somebody listens there already" })
  const entry = yield* attempt(path, () => lstat(path))
  if (!entry.isSocket()) return yield* new TriggerSocketError({ path, detail: "is in the way and is no socket" })
})

/** Binds beside the path and renames onto it; the path goes with the scope if it still leads to us. */
const publish = Effect.fnUntraced(function* (server: Server, path: string) {
  const temporary = join(dirname(path), `.~${process.pid.toString(36)}`)
  const bytes = Math.max(Buffer.byteLength(path), Buffer.byteLength(temporary))
  const most = AdminSocket.MAX_PATH_BYTES
  if (bytes > most) {
    return yield* new TriggerSocketError({ path, detail: `is ${bytes} bytes long, it may have ${most}` })
  }
  yield* checkPath(path)
  yield* attempt(path, () => mkdir(dirname(path), { recursive: true }))
  const bind = attempt(path, async () => {
    await unlink(temporary).catch(() => undefined)
    await listenAt(server, temporary)
    await chmod(temporary, 0o600)
    const { ino } = await lstat(temporary)
    await rename(temporary, path)
    return ino
  })
  const remove = (ino: number) =>
    Effect.promise(async () => {
      const now = await lstat(path).catch(() => undefined)
      if (now?.ino === ino) await unlink(path).catch(() => undefined)
    })
  yield* Effect.acquireRelease(bind, remove)
})

/** Serves until the scope closes. */
const serve = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<void, TriggerSocketError, Supervisor | Sockets | Scope.Scope> {
  const clients = new Set<Socket>()
  const run = yield* FiberSet.makeRuntime<Supervisor | Sockets>()
  const welcome = (socket: Socket) => {
    // Without a listener the error of a client that went away would end the process.
    socket.on("error", () => socket.destroy())
    if (clients.size >= MAX_CLIENTS) return void run(answer(socket, "err: too many clients"))
    clients.add(socket)
    socket.once("close", () => clients.delete(socket))
    run(converse(options, socket))
  }
  // Half open: `echo handoff | socat` ends its side before it reads.
  const server = createServer({ allowHalfOpen: true }, welcome)
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      server.close()
      for (const socket of clients) socket.destroySoon()
    })
  )
  yield* publish(server, options.path)
  // Accepting may fail for want of descriptors; the next client may have more luck.
  server.on("error", () => {})
})

/** The trigger socket, until the layer's scope closes. */
export const layer = (options: Options): Layer.Layer<never, TriggerSocketError, Supervisor | Sockets> =>
  Layer.effectDiscard(serve(options))

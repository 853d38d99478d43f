/**
 * Where the output of generations goes, and the last lines they wrote.
 *
 *   log      an append-only file per generation, which this module follows: each line is passed on with the generation it
 *            came from, and the last ones are kept for the status and for the verdict of a swap
 *   inherit  the supervisor's own stdout and stderr
 *   null     /dev/null
 *
 * Never a pipe that only the supervisor reads: when the supervisor dies, a Node or Go daemon would die of its next write.
 * A file outlives us. It is bounded: once it has grown over `maxBytes` and everything in it has been read, it is
 * truncated to nothing, which O_APPEND makes safe for the writer. A line written between that read and the truncation
 * (microseconds) is lost; nobody truncates while no supervisor runs. Kept are the files of the last few generations, and of
 * every one that still runs: one that serves may be followed by many that failed.
 *
 * stdin is /dev/null in all three.
 */

import { type FileError, Files } from "@handoff/core/backend/Files"
import type { Fd } from "@handoff/core/Fd"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"

export interface Options {
  readonly how: "log" | "inherit" | "null"
  readonly directory: string
  /** Called for each whole line of a followed file. */
  readonly onLine: (generation: number, line: string) => void
  readonly maxBytes?: number
  readonly keptLines?: number
  readonly keptFiles?: number
}

export interface Stdio {
  readonly stdin: Fd
  readonly stdout: Fd
  readonly stderr: Fd
}

export interface OutputLog {
  /** Opens the stdio of a generation, and follows its output, until the scope closes. */
  readonly open: (generation: number) => Effect.Effect<Stdio, FileError, Scope.Scope>
  /** Follows the output of a generation that an earlier supervisor opened, from its end on. */
  readonly follow: (generation: number) => Effect.Effect<void, never, Scope.Scope>
  /** The last lines a generation wrote, those included that were written a moment ago. Empty unless `how` is `log`. */
  readonly lastLines: (generation: number) => Effect.Effect<ReadonlyArray<string>>
}

const CHUNK_BYTES = 16 * 1024
const POLL_MS = 250
const MAX_LINE_CHARACTERS = 8192

/** A file being read to its end again and again. */
interface Follower {
  readonly lines: Array<string>
  readonly catchUp: Effect.Effect<void>
  /** Its generation is gone. */
  readonly hasEnded: () => boolean
}

const makeFollower = Effect.fnUntraced(function* (path: string, options: Options, generation: number, from = 0) {
  const files = yield* FileSystem.FileSystem
  const lock = yield* Semaphore.make(1)
  const { maxBytes = 16 * 1024 * 1024, keptLines = 50 } = options
  const decoder = new TextDecoder()
  const lines: Array<string> = []
  let partial = ""
  let offset = from

  const push = (line: string) => {
    lines.push(line)
    if (lines.length > keptLines) lines.shift()
    options.onLine(generation, line)
  }
  const take = (text: string) => {
    const parts = (partial + text).split("\n")
    partial = parts.pop() ?? ""
    for (const line of parts) push(line)
    while (partial.length > MAX_LINE_CHARACTERS) {
      push(partial.slice(0, MAX_LINE_CHARACTERS))
      partial = partial.slice(MAX_LINE_CHARACTERS)
    }
  }
  const file = yield* Effect.option(files.open(path, { flag: "r" }))
  const buffer = new Uint8Array(CHUNK_BYTES)
  let ended = false

  const readToEnd = Effect.gen(function* () {
    // After its end the file is closed, and its descriptor may be somebody else's.
    if (ended || Option.isNone(file)) return
    for (;;) {
      const count = yield* file.value.read(buffer, { position: BigInt(offset) })
      if (count === 0) break
      offset += count
      take(decoder.decode(buffer.subarray(0, count), { stream: true }))
    }
    if (offset > maxBytes) {
      yield* files.truncate(path, 0)
      offset = 0
    }
  })
  // A file that can't be read (removed by hand, a full descriptor table) costs its lines, never the supervisor.
  const catchUp = lock.withPermit(Effect.ignore(readToEnd))
  const flush = Effect.sync(() => {
    if (partial !== "") push(partial)
    partial = ""
    ended = true
  })
  const wakeups = Stream.merge(
    Stream.orElseSucceed(
      Stream.map(files.watch(path), () => undefined),
      () => undefined
    ),
    Stream.tick(`${POLL_MS} millis`)
  )
  yield* Effect.forkScoped(Stream.runForEach(wakeups, () => catchUp))
  yield* Effect.addFinalizer(() => Effect.andThen(catchUp, flush))
  return { lines, catchUp, hasEnded: () => ended } satisfies Follower
})

/** Sets up the output of a supervisor's generations. */
export const make = Effect.fnUntraced(function* (options: Options) {
  const files = yield* Files
  const fileSystem = yield* FileSystem.FileSystem
  const followers = new Map<number, Follower>()
  const pathOf = (generation: number) => `${options.directory}/generation-${generation}.log`
  const { keptFiles = 5 } = options

  const expire = Effect.fnUntraced(function* (last: number) {
    for (const [generation, { hasEnded }] of followers) {
      if (generation <= last && hasEnded()) followers.delete(generation)
    }
    const names = yield* Effect.orElseSucceed(fileSystem.readDirectory(options.directory), () => [])
    for (const name of names) {
      const generation = Number(/^generation-(\d+)\.log$/.exec(name)?.[1] ?? Number.NaN)
      if (!(generation <= last) || followers.has(generation)) continue
      yield* Effect.ignore(fileSystem.remove(`${options.directory}/${name}`, { force: true }))
    }
  })

  const openLog = Effect.fnUntraced(function* (generation: number) {
    const path = pathOf(generation)
    yield* expire(generation - keptFiles)
    // Left over from an earlier supervisor of the same name: its generations are numbered from 1 as well.
    yield* Effect.ignore(fileSystem.remove(path, { force: true }))
    const fd = yield* files.open(path, "append")
    const follower = yield* Effect.provideService(
      makeFollower(path, options, generation),
      FileSystem.FileSystem,
      fileSystem
    )
    followers.set(generation, follower)
    return fd
  })

  const follow = Effect.fnUntraced(function* (generation: number) {
    if (options.how !== "log") return
    const path = pathOf(generation)
    const size = yield* Effect.orElseSucceed(
      Effect.map(fileSystem.stat(path), (info) => Number(info.size)),
      () => 0
    )
    const follower = yield* Effect.provideService(
      makeFollower(path, options, generation, size),
      FileSystem.FileSystem,
      fileSystem
    )
    followers.set(generation, follower)
  })

  const open = Effect.fnUntraced(function* (generation: number) {
    const stdin = yield* files.open("/dev/null", "read")
    if (options.how === "inherit") return { stdin, stdout: 1, stderr: 2 }
    const output = options.how === "null" ? yield* files.open("/dev/null", "append") : yield* openLog(generation)
    return { stdin, stdout: output, stderr: output }
  })

  const lastLines = Effect.fnUntraced(function* (generation: number) {
    const follower = followers.get(generation)
    if (follower === undefined) return []
    yield* follower.catchUp
    return [...follower.lines]
  })

  return { open, follow, lastLines } satisfies OutputLog
})

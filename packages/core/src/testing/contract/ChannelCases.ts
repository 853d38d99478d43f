/** What byte channels must do. */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { type Channel, Channels } from "../../backend/Channels.ts"
import { Sockets } from "../../backend/Sockets.ts"
import { type ContractCase, contractCase, eventually, Harness, holds, refused, same } from "./Case.ts"

const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text)
const WITHIN_MS = 5_000

/** Reads until there are so many bytes, or the stream ends. */
const readUpTo = Effect.fnUntraced(function* (channel: Channel, count: number) {
  const bytes: Array<number> = []
  while (bytes.length < count) {
    const chunk = yield* channel.read
    if (chunk.length === 0) break
    for (const byte of chunk) bytes.push(byte)
  }
  return bytes
})

const readText = (channel: Channel, count: number) =>
  Effect.map(readUpTo(channel, count), (bytes) => new TextDecoder().decode(Uint8Array.from(bytes)))

/** Channels on both ends of a pair. */
const openPair = Effect.gen(function* () {
  const [left, right] = yield* (yield* Sockets).pair
  const channels = yield* Channels
  return [yield* channels.open(left), yield* channels.open(right)] as const
})

/** A channel whose other end wrote this and was closed. */
const survivor = Effect.fnUntraced(function* (text: string) {
  const sockets = yield* Sockets
  const channels = yield* Channels
  const outer = yield* Effect.scope
  return yield* Effect.scoped(
    Effect.gen(function* () {
      const [left, right] = yield* sockets.pair
      yield* (yield* channels.open(left)).write(bytesOf(text), WITHIN_MS)
      return yield* Scope.provide(channels.open(right), outer)
    })
  )
})

const pairCases: ReadonlyArray<ContractCase<Sockets | Channels>> = [
  contractCase(
    "bytes go through a pair both ways and in order, and the peer is its creator",
    Effect.gen(function* () {
      const self = yield* (yield* Harness).self
      const [left, right] = yield* openPair
      for (const [from, to] of [[left, right] as const, [right, left] as const]) {
        yield* same("peer", [from.peer.pid, from.peer.uid], [self.pid, self.uid])
        for (const text of ["one", "", "two", "three"]) yield* from.write(bytesOf(text), WITHIN_MS)
        yield* same("text", yield* readText(to, 11), "onetwothree")
      }
      return undefined
    })
  ),
  contractCase(
    "a reader that waits is woken by bytes, and one that gave up waiting has taken none",
    Effect.gen(function* () {
      const [left, right] = yield* openPair
      const impatient = yield* Effect.forkChild(right.read, { startImmediately: true })
      yield* Fiber.interrupt(impatient)
      const patient = yield* Effect.forkChild(readText(right, 5), { startImmediately: true })
      yield* left.write(bytesOf("bytes"), WITHIN_MS)
      yield* same("text", yield* Fiber.join(patient), "bytes")
      return undefined
    })
  ),
  contractCase(
    "the end of the stream comes after everything that was written, and stays; writing is then a broken pipe",
    Effect.gen(function* () {
      const reader = yield* survivor("last words")
      yield* same("text", yield* readText(reader, 100), "last words")
      for (const _ of [1, 2]) yield* same("bytes after the end", (yield* reader.read).length, 0)
      const error = yield* refused("writing", reader.write(bytesOf("x"), WITHIN_MS))
      yield* same("errno", error.reason, { _tag: "CallFailed", call: "write", errno: "EPIPE" })
      return undefined
    })
  ),
  contractCase(
    "a megabyte arrives whole, though the peer takes its time",
    Effect.gen(function* () {
      const [left, right] = yield* openPair
      const bytes = Uint8Array.from({ length: 1_048_576 }, (_, index) => (index * 31) % 251)
      const writing = yield* Effect.forkChild(left.write(bytes, WITHIN_MS), { startImmediately: true })
      yield* Effect.sleep(20)
      const found = yield* readUpTo(right, bytes.length)
      yield* Fiber.join(writing)
      yield* same("length", found.length, bytes.length)
      yield* holds(
        "bytes were lost or moved",
        found.every((byte, index) => byte === bytes[index])
      )
      return undefined
    })
  ),
  contractCase(
    "a write that the peer does not read fails in its time, and nothing follows it",
    Effect.gen(function* () {
      const [left] = yield* openPair
      const tooMuch = new Uint8Array(4 * 1_048_576)
      const failure = { _tag: "WriteTimedOut", withinMs: 50 }
      yield* same("reason", (yield* refused("the write", left.write(tooMuch, 50))).reason, failure)
      yield* same("reason", (yield* refused("the next", left.write(bytesOf("x"), WITHIN_MS))).reason, failure)
      return undefined
    })
  ),
  contractCase(
    "the given descriptor stays its owner's, and the channel's own closes with its scope",
    Effect.gen(function* () {
      const harness = yield* Harness
      const sockets = yield* Sockets
      const channels = yield* Channels
      const [left, right] = yield* sockets.pair
      yield* Effect.scoped(channels.open(left))
      const { descriptors } = yield* harness.self
      const closed = yield* Effect.scoped(channels.open(left))
      yield* eventually("descriptors", harness.self, (now) => now.descriptors === descriptors)
      yield* refused("reading from a closed channel", closed.read)
      yield* refused("writing to a closed channel", closed.write(bytesOf("x"), WITHIN_MS))
      yield* sockets.inspect(left)
      const [one, other] = [yield* channels.open(left), yield* channels.open(right)]
      yield* one.write(bytesOf("still there"), WITHIN_MS)
      yield* same("text", yield* readText(other, 11), "still there")
      return undefined
    })
  ),
  contractCase(
    "what is no connected socket is refused, and nothing stays open",
    Effect.gen(function* () {
      const harness = yield* Harness
      const sockets = yield* Sockets
      const channels = yield* Channels
      const listener = yield* sockets.listen({ address: { _tag: "Tcp", host: "127.0.0.1", port: 0 } })
      const [file] = yield* harness.openFiles(1)
      const { descriptors } = yield* harness.self
      const cases = [
        [file?.fd ?? -1, "ENOTSOCK"],
        [listener.fd, "ENOTCONN"],
        [999, "EBADF"]
      ] as const
      for (const [fd, errno] of cases) {
        const { reason } = yield* refused(`a channel on descriptor ${fd}`, Effect.scoped(channels.open(fd)))
        yield* same("errno", reason._tag === "CallFailed" ? reason.errno : reason._tag, errno)
      }
      yield* same("descriptors", (yield* harness.self).descriptors, descriptors)
      return undefined
    })
  )
]

const connectCases: ReadonlyArray<ContractCase<Sockets | Channels>> = [
  contractCase(
    "a connection to a listening path names who listens, and closes with its scope",
    Effect.gen(function* () {
      const harness = yield* Harness
      const channels = yield* Channels
      const path = `${yield* harness.temporaryDirectory}/socket`
      yield* (yield* Sockets).listen({ address: { _tag: "Unix", path } })
      const self = yield* harness.self
      const { peer } = yield* Effect.scoped(channels.connect(path))
      yield* same("peer", [peer.pid, peer.uid], [self.pid, self.uid])
      yield* eventually("descriptors", harness.self, (now) => now.descriptors === self.descriptors)
      return undefined
    })
  ),
  contractCase(
    "a path where nobody listens is refused with the errno",
    Effect.gen(function* () {
      const harness = yield* Harness
      const channels = yield* Channels
      const directory = yield* harness.temporaryDirectory
      const [file] = yield* harness.openFiles(1)
      const cases = [
        [`${directory}/none`, { _tag: "CallFailed", call: "connect", errno: "ENOENT" }],
        [file?.name ?? "", { _tag: "CallFailed", call: "connect", errno: "ECONNREFUSED" }],
        [`/tmp/${"x".repeat(200)}`, { _tag: "PathTooLong", bytes: 205, limit: 107 }]
      ] as const
      const { descriptors } = yield* harness.self
      for (const [path, reason] of cases) {
        const error = yield* refused(`a connection to ${path}`, Effect.scoped(channels.connect(path)))
        yield* same("reason", error.reason, reason)
      }
      yield* eventually("descriptors", harness.self, (now) => now.descriptors === descriptors)
      return undefined
    })
  ),
  contractCase(
    "a listener whose queue is full is tried again until the caller gives up",
    Effect.gen(function* () {
      const harness = yield* Harness
      const channels = yield* Channels
      const path = `${yield* harness.temporaryDirectory}/socket`
      yield* (yield* Sockets).listen({ address: { _tag: "Unix", path }, backlog: 1 })
      yield* Effect.all([channels.connect(path), channels.connect(path)])
      const before = yield* harness.self
      const third = yield* Effect.forkChild(Effect.scoped(channels.connect(path)), { startImmediately: true })
      yield* Effect.sleep(100)
      yield* holds("the third connection ended by itself", third.pollUnsafe() === undefined)
      yield* Fiber.interrupt(third)
      yield* eventually("descriptors", harness.self, (now) => now.descriptors === before.descriptors)
      return undefined
    })
  )
]

export const channelCases: ReadonlyArray<ContractCase<Sockets | Channels>> = [...pairCases, ...connectCases]

/**
 * The streams of a sealed swap: the session on the incumbent's handoff socket and the channel to the successor. Bytes
 * become messages and messages bytes here; what they mean is decided by core's Sealed machine.
 *
 * Each stream has a fiber that reads and one that writes, so that a peer that does not read holds up nobody else. A
 * stream that ends or is not taken in time is reported as lost, once; of one that carries no frame nothing more is read.
 */
import { type Channel, Channels } from "@handoff/core/backend/Channels"
import type { Processes } from "@handoff/core/backend/Processes"
import type { Fd } from "@handoff/core/Fd"
import * as Frame from "@handoff/core/protocol/Frame"
import type { Message } from "@handoff/core/protocol/Message"
import type { Party } from "@handoff/core/swap/Sealed"
import type { HandoffCommand, HandoffEvent } from "@handoff/core/swap/Supervision"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as HandoffPath from "./HandoffPath.ts"
import { Observer, type Point } from "./Observer.ts"

/** How long a peer may take to read one message. */
const WRITE_WITHIN_MS = 10_000

type Outgoing = { readonly message: Message; readonly version: number } | "end"

interface Session {
  readonly scope: Scope.Closeable
  /** A connection is there: what is still to be written is written before it closes. */
  open: boolean
  readonly outgoing: Queue.Queue<Outgoing>
}

const received: Readonly<Partial<Record<Message["_tag"], Point>>> = {
  Drained: "s-after-drained-recv",
  SealComplete: "s-after-seal-complete-recv",
  Ready: "s-after-ready-recv"
}

const sent = (to: Party, message: Message): Point | undefined => {
  switch (message._tag) {
    case "HelloAck":
      return to === "incumbent" ? "s-after-o-hello" : "s-after-n-hello"
    case "PrepareHandoff":
      return "s-after-prepare-sent"
    case "SealRequest":
      return "s-after-seal-request-sent"
    case "Begin":
      return "s-after-begin-sent"
    case "Commit":
      return "s-after-commit-sent"
    default:
      return undefined
  }
}

export interface HandoffSessions {
  /** Whether the process, or one that descends from it, listens at the handoff socket's path. */
  readonly isServedBy: (pid: number) => Effect.Effect<boolean>
  /**
   * Makes a copy of the descriptor the channel to the successor of this swap. It is read from when the effect that this
   * gives is run, so that nothing is reported of a successor that is not yet known.
   */
  readonly attach: (swap: number, fd: Fd) => Effect.Effect<Effect.Effect<void>, { readonly message: string }>
  readonly carryOut: (swap: number, incumbentPid: number | undefined, command: HandoffCommand) => Effect.Effect<void>
  /** The swap has ended: closes what is left of it, after what is still to be written. */
  readonly release: (swap: number) => Effect.Effect<void>
}

/** `report` takes an event of a swap. Everything ends with the scope. */
export const make = Effect.fnUntraced(function* (path: string, report: (swap: number, event: HandoffEvent) => void) {
  const channels = yield* Channels
  const context = yield* Effect.context<Channels | Processes>()
  const observe = yield* Observer
  const scope = yield* Effect.scope
  const sessions = new Map<string, Session>()
  const keyOf = (swap: number, party: Party) => `${swap}:${party}`

  const listener = Effect.provideContext(HandoffPath.listener(path), context)
  const isMember = (leader: number, pid: number) => Effect.provideContext(HandoffPath.isMember(leader, pid), context)

  const drop = (swap: number, party: Party) =>
    Effect.suspend(() => {
      const session = sessions.get(keyOf(swap, party))
      sessions.delete(keyOf(swap, party))
      return session === undefined ? Effect.void : Scope.close(session.scope, Exit.void)
    })

  const lose = (swap: number, party: Party, detail: string) =>
    Effect.suspend(() => {
      if (!sessions.has(keyOf(swap, party))) return Effect.void
      report(swap, { _tag: "Lost", from: party, detail })
      return Effect.forkIn(drop(swap, party), scope)
    })

  const readAll = (channel: Channel, swap: number, party: Party) =>
    Effect.gen(function* () {
      const decoder = new Frame.Decoder()
      for (;;) {
        const bytes = yield* channel.read
        if (bytes.length === 0) return yield* lose(swap, party, "it closed the connection")
        for (const frame of decoder.push(bytes)) {
          if (Result.isFailure(frame)) {
            return report(swap, { _tag: "Garbled", from: party, detail: Frame.explain(frame.failure) })
          }
          const { message } = frame.success
          const point = received[message._tag]
          if (point !== undefined) observe(point)
          report(swap, { _tag: "Received", from: party, message })
        }
      }
    }).pipe(Effect.catch((error) => lose(swap, party, error.message)))

  const writeAll = (channel: Channel, outgoing: Queue.Queue<Outgoing>, swap: number, party: Party) =>
    Effect.gen(function* () {
      for (;;) {
        const next = yield* Queue.take(outgoing)
        if (next === "end") return yield* Effect.forkIn(drop(swap, party), scope)
        const bytes = Frame.encode(next.message, next.version)
        if (Result.isFailure(bytes)) return yield* lose(swap, party, Frame.explain(bytes.failure))
        yield* channel.write(bytes.success, WRITE_WITHIN_MS)
        const point = sent(party, next.message)
        if (point !== undefined) observe(point)
      }
    }).pipe(Effect.catch((error) => lose(swap, party, error.message)))

  const open = Effect.fnUntraced(function* (swap: number, party: Party, channel: Channel, session: Session) {
    session.open = true
    yield* Effect.forkIn(readAll(channel, swap, party), session.scope)
    yield* Effect.forkIn(writeAll(channel, session.outgoing, swap, party), session.scope)
  })

  const register = Effect.fnUntraced(function* (swap: number, party: Party) {
    const session: Session = {
      scope: yield* Scope.fork(scope),
      open: false,
      outgoing: yield* Queue.unbounded<Outgoing>()
    }
    sessions.set(keyOf(swap, party), session)
    return session
  })

  const attach = Effect.fnUntraced(function* (swap: number, fd: Fd) {
    const session = yield* register(swap, "successor")
    const channel = yield* Effect.tapError(channels.open(fd).pipe(Scope.provide(session.scope)), () =>
      drop(swap, "successor")
    )
    return Effect.suspend(() => {
      observe("s-after-spawn-successor")
      return open(swap, "successor", channel, session)
    })
  })

  const connect = Effect.fnUntraced(function* (swap: number, incumbentPid: number | undefined) {
    const session = yield* register(swap, "incumbent")
    const attempt = Effect.gen(function* () {
      const channel = yield* channels.connect(path).pipe(Scope.provide(session.scope))
      const { pid } = channel.peer
      const member = incumbentPid !== undefined && (yield* isMember(incumbentPid, pid))
      report(swap, { _tag: "Connected", pid, member })
      yield* open(swap, "incumbent", channel, session)
    }).pipe(
      Effect.catch((error) => {
        report(swap, { _tag: "ConnectFailed", detail: error.message })
        return Effect.forkIn(drop(swap, "incumbent"), scope)
      })
    )
    yield* Effect.forkIn(attempt, session.scope)
  })

  /** Who listens, if it also takes the connection and says Hello. */
  const greeter = Effect.scoped(
    Effect.gen(function* () {
      const channel = yield* channels.connect(path)
      const decoder = new Frame.Decoder()
      for (;;) {
        const bytes = yield* channel.read
        if (bytes.length === 0) return undefined
        const [frame] = decoder.push(bytes)
        if (frame === undefined) continue
        return Result.isSuccess(frame) && frame.success.message._tag === "Hello" ? channel.peer.pid : undefined
      }
    })
  ).pipe(
    Effect.timeout(HandoffPath.LOOK_WITHIN_MS),
    Effect.orElseSucceed(() => undefined)
  )

  const probe = (swap: number, hello: boolean) =>
    Effect.forkIn(
      Effect.map(hello ? greeter : listener, (pid) => report(swap, { _tag: "PathAnswered", pid, hello })),
      scope
    )

  const put = (swap: number, party: Party, outgoing: Outgoing) =>
    Effect.suspend(() => {
      const session = sessions.get(keyOf(swap, party))
      if (session === undefined) return Effect.void
      if (outgoing === "end" && !session.open) return drop(swap, party)
      return Effect.asVoid(Queue.offer(session.outgoing, outgoing))
    })

  return {
    isServedBy: (pid) =>
      Effect.flatMap(listener, (other) => (other === undefined ? Effect.succeed(false) : isMember(pid, other))),
    attach,
    release: (swap) => Effect.andThen(put(swap, "incumbent", "end"), put(swap, "successor", "end")),
    carryOut: (swap, incumbentPid, command) => {
      switch (command._tag) {
        case "Connect":
          return connect(swap, incumbentPid)
        case "Send":
          return put(swap, command.to, { message: command.message, version: command.version })
        case "Close":
          return put(swap, command.to, "end")
        case "Probe":
          return Effect.asVoid(probe(swap, command.hello))
      }
    }
  } satisfies HandoffSessions
})

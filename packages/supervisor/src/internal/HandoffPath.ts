/**
 * Who is at the path of the handoff socket.
 */
import { Channels } from "@handoff/core/backend/Channels"
import { Processes } from "@handoff/core/backend/Processes"
import * as Effect from "effect/Effect"

/** How long a look may take: who listens there may be busy, or stopped. */
export const LOOK_WITHIN_MS = 1_000

/** The process that listens; undefined when nobody does, or in time. */
export const listener = Effect.fnUntraced(function* (path: string) {
  const channels = yield* Channels
  return yield* Effect.scoped(Effect.map(channels.connect(path), ({ peer }) => peer.pid)).pipe(
    Effect.timeout(LOOK_WITHIN_MS),
    Effect.orElseSucceed(() => undefined)
  )
})

/** Whether `pid` is the process `leader` or descends from it. */
export const isMember = Effect.fnUntraced(function* (leader: number, pid: number) {
  if (pid === leader) return true
  const processes = yield* Processes
  return (yield* processes.observe(leader, [])).pids.includes(pid)
})

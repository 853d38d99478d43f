/**
 * Gathers what can be seen of a generation, as events for the supervision machine. It decides nothing.
 */

import type { NotifySocket } from "@handoff/core/backend/Notifications"
import { Processes } from "@handoff/core/backend/Processes"
import type { ListeningSocket } from "@handoff/core/backend/Sockets"
import * as Effect from "effect/Effect"

/** What a look at a generation says about it. */
export interface Observation {
  readonly accepting: boolean
  readonly waiting: boolean
  readonly connections: number
}

/** Looks at the process and its descendants every `everyMs`, for ever. */
export const watch = Effect.fnUntraced(function* (
  pid: number,
  listeners: ReadonlyArray<ListeningSocket>,
  everyMs: number,
  report: (observation: Observation) => void
) {
  const processes = yield* Processes
  const look = Effect.map(processes.observe(pid, listeners), (seen) => {
    if (seen.pids.length === 0) return
    report({
      accepting: listeners.every((listener) => seen.waitingOn.includes(listener.inode)),
      waiting: seen.waitingOn.length > 0,
      connections: seen.connections
    })
  })
  return yield* Effect.forever(Effect.andThen(Effect.sleep(everyMs), look))
})

/** Reads a generation's notify socket for ever; `report` is called for READY=1. */
export const listen = (socket: NotifySocket, report: (fields: Readonly<Record<string, string>>) => void) =>
  Effect.forever(Effect.map(socket.take, (notification) => report(notification.fields)))

const GROUP_POLL_MS = 20

/** Waits until nobody of the group is left. */
export const groupEmpty = Effect.fnUntraced(function* (group: number) {
  const processes = yield* Processes
  if (!processes.capabilities.has("group")) return
  while ((yield* processes.groupMembers(group)).length > 0) yield* Effect.sleep(GROUP_POLL_MS)
})

/**
 * The listeners of a supervisor: bound once, by name, in the order of their descriptors.
 *
 * All generations share the one open file description of each listener, so that connections wait in its queue while
 * nobody accepts. Which socket a generation gets is looked up through the name at each launch.
 */
import * as Address from "@handoff/core/Address"
import { type ListeningSocket, Sockets } from "@handoff/core/backend/Sockets"
import * as ListenEnvironment from "@handoff/core/ListenEnvironment"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { ListenerOptions } from "./Supervisor.ts"
import { SetupError } from "./SupervisorError.ts"

export interface Listener {
  readonly name: string
  readonly socket: ListeningSocket
}

const setupError = (name: string) => (error: { readonly message: string }) =>
  new SetupError({ subject: `listener "${name}"`, detail: error.message })

const bind = (name: string, wish: string | ListenerOptions) =>
  Effect.gen(function* () {
    const sockets = yield* Sockets
    if (!ListenEnvironment.isName(name)) {
      return yield* new SetupError({
        subject: `listener "${name}"`,
        detail: "a name has 1 to 255 printable ASCII characters and no colon"
      })
    }
    // Keys that look like integers come first in an object, whatever the order they were written in.
    if (/^\d+$/.test(name)) {
      return yield* new SetupError({
        subject: `listener "${name}"`,
        detail: "a name must not be a number: the order of the descriptors would not be the order of the names"
      })
    }
    const options = typeof wish === "string" ? { address: wish } : wish
    const address =
      typeof options.address === "string"
        ? yield* Effect.fromResult(Address.parse(options.address)).pipe(Effect.mapError(setupError(name)))
        : options.address
    const socket = yield* sockets.listen({ ...options, address }).pipe(Effect.mapError(setupError(name)))
    return { name, socket } satisfies Listener
  })

/** Binds every listener, or none. */
export const bindAll = (
  wishes: Readonly<Record<string, string | ListenerOptions>>
): Effect.Effect<ReadonlyArray<Listener>, SetupError, Sockets | Scope.Scope> =>
  Effect.forEach(Object.entries(wishes), ([name, wish]) => bind(name, wish))

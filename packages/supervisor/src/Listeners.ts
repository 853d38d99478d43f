/**
 * The listeners of a supervisor: bound once, or taken over from the processes of one that died, by name, in the order of their descriptors.
 *
 * All generations share the one open file description of each listener, so that connections wait in its queue while
 * nobody accepts. Which socket a generation gets is looked up through the name at each launch.
 */
import * as Address from "@handoff/core/Address"
import type { Processes } from "@handoff/core/backend/Processes"
import { type ListeningSocket, Sockets } from "@handoff/core/backend/Sockets"
import type { Fd } from "@handoff/core/Fd"
import * as ListenEnvironment from "@handoff/core/ListenEnvironment"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Adoption from "./internal/Adoption.ts"
import type { ListenerOptions } from "./Supervisor.ts"
import { SetupError } from "./SupervisorError.ts"

export interface Listener {
  readonly name: string
  readonly socket: ListeningSocket
}

const setupError = (name: string) => (error: { readonly message: string }) =>
  new SetupError({ subject: `listener "${name}"`, detail: error.message })

const bind = (name: string, wish: string | ListenerOptions, found: Adoption.Found | undefined) =>
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
    if (options.inherited !== undefined) {
      return { name, socket: yield* inherited(name, options.inherited, options.backlog) } satisfies Listener
    }
    const saved = Adoption.savedListener(found, name, address)
    const taken = found === undefined || saved === undefined ? undefined : yield* Adoption.takeListener(found, saved)
    const socket = taken ?? (yield* sockets.listen({ ...options, address }).pipe(Effect.mapError(setupError(name))))
    return { name, socket } satisfies Listener
  })

/** A listener that whoever started this process bound. */
const inherited = (name: string, fd: Fd, backlog = 4096) =>
  Effect.gen(function* () {
    const sockets = yield* Sockets
    const facts = yield* sockets.inspect(fd).pipe(Effect.mapError(setupError(name)))
    if (!facts.listening) {
      return yield* new SetupError({ subject: `listener "${name}"`, detail: `descriptor ${fd} is not listening` })
    }
    // How long the queue is the kernel does not tell of a socket of somebody else's.
    const lengths = { requested: backlog, effective: backlog }
    return { fd, address: facts.address, inode: facts.inode, backlog: lengths } satisfies ListeningSocket
  })

/** Takes every listener over from what was found, inherits it or binds it; all of them, or none. */
export const open = (
  wishes: Readonly<Record<string, string | ListenerOptions>>,
  found: Adoption.Found | undefined
): Effect.Effect<ReadonlyArray<Listener>, SetupError, Sockets | Processes | Scope.Scope> =>
  Effect.forEach(Object.entries(wishes), ([name, wish]) => bind(name, wish, found)).pipe(
    Effect.catchTag("AddressError", (error) =>
      Effect.fail(new SetupError({ subject: "state.json", detail: error.message }))
    )
  )

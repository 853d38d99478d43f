/**
 * What the service manager that started us gives us, and what we tell it: systemd's side of a supervisor.
 *
 * Taken (sd_listen_fds(3)): descriptors from 3 on, of socket activation or of the descriptor store, when LISTEN_PID names us.
 * Each is checked to be an open listening socket and made close-on-exec, then the variables are removed, so that no
 * generation takes them for its own; NOTIFY_SOCKET goes with them. An error changes nothing.
 *
 * A listener takes the first descriptor of its name instead of binding. A single descriptor that nobody named, in the
 * file-descriptor sense of systemd (no name, or the socket unit's own), goes to a single listener. What no listener takes
 * is reported and closed: left open, its queue would swallow connections that nobody accepts.
 *
 * A unix socket whose path is gone is not taken: nobody could connect to it, and a socket can't be given a path again. So
 * the listener binds anew, and the store is told to forget the old one, which would come first the next time. That happens
 * after an orderly stop, which removes the path while the store keeps the socket.
 *
 * Told (sd_notify(3)): READY=1, STOPPING=1, STATUS=..., and for each listener that was bound here FDSTORE=1 with its
 * descriptor. What came from the manager is in its store or its socket unit already.
 *
 * Limit: a manager that can't be told is not worth an outage; the first failure is reported, the rest are silent.
 */
import { closeSync, existsSync } from "node:fs"
import * as InheritedSocket from "@handoff/backend-ffi/InheritedSocket"
import * as Notify from "@handoff/backend-ffi/Notify"
import * as Address from "@handoff/core/Address"
import { type ListeningSocket, Sockets } from "@handoff/core/backend/Sockets"
import type { Fd } from "@handoff/core/Fd"
import * as ListenEnvironment from "@handoff/core/ListenEnvironment"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import { SetupError } from "../SupervisorError.ts"

export interface Descriptor {
  readonly name: string
  readonly fd: Fd
  readonly address: Address.Address
  /** False for a unix socket whose path is gone. */
  readonly reachable: boolean
}

export interface Given {
  readonly descriptors: ReadonlyArray<Descriptor>
  readonly notifySocket: string | undefined
}

const setupError = (detail: string) => new SetupError({ subject: "listeners of the service manager", detail })

/** The path that a unix socket was published under, which is not always the name the kernel knows. */
const published = (address: Address.Address): Address.Address =>
  address._tag === "Unix" ? { ...address, path: address.path.replace(InheritedSocket.TEMPORARY_ENDING, "") } : address

const inspect = ({ name, fd }: ListenEnvironment.InheritedListener): Result.Result<Descriptor, SetupError> =>
  Result.mapBoth(InheritedSocket.inspectListener(fd), {
    onSuccess: (facts) => {
      const address = published(facts.address)
      const reachable = address._tag === "Tcp" || address.path.startsWith("@") || existsSync(address.path)
      return { name, fd, address, reachable }
    },
    onFailure: (refusal) => setupError(`"${name}": ${InheritedSocket.describe(refusal)}`)
  })

/** Takes what `environment` holds for the process `pid`, and removes the variables it came in. */
export const take = (environment: NodeJS.ProcessEnv, pid: number): Result.Result<Given, SetupError> =>
  Result.gen(function* () {
    const { LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES, NOTIFY_SOCKET } = environment
    // sd_listen_fds(3): without LISTEN_PID, or with another's, the descriptors are not for us. NOTIFY_SOCKET is, in any case.
    const read =
      LISTEN_PID === String(pid)
        ? yield* Result.mapError(ListenEnvironment.read({ LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES }, pid), (error) =>
            setupError(error.message)
          )
        : undefined
    const descriptors = yield* Result.all((read?.listeners ?? []).map(inspect))
    for (const { name, fd } of descriptors) {
      yield* Result.mapError(InheritedSocket.setCloseOnExec(fd), (errno) => setupError(`"${name}": fcntl = ${errno}`))
    }
    for (const variable of read?.consumed ?? []) delete environment[variable]
    delete environment.NOTIFY_SOCKET
    return { descriptors, notifySocket: NOTIFY_SOCKET === "" ? undefined : NOTIFY_SOCKET }
  })

export interface Assignment {
  /** The descriptor of each listener that gets one. */
  readonly taken: ReadonlyMap<string, Fd>
  readonly unused: ReadonlyArray<Descriptor>
  /** One line each, for a person. */
  readonly notes: ReadonlyArray<string>
}

/** What systemd calls a descriptor that nobody named: nothing, or its socket unit. */
const isUnnamed = (name: string): boolean => name === "" || name === "unknown" || name.endsWith(".socket")

const whyUnused = (one: Descriptor, wanted: ReadonlyArray<string>): string => {
  if (!one.reachable) return "its path is gone; the listener binds anew"
  return wanted.includes(one.name) ? "another one of that name was taken" : "no listener has that name"
}

/** Which listener takes which descriptor. Pure. */
export const assign = (descriptors: ReadonlyArray<Descriptor>, wanted: ReadonlyArray<string>): Assignment => {
  const [single] = descriptors
  const [only] = wanted
  const lone = descriptors.length === 1 && wanted.length === 1 && single !== undefined && isUnnamed(single.name)
  const nameOf = (one: Descriptor) => (lone && only !== undefined ? only : one.name)
  const taken = new Map<string, Fd>()
  const unused: Array<Descriptor> = []
  const notes: Array<string> = []
  for (const one of descriptors) {
    const name = nameOf(one)
    const what = `descriptor ${one.fd} ("${one.name}", ${Address.format(one.address)})`
    if (wanted.includes(name) && !taken.has(name) && one.reachable) {
      taken.set(name, one.fd)
      notes.push(`listener ${name} is ${what} of the service manager`)
    } else {
      unused.push(one)
      notes.push(`${what} of the service manager is not used: ${whyUnused(one, wanted)}`)
    }
  }
  return { taken, unused, notes }
}

export interface ServiceManager {
  /** Sends `KEY=VALUE` lines; does nothing when nobody asked to be told. */
  readonly tell: (text: string) => void
  /** Puts a listener's descriptor into the manager's store. */
  readonly store: (name: string, fd: Fd) => void
  /** Closes a descriptor that no listener took; one that no client can reach is taken out of the store, too. */
  readonly drop: (unused: Descriptor) => void
}

/** `complain` is called once, with the first failure. */
export const make = (notifySocket: string | undefined, complain: (text: string) => void): ServiceManager => {
  let complained = false
  const send = (text: string, fds: ReadonlyArray<Fd>) => {
    if (notifySocket === undefined) return
    const sent = fds.length === 0 ? Notify.send(notifySocket, text) : Notify.sendDescriptors(notifySocket, text, fds)
    if (Result.isSuccess(sent) || complained) return
    complained = true
    complain(`the service manager could not be told: ${notifySocket}: ${sent.failure}`)
  }
  return {
    tell: (text) => send(text, []),
    store: (name, fd) => send(`FDSTORE=1\nFDNAME=${name}`, [fd]),
    drop: ({ name, fd, reachable }) => {
      closeSync(fd)
      if (!reachable) send(`FDSTOREREMOVE=1\nFDNAME=${name}`, [])
    }
  }
}

/**
 * Sockets that hand each listener to `store` as soon as it is bound. Which listener that is, is told by the address it was
 * bound for; of several for the same address, by their order.
 */
export const storingSockets = (
  wanted: ReadonlyArray<{ readonly name: string; readonly address: string }>,
  store: ServiceManager["store"]
): Layer.Layer<Sockets, never, Sockets> =>
  Layer.effect(
    Sockets,
    Effect.map(Sockets, (sockets) => {
      const waiting = [...wanted]
      const keep = (asked: Address.Address, { fd }: ListeningSocket) => {
        const text = Address.format(asked)
        const index = waiting.findIndex((one) =>
          Result.match(Address.parse(one.address), {
            onSuccess: (address) => Address.format(address) === text,
            onFailure: () => false
          })
        )
        const [found] = index < 0 ? [] : waiting.splice(index, 1)
        if (found !== undefined) store(found.name, fd)
      }
      return {
        ...sockets,
        listen: (options) =>
          Effect.tap(sockets.listen(options), (socket) => Effect.sync(() => keep(options.address, socket)))
      }
    })
  )

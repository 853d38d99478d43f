/**
 * The contract `Channels` over the streams of a simulated kernel (SimulatedStreams.ts).
 *
 * A connection is made to a path at which a simulated process listens, and answered by whoever accepts it for that process;
 * until then its bytes wait. Its time is Effect's Clock: a write that nobody reads fails when TestClock says so.
 */
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { type Channel, ChannelError, type ChannelErrorReason, Channels } from "../backend/Channels.ts"
import type { ErrnoName } from "../Errno.ts"
import type { Fd } from "../Fd.ts"
import type { Done, Kernel } from "./SimulatedKernel.ts"
import * as SimulatedKernel from "./SimulatedKernel.ts"
import * as SimulatedStreams from "./SimulatedStreams.ts"
import type { SimulationDriver } from "./SimulationDriver.ts"

/** sizeof(sun_path) less its NUL: unix(7). */
const MAX_PATH_BYTES = 107
const BACKLOG_RETRY_MS = 20

interface Link {
  readonly fd: Fd
  /** Once it is closed, another may have its number. */
  open: boolean
  torn: ChannelErrorReason | undefined
}

const callFailed = (call: string, errno: ErrnoName): ChannelErrorReason => ({ _tag: "CallFailed", call, errno })

/** Repeats a call that gives EAGAIN, each time something has changed. */
const patiently = <A>(
  driver: SimulationDriver,
  link: Link,
  name: string,
  f: (kernel: Kernel) => Done<A> | ErrnoName
): Effect.Effect<A, ChannelErrorReason> => {
  const call = (kernel: Kernel) => (link.open ? f(kernel) : "EBADF")
  return Effect.gen(function* () {
    for (;;) {
      const done = yield* driver.call<A, ErrnoName>(call)
      if (typeof done !== "string") return done
      if (done !== "EAGAIN") return yield* Effect.fail(callFailed(name, done as ErrnoName))
      yield* driver.until(({ kernel }) => (call(kernel) === "EAGAIN" ? undefined : true))
    }
  })
}

const channelOf = (driver: SimulationDriver, link: Link, peer: Channel["peer"], subject: string): Channel => {
  const fail = (reason: ChannelErrorReason) => new ChannelError({ subject, reason })
  const { self } = driver
  const writeAll = Effect.fnUntraced(function* (bytes: Uint8Array) {
    if (link.torn !== undefined) return yield* Effect.fail(link.torn)
    let rest = bytes.slice()
    do {
      const left = rest
      const sent = yield* patiently(driver, link, "write", (kernel) =>
        SimulatedStreams.send(kernel, self, link.fd, left)
      )
      rest = rest.subarray(sent)
    } while (rest.length > 0)
  })
  return {
    peer,
    read: Effect.mapError(
      patiently(driver, link, "read", (kernel) => SimulatedStreams.receive(kernel, self, link.fd)),
      fail
    ),
    write: (bytes, withinMs) =>
      Effect.mapError(
        Effect.timeoutOrElse(writeAll(bytes), {
          duration: withinMs,
          orElse: () => {
            link.torn = { _tag: "WriteTimedOut", withinMs }
            return Effect.fail(link.torn)
          }
        }),
        fail
      )
  }
}

/** A channel on a descriptor of ours, closed with the scope. */
const opened = (
  driver: SimulationDriver,
  subject: string,
  call: string,
  open: (kernel: Kernel) => Done<Fd> | ErrnoName
) =>
  Effect.gen(function* () {
    const link = yield* Effect.acquireRelease(
      Effect.flatMap(driver.call<Fd, ErrnoName>(open), (fd) =>
        typeof fd === "string"
          ? Effect.fail(callFailed(call, fd as ErrnoName))
          : Effect.succeed<Link>({ fd, open: true, torn: undefined })
      ),
      (one) => {
        one.open = false
        return driver.call((kernel) => SimulatedKernel.close(kernel, driver.self, one.fd))
      }
    )
    const { kernel } = yield* driver.machine
    const found = SimulatedKernel.describe(kernel, driver.self, link.fd)
    if (found?._tag !== "Stream") {
      return yield* Effect.fail(callFailed("getsockopt", found?._tag === "File" ? "ENOTSOCK" : "ENOTCONN"))
    }
    return channelOf(driver, link, found.creator, subject)
  })

const pathProblem = (path: string): ChannelErrorReason | undefined => {
  const bytes = new TextEncoder().encode(path).length
  return bytes > MAX_PATH_BYTES ? { _tag: "PathTooLong", bytes, limit: MAX_PATH_BYTES } : undefined
}

export const make = (driver: SimulationDriver): Channels["Service"] =>
  Channels.of({
    connect: (path) =>
      Effect.suspend(() => {
        const problem = pathProblem(path)
        if (problem !== undefined) return Effect.fail(problem)
        return opened(driver, path, "connect", (kernel) => SimulatedStreams.connect(kernel, driver.self, path))
      }).pipe(
        Effect.retry({
          schedule: Schedule.spaced(BACKLOG_RETRY_MS),
          while: (reason) => reason._tag === "CallFailed" && reason.errno === "EAGAIN"
        }),
        Effect.mapError((reason) => new ChannelError({ subject: path, reason }))
      ),
    open: (fd) => {
      const subject = `fd ${fd}`
      const copy = (kernel: Kernel) => {
        const key = SimulatedKernel.keyOf(kernel, driver.self, fd)
        return key === undefined ? "EBADF" : SimulatedKernel.share(kernel, driver.self, key)
      }
      return Effect.mapError(opened(driver, subject, "fcntl", copy), (reason) => new ChannelError({ subject, reason }))
    }
  })

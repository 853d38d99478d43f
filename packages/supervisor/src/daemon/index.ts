/**
 * `@handoff/supervisor/daemon`: what a server imports to be replaced without a failed request. Plain promises.
 *
 * ```ts
 * import { createServer } from "node:http"
 * import { daemon } from "@handoff/supervisor/daemon"
 *
 * const handoff = await daemon()
 * await handoff.serve(createServer(app), "http", "127.0.0.1:8080")
 * ```
 *
 * Started with listeners (by `handoff run`, systemd, or anything that sets LISTEN_FDS), the server gets the one named
 * "http"; started by hand, it binds the address. On SIGTERM it drains and the process exits.
 *
 * This entry and what it imports stay clear of Effect's runtime and of Schema, which would cost a server's start 60 to
 * 160 ms; the FFI is loaded only when there is something inherited to check. `@handoff/supervisor/daemon/effect` is the
 * same for programs in Effect.
 */
import { Daemon, type DaemonOptions } from "./Daemon.ts"
import { inherit } from "./Inheritance.ts"

export type { Daemon, DaemonOptions, DrainOutcome, Served } from "./Daemon.ts"
export { DaemonError, type DaemonErrorReason } from "./DaemonError.ts"

const drainOn = (handoff: Daemon, { stopSignal = "SIGTERM", signal }: DaemonOptions): void => {
  // The handler stays: without it a second signal would end the process in the middle of its drain.
  if (stopSignal !== false) process.on(stopSignal, () => handoff.drain())
  if (signal?.aborted) handoff.drain()
  else signal?.addEventListener("abort", () => handoff.drain(), { once: true })
}

/**
 * Takes over what this process was started with: claims the listeners of LISTEN_FDS, LISTEN_FDNAMES and LISTEN_PID, and
 * consumes these variables and NOTIFY_SOCKET so that its own children do not see them (sd_listen_fds(3)). A LISTEN_PID of
 * another process means that nothing was passed to this one.
 *
 * Call it once, early: from then on the stop signal means drain. Rejects with a {@link DaemonError} when the variables
 * contradict each other or a descriptor is no listening socket; variables and descriptors are then as before.
 *
 * @example
 * const handoff = await daemon({ onDrained: () => database.close() })
 * await handoff.serve(createServer(app), "http", "127.0.0.1:8080")
 * await handoff.serve(createServer(metrics), "metrics", "127.0.0.1:9090")
 */
export const daemon = async (options: DaemonOptions = {}): Promise<Daemon> => {
  const handoff = new Daemon(await inherit(process.env), options)
  drainOn(handoff, options)
  if (options.exit !== false) {
    // One turn later, so that who waits for `drained` is heard first.
    handoff.drained.then(() => setImmediate(() => process.exit(process.exitCode ?? 0)))
  }
  return handoff
}

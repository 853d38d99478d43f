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
 * 160 ms; the FFI is loaded only when there is something inherited to check, or data to lock. `@handoff/supervisor/daemon/effect` is the
 * same for programs in Effect.
 */
import type { Daemon, DaemonOptions } from "./Daemon.ts"
import type { DataOptions } from "./DataOptions.ts"
import { start } from "./internal/Start.ts"
import type { Acquainted, HandshakeOptions } from "./Successor.ts"

export type { Daemon, DaemonOptions, DrainOutcome, Served } from "./Daemon.ts"
export { DaemonError, type DaemonErrorReason } from "./DaemonError.ts"
export type { DataOptions, Deadline, OpenContext, Progress, Sealed, Snapshot } from "./DataOptions.ts"
export type {
  Acquainted,
  Announcement,
  Begun,
  Equipped,
  HandshakeOptions,
  Locked,
  Opened,
  Serving
} from "./Successor.ts"

/**
 * Takes over what this process was started with: claims the listeners of LISTEN_FDS, LISTEN_FDNAMES and LISTEN_PID, and
 * consumes these variables and NOTIFY_SOCKET so that its own children do not see them (sd_listen_fds(3)). A LISTEN_PID of
 * another process means that nothing was passed to this one.
 *
 * Call it once, early: from then on the stop signal means drain. Rejects with a {@link DaemonError} when the variables
 * contradict each other or a descriptor is no listening socket; variables and descriptors are then as before.
 *
 * With a `dataDir` the daemon owns that directory: its lock is held before `open` runs, and a supervisor can replace the
 * process in a sealed handoff (drain, seal, lock given back; then the successor's lock and `open`). A successor that does
 * not come to serve writes one line to stderr and exits with status 1; with `exit: false` the promise rejects.
 *
 * @example
 * const handoff = await daemon({ onDrained: () => database.close() })
 * await handoff.serve(createServer(app), "http", "127.0.0.1:8080")
 * await handoff.serve(createServer(metrics), "metrics", "127.0.0.1:9090")
 *
 * @example
 * const handoff = await daemon({ dataDir: "./data", open: () => store.open(), seal: () => store.close() })
 * await handoff.serve(createServer(app), "http", "127.0.0.1:8080")
 */
export function daemon(options: DataOptions): Promise<Daemon>
export function daemon(options?: DaemonOptions & { readonly dataDir?: never }): Promise<Daemon>
export function daemon(options: DaemonOptions | DataOptions = {}): Promise<Daemon> {
  return start(options)
}

/**
 * A successor's way to serving in single steps (Successor.ts), for programs that want more between them than the hooks of
 * `daemon()`. Undefined when this process is no successor.
 */
export const handshake = async (options: HandshakeOptions): Promise<Acquainted | undefined> =>
  (await import("./Successor.ts")).handshake(options)

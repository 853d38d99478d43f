/**
 * The points of a handoff at which its fault tests end a process, and the hook through which they learn of them.
 *
 * Every step goes through `observe`. The hook is a parameter of internal constructors alone: `daemon()` passes one that
 * does nothing, no environment variable is read for it, and `daemon/internal` is not exported by the package, so a
 * program that uses the package has no way to set it. The role program of the fault tests (test/fault/Daemon.ts) imports
 * the source of internal/Start.ts by its path and ends the process there.
 */

export type Point =
  | "o-inside-drain"
  | "o-after-drained-sent"
  | "o-inside-seal"
  | "o-after-seal-flock-released"
  | "o-after-seal-complete-sent"
  | "o-after-commit-recv"
  | "n-before-handshake"
  | "n-after-handshake"
  | "n-after-begin"
  /** The state is open; Ready is not sent. */
  | "n-before-announce-ready"
  | "n-after-announce-ready"
  | "n-before-publish"
  | "n-after-publish"

export type Observe = (point: Point) => void

export const observeNothing: Observe = () => undefined

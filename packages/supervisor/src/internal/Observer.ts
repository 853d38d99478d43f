/**
 * A look into the supervisor at the named moments of a sealed swap, for tests that end the process right there.
 *
 * In production nobody listens: the default does nothing, and the only way to another is to provide this service, which
 * no entry point of the package exports and no variable of the environment reaches.
 */
import * as Context from "effect/Context"

export type Point =
  | "s-after-o-hello"
  | "s-after-spawn-successor"
  | "s-after-n-hello"
  | "s-after-prepare-sent"
  | "s-after-drained-recv"
  | "s-after-seal-request-sent"
  | "s-after-seal-complete-recv"
  | "s-after-begin-sent"
  | "s-after-ready-recv"
  | "s-after-commit-sent"
  | "s-after-journal-clear"

export const Observer = Context.Reference<(point: Point) => void>("@handoff/supervisor/internal/Observer", {
  defaultValue: () => () => undefined
})

/**
 * Programs that a test needs and a machine may lack: wrk, strace, go, a cross compiler.
 *
 * On a developer's machine a test is skipped when its program is missing, and its name says why. In CI (`CI=true`) it
 * must not be skipped silently: there a missing program fails the module that asks for it.
 *
 * @example
 * const wrk = requireTool("wrk")
 * it.skipIf(!wrk.available)(`20 swaps under wrk${wrk.reason}`, ...)
 */
import { accessSync, constants } from "node:fs"
import { delimiter, join } from "node:path"

/** Where programs live that are not always in PATH. */
const MORE_DIRECTORIES = ["/usr/local/go/bin", "/usr/bin", "/usr/sbin"]

export type Tool =
  | { readonly available: true; readonly path: string; readonly reason: "" }
  /** `reason` is made to be put after a test's name: ` (skipped: no wrk in PATH)`. */
  | { readonly available: false; readonly path: undefined; readonly reason: string }

/** Absolute path of a program, or undefined. */
export const findTool = (name: string): string | undefined => {
  const directories = [...(process.env.PATH ?? "").split(delimiter).filter((part) => part !== ""), ...MORE_DIRECTORIES]
  return directories
    .map((directory) => join(directory, name))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK)
        return true
      } catch {
        return false
      }
    })
}

export const isContinuousIntegration = (): boolean => process.env.CI === "true" || process.env.CI === "1"

const unavailable = (what: string): Tool => {
  if (isContinuousIntegration()) throw new Error(`${what}, and in CI no test may be skipped for that`)
  return { available: false, path: undefined, reason: ` (skipped: ${what})` }
}

/** The program, or why a test that needs it is skipped. Throws in CI when it is missing. */
export const requireTool = (name: string): Tool => {
  const path = findTool(name)
  return path === undefined ? unavailable(`no ${name} in PATH`) : { available: true, path, reason: "" }
}

/** Root, or why a test that needs it is skipped. Throws in CI otherwise. */
export const requireRoot = (): Tool =>
  process.getuid?.() === 0 ? { available: true, path: "", reason: "" } : unavailable("not run as root")

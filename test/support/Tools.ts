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
import { spawnSync } from "node:child_process"
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

/** Major and minor version in what `--version` prints; `0.0` when it prints none. */
const versionOf = (path: string): string =>
  /\d+\.\d+/.exec(spawnSync(path, ["--version"], { encoding: "utf8" }).stdout ?? "")?.[0] ?? "0.0"

const isOlder = (version: string, least: string): boolean => {
  const [major = 0, minor = 0] = version.split(".").map(Number)
  const [leastMajor = 0, leastMinor = 0] = least.split(".").map(Number)
  return major < leastMajor || (major === leastMajor && minor < leastMinor)
}

/**
 * The program, or why a test that needs it is skipped. Throws in CI when it is missing.
 *
 * @param least `major.minor` of the oldest version that will do
 */
export const requireTool = (name: string, least = "0.0"): Tool => {
  const path = findTool(name)
  if (path === undefined) return unavailable(`no ${name} in PATH`)
  const version = least === "0.0" ? least : versionOf(path)
  if (isOlder(version, least)) return unavailable(`${path} is ${version}, needed is ${least}`)
  return { available: true, path, reason: "" }
}

/** Root, or why a test that needs it is skipped. Throws in CI otherwise. */
export const requireRoot = (): Tool =>
  process.getuid?.() === 0 ? { available: true, path: "", reason: "" } : unavailable("not run as root")

/**
 * What this machine can do for the backend, found by trying.
 *
 * {@link probe} gathers plain data for a person (`handoff doctor`) and for the layers, which refuse to start where
 * something required is missing. It runs once a process: it takes about a millisecond and one short-lived child.
 */
import { readlinkSync } from "node:fs"
import { release } from "node:os"
import * as Result from "effect/Result"
import * as Clone from "./internal/Clone.ts"
import { numbers } from "./internal/SystemCallNumbers.ts"
import * as Libc from "./Libc.ts"
import * as Pidfd from "./Pidfd.ts"
import type { Architecture } from "./trampoline/Code.ts"
import { UnsupportedPlatform } from "./UnsupportedPlatform.ts"

export { UnsupportedPlatform } from "./UnsupportedPlatform.ts"

export type CheckName = "c-library" | "executable-memory" | "clone" | "procfs" | "pid-stamp" | "pidfd" | "close-range"

/** One thing that was tried. `why` says what was seen, and what it means where it is not ok. */
export interface Check {
  readonly name: CheckName
  /** Without it the backend refuses to work. */
  readonly required: boolean
  readonly ok: boolean
  readonly why: string
}

export interface Report {
  readonly platform: string
  readonly arch: string
  /** `glibc 2.36`, or undefined where it could not be opened. */
  readonly libc: string | undefined
  /** Kernel release (uname(2)). */
  readonly kernel: string
  readonly supported: boolean
  readonly checks: ReadonlyArray<Check>
}

/** What the layers build on where the platform is supported. */
export interface Machine {
  readonly libc: Libc.Libc
  readonly architecture: Architecture
  readonly clone: Clone.Clone
  readonly pidStamp: boolean
  readonly pidfd: boolean
  readonly closeRange: boolean
}

const CLOSE_RANGE_CLOEXEC = 4
const MAX_UINT = 0xffff_ffff

const check = (name: CheckName, required: boolean, problem: string | undefined, fine: string): Check => ({
  name,
  required,
  ok: problem === undefined,
  why: problem ?? fine
})

/** readlink("/proc/self") must name this process by the pid it knows itself: an outer /proc in a pid namespace does not. */
const procfs = (): { readonly mounted: string | undefined; readonly own: string | undefined } => {
  try {
    const seen = readlinkSync("/proc/self")
    const own = seen === String(process.pid) ? undefined : `/proc/self is ${seen}, and this process is ${process.pid}`
    return { mounted: undefined, own }
  } catch (error) {
    const why = `/proc can't be read: ${error instanceof Error ? error.message : String(error)}`
    return { mounted: why, own: why }
  }
}

/** A plan that must fail at its only step: executing a directory is EACCES. It shows that child and trampoline work. */
const cloneProblem = (clone: Clone.Clone): string | undefined => {
  const outcome = clone({ version: 1, calls: [{ _tag: "Execute", path: "/", argv: ["/"], environment: {} }] })
  if (Result.isSuccess(outcome)) return `a child of this process executed "/"`
  const reason = outcome.failure
  if (reason._tag === "StepFailed" && reason.errno === "EACCES") return undefined
  return `a child could not be started: ${"errno" in reason ? `${reason.call} = ${reason.errno}` : reason._tag}`
}

const closeRangeProblem = (libc: Libc.Libc, architecture: Architecture): string | undefined => {
  // The last possible number: the call closes nothing.
  const args = [numbers[architecture].close_range, MAX_UINT, MAX_UINT, CLOSE_RANGE_CLOEXEC] as const
  const { errno } = libc.call("syscall", "i64", ["i64", "i64", "i64", "i64"], args)
  return errno === undefined
    ? undefined
    : `close_range(CLOSE_RANGE_CLOEXEC) = ${errno}: descriptors are listed and closed one by one`
}

interface Probed {
  readonly report: Report
  readonly machine: Machine | undefined
}

const summarize = (libc: string | undefined, checks: ReadonlyArray<Check>): Report => ({
  platform: process.platform,
  arch: process.arch,
  libc,
  kernel: release(),
  supported: checks.every(({ required, ok }) => ok || !required),
  checks
})

const run = (): Probed => {
  const opened = Libc.open()
  if (Result.isFailure(opened)) {
    const checks = opened.failure.missing.map((why) => check("c-library", true, why, ""))
    return { report: summarize(undefined, checks), machine: undefined }
  }
  const libc = opened.success
  // Libc.open has refused other architectures.
  const architecture: Architecture = process.arch === "arm64" ? "arm64" : "x64"
  const version = `glibc ${libc.text(libc.call("gnu_get_libc_version", "address", [], []).value) ?? "?"}`
  const made = Clone.make(libc, architecture)
  const mapping = Result.isFailure(made) ? `machine code can't be mapped: ${made.failure.message}` : undefined
  const clone = Result.isFailure(made) ? undefined : made.success
  const noClone = clone === undefined ? "it needs executable memory" : cloneProblem(clone)
  const proc = procfs()
  const noStamp = proc.own === undefined ? undefined : `${proc.own}: LISTEN_PID can't be stamped`
  const pidfdErrno = Pidfd.obstacle(libc, architecture)
  const noPidfd = pidfdErrno === undefined ? undefined : `pidfd_open = ${pidfdErrno}: processes have no pidfd`
  const noCloseRange = closeRangeProblem(libc, architecture)
  const checks = [
    check("c-library", true, undefined, `${version} (${Libc.SONAME})`),
    check("executable-memory", true, mapping, "code is mapped read and execute"),
    check("clone", true, noClone, "clone(CLONE_VM | CLONE_VFORK) runs a child's program"),
    check("procfs", true, proc.mounted, "/proc is mounted"),
    check("pid-stamp", false, noStamp, "/proc/self names this process"),
    check("pidfd", false, noPidfd, "pidfd_open works"),
    check("close-range", false, noCloseRange, "close_range(CLOSE_RANGE_CLOEXEC) works")
  ]
  const report = summarize(version, checks)
  if (!report.supported || clone === undefined) return { report, machine: undefined }
  const machine: Machine = {
    libc,
    architecture,
    clone,
    pidStamp: noStamp === undefined,
    pidfd: noPidfd === undefined,
    closeRange: noCloseRange === undefined
  }
  return { report, machine }
}

let probed: Probed | undefined

const once = (): Probed => {
  probed ??= run()
  return probed
}

/** What this machine offers and lacks, as plain data. It never throws; in a worker thread it reports that. */
export const probe = (): Report => once().report

/** What the layers build on, or why they can't. */
export const machine = (): Result.Result<Machine, UnsupportedPlatform> => {
  const { report, machine: found } = once()
  if (found !== undefined) return Result.succeed(found)
  const missing = report.checks.filter(({ required, ok }) => required && !ok).map(({ why }) => why)
  return Result.fail(new UnsupportedPlatform({ missing }))
}

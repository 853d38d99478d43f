/**
 * What a program sees of itself right after exec. The simulated kernel predicts it, an observing program reports it, and
 * the two are compared.
 */
import type { Fd } from "../Fd.ts"
import type { Resource, ResourceLimit } from "../Launch.ts"
import type { Kernel } from "./SimulatedKernel.ts"
import type * as SimulatedProcess from "./SimulatedProcess.ts"

export interface ChildView {
  readonly pid: number
  readonly parent: number
  readonly group: number
  readonly session: number
  readonly argv: ReadonlyArray<string>
  readonly environment: Readonly<Record<string, string>>
  /** By number: what readlink(2) of /proc/self/fd/N gives. */
  readonly descriptors: Readonly<Record<Fd, string>>
  /** Descriptors with FD_CLOEXEC set: none, right after exec. */
  readonly closeOnExec: ReadonlyArray<Fd>
  readonly workingDirectory: string
  readonly umask: number
  readonly identity: { readonly uid: number; readonly gid: number; readonly groups: ReadonlyArray<number> }
  readonly limits: Partial<Readonly<Record<Resource, ResourceLimit>>>
  /** Numbers, ascending. */
  readonly blockedSignals: ReadonlyArray<number>
  readonly ignoredSignals: ReadonlyArray<number>
  readonly noNewPrivileges: boolean
  /** 0 for none. */
  readonly parentDeathSignal: number
}

/** The view of a process of a simulated kernel. */
export const of = (kernel: Kernel, one: SimulatedProcess.SimulatedProcess): ChildView => ({
  pid: one.pid,
  parent: one.parent,
  group: one.group,
  session: one.session,
  argv: one.argv,
  environment: one.environment,
  descriptors: Object.fromEntries(
    [...one.table.entries]
      .sort(([a], [b]) => a - b)
      .map(([fd, entry]) => [fd, kernel.descriptions.get(Number(entry.description))?.name ?? "?"])
  ),
  closeOnExec: [...one.table.entries].filter(([, entry]) => entry.closeOnExec).map(([fd]) => fd),
  workingDirectory: one.workingDirectory,
  umask: one.umask,
  identity: one.identity,
  limits: one.limits,
  blockedSignals: one.signals.blocked,
  ignoredSignals: one.signals.ignored,
  noNewPrivileges: one.noNewPrivileges,
  parentDeathSignal: one.parentDeathSignal ?? 0
})

/** Where two views differ, one line each; empty if they are the same. */
export const differences = (expected: ChildView, actual: ChildView): ReadonlyArray<string> => {
  const lines: Array<string> = []
  const compare = (name: string, wanted: unknown, found: unknown) => {
    const [a, b] = [canonical(wanted), canonical(found)]
    if (a !== b) lines.push(`${name}: expected ${a}, found ${b}`)
  }
  for (const key of Object.keys(expected) as Array<keyof ChildView>) compare(key, expected[key], actual[key])
  return lines
}

/** JSON with sorted keys. */
const canonical = (value: unknown): string =>
  JSON.stringify(value, (_, inner: unknown) =>
    typeof inner === "object" && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner
  )

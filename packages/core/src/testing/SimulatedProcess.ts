/**
 * One process of a simulated kernel: what fork copies, exec keeps or drops, and a launch changes.
 */
import type { ExitStatus } from "../backend/Launcher.ts"
import * as FdTable from "../FdTable.ts"
import { RESOURCES, type Resource, type ResourceLimit } from "../Launch.ts"
import type { SignalName } from "../Signal.ts"

export interface Identity {
  readonly uid: number
  readonly gid: number
  /** Ascending, as the kernel keeps them. */
  readonly groups: ReadonlyArray<number>
}

/** The capabilities that launches need: capabilities(7). A container's root may lack some. */
export type PosixCapability = "CAP_SETGID" | "CAP_SETUID" | "CAP_SYS_RESOURCE"

export const ALL_POSIX_CAPABILITIES: ReadonlySet<PosixCapability> = new Set<PosixCapability>([
  "CAP_SETGID",
  "CAP_SETUID",
  "CAP_SYS_RESOURCE"
])

/** Signal numbers, ascending. What is in none of them has its default disposition. */
export interface SignalState {
  readonly blocked: ReadonlyArray<number>
  readonly ignored: ReadonlyArray<number>
  readonly caught: ReadonlyArray<number>
}

export type Limits = Readonly<Record<Resource, ResourceLimit>>

export interface SimulatedProcess {
  readonly pid: number
  readonly parent: number
  readonly group: number
  readonly session: number
  readonly program: string
  readonly argv: ReadonlyArray<string>
  readonly environment: Readonly<Record<string, string>>
  readonly table: FdTable.FdTable
  readonly workingDirectory: string
  readonly umask: number
  readonly identity: Identity
  /** Effective ones; lost when root becomes another user. */
  readonly posixCapabilities: ReadonlySet<PosixCapability>
  readonly limits: Limits
  readonly signals: SignalState
  readonly noNewPrivileges: boolean
  readonly parentDeathSignal: number | undefined
  readonly startTime: number
  /** Signals that it has not taken yet, in the order in which they came: caught, blocked, or sent while it was stopped. */
  readonly pending: ReadonlyArray<SignalName>
  /** Stopped by a signal: it runs nothing. */
  readonly stopped: boolean
  /** Present once it has ended: a zombie, until it is reaped. */
  readonly ended: ExitStatus | undefined
}

/** Linux's usual limits: 1024 descriptors of at most 4096, the rest unlimited. */
export const defaultLimits = (): Limits =>
  ({
    ...Object.fromEntries(RESOURCES.map((resource) => [resource, { soft: "unlimited", hard: "unlimited" }])),
    NOFILE: { soft: 1024, hard: 4096 }
  }) as Limits

/** The number of descriptors a limit allows. No kernel allows more than fs.nr_open. */
export const MAX_OPEN_FILES = 1_048_576

export const descriptorLimit = (limit: ResourceLimit): number =>
  limit.soft === "unlimited" ? MAX_OPEN_FILES : limit.soft

export const INIT = 1

/** A process that nobody launched: the first of a simulation, whose parent is init. */
export const make = (fields: Partial<SimulatedProcess> & { readonly pid: number }): SimulatedProcess => {
  const limits = fields.limits ?? defaultLimits()
  const identity = fields.identity ?? { uid: 0, gid: 0, groups: [] }
  return {
    parent: INIT,
    group: fields.pid,
    session: fields.pid,
    program: "/sbin/supervisor",
    argv: ["supervisor"],
    environment: {},
    table: FdTable.make(descriptorLimit(limits.NOFILE)),
    workingDirectory: "/",
    umask: 0o022,
    posixCapabilities: identity.uid === 0 ? ALL_POSIX_CAPABILITIES : new Set(),
    signals: { blocked: [], ignored: [], caught: [] },
    noNewPrivileges: false,
    parentDeathSignal: undefined,
    startTime: 0,
    pending: [],
    stopped: false,
    ended: undefined,
    ...fields,
    identity,
    limits
  }
}

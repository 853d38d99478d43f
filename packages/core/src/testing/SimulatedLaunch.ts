/**
 * A LaunchPlan carried out on a simulated kernel, call by call: the child as it is after exec, or the call that failed and
 * the errno Linux gives for it. A failed launch leaves the kernel as it was.
 *
 * @example
 * const launched = SimulatedLaunch.run(kernel, supervisorPid, plan)
 * if (Result.isSuccess(launched)) launched.success.view.descriptors   // { 3: "socket:[10000]" }
 */
import * as Result from "effect/Result"
import type { ErrnoName } from "../Errno.ts"
import type { Fd } from "../Fd.ts"
import * as FdTable from "../FdTable.ts"
import * as FdTableDraft from "../FdTableDraft.ts"
import type { LaunchPlan, LimitValue, ResourceLimit, SystemCall } from "../Launch.ts"
import * as PlacementPlan from "../PlacementPlan.ts"
import * as Signal from "../Signal.ts"
import * as ChildView from "./ChildView.ts"
import * as FileTree from "./FileTree.ts"
import type { Kernel } from "./SimulatedKernel.ts"
import * as SimulatedKernel from "./SimulatedKernel.ts"
import * as SimulatedProcess from "./SimulatedProcess.ts"

export interface LaunchFailure {
  /** Index into `plan.calls`. */
  readonly step: number
  readonly call: SystemCall
  readonly errno: ErrnoName
}

export interface Launched {
  readonly kernel: Kernel
  readonly pid: number
  /** The child right after exec. */
  readonly view: ChildView.ChildView
}

/** The child between clone and exec. */
interface Child {
  readonly kernel: Kernel
  readonly draft: FdTableDraft.FdTableDraft
  readonly slots: Map<number, Fd>
  /** All but the table, which is the draft until exec. */
  self: SimulatedProcess.SimulatedProcess
  stamped: boolean
}

/** include/uapi/linux/limits.h and binfmts.h: pages of one string, NGROUPS_MAX. */
const MAX_STRING_BYTES = 131_072
const MAX_GROUPS = 65_536
const MAX_ID = 0xffff_fffe

/** Linux keeps no "unlimited" apart: it is the largest number. */
const amount = (value: LimitValue): number => (value === "unlimited" ? Number.POSITIVE_INFINITY : value)

const has = (child: Child, capability: SimulatedProcess.PosixCapability): boolean =>
  child.self.posixCapabilities.has(capability)

/** Root that becomes another user loses its capabilities; any change of the effective ids clears the parent-death signal (prctl(2)). */
const setIdentity = (child: Child, change: Partial<SimulatedProcess.Identity>): undefined => {
  const { identity } = child.self
  const next = { ...identity, ...change }
  const cleared = next.uid !== identity.uid || next.gid !== identity.gid
  child.self = {
    ...child.self,
    identity: next,
    posixCapabilities: identity.uid === 0 && next.uid !== 0 ? new Set() : child.self.posixCapabilities,
    parentDeathSignal: cleared ? undefined : child.self.parentDeathSignal
  }
}

const isId = (id: number): boolean => Number.isInteger(id) && id >= 0 && id <= MAX_ID

const setLimit = (
  child: Child,
  call: Extract<SystemCall, { readonly _tag: "SetResourceLimit" }>
): ErrnoName | undefined => {
  const before: ResourceLimit = child.self.limits[call.resource]
  if (amount(call.soft) > amount(call.hard)) return "EINVAL"
  if (call.resource === "NOFILE" && amount(call.hard) > SimulatedProcess.MAX_OPEN_FILES) return "EPERM"
  if (amount(call.hard) > amount(before.hard) && !has(child, "CAP_SYS_RESOURCE")) return "EPERM"
  const limit = { soft: call.soft, hard: call.hard }
  child.self = { ...child.self, limits: { ...child.self.limits, [call.resource]: limit } }
  if (call.resource === "NOFILE") child.draft.limit = SimulatedProcess.descriptorLimit(limit)
  return undefined
}

const lead = (child: Child, what: "group" | "session"): ErrnoName | undefined => {
  const { pid, group, session } = child.self
  if (what === "group") {
    if (session === pid) return "EPERM"
    child.self = { ...child.self, group: pid }
    return undefined
  }
  if (group === pid || SimulatedKernel.groupMembers(child.kernel, pid).length > 0) return "EPERM"
  child.self = { ...child.self, group: pid, session: pid }
  return undefined
}

const setGroups = (child: Child, groups: ReadonlyArray<number>): ErrnoName | undefined => {
  if (!has(child, "CAP_SETGID")) return "EPERM"
  if (groups.length > MAX_GROUPS || !groups.every(isId)) return "EINVAL"
  return setIdentity(child, { groups: [...groups].sort((a, b) => a - b) })
}

const setId = (child: Child, which: "uid" | "gid", id: number): ErrnoName | undefined => {
  if (!isId(id)) return "EINVAL"
  const capability = which === "uid" ? "CAP_SETUID" : "CAP_SETGID"
  if (!has(child, capability) && child.self.identity[which] !== id) return "EPERM"
  return setIdentity(child, { [which]: id })
}

const changeDirectory = (child: Child, path: string): ErrnoName | undefined => {
  if (path === "") return "ENOENT"
  const target = FileTree.absolute(path, child.self.workingDirectory)
  const found = FileTree.lookUp(child.kernel.files, target, child.self.identity, 0)
  if (typeof found === "string") return found
  if (found._tag !== "Directory") return "ENOTDIR"
  const searchable = FileTree.lookUp(child.kernel.files, target, child.self.identity, 1)
  if (typeof searchable === "string") return searchable
  child.self = { ...child.self, workingDirectory: target }
  return undefined
}

const defaultSignals = (child: Child, signals: ReadonlyArray<number>): ErrnoName | undefined => {
  if (signals.some((signal) => signal === 9 || signal === 19 || !(signal >= 1 && signal <= 64))) return "EINVAL"
  const { blocked, ignored, caught } = child.self.signals
  const kept = (numbers: ReadonlyArray<number>) => numbers.filter((signal) => !signals.includes(signal))
  child.self = { ...child.self, signals: { blocked, ignored: kept(ignored), caught: kept(caught) } }
  return undefined
}

const bytes = (text: string): number => new TextEncoder().encode(text).length

const execute = (child: Child, call: Extract<SystemCall, { readonly _tag: "Execute" }>): ErrnoName | undefined => {
  const path = FileTree.absolute(call.path, child.self.workingDirectory)
  const found = call.path === "" ? "ENOENT" : FileTree.lookUp(child.kernel.files, path, child.self.identity, 1)
  if (typeof found === "string") return found
  if (found._tag !== "File") return "EACCES"
  const variables = Object.entries(call.environment).map(([key, value]) => `${key}=${value}`)
  if ([...call.argv, ...variables].some((text) => bytes(text) + 1 > MAX_STRING_BYTES)) return "E2BIG"
  const stamp = child.stamped ? { LISTEN_PID: String(child.self.pid) } : {}
  child.self = {
    ...child.self,
    program: call.path,
    argv: call.argv,
    environment: { ...call.environment, ...stamp },
    table: FdTable.exec(FdTableDraft.freeze(child.draft)),
    signals: { ...child.self.signals, caught: [] }
  }
  return undefined
}

const apply = (child: Child, call: SystemCall): ErrnoName | undefined => {
  switch (call._tag) {
    case "SetResourceLimit":
      return setLimit(child, call)
    case "SetProcessGroup":
      return lead(child, "group")
    case "SetSession":
      return lead(child, "session")
    case "SetUmask":
      child.self = { ...child.self, umask: call.mask & 0o777 }
      return undefined
    case "SetGroups":
      return setGroups(child, call.groups)
    case "SetGid":
      return setId(child, "gid", call.gid)
    case "SetUid":
      return setId(child, "uid", call.uid)
    case "ChangeDirectory":
      return changeDirectory(child, call.path)
    case "SetNoNewPrivileges":
      child.self = { ...child.self, noNewPrivileges: true }
      return undefined
    case "SetParentDeathSignal":
      child.self = { ...child.self, parentDeathSignal: Signal.number(call.signal) }
      return undefined
    case "StampPid":
      child.stamped = true
      return undefined
    case "DefaultSignals":
      return defaultSignals(child, call.signals)
    case "EmptySignalMask":
      child.self = { ...child.self, signals: { ...child.self.signals, blocked: [] } }
      return undefined
    case "Execute":
      return execute(child, call)
    default:
      return PlacementPlan.apply(child.draft, child.slots, call)
  }
}

/** clone(2), and then the plan. `now` is milliseconds, the new process's start time. */
export const run = (
  kernel: Kernel,
  parent: number,
  plan: LaunchPlan,
  now = 0
): Result.Result<Launched, LaunchFailure> => {
  const origin = SimulatedKernel.alive(kernel, parent)
  if (origin === undefined) throw new Error(`there is no living process ${parent} in this kernel`)
  const pid = kernel.next.pid
  const child: Child = {
    kernel,
    draft: FdTableDraft.make(origin.table),
    slots: new Map(),
    self: { ...origin, pid, parent, parentDeathSignal: undefined, startTime: now, pending: [] },
    stamped: false
  }
  for (const [step, call] of plan.calls.entries()) {
    const errno = apply(child, call)
    if (errno !== undefined && call.tolerate?.includes(errno) !== true) return Result.fail({ step, call, errno })
  }
  const next = SimulatedKernel.withProcess({ ...kernel, next: { ...kernel.next, pid: pid + 1 } }, child.self)
  return Result.succeed({ kernel: next, pid, view: ChildView.of(next, child.self) })
}

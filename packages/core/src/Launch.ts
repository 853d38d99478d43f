/**
 * The child's whole program between clone and exec, as plain data.
 *
 * {@link plan} turns a wish ({@link LaunchSpec}) into one list of abstract system calls. The order is fixed by what each
 * step needs:
 *
 *  1. the descriptor limit raised, only if targets or scratch copies need more than the present soft limit allows: `dup3`
 *     to a number at or over the limit fails
 *  2. placements, while the parent's descriptors are still all there
 *  3. the seal, which needs the targets in place
 *  4. own process group or session, before anything can fail as another user
 *  5. umask
 *  6. resource limits, while still privileged enough to raise one; RLIMIT_NOFILE gets here the value a child should have
 *     (Node raises its own at start). A lower soft limit does not close what is open at or over it, so it can come after
 *     the placements, and must: the placements may need more
 *  7. groups, gid, uid in that order: without uid 0 neither of the others can be changed. A new uid or gid without a list
 *     of groups drops the parent's: who gives up root must not keep root's groups
 *  8. working directory, as the child's user: it may enter what root may not (NFS), and must not enter what it may not
 *  9. no_new_privs, after the change of user, which file capabilities may have been needed for
 * 10. parent-death signal: a change of uid clears it
 * 11. the stamp of LISTEN_PID, which touches only memory
 * 12. signal dispositions to default (not SIGKILL and SIGSTOP: EINVAL); only SIG_IGN survives exec, handlers do not
 * 13. the signal mask emptied last: until here no signal can interrupt the program
 * 14. execve
 *
 * Planning is pure and complete: what can be known to be wrong (a NUL byte, a duplicate target) is refused here, so that
 * a launch fails only for what the kernel alone knows. JSON, text and picture of a plan are in internal/.
 */
import * as Data from "effect/Data"
import * as Result from "effect/Result"
import type { LaunchFacts } from "./backend/Launcher.ts"
import type { ErrnoName } from "./Errno.ts"
import * as LaunchChecks from "./internal/LaunchChecks.ts"
import type { Placement, PlacementError } from "./Placement.ts"
import type { FdOperation } from "./PlacementPlan.ts"
import * as PlacementPlan from "./PlacementPlan.ts"
import * as Seal from "./Seal.ts"
import * as Signal from "./Signal.ts"

export { capabilityOf, forCapabilities, type Requirement, requirements } from "./internal/LaunchCapabilities.ts"
export { fromJson, PlanJsonError, toJson } from "./internal/LaunchJson.ts"
export { explain, formatCall, picture } from "./internal/LaunchText.ts"

/** The resources of getrlimit(2) without their RLIMIT_ prefix; the place in this list is Linux's number of each. */
export const RESOURCES = [
  "CPU",
  "FSIZE",
  "DATA",
  "STACK",
  "CORE",
  "RSS",
  "NPROC",
  "NOFILE",
  "MEMLOCK",
  "AS",
  "LOCKS",
  "SIGPENDING",
  "MSGQUEUE",
  "NICE",
  "RTPRIO",
  "RTTIME"
] as const

export type Resource = (typeof RESOURCES)[number]

/** A limit's value in the resource's own unit, or no limit at all. */
export type LimitValue = number | "unlimited"

export interface ResourceLimit {
  readonly soft: LimitValue
  readonly hard: LimitValue
}

/**
 * What a child shall be: the wish from which {@link LaunchPlan} is computed.
 */
export interface LaunchSpec {
  /** Absolute path of the program, as `Executables.resolve` found it. */
  readonly program: string
  /** The whole argument vector, `argv[0]` included. */
  readonly argv: ReadonlyArray<string>
  /** The child's whole environment. */
  readonly environment: Readonly<Record<string, string>>
  /** Absolute; entered as the child's user. Absent: the parent's. */
  readonly workingDirectory?: string
  readonly placements: ReadonlyArray<Placement>
  /** Default `"direct"`. */
  readonly strategy?: "direct" | "staged"
  /** `"group"` (default): setpgid(0, 0). `"session"`: setsid. `"none"`: stays in the parent's group. */
  readonly leads?: "group" | "session" | "none"
  /** Octal as a number, e.g. 0o022. Absent: the parent's. */
  readonly umask?: number
  readonly limits?: Partial<Readonly<Record<Resource, ResourceLimit>>>
  /** Supplementary groups, then gid, then uid. */
  readonly identity?: { readonly uid?: number; readonly gid?: number; readonly groups?: ReadonlyArray<number> }
  readonly noNewPrivileges?: boolean
  /** Off by default: it defeats survival of the supervisor's death, and a uid change clears it. */
  readonly parentDeathSignal?: Signal.SignalName
  /** Write the child's own pid into `LISTEN_PID` (capability `pid-stamp`). Default false. */
  readonly stampListenPid?: boolean
  /** Give the child the RLIMIT_NOFILE we were started with (capability `limits`). Default true. */
  readonly restoreDescriptorLimit?: boolean
  /** Close or mark close-on-exec everything that is not a target (capability `seal`). Default true. */
  readonly seal?: boolean
  /** Reset dispositions to default and empty the mask (capability `signals`). Default true. */
  readonly resetSignals?: boolean
}

/** One abstract system call of a child between clone and exec. `tolerate` lists errnos that do not stop the launch. */
export type SystemCall =
  | FdOperation
  | ({ readonly tolerate?: ReadonlyArray<ErrnoName> } & (
      | {
          readonly _tag: "SetResourceLimit"
          readonly resource: Resource
          readonly soft: LimitValue
          readonly hard: LimitValue
        }
      | { readonly _tag: "SetProcessGroup" }
      | { readonly _tag: "SetSession" }
      | { readonly _tag: "SetUmask"; readonly mask: number }
      | { readonly _tag: "SetGroups"; readonly groups: ReadonlyArray<number> }
      | { readonly _tag: "SetGid"; readonly gid: number }
      | { readonly _tag: "SetUid"; readonly uid: number }
      | { readonly _tag: "ChangeDirectory"; readonly path: string }
      | { readonly _tag: "SetNoNewPrivileges" }
      | { readonly _tag: "SetParentDeathSignal"; readonly signal: Signal.SignalName }
      /** readlink("/proc/self") into the environment's LISTEN_PID. */
      | { readonly _tag: "StampPid" }
      /** rt_sigaction(SIG_DFL) for each number; a backend lowers it to one call a signal. */
      | { readonly _tag: "DefaultSignals"; readonly signals: ReadonlyArray<number> }
      /** rt_sigprocmask(SIG_SETMASK, {}). */
      | { readonly _tag: "EmptySignalMask" }
      | {
          readonly _tag: "Execute"
          readonly path: string
          readonly argv: ReadonlyArray<string>
          readonly environment: Readonly<Record<string, string>>
        }
    ))

/** The child's whole program between clone and exec: plain data, JSON by construction. */
export interface LaunchPlan {
  readonly version: 1
  readonly calls: ReadonlyArray<SystemCall>
}

/** What a plan may need of a launcher beyond clone and exec; `requirements(plan)` computes it. */
export const CAPABILITIES = [
  "placement",
  "seal",
  "group",
  "session",
  "umask",
  "limits",
  "identity",
  "groups",
  "working-directory",
  "no-new-privileges",
  "parent-death-signal",
  "pid-stamp",
  "signals"
] as const

export type LaunchCapability = (typeof CAPABILITIES)[number]

/** What makes a wish impossible to plan. */
export type PlanErrorReason =
  | { readonly _tag: "PlacementInvalid"; readonly error: PlacementError }
  /** `where` is `program`, `argv[2]`, `environment.PATH` or `workingDirectory`. */
  | { readonly _tag: "NulByte"; readonly where: string }
  | { readonly _tag: "BadVariableName"; readonly name: string }
  | { readonly _tag: "EmptyArguments" }
  | { readonly _tag: "NotAbsolute"; readonly where: "program" | "workingDirectory"; readonly path: string }
  | { readonly _tag: "BadNumber"; readonly where: string; readonly value: number; readonly allowed: string }
  | { readonly _tag: "SoftOverHard"; readonly resource: Resource; readonly limit: ResourceLimit }
  /** Neither close_range(2) nor a list of open descriptors: what is open can't be kept from the child. */
  | { readonly _tag: "SealImpossible" }

export class PlanError extends Data.TaggedError("PlanError")<{ readonly reason: PlanErrorReason }> {
  override get message(): string {
    const reason = this.reason
    switch (reason._tag) {
      case "PlacementInvalid":
        return reason.error.message
      case "NulByte":
        return `${reason.where} contains a NUL byte`
      case "BadVariableName":
        return `${JSON.stringify(reason.name)} can not be the name of an environment variable`
      case "EmptyArguments":
        return "the argument vector is empty: argv[0] is missing"
      case "NotAbsolute":
        return `the ${reason.where} ${JSON.stringify(reason.path)} is not an absolute path`
      case "BadNumber":
        return `${reason.where} is ${reason.value}, not ${reason.allowed}`
      case "SoftOverHard":
        return `the soft limit of ${reason.resource} (${reason.limit.soft}) is over the hard one (${reason.limit.hard})`
      case "SealImpossible":
        return "the launcher has no close_range and did not list the open descriptors, so they can not be sealed"
    }
  }
}

/** The highest signal number of Linux (SIGRTMAX). */
const LAST_SIGNAL = 64

/** Every signal whose disposition can be set. */
const RESETTABLE: ReadonlyArray<number> = Array.from({ length: LAST_SIGNAL }, (_, index) => index + 1).filter(
  (number) => number !== Signal.number("SIGKILL") && number !== Signal.number("SIGSTOP")
)

const fail = (reason: PlanErrorReason): Result.Result<never, PlanError> => Result.fail(new PlanError({ reason }))

const setLimit = (resource: Resource, limit: ResourceLimit): SystemCall => ({
  _tag: "SetResourceLimit",
  resource,
  soft: limit.soft,
  hard: limit.hard
})

/** Up to the hard limit at once: a scratch copy takes the next free number, and which are free is not known here. */
const raiseLimit = (operations: ReadonlyArray<FdOperation>, facts: LaunchFacts): ReadonlyArray<SystemCall> => {
  const { soft, hard } = facts.descriptorLimit
  return PlacementPlan.reach(operations) < soft ? [] : [setLimit("NOFILE", { soft: hard, hard })]
}

const limitCalls = (spec: LaunchSpec, facts: LaunchFacts, raised: boolean): ReadonlyArray<SystemCall> => {
  const { soft, hard } = facts.descriptorLimit
  const original = facts.childDescriptorLimit
  const changed = raised || (original !== undefined && (original.soft !== soft || original.hard !== hard))
  const limits: LaunchSpec["limits"] = {
    ...(changed && spec.restoreDescriptorLimit !== false ? { NOFILE: original ?? { soft, hard } } : {}),
    ...spec.limits
  }
  return Object.entries(limits).map(([resource, limit]) => setLimit(resource as Resource, limit))
}

const identityCalls = (identity: NonNullable<LaunchSpec["identity"]>): ReadonlyArray<SystemCall> => {
  const { uid, gid, groups } = identity
  const calls: Array<SystemCall> = []
  if (groups !== undefined) calls.push({ _tag: "SetGroups", groups: [...groups] })
  // Who gives up root must not keep root's groups. Without privilege there are none to give up.
  else if (uid !== undefined || gid !== undefined) calls.push({ _tag: "SetGroups", groups: [], tolerate: ["EPERM"] })
  if (gid !== undefined) calls.push({ _tag: "SetGid", gid })
  if (uid !== undefined) calls.push({ _tag: "SetUid", uid })
  return calls
}

/** Steps 4 to 14. */
const programCalls = (spec: LaunchSpec, limits: ReadonlyArray<SystemCall>): ReadonlyArray<SystemCall> => {
  const calls: Array<SystemCall> = []
  const leads = spec.leads ?? "group"
  if (leads !== "none") calls.push({ _tag: leads === "group" ? "SetProcessGroup" : "SetSession" })
  if (spec.umask !== undefined) calls.push({ _tag: "SetUmask", mask: spec.umask })
  calls.push(...limits)
  if (spec.identity !== undefined) calls.push(...identityCalls(spec.identity))
  if (spec.workingDirectory !== undefined) calls.push({ _tag: "ChangeDirectory", path: spec.workingDirectory })
  if (spec.noNewPrivileges === true) calls.push({ _tag: "SetNoNewPrivileges" })
  if (spec.parentDeathSignal !== undefined) calls.push({ _tag: "SetParentDeathSignal", signal: spec.parentDeathSignal })
  if (spec.stampListenPid === true) calls.push({ _tag: "StampPid" })
  if (spec.resetSignals !== false) {
    calls.push({ _tag: "DefaultSignals", signals: RESETTABLE }, { _tag: "EmptySignalMask" })
  }
  // The stamp fills the empty value in; a backend reserves the room.
  const stamp = spec.stampListenPid === true ? { LISTEN_PID: "" } : {}
  const environment = { ...spec.environment, ...stamp }
  calls.push({ _tag: "Execute", path: spec.program, argv: [...spec.argv], environment })
  return calls
}

/**
 * The calls that make `spec` true, in the order the module explains, or what is wrong with it. `facts` are the
 * launcher's: the same spec may need other calls in another process.
 *
 * @example
 * Launch.plan({ program: "/bin/true", argv: ["true"], environment: {}, placements: [Placement.move(7, 3)] }, facts)
 */
export const plan = (spec: LaunchSpec, facts: LaunchFacts): Result.Result<LaunchPlan, PlanError> => {
  const reason = LaunchChecks.check(spec)
  if (reason !== undefined) return fail(reason)
  const strategy = spec.strategy === "staged" ? PlacementPlan.staged : PlacementPlan.direct
  const placed = strategy(spec.placements, { descriptorLimit: facts.descriptorLimit.hard })
  if (Result.isFailure(placed)) return fail({ _tag: "PlacementInvalid", error: placed.failure })
  const { operations } = placed.success
  const targets = spec.placements.map(({ target }) => target)
  const sealed = spec.seal === false ? [] : Seal.operations(targets, facts)
  if (sealed === undefined) return fail({ _tag: "SealImpossible" })
  const raise = raiseLimit(operations, facts)
  const limits = limitCalls(spec, facts, raise.length > 0)
  const calls: ReadonlyArray<SystemCall> = [...raise, ...operations, ...sealed, ...programCalls(spec, limits)]
  return Result.succeed({ version: 1, calls })
}

const isFdOperation = (call: SystemCall): call is FdOperation =>
  ["Dup2", "Duplicate", "ClearCloseOnExec", "Close", "CloseRange"].includes(call._tag)

/** The descriptor operations of a plan, in order. */
export const fdOperations = (launch: LaunchPlan): ReadonlyArray<FdOperation> => launch.calls.filter(isFdOperation)

const equalValues = (left: unknown, right: unknown): boolean => {
  if (left === right) return true
  if (typeof left !== "object" || typeof right !== "object" || left === null || right === null) return false
  if (Array.isArray(left) !== Array.isArray(right)) return false
  const keys = Object.keys(left)
  if (keys.length !== Object.keys(right).length) return false
  return keys.every((key) => Object.hasOwn(right, key) && equalValues(Reflect.get(left, key), Reflect.get(right, key)))
}

/** True if both plans make the same calls with the same arguments in the same order. */
export const equals = (left: LaunchPlan, right: LaunchPlan): boolean => equalValues(left, right)

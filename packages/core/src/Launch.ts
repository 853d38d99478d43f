/**
 * A launch as data: the wish ({@link LaunchSpec}) and the child's whole program between clone and exec
 * ({@link LaunchPlan}), one list of abstract system calls that can be printed, compared, simulated, or lowered to machine
 * records.
 *
 * The order is fixed by what each step needs:
 *
 *    1. RLIMIT_NOFILE raised to its hard limit, if a target is at or over the soft one: dup3 could not reach it
 *    2. placements, then the seal: before anything that could open or close a descriptor
 *    3. own process group or session: before exec, so that nobody ever sees the child in the parent's
 *    4. umask and resource limits: a hard limit can be raised by root only, so before the uid; a soft NOFILE under the
 *       highest target does not close what is open
 *    5. groups, gid, uid: in this order, each needs the privilege that the next gives up
 *    6. chdir: as the child's user, who must be allowed to enter
 *    7. no_new_privs, then the parent-death signal, which a uid change would clear
 *    8. the pid written into LISTEN_PID
 *    9. dispositions to default (exec resets handlers, but not what is ignored), and the mask emptied last: a signal that
 *       waited must not run before its disposition is the child's
 *   10. execve
 */
import * as Data from "effect/Data"
import * as Result from "effect/Result"
import type { LaunchFacts } from "./backend/Launcher.ts"
import type { ErrnoName } from "./Errno.ts"
import * as FdTable from "./FdTable.ts"
import type { Placement, PlacementError } from "./Placement.ts"
import type { FdOperation } from "./PlacementPlan.ts"
import * as PlacementPlan from "./PlacementPlan.ts"
import * as Seal from "./Seal.ts"
import type { SignalName } from "./Signal.ts"

/** A resource of getrlimit(2) without its RLIMIT_ prefix. */
export type Resource =
  | "CPU"
  | "FSIZE"
  | "DATA"
  | "STACK"
  | "CORE"
  | "RSS"
  | "NPROC"
  | "NOFILE"
  | "MEMLOCK"
  | "AS"
  | "LOCKS"
  | "SIGPENDING"
  | "MSGQUEUE"
  | "NICE"
  | "RTPRIO"
  | "RTTIME"

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
  readonly parentDeathSignal?: SignalName
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
      | { readonly _tag: "SetParentDeathSignal"; readonly signal: SignalName }
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
export type LaunchCapability =
  | "placement"
  | "seal"
  | "group"
  | "session"
  | "umask"
  | "limits"
  | "identity"
  | "groups"
  | "working-directory"
  | "no-new-privileges"
  | "parent-death-signal"
  | "pid-stamp"
  | "signals"

/** A wish that no plan can carry out. */
export class PlanError extends Data.TaggedError("PlanError")<{
  readonly subject: string
  readonly detail: string
}> {
  override get message(): string {
    return `${this.subject}: ${this.detail}`
  }
}

const textProblem = (subject: string, text: string): PlanError | undefined =>
  text.includes("\0")
    ? new PlanError({ subject, detail: "has a NUL character, which ends a string for the kernel" })
    : undefined

const environmentProblem = (environment: Readonly<Record<string, string>>): PlanError | undefined => {
  for (const [key, value] of Object.entries(environment)) {
    if (key === "" || key.includes("=")) {
      return new PlanError({ subject: `environment variable "${key}"`, detail: "a name is not empty and has no =" })
    }
    const problem =
      textProblem(`environment variable "${key}"`, key) ?? textProblem(`environment variable "${key}"`, value)
    if (problem !== undefined) return problem
  }
  return undefined
}

const specProblem = (spec: LaunchSpec): PlanError | undefined => {
  if (!spec.program.startsWith("/")) {
    return new PlanError({ subject: `program "${spec.program}"`, detail: "must be an absolute path: resolve it first" })
  }
  if (spec.argv.length === 0)
    return new PlanError({ subject: "argv", detail: "is empty, it starts with the program's name" })
  if (spec.workingDirectory !== undefined && !spec.workingDirectory.startsWith("/")) {
    return new PlanError({
      subject: `working directory "${spec.workingDirectory}"`,
      detail: "must be an absolute path"
    })
  }
  for (const text of [spec.program, spec.workingDirectory ?? "", ...spec.argv]) {
    const problem = textProblem(`"${text.replaceAll("\0", "\\0")}"`, text)
    if (problem !== undefined) return problem
  }
  if (spec.umask !== undefined && !(Number.isInteger(spec.umask) && spec.umask >= 0 && spec.umask <= 0o777)) {
    return new PlanError({ subject: `umask ${spec.umask}`, detail: "must be from 0 to 0o777" })
  }
  return environmentProblem(spec.environment)
}

const SIGNALS: ReadonlyArray<number> = Array.from({ length: 64 }, (_, index) => index + 1).filter(
  // SIGKILL and SIGSTOP can't be changed: EINVAL.
  (signal) => signal !== 9 && signal !== 19
)

const raiseLimit = (operations: ReadonlyArray<FdOperation>, facts: LaunchFacts): ReadonlyArray<SystemCall> => {
  const { soft, hard } = facts.descriptorLimit
  return PlacementPlan.reach(operations) < soft
    ? []
    : [{ _tag: "SetResourceLimit", resource: "NOFILE", soft: hard, hard }]
}

const limitCalls = (spec: LaunchSpec, facts: LaunchFacts, raised: boolean): ReadonlyArray<SystemCall> => {
  const { soft, hard } = facts.descriptorLimit
  const original = facts.childDescriptorLimit
  const changed = raised || (original !== undefined && (original.soft !== soft || original.hard !== hard))
  const limits = {
    ...(changed && spec.restoreDescriptorLimit !== false ? { NOFILE: original ?? { soft, hard } } : {}),
    ...spec.limits
  }
  return Object.entries(limits).map(([resource, limit]) => ({
    _tag: "SetResourceLimit",
    resource: resource as Resource,
    soft: limit.soft,
    hard: limit.hard
  }))
}

const identityCalls = (identity: NonNullable<LaunchSpec["identity"]>): ReadonlyArray<SystemCall> => {
  const { uid, gid, groups } = identity
  const calls: Array<SystemCall> = []
  if (groups !== undefined) calls.push({ _tag: "SetGroups", groups })
  // Who gives up root must not keep root's groups. Without privilege there are none to give up.
  else if (uid !== undefined || gid !== undefined) calls.push({ _tag: "SetGroups", groups: [], tolerate: ["EPERM"] })
  if (gid !== undefined) calls.push({ _tag: "SetGid", gid })
  if (uid !== undefined) calls.push({ _tag: "SetUid", uid })
  return calls
}

/**
 * The plan of a launch.
 *
 * @example
 * Launch.plan({ program: "/bin/true", argv: ["true"], environment: {}, placements: [Placement.move(7, 3)] }, facts)
 */
export const plan = (spec: LaunchSpec, facts: LaunchFacts): Result.Result<LaunchPlan, PlanError | PlacementError> => {
  const problem = specProblem(spec)
  if (problem !== undefined) return Result.fail(problem)
  const place = spec.strategy === "staged" ? PlacementPlan.staged : PlacementPlan.direct
  const placed = place(spec.placements, { descriptorLimit: facts.descriptorLimit.hard })
  if (Result.isFailure(placed)) return Result.fail(placed.failure)
  const { operations } = placed.success
  const raise = raiseLimit(operations, facts)
  const calls: Array<SystemCall> = [...raise, ...operations]
  if (spec.seal !== false) {
    const targets = spec.placements.map(({ target }) => target)
    const sealed = Seal.operations(targets, facts)
    if (sealed === undefined) {
      const detail = "the kernel has no close_range(2) and the open descriptors are not known"
      return Result.fail(new PlanError({ subject: "seal", detail }))
    }
    calls.push(...sealed)
  }
  const leads = spec.leads ?? "group"
  if (leads !== "none") calls.push({ _tag: leads === "group" ? "SetProcessGroup" : "SetSession" })
  if (spec.umask !== undefined) calls.push({ _tag: "SetUmask", mask: spec.umask })
  calls.push(...limitCalls(spec, facts, raise.length > 0))
  if (spec.identity !== undefined) calls.push(...identityCalls(spec.identity))
  if (spec.workingDirectory !== undefined) calls.push({ _tag: "ChangeDirectory", path: spec.workingDirectory })
  if (spec.noNewPrivileges === true) calls.push({ _tag: "SetNoNewPrivileges" })
  if (spec.parentDeathSignal !== undefined) calls.push({ _tag: "SetParentDeathSignal", signal: spec.parentDeathSignal })
  if (spec.stampListenPid === true) calls.push({ _tag: "StampPid" })
  if (spec.resetSignals !== false) calls.push({ _tag: "DefaultSignals", signals: SIGNALS }, { _tag: "EmptySignalMask" })
  const environment = spec.stampListenPid === true ? { ...spec.environment, LISTEN_PID: "" } : spec.environment
  calls.push({ _tag: "Execute", path: spec.program, argv: spec.argv, environment })
  return Result.succeed({ version: 1, calls })
}

/**
 * Fits a wish to a launcher. What a launcher may lack without harm is dropped and named (own group, seal, signals, pid
 * stamp, the original descriptor limit); what was asked for in words (umask, limits, identity, ...) stays, and the launcher refuses it by name.
 */
export const forCapabilities = (
  spec: LaunchSpec,
  capabilities: ReadonlySet<LaunchCapability>
): { readonly spec: LaunchSpec; readonly dropped: ReadonlyArray<LaunchCapability> } => {
  const dropped: Array<LaunchCapability> = []
  const keep = (wanted: boolean, capability: LaunchCapability): boolean => {
    if (wanted && !capabilities.has(capability)) dropped.push(capability)
    return wanted && capabilities.has(capability)
  }
  const wanted = spec.leads ?? "group"
  const fallbacks = wanted === "group" ? (["group", "session"] as const) : (["session"] as const)
  const leads = wanted === "none" ? "none" : (fallbacks.find((one) => capabilities.has(one)) ?? "none")
  if (leads !== wanted) dropped.push(wanted === "session" ? "session" : "group")
  const fitted: LaunchSpec = {
    ...spec,
    leads,
    seal: keep(spec.seal !== false, "seal"),
    resetSignals: keep(spec.resetSignals !== false, "signals"),
    stampListenPid: keep(spec.stampListenPid === true, "pid-stamp"),
    restoreDescriptorLimit: keep(spec.restoreDescriptorLimit !== false, "limits")
  }
  return { spec: fitted, dropped }
}

/** The capability that one call needs, or undefined for exec itself. */
export const capabilityOf = (call: SystemCall): LaunchCapability | undefined => {
  switch (call._tag) {
    case "Dup2":
    case "Duplicate":
    case "ClearCloseOnExec":
      return "placement"
    case "Close":
      return typeof call.fd === "number" ? "seal" : "placement"
    case "CloseRange":
      return "seal"
    case "SetResourceLimit":
      return "limits"
    case "SetProcessGroup":
      return "group"
    case "SetSession":
      return "session"
    case "SetUmask":
      return "umask"
    case "SetGroups":
      return "groups"
    case "SetGid":
    case "SetUid":
      return "identity"
    case "ChangeDirectory":
      return "working-directory"
    case "SetNoNewPrivileges":
      return "no-new-privileges"
    case "SetParentDeathSignal":
      return "parent-death-signal"
    case "StampPid":
      return "pid-stamp"
    case "DefaultSignals":
    case "EmptySignalMask":
      return "signals"
    case "Execute":
      return undefined
  }
}

/** Every capability a plan needs, with the index of the first call that needs it. */
export const requirements = (
  launch: LaunchPlan
): ReadonlyArray<{ readonly capability: LaunchCapability; readonly step: number }> => {
  const first = new Map<LaunchCapability, number>()
  for (const [step, call] of launch.calls.entries()) {
    const capability = capabilityOf(call)
    if (capability !== undefined && !first.has(capability)) first.set(capability, step)
  }
  return [...first].map(([capability, step]) => ({ capability, step }))
}

const formatLimit = (value: LimitValue): string => (value === "unlimited" ? "RLIM_INFINITY" : String(value))

const formatSignals = (signals: ReadonlyArray<number>): string => {
  const ranges: Array<string> = []
  let from = signals[0]
  for (const [index, signal] of signals.entries()) {
    if (signals[index + 1] === signal + 1) continue
    ranges.push(from === signal ? String(signal) : `${from}-${signal}`)
    from = signals[index + 1]
  }
  return ranges.join(",")
}

/** One call as strace would print it. */
export const formatCall = (call: SystemCall): string => {
  switch (call._tag) {
    case "SetResourceLimit":
      return `prlimit64(0, RLIMIT_${call.resource}, {rlim_cur=${formatLimit(call.soft)}, rlim_max=${formatLimit(call.hard)}}, NULL)`
    case "SetProcessGroup":
      return "setpgid(0, 0)"
    case "SetSession":
      return "setsid()"
    case "SetUmask":
      return `umask(0${call.mask.toString(8)})`
    case "SetGroups":
      return `setgroups(${call.groups.length}, [${call.groups.join(", ")}])`
    case "SetGid":
      return `setgid(${call.gid})`
    case "SetUid":
      return `setuid(${call.uid})`
    case "ChangeDirectory":
      return `chdir(${JSON.stringify(call.path)})`
    case "SetNoNewPrivileges":
      return "prctl(PR_SET_NO_NEW_PRIVS, 1)"
    case "SetParentDeathSignal":
      return `prctl(PR_SET_PDEATHSIG, ${call.signal})`
    case "StampPid":
      return 'readlink("/proc/self", LISTEN_PID)'
    case "DefaultSignals":
      return `rt_sigaction(${formatSignals(call.signals)}, {SIG_DFL})`
    case "EmptySignalMask":
      return "rt_sigprocmask(SIG_SETMASK, [])"
    case "Execute": {
      const count = Object.keys(call.environment).length
      return `execve(${JSON.stringify(call.path)}, ${JSON.stringify(call.argv)}, [/* ${count} variables */])`
    }
    default:
      return PlacementPlan.formatOperation(call)
  }
}

/** One line per system call. */
export const explain = (launch: LaunchPlan): string => launch.calls.map(formatCall).join("\n")

const isFdOperation = (call: SystemCall): call is FdOperation =>
  ["Dup2", "Duplicate", "ClearCloseOnExec", "Close", "CloseRange"].includes(call._tag)

/** The descriptor operations of a plan, in order. */
export const fdOperations = (launch: LaunchPlan): ReadonlyArray<FdOperation> => launch.calls.filter(isFdOperation)

const formatTable = (table: FdTable.FdTable): string =>
  [...table.entries]
    .sort(([a], [b]) => a - b)
    .map(
      ([fd, entry]) => `${String(fd).padStart(6)}  ${entry.description}${entry.closeOnExec ? "  close-on-exec" : ""}`
    )
    .join("\n")

/** The descriptor table before the launch and as the program sees it, as text. */
export const picture = (launch: LaunchPlan, table: FdTable.FdTable): string => {
  const after = PlacementPlan.simulate({ operations: fdOperations(launch) }, table)
  const seen = Result.isSuccess(after) ? formatTable(FdTable.exec(after.success)) : `  ${after.failure.message}`
  return `before the launch\n${formatTable(table)}\nafter exec\n${seen}`
}

/** Plans are plain data: this is JSON.stringify with indentation, for files and diffs. */
export const toJson = (launch: LaunchPlan): string => JSON.stringify(launch, null, 2)

/** True when both plans make the same calls in the same order. */
export const equals = (a: LaunchPlan, b: LaunchPlan): boolean => JSON.stringify(a) === JSON.stringify(b)

type FieldCheck = (value: unknown) => boolean
const isNumber: FieldCheck = (value) => typeof value === "number" && Number.isInteger(value)
const isText: FieldCheck = (value) => typeof value === "string"
const isRef: FieldCheck = (value) =>
  isNumber(value) || (typeof value === "object" && value !== null && isNumber((value as { slot?: unknown }).slot))
const isList =
  (item: FieldCheck): FieldCheck =>
  (value) =>
    Array.isArray(value) && value.every(item)
const isLimit: FieldCheck = (value) => value === "unlimited" || isNumber(value)
const isRecord: FieldCheck = (value) =>
  typeof value === "object" && value !== null && Object.values(value).every(isText)

const FIELDS: Readonly<Record<SystemCall["_tag"], Readonly<Record<string, FieldCheck>>>> = {
  Dup2: { from: isRef, to: isNumber },
  Duplicate: { from: isRef, atLeast: isNumber, closeOnExec: (value) => typeof value === "boolean", slot: isNumber },
  ClearCloseOnExec: { fd: isRef },
  Close: { fd: isRef },
  CloseRange: {
    first: isNumber,
    last: (value) => value === "max" || isNumber(value),
    how: (value) => value === "close" || value === "close-on-exec"
  },
  SetResourceLimit: { resource: isText, soft: isLimit, hard: isLimit },
  SetProcessGroup: {},
  SetSession: {},
  SetUmask: { mask: isNumber },
  SetGroups: { groups: isList(isNumber) },
  SetGid: { gid: isNumber },
  SetUid: { uid: isNumber },
  ChangeDirectory: { path: isText },
  SetNoNewPrivileges: {},
  SetParentDeathSignal: { signal: isText },
  StampPid: {},
  DefaultSignals: { signals: isList(isNumber) },
  EmptySignalMask: {},
  Execute: { path: isText, argv: isList(isText), environment: isRecord }
}

const callProblem = (value: unknown): string | undefined => {
  if (typeof value !== "object" || value === null) return "is not an object"
  const call = value as Readonly<Record<string, unknown>>
  const tag = call._tag
  if (typeof tag !== "string" || !Object.hasOwn(FIELDS, tag)) return `has the unknown _tag ${JSON.stringify(tag)}`
  const fields = FIELDS[tag as SystemCall["_tag"]]
  for (const [key, check] of Object.entries(fields)) {
    if (!check(call[key])) return `(${tag}) has a bad "${key}": ${JSON.stringify(call[key])}`
  }
  const tolerate = call.tolerate
  return tolerate === undefined || isList(isText)(tolerate) ? undefined : `(${tag}) has a bad "tolerate"`
}

/** Reads a plan back from JSON text; the error names the call and field that is wrong. */
export const fromJson = (text: string): Result.Result<LaunchPlan, PlanError> => {
  const fail = (detail: string) => Result.fail(new PlanError({ subject: "launch plan", detail }))
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return fail("is not JSON")
  }
  if (typeof value !== "object" || value === null) return fail("is not an object")
  const { version, calls } = value as { readonly version?: unknown; readonly calls?: unknown }
  if (version !== 1) return fail(`has version ${JSON.stringify(version)}, this is version 1`)
  if (!Array.isArray(calls)) return fail("has no list of calls")
  for (const [index, call] of calls.entries()) {
    const problem = callProblem(call)
    if (problem !== undefined) return fail(`call ${index} ${problem}`)
  }
  return Result.succeed(value as LaunchPlan)
}

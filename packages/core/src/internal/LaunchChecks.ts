/**
 * What can be wrong with a wish for a launch, whatever the launcher: texts that execve(2) would cut at a NUL byte, names
 * that the environment can not hold, numbers the kernel has no room for.
 */
import type { LaunchSpec, LimitValue, PlanErrorReason, Resource, ResourceLimit } from "../Launch.ts"

type Verdict = PlanErrorReason | undefined

const hasNul = (text: string): boolean => text.includes("\0")

const checkTexts = (spec: LaunchSpec): Verdict => {
  const { program, argv, environment, workingDirectory } = spec
  if (hasNul(program)) return { _tag: "NulByte", where: "program" }
  const argument = argv.findIndex(hasNul)
  if (argument !== -1) return { _tag: "NulByte", where: `argv[${argument}]` }
  for (const [name, value] of Object.entries(environment)) {
    if (name === "" || name.includes("=") || hasNul(name)) return { _tag: "BadVariableName", name }
    if (hasNul(value)) return { _tag: "NulByte", where: `environment.${name}` }
  }
  if (workingDirectory !== undefined && hasNul(workingDirectory)) return { _tag: "NulByte", where: "workingDirectory" }
  return undefined
}

const checkPaths = ({ program, argv, workingDirectory }: LaunchSpec): Verdict => {
  if (!program.startsWith("/")) return { _tag: "NotAbsolute", where: "program", path: program }
  if (argv.length === 0) return { _tag: "EmptyArguments" }
  return workingDirectory === undefined || workingDirectory.startsWith("/")
    ? undefined
    : { _tag: "NotAbsolute", where: "workingDirectory", path: workingDirectory }
}

const checkNumber = (where: string, value: number | undefined, most: number, allowed: string): Verdict =>
  value === undefined || (Number.isInteger(value) && value >= 0 && value <= most)
    ? undefined
    : { _tag: "BadNumber", where, value, allowed }

/** The highest uid or gid: 2^32 - 1 means "unchanged" to the kernel. */
const MAX_ID = 0xffff_fffe

const checkIdentity = ({ identity }: LaunchSpec): Verdict => {
  const allowed = `an integer from 0 to ${MAX_ID}`
  const groups = identity?.groups ?? []
  const bad = groups.findIndex((group) => checkNumber("", group, MAX_ID, "") !== undefined)
  return (
    checkNumber("identity.uid", identity?.uid, MAX_ID, allowed) ??
    checkNumber("identity.gid", identity?.gid, MAX_ID, allowed) ??
    (bad === -1 ? undefined : checkNumber(`identity.groups[${bad}]`, groups[bad], MAX_ID, allowed)) ??
    checkNumber("identity.groups.length", groups.length, 65_536, "at most 65536 (NGROUPS_MAX)")
  )
}

const numeric = (value: LimitValue): number => (value === "unlimited" ? Number.POSITIVE_INFINITY : value)

const checkLimit = (resource: Resource, limit: ResourceLimit): Verdict => {
  for (const side of ["soft", "hard"] as const) {
    const value = limit[side]
    if (value === "unlimited") continue
    const verdict = checkNumber(
      `limits.${resource}.${side}`,
      value,
      Number.MAX_SAFE_INTEGER,
      'an integer from 0 to 2^53 - 1 or "unlimited"'
    )
    if (verdict !== undefined) return verdict
  }
  return numeric(limit.soft) > numeric(limit.hard) ? { _tag: "SoftOverHard", resource, limit } : undefined
}

const checkLimits = ({ limits }: LaunchSpec): Verdict => {
  for (const [resource, limit] of Object.entries(limits ?? {})) {
    const verdict = checkLimit(resource as Resource, limit)
    if (verdict !== undefined) return verdict
  }
  return undefined
}

/** The first thing wrong with a spec, placements and seal aside; undefined if nothing is. */
export const check = (spec: LaunchSpec): Verdict =>
  checkTexts(spec) ??
  checkPaths(spec) ??
  checkNumber("umask", spec.umask, 0o777, "an integer from 0 to 0o777") ??
  checkIdentity(spec) ??
  checkLimits(spec)

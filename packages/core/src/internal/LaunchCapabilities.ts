/**
 * What a launch plan needs of a launcher, and how a wish is fitted to one that has less.
 */
import type { LaunchCapability, LaunchPlan, LaunchSpec, SystemCall } from "../Launch.ts"

/**
 * Fits a wish to a launcher: what is only preferred and can't be had is dropped, and named in `dropped`. Of an own process
 * group and a session one stands in for the other, and none for both; the seal, the reset of signals, the stamp of
 * LISTEN_PID and the original descriptor limit go. What was asked for by value (umask, limits, identity, working
 * directory, ...) stays, and a launcher that can't do it refuses the plan.
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
  const choices = wanted === "session" ? (["session", "group"] as const) : (["group", "session"] as const)
  const leads = wanted === "none" ? "none" : (choices.find((one) => capabilities.has(one)) ?? "none")
  if (wanted !== "none" && leads !== wanted) dropped.push(wanted)
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
    // A plan closes its own copies by slot, and what it seals by number.
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
    // Dropping the parent's groups is part of another identity; a list of its own is what needs more.
    case "SetGroups":
      return call.groups.length === 0 && call.tolerate?.includes("EPERM") === true ? "identity" : "groups"
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

/** A capability that a plan needs, and the first step (index into `calls`) that needs it. */
export interface Requirement {
  readonly capability: LaunchCapability
  readonly step: number
}

/** What a launcher must be able to do to run this plan, in the order of first need. */
export const requirements = (plan: LaunchPlan): ReadonlyArray<Requirement> => {
  const first = new Map<LaunchCapability, number>()
  for (const [step, call] of plan.calls.entries()) {
    const capability = capabilityOf(call)
    if (capability !== undefined && !first.has(capability)) first.set(capability, step)
  }
  return Array.from(first, ([capability, step]) => ({ capability, step }))
}

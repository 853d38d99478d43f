/**
 * The contract of what starts processes: a {@link LaunchPlan} in, a {@link Process} out.
 *
 * A launcher decides nothing. It refuses a plan that needs a capability it lacks before anything is started, runs the
 * calls in order, and reports the one that failed. When `launch` fails no process, descriptor or memory is left behind.
 */
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import type * as Effect from "effect/Effect"
import type { ErrnoName } from "../Errno.ts"
import type { LaunchCapability, LaunchPlan, ResourceLimit } from "../Launch.ts"
import type { SignalName } from "../Signal.ts"

/** How a process ended (wait(2)). */
export type ExitStatus =
  | { readonly _tag: "Exited"; readonly code: number }
  | { readonly _tag: "Signaled"; readonly signal: string; readonly coreDumped: boolean }
  /** It was not our child: it is gone, and whoever inherited it got its status. */
  | { readonly _tag: "Unknown" }

/** `exited with status 1`, `was killed by SIGKILL`. */
export const formatExit = (status: ExitStatus): string => {
  switch (status._tag) {
    case "Exited":
      return `exited with status ${status.code}`
    case "Signaled":
      return `was killed by ${status.signal}${status.coreDumped ? " (core dumped)" : ""}`
    case "Unknown":
      return "is gone (it was adopted, so its status is not known)"
  }
}

/** A started child. It belongs to whoever launched it and is not ended when a scope closes. */
export interface Process {
  readonly pid: number
  /** A pidfd, where the kernel has it; owned by the launcher and closed once the exit was observed. */
  readonly pidfd?: number
  /** Waits for the end of the process. Every caller gets the same status, also after it was reaped. */
  readonly exit: Effect.Effect<ExitStatus>
  /** Signals the process; false when it is already gone. */
  readonly signal: (signal: SignalName) => Effect.Effect<boolean, LaunchError>
  /** Signals every process of the group that the child leads; false when the group is empty. */
  readonly signalGroup: (signal: SignalName) => Effect.Effect<boolean, LaunchError>
}

export type LaunchErrorReason =
  /** `step` is the index into `plan.calls`; `call` the call as `explain` prints it, with its arguments. */
  | { readonly _tag: "StepFailed"; readonly step: number; readonly call: string; readonly errno: ErrnoName }
  | { readonly _tag: "CapabilityMissing"; readonly capability: LaunchCapability; readonly step: number }
  /** The plan can't be carried out as it stands: a NUL byte in a string, arguments over the kernel's limit. */
  | { readonly _tag: "PlanInvalid"; readonly detail: string }
  /** A call of the parent failed before or around the clone, e.g. `clone` with EAGAIN, `mmap` with ENOMEM. */
  | { readonly _tag: "ParentCallFailed"; readonly call: string; readonly errno: ErrnoName }

export class LaunchError extends Data.TaggedError("LaunchError")<{ readonly reason: LaunchErrorReason }> {
  override get message(): string {
    const reason = this.reason
    switch (reason._tag) {
      case "StepFailed":
        return `launch failed at step ${reason.step}: ${reason.call} = ${reason.errno}`
      case "CapabilityMissing":
        return `the plan needs "${reason.capability}" (step ${reason.step}), which this launcher does not have`
      case "PlanInvalid":
        return `the launch plan is invalid: ${reason.detail}`
      case "ParentCallFailed":
        return `launch failed in the parent: ${reason.call} = ${reason.errno}`
    }
  }
}

/** What planning must know about the process that launches. */
export interface LaunchFacts {
  /** RLIMIT_NOFILE of the launching process now: sources and staging copies must be under `soft`. */
  readonly descriptorLimit: { readonly soft: number; readonly hard: number }
  /** RLIMIT_NOFILE a child should get (Node raises its own at start), if known. */
  readonly childDescriptorLimit?: ResourceLimit
  /** False where close_range(2) is missing: then `openDescriptors` lists what must be closed one by one. */
  readonly closeRange: boolean
  readonly openDescriptors?: ReadonlyArray<number>
}

export class Launcher extends Context.Service<
  Launcher,
  {
    readonly capabilities: ReadonlySet<LaunchCapability>
    readonly facts: Effect.Effect<LaunchFacts>
    readonly launch: (plan: LaunchPlan) => Effect.Effect<Process, LaunchError>
  }
>()("@handoff/core/backend/Launcher") {}

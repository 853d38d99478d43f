import type { ErrnoName } from "./Errno.ts"
import type { FdOperation } from "./PlacementPlan.ts"
import type { Placement } from "./Placement.ts"
import type { SignalName } from "./Signal.ts"

/** A resource of getrlimit(2) without its RLIMIT_ prefix. */
export type Resource =
  | "CPU" | "FSIZE" | "DATA" | "STACK" | "CORE" | "RSS" | "NPROC" | "NOFILE" | "MEMLOCK" | "AS" | "LOCKS"
  | "SIGPENDING" | "MSGQUEUE" | "NICE" | "RTPRIO" | "RTTIME"

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
  /** Close or mark close-on-exec everything that is not a target (capability `seal`). Default true. */
  readonly seal?: boolean
  /** Reset dispositions to default and empty the mask (capability `signals`). Default true. */
  readonly resetSignals?: boolean
}

/** One abstract system call of a child between clone and exec. `tolerate` lists errnos that do not stop the launch. */
export type SystemCall =
  | FdOperation
  | ({ readonly tolerate?: ReadonlyArray<ErrnoName> } & (
      | { readonly _tag: "SetResourceLimit"; readonly resource: Resource; readonly soft: LimitValue; readonly hard: LimitValue }
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
  | "placement" | "seal" | "group" | "session" | "umask" | "limits" | "identity" | "groups"
  | "working-directory" | "no-new-privileges" | "parent-death-signal" | "pid-stamp" | "signals"

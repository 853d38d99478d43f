/**
 * A launcher on node:child_process: portable, and honest about what it can't do.
 *
 * It can't make system calls in the child, so it does not run a plan, it reads what the plan leads to: the descriptor
 * operations are simulated, and what they leave open becomes `stdio`. Descriptors that were opened without close-on-exec
 * leak into the child (no `seal`), and stdio that is not placed is /dev/null. `session` is `detached`.
 *
 * Limits: whether a core was dumped is never known; a directory that vanishes between the check and the spawn is blamed on
 * execve. Everything else it lacks is missing from `capabilities`, and is refused.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { accessSync, constants, fstatSync } from "node:fs"
import { type ExitStatus, LaunchError, Launcher, type LaunchFacts, type Process } from "@handoff/core/backend/Launcher"
import type { ErrnoName } from "@handoff/core/Errno"
import * as FdTable from "@handoff/core/FdTable"
import * as Launch from "@handoff/core/Launch"
import * as PlacementPlan from "@handoff/core/PlacementPlan"
import type { SignalName } from "@handoff/core/Signal"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"

const capabilities: ReadonlySet<Launch.LaunchCapability> = new Set<Launch.LaunchCapability>([
  "placement",
  "session",
  "working-directory"
])

type StepFailed = Extract<LaunchError["reason"], { readonly _tag: "StepFailed" }>

const errnoOf = (error: unknown): ErrnoName => {
  const code = error instanceof Error && "code" in error ? error.code : undefined
  return typeof code === "string" && code.startsWith("E") ? (code as ErrnoName) : "EIO"
}

/** The errno of a call that throws. */
const failing = (call: () => void): ErrnoName | undefined => {
  try {
    call()
    return undefined
  } catch (error) {
    return errnoOf(error)
  }
}

const sourceOf = (call: Launch.SystemCall): number | undefined => {
  if (call._tag === "Dup2" || call._tag === "Duplicate") return typeof call.from === "number" ? call.from : undefined
  return call._tag === "ClearCloseOnExec" && typeof call.fd === "number" ? call.fd : undefined
}

const stepFailed = (plan: Launch.LaunchPlan, step: number, errno: ErrnoName): StepFailed => {
  const call = plan.calls[step]
  return { _tag: "StepFailed", step, call: call === undefined ? "?" : Launch.formatCall(call), errno }
}

/** What node:child_process would find out too late, or blame on something else. */
const obstacle = (plan: Launch.LaunchPlan): StepFailed | undefined => {
  const written = new Set<number>()
  for (const [step, call] of plan.calls.entries()) {
    const source = sourceOf(call)
    if (source !== undefined && !written.has(source)) {
      const errno = failing(() => fstatSync(source))
      if (errno !== undefined) return stepFailed(plan, step, errno)
    }
    if (call._tag === "Dup2") written.add(call.to)
    if (call._tag === "ChangeDirectory") {
      // With a slash after it, a file is ENOTDIR.
      const errno = failing(() => accessSync(`${call.path}/`, constants.X_OK))
      if (errno !== undefined) return stepFailed(plan, step, errno)
    }
  }
  return undefined
}

/** Where every descriptor comes from that the plan leaves open across exec: by number, for `stdio`. */
const stdioOf = (plan: Launch.LaunchPlan): ReadonlyArray<number | "ignore"> => {
  const sources = plan.calls.flatMap((call) => sourceOf(call) ?? [])
  const entries = sources.map((fd) => [fd, { description: fd, closeOnExec: true }] as const)
  const after = PlacementPlan.simulate({ operations: Launch.fdOperations(plan) }, FdTable.make(2 ** 20, entries))
  const open = Result.isSuccess(after) ? [...FdTable.exec(after.success).entries] : []
  const stdio = Array.from<number | "ignore">({ length: Math.max(2, ...open.map(([fd]) => fd)) + 1 }).fill("ignore")
  for (const [fd, entry] of open) stdio[fd] = Number(entry.description)
  return stdio
}

const kill = (target: number, signal: SignalName): Effect.Effect<boolean, LaunchError> =>
  Effect.suspend(() => {
    const errno = failing(() => process.kill(target, signal))
    if (errno === undefined || errno === "ESRCH") return Effect.succeed(errno === undefined)
    const call = `kill(${target}, ${signal})`
    return Effect.fail(new LaunchError({ reason: { _tag: "ParentCallFailed", call, errno } }))
  })

const processOf = (child: ChildProcess, pid: number): Process => {
  const ended = Deferred.makeUnsafe<ExitStatus>()
  child.once("exit", (code, signal) => {
    const status: ExitStatus =
      signal === null ? { _tag: "Exited", code: code ?? 0 } : { _tag: "Signaled", signal, coreDumped: false }
    Deferred.doneUnsafe(ended, Effect.succeed(status))
  })
  return {
    pid,
    exit: Deferred.await(ended),
    signal: (signal) =>
      Effect.suspend(() => (Deferred.isDoneUnsafe(ended) ? Effect.succeed(false) : kill(pid, signal))),
    signalGroup: (signal) => kill(-pid, signal)
  }
}

const spawnPlan = (plan: Launch.LaunchPlan): Effect.Effect<Process, LaunchError> =>
  Effect.callback((resume) => {
    const fail = (reason: LaunchError["reason"]) => resume(Effect.fail(new LaunchError({ reason })))
    const last = plan.calls.length - 1
    const execute = plan.calls[last]
    if (execute?._tag !== "Execute") return fail({ _tag: "PlanInvalid", detail: "it does not end with execve" })
    const blocked = obstacle(plan)
    if (blocked !== undefined) return fail(blocked)
    const [argv0, ...argv] = execute.argv
    const directory = plan.calls.findLast((call) => call._tag === "ChangeDirectory")
    try {
      const child = spawn(execute.path, argv, {
        argv0,
        cwd: directory?.path,
        detached: plan.calls.some((call) => call._tag === "SetSession"),
        env: execute.environment,
        stdio: [...stdioOf(plan)]
      })
      child.once("error", (error) => fail(stepFailed(plan, last, errnoOf(error))))
      child.once("spawn", () => resume(Effect.succeed(processOf(child, child.pid ?? 0))))
    } catch (error) {
      fail({ _tag: "PlanInvalid", detail: error instanceof Error ? error.message : String(error) })
    }
  })

const launch = (plan: Launch.LaunchPlan): Effect.Effect<Process, LaunchError> => {
  const missing = Launch.requirements(plan).find(({ capability }) => !capabilities.has(capability))
  return missing === undefined
    ? Effect.uninterruptible(spawnPlan(plan))
    : Effect.fail(new LaunchError({ reason: { _tag: "CapabilityMissing", ...missing } }))
}

/** Node tells its limits only in a diagnostic report. */
const facts = Effect.sync((): LaunchFacts => {
  const report = process.report.getReport() as {
    readonly userLimits?: { readonly open_files?: Record<string, unknown> }
  }
  const limit = (value: unknown) => (typeof value === "number" ? value : 2 ** 20)
  const { soft, hard } = report.userLimits?.open_files ?? {}
  return { descriptorLimit: { soft: limit(soft), hard: limit(hard) }, closeRange: true }
})

/** The launcher alone: the other services come from another backend. */
export const layer: Layer.Layer<Launcher> = Layer.effect(
  Launcher,
  Effect.map(Effect.cached(facts), (cached) => Launcher.of({ capabilities, facts: cached, launch }))
)

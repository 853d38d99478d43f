/**
 * clone(CLONE_VM | CLONE_VFORK) onto the trampoline: a measured plan in, a pid or the reason out.
 *
 * The parent's thread is suspended from clone until the child has executed its program or exited, so when clone returns the
 * outcome is in the arena, and the next launch may use the arena again.
 *
 * SAFETY: the child shares all memory. A signal handler that ran in it would run in the parent's heap: all signals are
 * blocked around the clone with the raw system call (the C library's own function leaves two unblocked), and the child's
 * program unblocks them only when no handler is left. The C library's `clone` and the trampoline use neither thread-local
 * storage nor locks. No JavaScript throws between blocking and restoring: the calls are prepared, their arguments numbers.
 */
import { readFileSync } from "node:fs"
import type { LaunchErrorReason } from "@handoff/core/backend/Launcher"
import type { ErrnoName } from "@handoff/core/Errno"
import * as Launch from "@handoff/core/Launch"
import * as Result from "effect/Result"
import * as Arena from "../Arena.ts"
import * as ChildProgram from "../ChildProgram.ts"
import * as Errno from "../Errno.ts"
import type { Libc } from "../Libc.ts"
import { type Architecture, code } from "../trampoline/Code.ts"
import { HEADER, RECORD } from "./ProgramWriter.ts"
import { numbers } from "./SystemCallNumbers.ts"

const CLONE_VM = 0x100
const CLONE_VFORK = 0x4000
const SIGCHLD = 17
const SIG_SETMASK = 2
const SIGNAL_SET_BYTES = 8

/** Runs a plan; `check` has refused what can't be run. Returns the child's pid. */
export type Clone = (plan: Launch.LaunchPlan) => Result.Result<number, LaunchErrorReason>

const parentFailed = (call: string, errno: ErrnoName): LaunchErrorReason => ({ _tag: "ParentCallFailed", call, errno })

/** Signals that have a handler in this process (SigCgt of proc_pid_status(5)). */
const caughtSignals = (): ReadonlyArray<number> => {
  const mask = BigInt(`0x${/^SigCgt:\s*([0-9a-f]+)/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? "0"}`)
  return Array.from({ length: 64 }, (_, index) => index + 1).filter((signal) => (mask >> BigInt(signal - 1)) & 1n)
}

/** Prepares cloning; maps the trampoline, which stays mapped. Make one a process. */
export const make = (libc: Libc, architecture: Architecture): Result.Result<Clone, Arena.MappingError> => {
  const trampoline = Arena.mapCode(libc, code[architecture])
  if (Result.isFailure(trampoline)) return Result.fail(trampoline.failure)
  const owner = Arena.make(libc)
  const clone = libc.bind("clone", "i32", ["address", "address", "i32", "address"])
  const setMask = libc.bind("syscall", "i64", ["i64", "i64", "address", "address", "i64"])
  const waitpid = libc.bind("waitpid", "i32", ["i32", "address", "i32"])
  const { rt_sigprocmask } = numbers[architecture]

  /** The step that failed, from the header that the trampoline wrote. */
  const failure = (arena: Arena.Arena, program: ChildProgram.CompiledProgram) => {
    const failed = Number(arena.bytes.readBigUInt64LE(Arena.PROGRAM))
    if (failed === 0) return undefined
    const record = (failed - program.headerAddress - HEADER) / RECORD
    return { step: program.steps[record] ?? -1, errno: Errno.name(arena.halves[Arena.PROGRAM / 4 + 2] ?? 0) }
  }

  /** Its exit is certain and at hand. */
  const reap = (pid: number, arena: Arena.Arena): void => {
    while (waitpid(pid, arena.address + Arena.PARENT_WORDS + 16, 0).errno === "EINTR");
  }

  return Result.succeed((plan) => {
    const measured = ChildProgram.measure(plan)
    if (Result.isFailure(measured)) return Result.fail({ _tag: "PlanInvalid", detail: measured.failure })
    const ensured = owner.ensure(measured.success.bytes)
    if (Result.isFailure(ensured)) return Result.fail(parentFailed(ensured.failure.call, ensured.failure.errno))
    const arena = ensured.success
    const savedMask = arena.address + Arena.PARENT_WORDS
    const fullMask = savedMask + 8
    const compiled = ChildProgram.compile(measured.success, architecture, arena, {
      maskAddress: savedMask,
      caughtSignals
    })
    if (Result.isFailure(compiled)) return Result.fail({ _tag: "PlanInvalid", detail: compiled.failure })
    arena.halves.fill(0xffff_ffff, Arena.PARENT_WORDS / 4 + 2, Arena.PARENT_WORDS / 4 + 4)

    const program = compiled.success
    const blocked = setMask(rt_sigprocmask, SIG_SETMASK, fullMask, savedMask, SIGNAL_SET_BYTES)
    if (blocked.errno !== undefined) return Result.fail(parentFailed("rt_sigprocmask", blocked.errno))
    const cloned = clone(
      trampoline.success,
      arena.address + Arena.STACK,
      CLONE_VM | CLONE_VFORK | SIGCHLD,
      program.headerAddress
    )
    setMask(rt_sigprocmask, SIG_SETMASK, savedMask, 0, SIGNAL_SET_BYTES)

    if (cloned.errno !== undefined) return Result.fail(parentFailed("clone(CLONE_VM | CLONE_VFORK)", cloned.errno))
    const failed = failure(arena, program)
    if (failed === undefined) return Result.succeed(cloned.value)
    reap(cloned.value, arena)
    const call = plan.calls[failed.step]
    const text = call === undefined ? "unknown" : Launch.formatCall(call)
    return Result.fail({ _tag: "StepFailed", step: failed.step, call: text, errno: failed.errno })
  })
}

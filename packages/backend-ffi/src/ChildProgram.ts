/**
 * Lowers a {@link LaunchPlan} to the system-call records of one architecture, in an arena.
 *
 * 1. {@link measure} finds what is wrong with the plan as data and bounds the bytes, so that the arena can grow first: a
 *    record holds addresses, which a later growth would make stale.
 * 2. {@link compile} writes records and data and remembers which step of the plan each record belongs to: DefaultSignals
 *    becomes one record a signal, the other calls one each.
 *
 * What no plan says, and every launch needs: the parent blocks all signals around the clone and the child inherits that. A
 * plan without EmptySignalMask gets a record before its Execute that puts back the mask the parent had, so the child sees
 * what a plan promises by silence. If it doesn't set the dispositions to default either, those that have a handler are
 * reset first: exec would do the same, and a handler must never run in the child, whose memory is the parent's.
 *
 * Limits: exactly one Execute, at the end, without `tolerate`; tolerated errnos are below 192; only argument 0 of a call
 * can be a slot, which is all that {@link FdOperation} has.
 */
import type { ErrnoName } from "@handoff/core/Errno"
import { type LaunchPlan, type LimitValue, RESOURCES, type Resource, type SystemCall } from "@handoff/core/Launch"
import type { FdRef } from "@handoff/core/PlacementPlan"
import * as Signal from "@handoff/core/Signal"
import * as Result from "effect/Result"
import type { Arena } from "./Arena.ts"
import * as Errno from "./Errno.ts"
import { arenaBytes, ProgramWriter, type Size, type Tolerated } from "./internal/ProgramWriter.ts"
import { numbers } from "./internal/SystemCallNumbers.ts"
import { F_DUPFD, F_DUPFD_CLOEXEC, F_SETFD } from "./SocketCalls.ts"
import type { Architecture } from "./trampoline/Code.ts"

const CLOSE_RANGE_CLOEXEC = 4
const PR_SET_PDEATHSIG = 1
const PR_SET_NO_NEW_PRIVS = 38
const SIG_SETMASK = 2
const AT_FDCWD = -100
const SIGNAL_SET_BYTES = 8
const MAX_UINT = 0xffff_ffff
/** Decimal digits of a 64-bit number, and a NUL. */
const PID_ROOM = 21
const LISTEN_PID = "LISTEN_PID"

type Execute = Extract<SystemCall, { readonly _tag: "Execute" }>

/** Why a plan can't be carried out as it stands. */
class PlanProblem extends Error {}

const refuse = (detail: string): never => {
  throw new PlanProblem(detail)
}

/** The measure of a plan that was found sound. */
export interface Measured {
  readonly plan: LaunchPlan
  readonly execute: Execute
  /** Bytes the arena must have. */
  readonly bytes: number
  readonly size: Size
  readonly resetsSignals: boolean
  readonly setsMask: boolean
  readonly stampsPid: boolean
}

/** What the launching process adds where a plan is silent about signals. */
export interface Inherited {
  /** Address of the parent's signal mask as it was before the clone. */
  readonly maskAddress: number
  /** Signals that have a handler in the parent; asked for only when a plan leaves dispositions alone. */
  readonly caughtSignals: () => ReadonlyArray<number>
}

export interface CompiledProgram {
  readonly headerAddress: number
  /** The index into `plan.calls` of each record. */
  readonly steps: ReadonlyArray<number>
}

const textBytes = (text: string, what: string): number => {
  if (text.includes("\0")) refuse(`${what} contains a NUL byte: ${JSON.stringify(text)}`)
  return 3 * text.length + 1
}

const executeBytes = (call: Execute): number => {
  let bytes = textBytes(call.path, "the program's path") + 32
  call.argv.forEach((argument, index) => {
    bytes += textBytes(argument, `argument ${index}`) + 8
  })
  for (const [name, value] of Object.entries(call.environment)) {
    if (name === "" || name.includes("=")) refuse(`${JSON.stringify(name)} can't be the name of a variable`)
    bytes += textBytes(name, "a variable's name") + textBytes(value, `the variable ${name}`) + 8
  }
  return bytes + LISTEN_PID.length + PID_ROOM + 16
}

const dataBytes = (call: SystemCall): number => {
  switch (call._tag) {
    case "ChangeDirectory":
      return textBytes(call.path, "the working directory")
    case "SetGroups":
      return 4 * call.groups.length + 8
    case "SetResourceLimit":
      return 24
    case "StampPid":
      return textBytes("/proc/self", "")
    case "Execute":
      return executeBytes(call)
    default:
      return 0
  }
}

const measureOrThrow = (plan: LaunchPlan): Measured => {
  if (plan.version !== 1) refuse(`version ${JSON.stringify(plan.version)} is not known`)
  const last = plan.calls.length - 1
  let execute: Execute | undefined
  // Two records and the mask for what the plan is silent about, and a handler for each of 64 signals.
  let records = 1 + 64
  let data = 64
  const has = new Set<SystemCall["_tag"]>()
  plan.calls.forEach((call, step) => {
    has.add(call._tag)
    records += call._tag === "DefaultSignals" ? call.signals.length : 1
    data += dataBytes(call)
    if (call._tag !== "Execute") return
    if (step !== last) refuse(`step ${step} is Execute, and calls follow it`)
    if ((call.tolerate ?? []).length > 0) refuse(`step ${step}, Execute, tolerates errors, and nothing follows it`)
    execute = call
  })
  if (execute === undefined) return refuse("its last call is not Execute")
  const size = { records, data }
  return {
    plan,
    execute,
    size,
    bytes: arenaBytes(size),
    resetsSignals: has.has("DefaultSignals"),
    setsMask: has.has("EmptySignalMask"),
    stampsPid: has.has("StampPid")
  }
}

const catching = <A>(body: () => A): Result.Result<A, string> => {
  try {
    return Result.succeed(body())
  } catch (error) {
    if (error instanceof PlanProblem) return Result.fail(error.message)
    throw error
  }
}

/** Checks a plan as data and bounds its size, or says what is wrong with it. */
export const measure = (plan: LaunchPlan): Result.Result<Measured, string> => catching(() => measureOrThrow(plan))

const integer = (value: number, what: string): number =>
  Number.isSafeInteger(value) ? value : refuse(`${what} is ${value}, not an integer`)

const errnoBits = (names: ReadonlyArray<ErrnoName> | undefined): Tolerated =>
  names?.map((name) => {
    const number = Errno.number(name)
    return number !== undefined && number > 0 && number < 192 ? number : refuse(`the errno ${name} can't be tolerated`)
  })

const limitWord = (value: LimitValue, resource: Resource): number =>
  value === "unlimited" ? -1 : integer(value, `the limit ${resource}`)

class Compiler {
  readonly steps: Array<number> = []
  private readonly slots = new Map<number, number>()
  private readonly writer: ProgramWriter
  private readonly nr: (typeof numbers)[Architecture]
  private readonly measured: Measured
  private readonly inherited: Inherited
  private readonly pidAddress: number
  private readonly execveArguments: ReadonlyArray<number>

  constructor(writer: ProgramWriter, architecture: Architecture, measured: Measured, inherited: Inherited) {
    this.writer = writer
    this.nr = numbers[architecture]
    this.measured = measured
    this.inherited = inherited
    const { path, argv } = measured.execute
    const environment = this.environment(measured.execute.environment, measured.stampsPid)
    this.pidAddress = environment.pidAddress
    const argvAddress = writer.words([...argv.map((argument) => writer.text(argument)), 0])
    this.execveArguments = [writer.text(path), argvAddress, writer.words([...environment.pointers, 0])]
  }

  /** LISTEN_PID is where readlink writes: digits from the start of its value, the NUL is there already. */
  private environment(variables: Readonly<Record<string, string>>, stamps: boolean) {
    const pointers: Array<number> = []
    let pidAddress = 0
    for (const name in variables) {
      if (Object.hasOwn(variables, name) && !(stamps && name === LISTEN_PID)) {
        pointers.push(this.writer.text(`${name}=${variables[name]}`))
      }
    }
    if (stamps) {
      const address = this.writer.text(`${LISTEN_PID}=`)
      this.writer.reserve(PID_ROOM)
      pidAddress = address + LISTEN_PID.length + 1
      pointers.push(address)
    }
    return { pointers, pidAddress }
  }

  private emit(step: number, nr: number, args: ReadonlyArray<number>, tolerated?: Tolerated, first?: number): number {
    this.steps.push(step)
    return this.writer.record(nr, args, tolerated, first)
  }

  /** A call whose argument 0 is a descriptor or an earlier result. */
  private emitOn(step: number, nr: number, fd: FdRef, rest: ReadonlyArray<number>, tolerated: Tolerated): number {
    if (typeof fd === "number") return this.emit(step, nr, [integer(fd, "a descriptor"), ...rest], tolerated)
    const result = this.slots.get(fd.slot) ?? refuse(`step ${step} uses slot ${fd.slot}, which no earlier call fills`)
    return this.emit(step, nr, [0, ...rest], tolerated, result)
  }

  private defaultSignal(step: number, signal: number, tolerated: Tolerated): void {
    const { zeros } = this.writer
    this.emit(step, this.nr.rt_sigaction, [integer(signal, "a signal"), zeros, 0, SIGNAL_SET_BYTES], tolerated)
  }

  /** Before the mask changes, no handler may be left. */
  private forgetHandlers(step: number): void {
    if (this.measured.resetsSignals) return
    for (const signal of this.inherited.caughtSignals()) this.defaultSignal(step, signal, undefined)
  }

  call(call: SystemCall, step: number): void {
    const { writer, nr } = this
    const tolerated = errnoBits(call.tolerate)
    switch (call._tag) {
      case "Dup2":
        this.emitOn(step, nr.dup3, call.from, [integer(call.to, "a target"), 0], tolerated)
        return
      case "Duplicate": {
        const command = call.closeOnExec ? F_DUPFD_CLOEXEC : F_DUPFD
        const atLeast = integer(call.atLeast, "a lowest descriptor")
        const record = this.emitOn(step, nr.fcntl, call.from, [command, atLeast], tolerated)
        this.slots.set(call.slot, record + 64)
        return
      }
      case "ClearCloseOnExec":
        this.emitOn(step, nr.fcntl, call.fd, [F_SETFD, 0], tolerated)
        return
      case "Close":
        this.emitOn(step, nr.close, call.fd, [], tolerated)
        return
      case "CloseRange": {
        const last = call.last === "max" ? MAX_UINT : integer(call.last, "a last descriptor")
        const flags = call.how === "close" ? 0 : CLOSE_RANGE_CLOEXEC
        this.emit(step, nr.close_range, [integer(call.first, "a first descriptor"), last, flags], tolerated)
        return
      }
      case "SetResourceLimit": {
        const values = [limitWord(call.soft, call.resource), limitWord(call.hard, call.resource)]
        const resource = RESOURCES.indexOf(call.resource)
        if (resource < 0) refuse(`the resource ${call.resource} is not known`)
        this.emit(step, nr.prlimit64, [0, resource, writer.words(values), 0], tolerated)
        return
      }
      case "SetGroups": {
        const groups = call.groups.map((group) => integer(group, "a group"))
        this.emit(step, nr.setgroups, [groups.length, writer.halves(groups)], tolerated)
        return
      }
      case "StampPid":
        this.emit(step, nr.readlinkat, [AT_FDCWD, writer.text("/proc/self"), this.pidAddress, PID_ROOM - 1], tolerated)
        return
      case "DefaultSignals":
        for (const signal of call.signals) this.defaultSignal(step, signal, tolerated)
        return
      case "EmptySignalMask":
        this.forgetHandlers(step)
        this.emit(step, nr.rt_sigprocmask, [SIG_SETMASK, writer.zeros, 0, SIGNAL_SET_BYTES], tolerated)
        return
      case "Execute":
        if (!this.measured.setsMask) {
          this.forgetHandlers(step)
          this.emit(step, nr.rt_sigprocmask, [SIG_SETMASK, this.inherited.maskAddress, 0, SIGNAL_SET_BYTES])
        }
        this.emit(step, nr.execve, this.execveArguments)
        return
      default:
        this.simple(call, step, tolerated)
    }
  }

  /** The calls whose arguments are plain numbers or one text. */
  private simple(
    call: Extract<
      SystemCall,
      {
        readonly _tag:
          | "SetProcessGroup"
          | "SetSession"
          | "SetUmask"
          | "SetGid"
          | "SetUid"
          | "ChangeDirectory"
          | "SetNoNewPrivileges"
          | "SetParentDeathSignal"
      }
    >,
    step: number,
    tolerated: Tolerated
  ): void {
    const { nr } = this
    switch (call._tag) {
      case "SetProcessGroup":
        return void this.emit(step, nr.setpgid, [0, 0], tolerated)
      case "SetSession":
        return void this.emit(step, nr.setsid, [], tolerated)
      case "SetUmask":
        return void this.emit(step, nr.umask, [integer(call.mask, "the umask")], tolerated)
      case "SetGid":
        return void this.emit(step, nr.setgid, [integer(call.gid, "the gid")], tolerated)
      case "SetUid":
        return void this.emit(step, nr.setuid, [integer(call.uid, "the uid")], tolerated)
      case "ChangeDirectory":
        return void this.emit(step, nr.chdir, [this.writer.text(call.path)], tolerated)
      case "SetNoNewPrivileges":
        return void this.emit(step, nr.prctl, [PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0], tolerated)
      case "SetParentDeathSignal":
        return void this.emit(step, nr.prctl, [PR_SET_PDEATHSIG, Signal.number(call.signal)], tolerated)
      default:
        // Only JSON from elsewhere gets here.
        refuse(`step ${step} is a call that is not known: ${JSON.stringify(call)}`)
    }
  }
}

/** Writes a measured plan's program into an arena that has room for it. */
export const compile = (
  measured: Measured,
  architecture: Architecture,
  arena: Arena,
  inherited: Inherited
): Result.Result<CompiledProgram, string> =>
  catching(() => {
    const writer = new ProgramWriter(arena, measured.size)
    const compiler = new Compiler(writer, architecture, measured, inherited)
    measured.plan.calls.forEach((call, step) => {
      compiler.call(call, step)
    })
    return { headerAddress: writer.headerAddress, steps: compiler.steps }
  })

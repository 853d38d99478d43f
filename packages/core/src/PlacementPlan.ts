/**
 * The wish made an ordered list of descriptor operations.
 *
 * Two strategies, one meaning. `direct` resolves the placements as a parallel move: a target whose own number nobody
 * reads any more is written at once (the free ends of chains), what is left are cycles, and a cycle is opened by keeping
 * one of its descriptions elsewhere: at a target outside the cycle that got it already (3->4, 4->3, 3->5 needs three
 * `dup2`), else in a scratch descriptor above every source and target, close-on-exec, so that nobody has to close it.
 * `staged` copies every source above the targets first, then puts the copies into place, then closes them: more calls,
 * but correct at a glance, and the oracle of `direct`.
 *
 * `direct` emits the least number of operations: one for each placement (a target must be written, and a source that is
 * already its target needs F_SETFD, since dup2(n, n) does not clear the flag) and one for each cycle that feeds nothing
 * outside itself. Both take linear time.
 *
 * Limits: planning does not see the table. A closed source, or no free number for a scratch descriptor, shows when the
 * plan is simulated ({@link simulate}) or run. What is neither source nor target is left as it is: see Seal.ts.
 */
import * as Data from "effect/Data"
import * as Result from "effect/Result"
import type { ErrnoName } from "./Errno.ts"
import { type Fd, FIRST_INHERITED_FD } from "./Fd.ts"
import type * as FdTable from "./FdTable.ts"
import * as FdTableDraft from "./FdTableDraft.ts"
import { formatOperation } from "./internal/PlacementText.ts"
import * as Placement from "./Placement.ts"

export { explain, formatOperation, formatRef, formatSlot } from "./internal/PlacementText.ts"

/** The result of an earlier `Duplicate` operation, known only when the plan runs. */
export interface Slot {
  readonly slot: number
}

/** A descriptor known while planning, or the result of an earlier operation. */
export type FdRef = Fd | Slot

/** One system call on the descriptor table. `tolerate` lists errnos that do not stop the plan. */
export type FdOperation =
  /** dup3(from, to, 0): `to` refers to what `from` refers to, FD_CLOEXEC clear. Planners never emit from = to. */
  | { readonly _tag: "Dup2"; readonly from: FdRef; readonly to: Fd; readonly tolerate?: ReadonlyArray<ErrnoName> }
  /** fcntl F_DUPFD or F_DUPFD_CLOEXEC: the lowest free number at or above `atLeast`, remembered as `slot`. */
  | {
      readonly _tag: "Duplicate"
      readonly from: FdRef
      readonly atLeast: Fd
      readonly closeOnExec: boolean
      readonly slot: number
      readonly tolerate?: ReadonlyArray<ErrnoName>
    }
  /** fcntl F_SETFD 0. */
  | { readonly _tag: "ClearCloseOnExec"; readonly fd: FdRef; readonly tolerate?: ReadonlyArray<ErrnoName> }
  /** close. */
  | { readonly _tag: "Close"; readonly fd: FdRef; readonly tolerate?: ReadonlyArray<ErrnoName> }
  /** close_range(first, last, flags); `last: "max"` is the whole tail. */
  | {
      readonly _tag: "CloseRange"
      readonly first: Fd
      readonly last: Fd | "max"
      readonly how: "close" | "close-on-exec"
      readonly tolerate?: ReadonlyArray<ErrnoName>
    }

/** Descriptor operations in order, with the wish they fulfil. */
export interface PlacementPlan {
  readonly strategy: "direct" | "staged"
  readonly placements: ReadonlyArray<Placement.Placement>
  readonly operations: ReadonlyArray<FdOperation>
}

export interface PlanOptions {
  /** RLIMIT_NOFILE in force when the plan runs. Placements and scratch descriptors at or over it are refused. */
  readonly descriptorLimit?: number
}

type Planned = Result.Result<PlacementPlan, Placement.PlacementError>

/** The working state of `direct`: who still reads a number, and where a description that moved is found. */
interface Moves {
  readonly operations: Array<FdOperation>
  /** Target to source, for placements not yet done. */
  readonly pending: Map<Fd, Fd>
  /** How many pending placements read this number. */
  readonly readers: Map<Fd, number>
  /** A target that already has the description of this source. */
  readonly copies: Map<Fd, Fd>
}

const prepare = (placements: ReadonlyArray<Placement.Placement>): Moves => {
  const moves: Moves = { operations: [], pending: new Map(), readers: new Map(), copies: new Map() }
  for (const { source, target } of placements) {
    if (source === target) {
      moves.operations.push({ _tag: "ClearCloseOnExec", fd: target })
      // Settled where it is: nobody overwrites a source that is its own target.
      continue
    }
    moves.pending.set(target, source)
    moves.readers.set(source, (moves.readers.get(source) ?? 0) + 1)
  }
  return moves
}

/** Fills `target` and goes back along the chain while the number just read becomes free to be written itself. */
const followChain = (moves: Moves, end: Fd): void => {
  let target = end
  for (;;) {
    const source = moves.pending.get(target)
    if (source === undefined) return
    moves.operations.push({ _tag: "Dup2", from: source, to: target })
    moves.pending.delete(target)
    const readers = (moves.readers.get(source) ?? 0) - 1
    moves.readers.set(source, readers)
    if (readers > 0) {
      // Still read elsewhere, maybe in a cycle, which can then be opened through this copy.
      moves.copies.set(source, target)
      return
    }
    target = source
  }
}

/** Turns the cycle through `start` once `start`'s own description is kept at `kept`. */
const turnCycle = (moves: Moves, start: Fd, kept: FdRef): void => {
  let target = start
  for (;;) {
    const source = moves.pending.get(target)
    if (source === undefined) return
    moves.pending.delete(target)
    if (source === start) {
      moves.operations.push({ _tag: "Dup2", from: kept, to: target })
      return
    }
    moves.operations.push({ _tag: "Dup2", from: source, to: target })
    target = source
  }
}

/** A member of the cycle through `start` whose description a target outside the cycle holds already. */
const copiedMember = (moves: Moves, start: Fd): { readonly member: Fd; readonly copy: Fd } | undefined => {
  let member: Fd | undefined = start
  do {
    const copy = moves.copies.get(member)
    if (copy !== undefined) return { member, copy }
    member = moves.pending.get(member)
  } while (member !== undefined && member !== start)
  return undefined
}

const above = (placements: ReadonlyArray<Placement.Placement>): Fd => {
  let highest = FIRST_INHERITED_FD - 1
  for (const { source, target } of placements) highest = Math.max(highest, source, target)
  return highest + 1
}

const finish = (
  strategy: PlacementPlan["strategy"],
  placements: ReadonlyArray<Placement.Placement>,
  operations: ReadonlyArray<FdOperation>,
  options: PlanOptions
): Planned => {
  const plan: PlacementPlan = { strategy, placements, operations }
  const limit = options.descriptorLimit ?? Number.POSITIVE_INFINITY
  const needed = reach(operations)
  return needed < limit
    ? Result.succeed(plan)
    : Result.fail(new Placement.PlacementError({ reason: { _tag: "ScratchOverLimit", needed, limit } }))
}

/**
 * Plans with the least number of operations (see the module).
 *
 * ```ts
 * const plan = Result.getOrThrow(PlacementPlan.direct([Placement.move(3, 4), Placement.move(4, 3)]))
 * PlacementPlan.explain(plan) // F_DUPFD_CLOEXEC 4 -> a (>= 5), dup2 3 -> 4, dup2 a -> 3; one a line
 * ```
 */
export const direct = (placements: ReadonlyArray<Placement.Placement>, options: PlanOptions = {}): Planned => {
  const checked = Placement.validate(placements, options)
  if (Result.isFailure(checked)) return Result.fail(checked.failure)
  const moves = prepare(placements)
  for (const { target } of placements) if ((moves.readers.get(target) ?? 0) === 0) followChain(moves, target)
  // Only cycles are left: as many readers as targets, each target read at least once, so each exactly once.
  const atLeast = above(placements)
  let slot = 0
  for (const { target } of placements) {
    if (!moves.pending.has(target)) continue
    const found = copiedMember(moves, target)
    if (found !== undefined) {
      turnCycle(moves, found.member, found.copy)
      continue
    }
    moves.operations.push({ _tag: "Duplicate", from: target, atLeast, closeOnExec: true, slot })
    turnCycle(moves, target, { slot })
    slot++
  }
  return finish("direct", placements, moves.operations, options)
}

/**
 * Plans by copying every source out of the way first: F_DUPFD at or above max(3 + n, highest target + 1), `dup2` to the
 * targets, `close` of every copy, where n is the number of sources.
 *
 * Hazard: a closed source at or above that minimum can go unnoticed, because the copy of another source lands on its
 * number ({@link verify} tells). `direct` has no such case: its copies are above every source.
 */
export const staged = (placements: ReadonlyArray<Placement.Placement>, options: PlanOptions = {}): Planned => {
  const checked = Placement.validate(placements, options)
  if (Result.isFailure(checked)) return Result.fail(checked.failure)
  const slots = new Map<Fd, number>()
  let highestTarget = -1
  for (const { source, target } of placements) {
    if (!slots.has(source)) slots.set(source, slots.size)
    highestTarget = Math.max(highestTarget, target)
  }
  const atLeast = Math.max(FIRST_INHERITED_FD + slots.size, highestTarget + 1)
  const operations: Array<FdOperation> = []
  for (const [from, slot] of slots) operations.push({ _tag: "Duplicate", from, atLeast, closeOnExec: false, slot })
  for (const { source, target } of placements) {
    operations.push({ _tag: "Dup2", from: { slot: slots.get(source) ?? 0 }, to: target })
  }
  for (const slot of slots.values()) operations.push({ _tag: "Close", fd: { slot } })
  return finish("staged", placements, operations, options)
}

/** The highest descriptor number the operations open, if nothing is in the way of their scratch copies; -1 for none. */
export const reach = (operations: ReadonlyArray<FdOperation>): number => {
  let highest = -1
  let copies = 0
  for (const operation of operations) {
    if (operation._tag === "Dup2") highest = Math.max(highest, operation.to)
    if (operation._tag === "Duplicate") highest = Math.max(highest, operation.atLeast + copies++)
  }
  return highest
}

/** The number a reference stands for; undefined for a slot that nothing filled. */
export const resolve = (slots: ReadonlyMap<number, Fd>, ref: FdRef): Fd | undefined =>
  typeof ref === "number" ? ref : slots.get(ref.slot)

/**
 * Carries one operation out on a draft, as the kernel would. Returns the errno of a failure, tolerated or not.
 * `slots` remembers the results of `Duplicate` between the operations of one plan.
 */
export const apply = (
  draft: FdTableDraft.FdTableDraft,
  slots: Map<number, Fd>,
  operation: FdOperation
): ErrnoName | undefined => {
  switch (operation._tag) {
    case "Dup2":
      return FdTableDraft.dup3(draft, resolve(slots, operation.from) ?? -1, operation.to)
    case "Duplicate": {
      const from = resolve(slots, operation.from) ?? -1
      const fd = FdTableDraft.duplicate(draft, from, operation.atLeast, operation.closeOnExec)
      if (typeof fd === "string") return fd
      slots.set(operation.slot, fd)
      return undefined
    }
    case "ClearCloseOnExec":
      return FdTableDraft.setCloseOnExec(draft, resolve(slots, operation.fd) ?? -1, false)
    case "Close":
      return FdTableDraft.close(draft, resolve(slots, operation.fd) ?? -1)
    case "CloseRange":
      return FdTableDraft.closeRange(draft, operation.first, operation.last, operation.how)
  }
}

/** `step` is the index into `operations`. */
export class SimulationError extends Data.TaggedError("SimulationError")<{
  readonly step: number
  readonly operation: FdOperation
  readonly errno: ErrnoName
}> {
  override get message(): string {
    return `operation ${this.step} failed: ${formatOperation(this.operation)} = ${this.errno}`
  }
}

/** Runs the operations of a plan on a table: the table a child would have before exec, or the operation that failed. */
export const simulate = (
  plan: Pick<PlacementPlan, "operations">,
  table: FdTable.FdTable
): Result.Result<FdTable.FdTable, SimulationError> => {
  const draft = FdTableDraft.make(table)
  const slots = new Map<number, Fd>()
  for (const [step, operation] of plan.operations.entries()) {
    const errno = apply(draft, slots, operation)
    if (errno !== undefined && operation.tolerate?.includes(errno) !== true) {
      return Result.fail(new SimulationError({ step, operation, errno }))
    }
  }
  return Result.succeed(FdTableDraft.freeze(draft))
}

export type VerificationErrorReason =
  | { readonly _tag: "OperationFailed"; readonly error: SimulationError }
  | {
      readonly _tag: "WrongDescription"
      readonly target: Fd
      readonly expected: FdTable.Description | undefined
      readonly actual: FdTable.Description | undefined
    }
  | { readonly _tag: "CloseOnExecSet"; readonly target: Fd }
  /** The plan itself made a descriptor that is no target inheritable. */
  | { readonly _tag: "Leaked"; readonly fd: Fd }

export class VerificationError extends Data.TaggedError("VerificationError")<{
  readonly reason: VerificationErrorReason
}> {
  override get message(): string {
    const reason = this.reason
    switch (reason._tag) {
      case "OperationFailed":
        return reason.error.message
      case "WrongDescription":
        return `target ${reason.target} refers to ${reason.actual ?? "nothing"} instead of ${reason.expected ?? "nothing"}`
      case "CloseOnExecSet":
        return `target ${reason.target} is still marked close-on-exec`
      case "Leaked":
        return `descriptor ${reason.fd} is no target and was made inheritable`
    }
  }
}

/** Simulates a plan and checks the result against its placements. Succeeds with the resulting table. */
export const verify = (
  plan: PlacementPlan,
  table: FdTable.FdTable
): Result.Result<FdTable.FdTable, VerificationError> => {
  const refuse = (reason: VerificationErrorReason) => Result.fail(new VerificationError({ reason }))
  const simulated = simulate(plan, table)
  if (Result.isFailure(simulated)) return refuse({ _tag: "OperationFailed", error: simulated.failure })
  const after = simulated.success
  const targets = new Set<Fd>()
  for (const { source, target } of plan.placements) {
    targets.add(target)
    const expected = table.entries.get(source)?.description
    const actual = after.entries.get(target)
    if (actual === undefined || actual.description !== expected) {
      return refuse({ _tag: "WrongDescription", target, expected, actual: actual?.description })
    }
    if (actual.closeOnExec) return refuse({ _tag: "CloseOnExecSet", target })
  }
  for (const [fd, entry] of after.entries) {
    if (targets.has(fd) || entry.closeOnExec) continue
    if (table.entries.get(fd)?.closeOnExec !== false) return refuse({ _tag: "Leaked", fd })
  }
  return Result.succeed(after)
}

/**
 * Runs a {@link ProgramMachine} in Effect's time: the only mutable cell of a simulated backend.
 *
 * Every use first carries out what is due by Clock, so that nobody ever sees a state that is late. A fiber per due time
 * wakes those who wait (for an exit, for a datagram); with TestClock it wakes when the test says so. What is due at the
 * present moment is carried out at once.
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import type { ExitStatus } from "../backend/Launcher.ts"
import type { Notification } from "../backend/Notifications.ts"
import * as ProgramMachine from "./ProgramMachine.ts"
import type { Kernel } from "./SimulatedKernel.ts"
import * as SimulatedKernel from "./SimulatedKernel.ts"

type Machine = ProgramMachine.ProgramMachine

export interface SimulationDriver {
  readonly self: number
  readonly machine: Effect.Effect<Machine>
  /** Changes the machine; `value` is the result. */
  readonly use: <A>(
    f: (machine: Machine, now: number) => { readonly machine: Machine; readonly value: A }
  ) => Effect.Effect<A>
  /** A call on the kernel: changes nothing if it gives an errno. */
  readonly call: <A, E extends string>(f: (kernel: Kernel) => SimulatedKernel.Done<A> | E) => Effect.Effect<A | E>
  /** Waits until `f` gives something; it is asked again whenever the kernel has changed. */
  readonly until: <A>(f: (machine: Machine) => A | undefined) => Effect.Effect<A>
  /** Completed when a child of ours has ended and was reaped. */
  readonly exitOf: (pid: number) => Deferred.Deferred<ExitStatus>
  readonly mailbox: (path: string) => Queue.Queue<Notification>
  readonly openMailbox: (path: string) => Effect.Effect<void>
  readonly closeMailbox: (path: string) => Effect.Effect<void>
}

/** Starts the time of a simulation. Its fibers end with the scope. */
export const make = (initial: Kernel, self: number): Effect.Effect<SimulationDriver, never, Scope.Scope> =>
  Effect.map(Effect.scope, (scope) => {
    let machine = ProgramMachine.make(initial)
    const armed = new Set<number>()
    const exits = new Map<number, Deferred.Deferred<ExitStatus>>()
    const watchers = new Set<() => void>()
    let seen = initial
    const mailboxes = new Map<string, Queue.Queue<Notification>>()

    const exitOf = (pid: number): Deferred.Deferred<ExitStatus> => {
      const known = exits.get(pid) ?? Deferred.makeUnsafe<ExitStatus>()
      exits.set(pid, known)
      return known
    }

    /** Reaps our children and hands datagrams over. */
    const settle = (): void => {
      for (const one of machine.kernel.processes.values()) {
        if (one.parent !== self || one.ended === undefined) continue
        machine = { ...machine, kernel: SimulatedKernel.reap(machine.kernel, one.pid) }
        Deferred.doneUnsafe(exitOf(one.pid), Effect.succeed(one.ended))
      }
      for (const { path, notification } of machine.datagrams) {
        const mailbox = mailboxes.get(path)
        if (mailbox !== undefined) Queue.offerUnsafe(mailbox, notification)
      }
      machine = { ...machine, datagrams: [] }
      if (machine.kernel === seen) return
      seen = machine.kernel
      const woken = [...watchers]
      watchers.clear()
      for (const wake of woken) wake()
    }

    const arm: Effect.Effect<void> = Effect.suspend(() => {
      const due = ProgramMachine.nextDue(machine)
      if (due === undefined || armed.has(due)) return Effect.void
      armed.add(due)
      const wake = Effect.flatMap(Clock.currentTimeMillis, (now) => Effect.sleep(Math.max(0, due - now))).pipe(
        Effect.andThen(
          Effect.suspend(() => {
            armed.delete(due)
            return tick
          })
        )
      )
      return Effect.asVoid(Effect.forkIn(wake, scope, { startImmediately: true }))
    })

    const use: SimulationDriver["use"] = (f) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) => {
        const done = f(ProgramMachine.advance(machine, now), now)
        machine = ProgramMachine.advance(done.machine, now)
        settle()
        return Effect.as(arm, done.value)
      })

    const tick: Effect.Effect<void> = use((current) => ({ machine: current, value: undefined }))

    /** Watching begins in the same turn as the look, so no change falls between. */
    const until = <A>(f: (machine: Machine) => A | undefined): Effect.Effect<A> =>
      use((current) => ({ machine: current, value: current })).pipe(
        Effect.flatMap(() =>
          Effect.callback<A | undefined>((resume) => {
            const found = f(machine)
            if (found !== undefined) return resume(Effect.succeed(found))
            const wake = () => resume(Effect.succeed(undefined))
            watchers.add(wake)
            return Effect.sync(() => watchers.delete(wake))
          })
        ),
        Effect.flatMap((found) => (found === undefined ? until(f) : Effect.succeed(found)))
      )

    const call = <A, E extends string>(f: (kernel: Kernel) => SimulatedKernel.Done<A> | E): Effect.Effect<A | E> =>
      use<A | E>((current) => {
        const done = f(current.kernel)
        return typeof done === "string"
          ? { machine: current, value: done }
          : { machine: { ...current, kernel: done.kernel }, value: done.value }
      })

    return {
      self,
      machine: use((current) => ({ machine: current, value: current })),
      use,
      call,
      until,
      exitOf,
      mailbox: (path) => {
        const known = mailboxes.get(path)
        if (known === undefined) throw new Error(`no notify socket is open at ${path}`)
        return known
      },
      openMailbox: (path) =>
        Effect.map(Queue.unbounded<Notification>(), (mailbox) => {
          mailboxes.set(path, mailbox)
        }),
      closeMailbox: (path) =>
        Effect.sync(() => {
          mailboxes.delete(path)
        })
    }
  })

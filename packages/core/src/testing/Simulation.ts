/**
 * The handle on a simulated backend: what a test asks about children, and what it makes happen to them.
 *
 * @example
 * const simulation = yield* Simulation
 * const [child] = yield* simulation.launched
 * expect(child.descriptors[3]).toBe(`socket:[${listener.inode}]`)
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type { Address } from "../Address.ts"
import type { Channels } from "../backend/Channels.ts"
import type { ExitStatus } from "../backend/Launcher.ts"
import type { ErrnoName } from "../Errno.ts"
import type { SystemCall } from "../Launch.ts"
import type { ChildView } from "./ChildView.ts"
import type { Connected, ProgramMachine } from "./ProgramMachine.ts"
import type { Done, Kernel } from "./SimulatedKernel.ts"

export class Simulation extends Context.Service<
  Simulation,
  {
    /** The simulated process that launches: whoever uses the backend. */
    readonly self: number
    /** The kernel and the programs on it, now. */
    readonly machine: Effect.Effect<ProgramMachine>
    /** What each child saw right after exec, in the order of their launches. */
    readonly launched: Effect.Effect<ReadonlyArray<ChildView>>
    readonly child: (pid: number) => Effect.Effect<ChildView | undefined>
    /** The lines a process wrote, also after its end. */
    readonly output: (pid: number) => Effect.Effect<ReadonlyArray<string>>
    /** A client connects. */
    readonly connect: (address: Address) => Effect.Effect<Connected>
    /** Connections that a process holds through the listener with this inode. */
    readonly setConnections: (pid: number, inode: number, count: number) => Effect.Effect<void>
    /** Ends a process, as a crash would. */
    readonly end: (pid: number, status: ExitStatus) => Effect.Effect<void>
    /** The first call of this kind in the next launch that has one fails. */
    readonly failNext: (call: SystemCall["_tag"], errno: ErrnoName) => Effect.Effect<void>
    /** Changes the kernel: a file appears, a limit falls. */
    readonly update: (change: (kernel: Kernel) => Kernel) => Effect.Effect<void>
    /** A call on the kernel, for whichever process: its value, or the errno, which changes nothing. */
    readonly call: <A>(f: (kernel: Kernel) => Done<A> | ErrnoName) => Effect.Effect<A | ErrnoName>
    /** Channels as a simulated process has them: a test speaks for it. */
    readonly channelsOf: (pid: number) => Channels["Service"]
  }
>()("@handoff/core/testing/Simulation") {}

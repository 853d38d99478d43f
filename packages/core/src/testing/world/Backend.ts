/**
 * What a supervisor's backend does, as the system calls it makes on the kernel of a world. Bring your own: a backend that
 * makes other calls, or the same in another order, is explored like the shipped one.
 *
 * A backend is called by the supervisor. Each call that it makes is a moment in which the supervisor may be killed, and may
 * fail by a fault; a backend gives the errno back, and leaves nothing behind that a failed call made useless.
 *
 * @example
 * // One that takes a rename for durable: a power cut brings the old document back.
 * const hasty: World.Backend = {
 *   ...World.linux,
 *   replace: (calls, path, text) => World.linux.replace(World.skipping("fsync directory", calls), path, text)
 * }
 */
import * as Result from "effect/Result"
import type { LaunchFacts } from "../../backend/Launcher.ts"
import { isSame, type ProcessIdentity } from "../../backend/Processes.ts"
import type { ErrnoName } from "../../Errno.ts"
import type { Fd } from "../../Fd.ts"
import { FIRST_INHERITED_FD } from "../../Fd.ts"
import * as Launch from "../../Launch.ts"
import * as Placement from "../../Placement.ts"
import type { SignalName } from "../../Signal.ts"
import * as SimulatedFiles from "../SimulatedFiles.ts"
import type { Description, Done, Kernel } from "../SimulatedKernel.ts"
import * as SimulatedKernel from "../SimulatedKernel.ts"
import * as SimulatedLaunch from "../SimulatedLaunch.ts"
import * as SimulatedStreams from "../SimulatedStreams.ts"
import { ADDRESS, PROGRAM } from "./Layout.ts"

/** The names of system calls, by which faults fail them: those of FAILURES in Moves.ts, the others never fail. */
export type CallName =
  | "accept"
  | "bind"
  | "clone"
  | "close"
  | "connect"
  | "environ"
  | "flock"
  | "fsync"
  | "fsync directory"
  | "kill"
  | "listen"
  | "look"
  | "open"
  | "pidfd_getfd"
  | "pidfd_send_signal"
  | "recv"
  | "rename"
  | "send"
  | "sigwait"
  | "socketpair"
  | "stat"
  | "unlink"
  | "unlock"
  | "write"

/** The calling process's way into the kernel. */
export interface Calls {
  readonly pid: number
  /** Makes one system call. */
  readonly call: <A>(name: CallName, f: (kernel: Kernel) => Done<A> | ErrnoName) => Result.Result<A, ErrnoName>
}

/** The same, but that calls of this name do nothing. */
export const skipping = (name: CallName, { pid, call }: Calls): Calls => ({
  pid,
  call: (made, f) => call(made, (kernel) => (made === name ? { kernel, value: undefined as never } : f(kernel)))
})

export interface LaunchRequest {
  readonly argv: ReadonlyArray<string>
  readonly environment: Readonly<Record<string, string>>
  /** The listener, for descriptor 3. */
  readonly listener: Fd
  /** Whether it gets a channel, at descriptor 4. */
  readonly successor: boolean
}

export interface Backend {
  readonly name: string
  /** The service's listener, bound anew. */
  readonly listen: (calls: Calls) => Result.Result<Fd, ErrnoName>
  /** A copy of the service's listener out of one of these processes. */
  readonly adopt: (calls: Calls, pids: ReadonlyArray<number>) => Fd | undefined
  /** The child's pid, and our end of the channel. */
  readonly launch: (
    calls: Calls,
    request: LaunchRequest
  ) => Result.Result<{ readonly pid: number; readonly channel: Fd | undefined }, ErrnoName>
  readonly identify: (calls: Calls, pid: number) => ProcessIdentity | undefined
  /** Living processes whose environment has `name=value`. */
  readonly startedWith: (calls: Calls, name: string, value: string) => ReadonlyArray<ProcessIdentity>
  /** Living members of the process group of this number. */
  readonly groupMembers: (calls: Calls, group: number) => ReadonlyArray<number>
  /** Signals the process, if it is still the one that is meant. */
  readonly signal: (calls: Calls, process: ProcessIdentity, signal: SignalName) => Result.Result<void, ErrnoName>
  /** Signals the group of this number, if whoever has the number now is the one that is meant. */
  readonly signalGroup: (
    calls: Calls,
    group: number,
    leader: ProcessIdentity | undefined,
    signal: SignalName
  ) => Result.Result<void, ErrnoName>
  /** A connection to the path, and the pid of who listens there. */
  readonly connect: (calls: Calls, path: string) => Result.Result<{ readonly fd: Fd; readonly pid: number }, ErrnoName>
  /** Makes the text the content of the file, at once and for good. */
  readonly replace: (calls: Calls, path: string, text: string) => Result.Result<void, ErrnoName>
  readonly remove: (calls: Calls, path: string) => Result.Result<void, ErrnoName>
}

const FACTS: LaunchFacts = { descriptorLimit: { soft: 1024, hard: 4096 }, closeRange: true }

const close = ({ pid, call }: Calls, fd: Fd) => call("close", (kernel) => SimulatedKernel.close(kernel, pid, fd))

/** A question to the kernel that changes nothing. */
const ask =
  <A>(f: (kernel: Kernel) => A | undefined, errno: ErrnoName) =>
  (kernel: Kernel): Done<A> | ErrnoName => {
    const value = f(kernel)
    return value === undefined ? errno : { kernel, value }
  }

const identityOf = (kernel: Kernel, pid: number): ProcessIdentity | undefined => {
  const process = SimulatedKernel.alive(kernel, pid)
  return process === undefined ? undefined : { pid, startTime: process.startTime, bootId: kernel.bootId }
}

/** The shared description of the service's listener in a process. */
const listenerIn = (kernel: Kernel, pid: number): number | undefined => {
  const isService = (one: Description | undefined) => one?._tag === "Listener" && one.address._tag === "Tcp"
  const entries = SimulatedKernel.alive(kernel, pid)?.table.entries.values() ?? []
  for (const { description } of entries) {
    const key = Number(description)
    if (isService(kernel.descriptions.get(key))) return key
  }
  return undefined
}

const launch: Backend["launch"] = (calls, { argv, environment, listener, successor }) => {
  const { pid, call } = calls
  const pair = successor ? call("socketpair", (kernel) => SimulatedStreams.pair(kernel, pid)) : undefined
  if (pair !== undefined && Result.isFailure(pair)) return Result.fail(pair.failure)
  const [ours, theirs] = pair?.success ?? []
  const sources = theirs === undefined ? [listener] : [listener, theirs]
  const spec = { program: PROGRAM, argv, environment, placements: Placement.contiguous(sources, FIRST_INHERITED_FD) }
  const plan = Result.getOrThrow(Launch.plan(spec, FACTS))
  const child = call("clone", (kernel) => {
    const launched = SimulatedLaunch.run(kernel, pid, plan, kernel.next.pid)
    if (Result.isFailure(launched)) return launched.failure.errno
    return { kernel: launched.success.kernel, value: launched.success.pid }
  })
  if (theirs !== undefined) close(calls, theirs)
  if (Result.isSuccess(child)) return Result.succeed({ pid: child.success, channel: ours })
  if (ours !== undefined) close(calls, ours)
  return Result.fail(child.failure)
}

/** A failed call on the way leaves the old content, and no temporary file. */
const replace: Backend["replace"] = (calls, path, text) => {
  const { pid, call } = calls
  const temporary = `${path}.new`
  const file = call("open", (kernel) => SimulatedKernel.open(kernel, pid, temporary, "truncate"))
  if (Result.isFailure(file)) return Result.fail(file.failure)
  const fd = file.success
  let done: Result.Result<unknown, ErrnoName> = call("write", (kernel) => SimulatedFiles.write(kernel, pid, fd, text))
  if (Result.isSuccess(done)) done = call("fsync", (kernel) => SimulatedFiles.sync(kernel, pid, fd))
  close(calls, fd)
  if (Result.isSuccess(done)) {
    done = call("rename", (kernel) => SimulatedFiles.rename(kernel, pid, temporary, path))
  }
  if (Result.isFailure(done)) {
    call("unlink", (kernel) => SimulatedFiles.unlink(kernel, pid, temporary))
    return Result.fail(done.failure)
  }
  const above = path.slice(0, path.lastIndexOf("/"))
  const directory = call("open", (kernel) => SimulatedKernel.open(kernel, pid, above, "read"))
  if (Result.isFailure(directory)) return Result.fail(directory.failure)
  const synced = call("fsync directory", (kernel) => SimulatedFiles.sync(kernel, pid, directory.success))
  close(calls, directory.success)
  return Result.map(synced, () => undefined)
}

/** What the shipped backend does on Linux. */
export const linux: Backend = {
  name: "linux",
  listen: ({ pid, call }) =>
    call("listen", (kernel) =>
      SimulatedKernel.listen(kernel, pid, { address: ADDRESS, backlog: 128, nonBlocking: true, mode: 0o666 })
    ),
  adopt: ({ pid, call }, pids) => {
    for (const other of pids) {
      const copied = call("pidfd_getfd", (kernel) => {
        const key = listenerIn(kernel, other)
        return key === undefined ? "EBADF" : SimulatedKernel.share(kernel, pid, key)
      })
      if (Result.isSuccess(copied)) return copied.success
    }
    return undefined
  },
  launch,
  identify: ({ call }, pid) =>
    Result.getOrElse(
      call<ProcessIdentity | undefined>(
        "stat",
        ask((kernel) => identityOf(kernel, pid), "ENOENT")
      ),
      () => undefined
    ),
  startedWith: ({ call }, name, value) => {
    const found = call(
      "environ",
      ask((kernel) => {
        const those = SimulatedKernel.living(kernel).filter((one) => one.environment[name] === value)
        return those.flatMap((one) => identityOf(kernel, one.pid) ?? [])
      }, "ENOENT")
    )
    return Result.getOrElse(found, () => [])
  },
  signal: ({ pid, call }, process, signal) =>
    // A pidfd, opened and then compared with what is meant: from there on no other process can be hit.
    call("pidfd_send_signal", (kernel) => {
      const now = identityOf(kernel, process.pid)
      if (now === undefined || !isSame(now, process)) return "ESRCH"
      const done = SimulatedKernel.kill(kernel, pid, process.pid, signal)
      return typeof done === "string" ? done : { kernel: done.kernel, value: undefined }
    }),
  groupMembers: ({ call }, group) =>
    Result.getOrElse(
      call(
        "stat",
        ask((kernel) => SimulatedKernel.groupMembers(kernel, group), "ENOENT")
      ),
      () => []
    ),
  signalGroup: ({ pid, call }, group, leader, signal) =>
    call("kill", (kernel) => {
      const now = identityOf(kernel, group)
      if (now !== undefined && leader !== undefined && !isSame(now, leader)) return "ESRCH"
      const members = SimulatedKernel.groupMembers(kernel, group)
      if (members.length === 0) return "ESRCH"
      let next = kernel
      for (const member of members) {
        const done = SimulatedKernel.kill(next, pid, member, signal)
        if (typeof done === "string") return done
        next = done.kernel
      }
      return { kernel: next, value: undefined }
    }),
  connect: ({ pid, call }, path) =>
    call("connect", (kernel) => {
      const connected = SimulatedStreams.connect(kernel, pid, path)
      if (typeof connected === "string") return connected
      const end = SimulatedKernel.describe(connected.kernel, pid, connected.value)
      const peer = end?._tag === "Stream" ? end.creator.pid : 0
      return { kernel: connected.kernel, value: { fd: connected.value, pid: peer } }
    }),
  replace,
  remove: ({ pid, call }, path) =>
    Result.map(
      call("unlink", (kernel) => SimulatedFiles.unlink(kernel, pid, path)),
      () => undefined
    )
}

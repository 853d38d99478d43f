/**
 * The contract `Processes` over a simulated kernel's table of processes.
 *
 * What /proc would show is there at once: a process that ends is gone for its adopter in the same moment. Another user's
 * process can't be looked into, unless by root. A capability that was taken away answers as a kernel without it would: no
 * process is found or adopted, pidfd_getfd gives ENOSYS, nobody holds a lock.
 */
import * as Effect from "effect/Effect"
import type { ExitStatus, Process } from "../backend/Launcher.ts"
import {
  CopyError,
  type CopyErrorReason,
  isSame,
  type ProcessCapability,
  Processes,
  type ProcessIdentity
} from "../backend/Processes.ts"
import type { Kernel } from "./SimulatedKernel.ts"
import * as SimulatedKernel from "./SimulatedKernel.ts"
import type { SimulatedProcess } from "./SimulatedProcess.ts"
import * as SimulatedSignal from "./SimulatedSignal.ts"
import type { SimulationDriver } from "./SimulationDriver.ts"

const CLOCK_TICKS_MS = 10

const EVERYTHING: ReadonlySet<ProcessCapability> = new Set([
  "waiting",
  "connections",
  "identity",
  "group",
  "copy",
  "adopt",
  "locks"
])

const UNKNOWN: ExitStatus = { _tag: "Unknown" }

const identityOf = (kernel: Kernel, one: SimulatedProcess): ProcessIdentity => ({
  pid: one.pid,
  startTime: Math.floor(one.startTime / CLOCK_TICKS_MS),
  bootId: kernel.bootId
})

const hasIdentity = (kernel: Kernel, identity: ProcessIdentity): boolean => {
  const one = SimulatedKernel.alive(kernel, identity.pid)
  return one !== undefined && isSame(identityOf(kernel, one), identity)
}

/** The process and the living members of the group it leads, itself first. */
const family = (kernel: Kernel, pid: number): ReadonlyArray<SimulatedProcess> =>
  [...new Set([pid, ...SimulatedKernel.groupMembers(kernel, pid)])].flatMap(
    (one) => SimulatedKernel.alive(kernel, one) ?? []
  )

/** Processes that the user of the backend may look into. */
const readable = (kernel: Kernel, self: number, ones: ReadonlyArray<SimulatedProcess>) => {
  const reader = SimulatedKernel.alive(kernel, self)
  return ones.filter((one) => reader !== undefined && SimulatedKernel.maySignal(reader, one))
}

const socketOf = (kernel: Kernel, one: SimulatedProcess, inode: number): number | undefined => {
  for (const { description } of one.table.entries.values()) {
    const found = kernel.descriptions.get(Number(description))
    if (found !== undefined && "inode" in found && found.inode === inode) return Number(description)
  }
  return undefined
}

/** What a copy comes to: the key of the description to share, or why there is none. */
const findSocket = (kernel: Kernel, self: number, pid: number, inode: number): number | CopyErrorReason => {
  const ones = family(kernel, pid)
  const open = readable(kernel, self, ones)
  for (const one of open) {
    const key = socketOf(kernel, one, inode)
    if (key !== undefined) return key
  }
  const closed = ones.find((one) => !open.includes(one))
  if (closed === undefined) return { _tag: "NotHeld" }
  const call = `open(/proc/${closed.pid}/fd)`
  return { _tag: "NotPermitted", call, missing: `CAP_SYS_PTRACE, since the process is of uid ${closed.identity.uid}` }
}

const makeCopySocket = (driver: SimulationDriver, capable: boolean) =>
  Effect.fnUntraced(function* (pid: number, inode: number) {
    const fail = (reason: CopyErrorReason) => new CopyError({ pid, inode, reason })
    if (!capable) return yield* fail({ _tag: "CallFailed", call: "pidfd_getfd", errno: "ENOSYS" })
    const { kernel } = yield* driver.machine
    const key = findSocket(kernel, driver.self, pid, inode)
    if (typeof key !== "number") return yield* fail(key)
    return yield* Effect.acquireRelease(
      Effect.flatMap(
        driver.call((now) => SimulatedKernel.share(now, driver.self, key)),
        (fd) =>
          typeof fd === "string" ? fail({ _tag: "CallFailed", call: "pidfd_getfd", errno: fd }) : Effect.succeed(fd)
      ),
      (fd) => driver.call((now) => SimulatedKernel.close(now, driver.self, fd))
    )
  })

const adopted = (driver: SimulationDriver, identity: ProcessIdentity): Process => {
  const { pid } = identity
  return {
    pid,
    exit: driver.until(({ kernel }) => (hasIdentity(kernel, identity) ? undefined : UNKNOWN)),
    signal: (name) => SimulatedSignal.send(driver, pid, name, (kernel) => (hasIdentity(kernel, identity) ? [pid] : [])),
    signalGroup: (name) =>
      SimulatedSignal.send(driver, -pid, name, (kernel) => {
        const another = SimulatedKernel.alive(kernel, pid) !== undefined && !hasIdentity(kernel, identity)
        return another ? [] : SimulatedKernel.groupMembers(kernel, pid)
      })
  }
}

const locks = (kernel: Kernel, self: number, pid: number, fileName: string): boolean =>
  [...kernel.locks].some(
    ([path, key]) =>
      path.slice(path.lastIndexOf("/") + 1) === fileName &&
      readable(kernel, self, family(kernel, pid)).some((one) =>
        [...one.table.entries.values()].some(({ description }) => description === key)
      )
  )

const startedWith = (kernel: Kernel, self: number, variable: string, value: string): ReadonlyArray<ProcessIdentity> =>
  readable(kernel, self, SimulatedKernel.living(kernel))
    .filter(({ environment }) => environment[variable] === value)
    .map((one) => identityOf(kernel, one))
    .sort((one, other) => one.startTime - other.startTime || one.pid - other.pid)

export const make = (
  driver: SimulationDriver,
  capabilities: ReadonlySet<ProcessCapability> = EVERYTHING
): Processes["Service"] =>
  Processes.of({
    capabilities,
    observe: (pid, listeners) =>
      Effect.map(driver.machine, ({ kernel, lives }) => {
        const pids = SimulatedKernel.descendants(kernel, pid)
        const asked = listeners.map((listener) => listener.inode)
        const waiting = new Set(pids.flatMap((one) => lives.get(one)?.accepting ?? []))
        const counts = pids.flatMap((one) => [...(lives.get(one)?.connections ?? [])])
        return {
          pids,
          waitingOn: capabilities.has("waiting") ? asked.filter((inode) => waiting.has(inode)) : [],
          connections: capabilities.has("connections")
            ? counts.reduce((sum, [inode, count]) => (asked.includes(inode) ? sum + count : sum), 0)
            : 0
        }
      }),
    identify: (pid) =>
      Effect.map(driver.machine, ({ kernel }) => {
        const one = SimulatedKernel.alive(kernel, pid)
        return one === undefined || !capabilities.has("identity") ? undefined : identityOf(kernel, one)
      }),
    groupMembers: (group) =>
      Effect.map(driver.machine, ({ kernel }) =>
        capabilities.has("group") ? SimulatedKernel.groupMembers(kernel, group) : []
      ),
    startedWith: (variable, value) =>
      Effect.map(driver.machine, ({ kernel }) =>
        capabilities.has("identity") ? startedWith(kernel, driver.self, variable, value) : []
      ),
    copySocket: makeCopySocket(driver, capabilities.has("copy")),
    adopt: (identity) =>
      Effect.map(driver.machine, ({ kernel }) =>
        capabilities.has("adopt") && hasIdentity(kernel, identity) ? adopted(driver, identity) : undefined
      ),
    holdsLock: (pid, fileName) =>
      Effect.map(driver.machine, ({ kernel }) =>
        capabilities.has("locks") ? locks(kernel, driver.self, pid, fileName) : false
      )
  })

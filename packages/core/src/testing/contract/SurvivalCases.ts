/** What a backend must do for a supervisor that was restarted: find a process, take it over, get its sockets back. */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import type { Launcher } from "../../backend/Launcher.ts"
import { Locks } from "../../backend/Locks.ts"
import { type ProcessCapability, Processes, type ProcessIdentity } from "../../backend/Processes.ts"
import { Sockets } from "../../backend/Sockets.ts"
import * as Placement from "../../Placement.ts"
import {
  type ContractCase,
  ContractViolation,
  contractCase,
  eventually,
  Harness,
  holds,
  refused,
  same
} from "./Case.ts"
import { startCommand } from "./StartCommand.ts"

type Needs = Processes | Launcher | Sockets | Locks

const LOCAL = { _tag: "Tcp", host: "127.0.0.1", port: 0 } as const
const UNKNOWN = { _tag: "Unknown" }
const MARK = "HANDOFF_CONTRACT_MARK"

const identityOf = Effect.fnUntraced(function* (pid: number) {
  const identity = yield* (yield* Processes).identify(pid)
  return identity ?? (yield* new ContractViolation({ detail: `process ${pid} has no identity` }))
})

const adopt = Effect.fnUntraced(function* (identity: ProcessIdentity) {
  const adopted = yield* (yield* Processes).adopt(identity)
  return adopted ?? (yield* new ContractViolation({ detail: `process ${identity.pid} was not adopted` }))
})

/** A case that is skipped where the backend lacks what it is about. */
const needing = <E extends { readonly message: string }, R>(
  capabilities: ReadonlyArray<ProcessCapability>,
  name: string,
  body: Effect.Effect<undefined, E, R>
) =>
  contractCase(
    name,
    Effect.gen(function* () {
      const processes = yield* Processes
      const missing = capabilities.find((one) => !processes.capabilities.has(one))
      return missing === undefined ? yield* body : { skipped: `this backend declares no "${missing}"` }
    })
  )

const searchCases: ReadonlyArray<ContractCase<Needs>> = [
  needing(
    ["identity"],
    "processes are found by a variable they were started with, oldest first, while they live",
    Effect.gen(function* () {
      const processes = yield* Processes
      const harness = yield* Harness
      const value = `${(yield* harness.self).pid}-ünïque`
      const find = Effect.map(processes.startedWith(MARK, value), (found) => found.map(({ pid }) => pid))
      const start = (mark: string) => startCommand(harness.command("sleep"), { environment: { [MARK]: mark } })
      yield* same("processes before", yield* find, [])
      const first = yield* start(value)
      yield* Effect.sleep(20)
      const second = yield* start(value)
      yield* start(`${value}-longer`)
      yield* same("processes", yield* find, [first.pid, second.pid])
      yield* same("another variable", yield* processes.startedWith(`X${MARK}`, value), [])
      const [found] = yield* processes.startedWith(MARK, value)
      yield* same("identity", found, yield* identityOf(first.pid))
      yield* first.signal("SIGKILL")
      yield* first.exit
      yield* same("processes after an end", yield* find, [second.pid])
      return undefined
    })
  ),
  needing(
    ["locks"],
    "a lock is seen at its holder, by the name of its file, until it is released",
    Effect.gen(function* () {
      const processes = yield* Processes
      const harness = yield* Harness
      const { pid } = yield* harness.self
      const directory = yield* harness.temporaryDirectory
      const child = yield* startCommand(harness.command("sleep"))
      yield* same("before", yield* processes.holdsLock(pid, "data.lock"), false)
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* (yield* Locks).acquire(`${directory}/data.lock`)
          yield* same("held", yield* processes.holdsLock(pid, "data.lock"), true)
          yield* same("another file", yield* processes.holdsLock(pid, "a.lock"), false)
          yield* same("another process", yield* processes.holdsLock(child.pid, "data.lock"), false)
        })
      )
      yield* same("after", yield* processes.holdsLock(pid, "data.lock"), false)
      return undefined
    })
  )
]

const adoptionCases: ReadonlyArray<ContractCase<Needs>> = [
  needing(
    ["identity", "adopt"],
    "an adopted process can be signalled, its end is told without a status, and its parent still gets that",
    Effect.gen(function* () {
      const harness = yield* Harness
      const child = yield* startCommand(harness.command("sleep"))
      const adopted = yield* adopt(yield* identityOf(child.pid))
      yield* same("pid", adopted.pid, child.pid)
      const waiting = yield* Effect.forkChild(adopted.exit, { startImmediately: true })
      yield* same("signal", yield* adopted.signal("SIGTERM"), true)
      yield* same("exit of the child", yield* child.exit, { _tag: "Signaled", signal: "SIGTERM", coreDumped: false })
      yield* same("exit of the adopted", yield* Fiber.join(waiting), UNKNOWN)
      yield* same("exit, asked late", yield* adopted.exit, UNKNOWN)
      yield* same("a signal after the end", yield* adopted.signal("SIGTERM"), false)
      yield* same("a signal to the group after its end", yield* adopted.signalGroup("SIGTERM"), false)
      return undefined
    })
  ),
  needing(
    ["identity", "adopt", "group"],
    "the group of an adopted process is signalled, also when its leader is gone",
    Effect.gen(function* () {
      const processes = yield* Processes
      const harness = yield* Harness
      const child = yield* startCommand(harness.command("wrap"))
      const members = processes.groupMembers(child.pid)
      yield* eventually("members of the group", members, (pids) => pids.length === 2)
      const adopted = yield* adopt(yield* identityOf(child.pid))
      yield* adopted.signal("SIGKILL")
      yield* adopted.exit
      yield* eventually("members without a leader", members, (pids) => pids.length === 1)
      yield* same("signal to the group", yield* adopted.signalGroup("SIGKILL"), true)
      yield* eventually("members of the killed group", members, (pids) => pids.length === 0)
      yield* same("signal to no group", yield* adopted.signalGroup("SIGKILL"), false)
      return undefined
    })
  ),
  needing(
    ["identity", "adopt"],
    "a process with another start time, of another boot, or gone, is not adopted",
    Effect.gen(function* () {
      const processes = yield* Processes
      const harness = yield* Harness
      const child = yield* startCommand(harness.command("sleep"))
      const identity = yield* identityOf(child.pid)
      const before = yield* harness.self
      const others = [
        { ...identity, startTime: identity.startTime + 1 },
        { ...identity, bootId: "another" }
      ]
      for (const other of others) yield* same("adopted", yield* Effect.scoped(processes.adopt(other)), undefined)
      yield* child.signal("SIGKILL")
      yield* child.exit
      yield* same("adopted", yield* Effect.scoped(processes.adopt(identity)), undefined)
      yield* eventually("descriptors", harness.self, (now) => now.descriptors <= before.descriptors)
      return undefined
    })
  )
]

const copyCases: ReadonlyArray<ContractCase<Needs>> = [
  needing(
    ["copy"],
    "a listener is copied out of a child, and is there when the child and the first listener are gone",
    Effect.gen(function* () {
      const processes = yield* Processes
      const sockets = yield* Sockets
      const harness = yield* Harness
      const outer = yield* Effect.scope
      const { child, inode } = yield* Effect.scoped(
        Effect.gen(function* () {
          const listener = yield* sockets.listen({ address: LOCAL })
          const placements = [Placement.move(listener.fd, 3)]
          const child = yield* Scope.provide(startCommand(harness.command("sleep"), { placements }), outer)
          return { child, inode: listener.inode }
        })
      )
      const { descriptors } = yield* harness.self
      yield* Effect.scoped(
        Effect.gen(function* () {
          const fd = yield* processes.copySocket(child.pid, inode)
          yield* child.signal("SIGKILL")
          yield* child.exit
          const facts = yield* sockets.inspect(fd)
          yield* same("facts", [facts.listening, facts.inode], [true, inode])
          const again = yield* refused("a copy from a gone process", processes.copySocket(child.pid, inode))
          yield* same("reason", again.reason, { _tag: "NotHeld" })
        })
      )
      yield* holds("the copy stayed open", (yield* harness.self).descriptors <= descriptors)
      return undefined
    })
  ),
  needing(
    ["copy", "group"],
    "a socket that only a member of the group holds is found, one that nobody holds is not",
    Effect.gen(function* () {
      const processes = yield* Processes
      const sockets = yield* Sockets
      const harness = yield* Harness
      const { fd, inode } = yield* sockets.listen({ address: LOCAL })
      const child = yield* startCommand(harness.command("wrap"), { placements: [Placement.move(fd, 3)] })
      const members = processes.groupMembers(child.pid)
      yield* eventually("members of the group", members, (pids) => pids.length === 2)
      yield* child.signal("SIGKILL")
      yield* child.exit
      const copy = yield* Effect.scoped(
        Effect.flatMap(processes.copySocket(child.pid, inode), (found) => sockets.inspect(found))
      )
      yield* same("inode", copy.inode, inode)
      const other = yield* sockets.listen({ address: LOCAL })
      const error = yield* refused("a copy", Effect.scoped(processes.copySocket(child.pid, other.inode)))
      yield* same("reason", error.reason, { _tag: "NotHeld" })
      return undefined
    })
  )
]

export const survivalCases: ReadonlyArray<ContractCase<Needs>> = [...searchCases, ...adoptionCases, ...copyCases]

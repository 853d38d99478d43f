/** What the services besides the launcher must do. */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { Executables } from "../../backend/Executables.ts"
import { Files } from "../../backend/Files.ts"
import { Launcher } from "../../backend/Launcher.ts"
import { Locks } from "../../backend/Locks.ts"
import { Notifications } from "../../backend/Notifications.ts"
import { Processes } from "../../backend/Processes.ts"
import { Sockets } from "../../backend/Sockets.ts"
import { type ContractCase, contractCase, eventually, Harness, holds, refused, same } from "./Case.ts"
import { startCommand } from "./StartCommand.ts"

const LOCAL = { _tag: "Tcp", host: "127.0.0.1", port: 0 } as const

export const socketCases: ReadonlyArray<ContractCase<Sockets>> = [
  contractCase(
    "port 0 is replaced by the port the kernel chose, and inspection agrees",
    Effect.gen(function* () {
      const sockets = yield* Sockets
      const listener = yield* sockets.listen({ address: LOCAL })
      const { address } = listener
      yield* holds("no port was chosen", address._tag === "Tcp" && address.port > 0)
      const facts = yield* sockets.inspect(listener.fd)
      yield* same(
        "facts",
        [facts.listening, facts.family, facts.address, facts.inode, facts.nonBlocking],
        [true, "tcp4", address, listener.inode, false]
      )
      return undefined
    })
  ),
  contractCase(
    "an address in use is said to be, and is free again once its scope has closed",
    Effect.gen(function* () {
      const sockets = yield* Sockets
      const address = yield* Effect.scoped(
        Effect.gen(function* () {
          const first = yield* sockets.listen({ address: LOCAL })
          const error = yield* refused("a second listener", Effect.scoped(sockets.listen({ address: first.address })))
          yield* same("reason", error.reason._tag, "AddressInUse")
          return first.address
        })
      )
      yield* sockets.listen({ address })
      return undefined
    })
  ),
  contractCase(
    "the effective backlog is at most the requested one",
    Effect.gen(function* () {
      const sockets = yield* Sockets
      const { backlog } = yield* sockets.listen({ address: LOCAL, backlog: 7 })
      yield* same("backlog", backlog, { requested: 7, effective: 7 })
      return undefined
    })
  ),
  contractCase(
    "a unix path that is too long is refused with its length",
    Effect.gen(function* () {
      const sockets = yield* Sockets
      const path = `/tmp/${"x".repeat(200)}`
      const error = yield* refused("the listener", Effect.scoped(sockets.listen({ address: { _tag: "Unix", path } })))
      yield* same("reason", error.reason, { _tag: "PathTooLong", bytes: 205, limit: 107 })
      return undefined
    })
  ),
  contractCase(
    "a unix path that a live socket or a directory occupies is left alone",
    Effect.gen(function* () {
      const sockets = yield* Sockets
      const directory = yield* (yield* Harness).temporaryDirectory
      const address = { _tag: "Unix", path: `${directory}/a.sock` } as const
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* sockets.listen({ address })
          const error = yield* refused("a second listener", Effect.scoped(sockets.listen({ address })))
          yield* holds(
            `the reason is ${error.reason._tag}`,
            error.reason._tag === "PathOccupied" || error.reason._tag === "AddressInUse"
          )
        })
      )
      yield* Effect.scoped(sockets.listen({ address }))
      const occupied = { _tag: "Unix", path: directory } as const
      const error = yield* refused("a listener", Effect.scoped(sockets.listen({ address: occupied })))
      yield* same("reason", error.reason, { _tag: "PathOccupied", what: "directory" })
      return undefined
    })
  ),
  contractCase(
    "a pair names its creator, and both ends are unix sockets",
    Effect.gen(function* () {
      const sockets = yield* Sockets
      const self = yield* (yield* Harness).self
      for (const fd of yield* sockets.pair) {
        const { pid, uid } = yield* sockets.peerCredentials(fd)
        yield* same("peer", { pid, uid }, { pid: self.pid, uid: self.uid })
        const facts = yield* sockets.inspect(fd)
        yield* same("facts", [facts.listening, facts.family], [false, "unix"])
      }
      return undefined
    })
  ),
  contractCase(
    "a descriptor that is no socket is said to be none",
    Effect.gen(function* () {
      const sockets = yield* Sockets
      for (const { fd } of yield* (yield* Harness).openFiles(1)) {
        const error = yield* refused("inspection", sockets.inspect(fd))
        yield* same("reason", error.reason, { _tag: "NotASocket", fd })
      }
      return undefined
    })
  ),
  contractCase(
    "sockets close with their scope",
    Effect.gen(function* () {
      const sockets = yield* Sockets
      const harness = yield* Harness
      yield* Effect.scoped(sockets.listen({ address: LOCAL }))
      const before = yield* harness.self
      yield* Effect.scoped(Effect.andThen(sockets.pair, sockets.listen({ address: LOCAL })))
      yield* same("descriptors", (yield* harness.self).descriptors, before.descriptors)
      return undefined
    })
  )
]

export const executableCases: ReadonlyArray<ContractCase<Executables>> = [
  contractCase(
    "a name is looked up in PATH, a path is taken from the working directory",
    Effect.gen(function* () {
      const executables = yield* Executables
      const harness = yield* Harness
      const { program } = yield* harness.observer
      const slash = program.lastIndexOf("/")
      const [directory, name] = [program.slice(0, slash), program.slice(slash + 1)]
      const options = { workingDirectory: directory, path: `/nowhere:${directory}` }
      yield* same("by name", yield* executables.resolve(name, options), program)
      yield* same("by path", yield* executables.resolve(`./${name}`, { ...options, path: "" }), program)
      yield* same("absolute", yield* executables.resolve(program, { workingDirectory: "/", path: "" }), program)
      return undefined
    })
  ),
  contractCase(
    "what is not found says where it was looked for",
    Effect.gen(function* () {
      const executables = yield* Executables
      const options = { workingDirectory: "/", path: "/nowhere:/neither" }
      const error = yield* refused("the look-up", executables.resolve("no-such-program", options))
      yield* same(
        "error",
        [error.reason, error.tried],
        ["NotFound", ["/nowhere/no-such-program", "/neither/no-such-program"]]
      )
      return undefined
    })
  )
]

export const fileCases: ReadonlyArray<ContractCase<Files>> = [
  contractCase(
    "append creates a file, read needs one, and both close with their scope",
    Effect.gen(function* () {
      const files = yield* Files
      const harness = yield* Harness
      const path = `${yield* harness.temporaryDirectory}/log`
      const error = yield* refused("reading", Effect.scoped(files.open(path, "read")))
      yield* same("errno", error.errno, "ENOENT")
      const before = yield* harness.self
      yield* Effect.scoped(files.open(path, "append"))
      yield* Effect.scoped(files.open(path, "read"))
      yield* same("descriptors", (yield* harness.self).descriptors, before.descriptors)
      return undefined
    })
  ),
  contractCase(
    "a replacement is the whole file, for its owner alone, and nothing else is left of it",
    Effect.gen(function* () {
      const files = yield* Files
      const harness = yield* Harness
      const directory = yield* harness.temporaryDirectory
      const before = yield* harness.self
      for (const text of ["a first, longer text", "a second", "", "ü"]) {
        yield* files.replace(`${directory}/state`, text)
        yield* same("contents", yield* harness.contents(directory), { state: { text, mode: 0o600 } })
      }
      yield* same("descriptors", (yield* harness.self).descriptors, before.descriptors)
      return undefined
    })
  ),
  contractCase(
    "a temporary file that a killed process left is overwritten, and nothing of it is left",
    Effect.gen(function* () {
      const files = yield* Files
      const harness = yield* Harness
      const directory = yield* harness.temporaryDirectory
      yield* files.replace(`${directory}/state`, "old")
      yield* files.replace(`${directory}/state.new`, "a replacement that was longer, and was cut off")
      yield* files.replace(`${directory}/state`, "new")
      yield* same("contents", yield* harness.contents(directory), { state: { text: "new", mode: 0o600 } })
      return undefined
    })
  ),
  contractCase(
    "a replacement that was begun is over when its interruption is: it can't meet the next one",
    Effect.gen(function* () {
      const files = yield* Files
      const harness = yield* Harness
      const directory = yield* harness.temporaryDirectory
      const replacing = yield* Effect.forkChild(files.replace(`${directory}/state`, "new"), { startImmediately: true })
      yield* Fiber.interrupt(replacing)
      yield* same("contents", yield* harness.contents(directory), { state: { text: "new", mode: 0o600 } })
      return undefined
    })
  ),
  contractCase(
    "a replacement that fails leaves what was there, and no temporary file",
    Effect.gen(function* () {
      const files = yield* Files
      const harness = yield* Harness
      const directory = yield* harness.temporaryDirectory
      const before = yield* harness.self
      const missing = yield* refused("replacing in no directory", files.replace(`${directory}/missing/state`, "x"))
      yield* same("error", [missing.path, missing.errno], [`${directory}/missing/state`, "ENOENT"])
      yield* files.replace(`${directory}/state`, "old")
      const below = yield* refused("replacing below a file", files.replace(`${directory}/state/below`, "x"))
      yield* same("errno", below.errno, "ENOTDIR")
      const occupied = yield* harness.temporaryDirectory
      const over = yield* refused("replacing a directory", files.replace(occupied, "x"))
      yield* holds(`the errno is ${over.errno}`, over.errno === "EISDIR")
      yield* refused("reading a temporary file", Effect.scoped(files.open(`${occupied}.new`, "read")))
      yield* same("contents", yield* harness.contents(directory), { state: { text: "old", mode: 0o600 } })
      yield* same("descriptors", (yield* harness.self).descriptors, before.descriptors)
      return undefined
    })
  )
]

export const lockCases: ReadonlyArray<ContractCase<Locks>> = [
  contractCase(
    "a lock is held once, until its scope closes",
    Effect.gen(function* () {
      const locks = yield* Locks
      const path = `${yield* (yield* Harness).temporaryDirectory}/lock`
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* locks.acquire(path)
          const error = yield* refused("a second lock", Effect.scoped(locks.acquire(path)))
          yield* same("reason", error.reason._tag, "Held")
        })
      )
      yield* Effect.scoped(locks.acquire(path))
      return undefined
    })
  )
]

export const notificationCases: ReadonlyArray<ContractCase<Notifications | Launcher>> = [
  contractCase(
    "READY=1 of a child arrives with its pid",
    Effect.gen(function* () {
      const notifications = yield* Notifications
      const harness = yield* Harness
      const socket = yield* notifications.open(`${yield* harness.temporaryDirectory}/notify`)
      const { program, argv } = yield* harness.observer
      const child = yield* startCommand({ program, argv }, { environment: { NOTIFY_SOCKET: socket.path } })
      const message = yield* socket.take
      yield* same("message", [message.pid, message.fields.READY], [child.pid, "1"])
      return undefined
    })
  ),
  contractCase(
    "a notify socket whose directory is missing is refused with ENOENT",
    Effect.gen(function* () {
      const notifications = yield* Notifications
      const path = `${yield* (yield* Harness).temporaryDirectory}/missing/notify`
      const error = yield* refused("the notify socket", Effect.scoped(notifications.open(path)))
      yield* same("errno", error.errno, "ENOENT")
      return undefined
    })
  )
]

export const processCases: ReadonlyArray<ContractCase<Processes | Launcher>> = [
  contractCase(
    "a living child is seen and identified, a gone one is not",
    Effect.gen(function* () {
      const processes = yield* Processes
      const harness = yield* Harness
      const child = yield* startCommand(harness.command("sleep"))
      yield* same("pids", (yield* processes.observe(child.pid, [])).pids, [child.pid])
      if (processes.capabilities.has("identity")) {
        yield* same("identity", (yield* processes.identify(child.pid))?.pid, child.pid)
      }
      yield* child.signal("SIGKILL")
      yield* child.exit
      yield* same("pids", (yield* processes.observe(child.pid, [])).pids, [])
      yield* same("identity", yield* processes.identify(child.pid), undefined)
      return undefined
    })
  ),
  contractCase(
    "members of a group are seen when their leader is gone",
    Effect.gen(function* () {
      const processes = yield* Processes
      const { capabilities } = yield* Launcher
      if (!processes.capabilities.has("group")) return { skipped: 'this backend declares no "group"' }
      if (!capabilities.has("group") && !capabilities.has("session")) return { skipped: "no own group or session" }
      const harness = yield* Harness
      const child = yield* startCommand(harness.command("wrap"))
      const members = processes.groupMembers(child.pid)
      yield* eventually("members of the group", members, (pids) => pids.length === 2)
      yield* child.signal("SIGKILL")
      yield* child.exit
      yield* same("members", (yield* members).length, 1)
      yield* child.signalGroup("SIGKILL")
      yield* eventually("members of the killed group", members, (pids) => pids.length === 0)
      return undefined
    })
  )
]

import { spawnSync } from "node:child_process"
import { openSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as Adoption from "@handoff/backend-ffi/Adoption"
import * as ProcessTree from "@handoff/backend-ffi/ProcessTree"
import * as ProcessView from "@handoff/backend-ffi/ProcessView"
import * as SocketCopy from "@handoff/backend-ffi/SocketCopy"
import * as FfiSockets from "@handoff/backend-ffi/Sockets"
import type { Process } from "@handoff/core/backend/Launcher"
import { Processes, type ProcessIdentity } from "@handoff/core/backend/Processes"
import { Sockets } from "@handoff/core/backend/Sockets"
import type { ErrnoName } from "@handoff/core/Errno"
import type { Fd } from "@handoff/core/Fd"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import { describe, expect, it } from "vitest"
import { requireRoot, requireTool } from "../../../test/support/Tools.ts"
import { atEnd, client, eventually, fdCount, python, runner, start, tempDir } from "./support/Harness.ts"

const python3 = requireTool("python3")
const root = requireRoot()
const run = runner(Layer.mergeAll(FfiSockets.layer, ProcessView.layer))

const UNKNOWN = { _tag: "Unknown" }
const loopback = { _tag: "Tcp", host: "127.0.0.1", port: 0 } as const
const listen = Sockets.use((sockets) => sockets.listen({ address: loopback }))

const HOLDS = `import sys
print("up",flush=True)
sys.stdin.read()`

/** Ends with the test, whoever its parent is; not another process that has its number by then. */
const killAtEnd = (pid: number): number => {
  const startTime = ProcessTree.statOf(pid)?.startTime
  atEnd(() => {
    const stat = ProcessTree.statOf(pid)
    if (ProcessTree.isAlive(stat) && stat.startTime === startTime) process.kill(pid, "SIGKILL")
  })
  return pid
}

/** A process that is nobody's child here: the shell that started it has ended. */
const stranger = (): number => {
  const { stdout } = spawnSync("sh", ["-c", "setsid sleep 1000 >/dev/null 2>&1 & echo $!"], { encoding: "utf8" })
  return killAtEnd(Number(stdout))
}

const identify = (pid: number) =>
  Effect.flatMap(Processes, (processes) =>
    Effect.flatMap(processes.identify(pid), (found) =>
      found === undefined ? Effect.die(new Error(`${pid} has no identity`)) : Effect.succeed(found)
    )
  )

const members = (group: number) =>
  ProcessTree.livingProcesses()
    .filter((stat) => stat.group === group)
    .map((stat) => stat.pid)

const withoutPidfds = Adoption.make(undefined, members)

const adopters: ReadonlyArray<
  readonly [string, (identity: ProcessIdentity) => Effect.Effect<Process | undefined, never, Processes | Scope.Scope>]
> = [
  ["by pidfd", (identity) => Processes.use((processes) => processes.adopt(identity))],
  ["by identity, where there are no pidfds", withoutPidfds]
]

const must = <A>(value: A | undefined): A => {
  if (value === undefined) throw new Error("there is none")
  return value
}

describe.each(adopters)("an adopted process, watched %s", (_, adopt) => {
  it("that is no child is signalled, and its end is seen", () =>
    run(
      Effect.gen(function* () {
        const pid = stranger()
        const adopted = must(yield* adopt(yield* identify(pid)))
        expect(yield* adopted.signal("SIGCONT")).toBe(true)
        expect(yield* adopted.signal("SIGTERM")).toBe(true)
        const before = performance.now()
        expect(yield* adopted.exit).toEqual(UNKNOWN)
        expect(performance.now() - before).toBeLessThan(5000)
        expect(yield* adopted.signal("SIGTERM")).toBe(false)
        expect(yield* adopted.signalGroup("SIGTERM")).toBe(false)
      })
    ))

  it("is gone once it is a zombie, and the zombie stays its parent's", () =>
    run(
      Effect.gen(function* () {
        const parent = python(`import os,sys,time
pid=os.fork()
if pid==0: time.sleep(1000)
print(pid,flush=True)
sys.stdin.readline()
print(os.waitstatus_to_exitcode(os.waitpid(pid,0)[1]),flush=True)
sys.stdin.read()`)
        const pid = killAtEnd(Number(yield* Effect.promise(() => parent.line())))
        const adopted = must(yield* adopt(yield* identify(pid)))
        yield* adopted.signal("SIGTERM")
        expect(yield* adopted.exit).toEqual(UNKNOWN)
        expect(ProcessTree.statOf(pid)?.state).toBe("Z")
        expect(yield* adopted.signal("SIGTERM")).toBe(false)
        parent.child.stdin?.write("\n")
        expect(yield* Effect.promise(() => parent.line())).toBe("-15")
      })
    ))

  it("that is a child is left to its parent to reap", () =>
    run(
      Effect.gen(function* () {
        const child = start("sleep", ["1000"])
        const adopted = must(yield* adopt(yield* identify(child.pid)))
        yield* adopted.signal("SIGKILL")
        expect(yield* adopted.exit).toEqual(UNKNOWN)
        yield* Effect.promise(() => child.ended)
        expect(child.child.signalCode).toBe("SIGKILL")
      })
    ))

  it("is watched by nothing any more when its scope has closed", async () => {
    const pid = stranger()
    const before = [fdCount(), process.getActiveResourcesInfo().filter((one) => one === "Timeout").length]
    await run(Effect.flatMap(identify(pid), adopt))
    const after = [fdCount(), process.getActiveResourcesInfo().filter((one) => one === "Timeout").length]
    expect(after).toEqual(before)
  })
})

const unshare = requireTool("unshare")
const noReuse = `${root.reason}${unshare.reason}${python3.reason}`

describe.skipIf(noReuse !== "")(`an adopted process whose number another has by now${noReuse}`, () => {
  it.each(["by pidfd", "by identity"])("is not signalled %s, nor the group of that number", async (how) => {
    const fixture = fileURLToPath(new URL("./fixtures/reusedNumber.ts", import.meta.url))
    // In a pid namespace of its own nobody else takes the number, and whatever is left ends with it.
    const inside = `"$@"; exit $?`
    const args = ["--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", inside, "sh"]
    const node = [process.execPath, "--conditions=@handoff/source", fixture, how]
    const { line } = start("unshare", [...args, ...node])
    expect(JSON.parse(await line())).toEqual({
      forged: true,
      leads: true,
      exit: UNKNOWN,
      signalledGroup: false,
      signalled: false,
      alive: true
    })
  })
})

it("a process that can open nothing more still sees others, and ends a group that it has adopted", async () => {
  const fixture = fileURLToPath(new URL("./fixtures/noDescriptors.ts", import.meta.url))
  const node = [process.execPath, "--conditions=@handoff/source", fixture]
  const { line } = start("sh", ["-c", 'ulimit -n 64; exec "$@"', "sh", ...node])
  expect(JSON.parse(await line())).toEqual({ opened: true, group: true, identity: true, started: 1, signalled: true })
})

describe("a socket copied out of a process", () => {
  it("accepts when that process was killed and all other descriptors are closed, those in the queue too", () =>
    run(
      Effect.gen(function* () {
        const { holder, inode, port } = yield* Effect.scoped(
          Effect.gen(function* () {
            const { fd, inode, address } = yield* listen
            const holder = python(HOLDS, [fd])
            yield* Effect.promise(() => holder.line())
            return { holder, inode, port: address._tag === "Tcp" ? address.port : 0 }
          })
        )
        const waiting = yield* Effect.promise(() => client({ host: "127.0.0.1", port }))
        const fd = yield* Processes.use((processes) => processes.copySocket(holder.pid, inode))
        holder.child.kill("SIGKILL")
        yield* Effect.promise(() => holder.ended)
        python(
          `import socket
s=socket.socket(fileno=3)
while True:
  c,_=s.accept();c.sendall(b"kept");c.close()`,
          [fd]
        )
        const later = yield* Effect.promise(() => client({ host: "127.0.0.1", port }))
        for (const one of [waiting, later]) {
          if (typeof one === "string") throw new Error(one)
          const data = yield* Effect.promise(
            () => new Promise<string>((resolve) => one.once("data", (chunk) => resolve(chunk.toString())))
          )
          expect(data).toBe("kept")
        }
      })
    ))

  it("is close-on-exec", () =>
    run(
      Effect.gen(function* () {
        const { fd, inode } = yield* listen
        const holder = python(HOLDS, [fd])
        yield* Effect.promise(() => holder.line())
        const copy = yield* Processes.use((processes) => processes.copySocket(holder.pid, inode))
        const flags = Number.parseInt(
          /flags:\s*(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${copy}`, "utf8"))?.[1] ?? "",
          8
        )
        expect(flags & 0o2000000).toBe(0o2000000)
      })
    ))

  it.skipIf(!root.available)(`is refused to another user, who is told what is missing${root.reason}`, () =>
    run(
      Effect.gen(function* () {
        const { fd, inode } = yield* listen
        const holder = python(HOLDS, [fd])
        yield* Effect.promise(() => holder.line())
        const fixture = fileURLToPath(new URL("./fixtures/copyAsOther.ts", import.meta.url))
        const args = ["--conditions=@handoff/source", fixture, String(holder.pid), String(inode)]
        const asker = start(process.execPath, args)
        const { reason, message } = JSON.parse(yield* Effect.promise(() => asker.line()))
        expect(reason).toEqual({
          _tag: "NotPermitted",
          call: `open(/proc/${holder.pid}/fd)`,
          missing: "CAP_SYS_PTRACE, since the process is of uid 0 and this one of uid 12345"
        })
        expect(message).toContain("it takes CAP_SYS_PTRACE")
      })
    )
  )

  it("that the kernel does not give is an error that names the call, and leaves nothing open", () =>
    run(
      Effect.gen(function* () {
        const { inode } = yield* listen
        const before = fdCount()
        const answers = (copied: Result.Result<Fd, ErrnoName>) =>
          SocketCopy.copySocket(
            {
              // Any descriptor will do: nobody looks through it.
              open: () => Result.succeed(openSync("/dev/null", "r")),
              copy: () => copied,
              signal: () => Result.fail("ENOSYS"),
              ended: () => new Set()
            },
            [process.pid],
            inode
          )
        expect(answers(Result.fail("EPERM"))).toMatchObject({ failure: { _tag: "NotPermitted" } })
        expect(answers(Result.fail("ENOSYS"))).toMatchObject({ failure: { _tag: "CallFailed", errno: "ENOSYS" } })
        // The descriptor was closed after it was seen, or closed and used again for something else.
        expect(answers(Result.fail("EBADF"))).toMatchObject({ failure: { _tag: "NotHeld" } })
        expect(answers(Result.succeed(openSync("/dev/null", "r")))).toMatchObject({ failure: { _tag: "NotHeld" } })
        expect(fdCount()).toBe(before)
      })
    ))

  it.each([
    [{ uid: 5, targetUid: 0, capable: false, scope: undefined }, "uid 0 and this one of uid 5"],
    [{ uid: 5, targetUid: 5, capable: false, scope: 1 }, "ptrace_scope 0 (it is 1)"],
    [{ uid: 5, targetUid: 5, capable: false, scope: 2 }, "CAP_SYS_PTRACE, since kernel.yama.ptrace_scope is 2"],
    [{ uid: 0, targetUid: 0, capable: true, scope: 3 }, "ptrace_scope below 3"],
    [{ uid: 0, targetUid: 0, capable: true, scope: 0 }, "seccomp"],
    [{ uid: 5, targetUid: 5, capable: false, scope: 0 }, "dumpable"]
  ])("lacks, for %j, %s", (facts, words) => {
    expect(SocketCopy.missing(facts)).toContain(words)
  })
})

describe("a lock", () => {
  it.skipIf(!python3.available)(`is seen at a child that inherited it, when its taker is gone${python3.reason}`, () =>
    run(
      Effect.gen(function* () {
        const processes = yield* Processes
        const path = join(tempDir(), ".handoff.lock")
        writeFileSync(path, "")
        const taker = start(
          "python3",
          [
            "-c",
            `import fcntl,os,sys,time
f=open(${JSON.stringify(path)})
fcntl.flock(f,fcntl.LOCK_EX)
pid=os.fork()
if pid==0: time.sleep(1000)
print(pid,flush=True)
sys.stdin.read()`
          ],
          [],
          { detached: true }
        )
        const child = killAtEnd(Number(yield* Effect.promise(() => taker.line())))
        const other = python(`f=open(${JSON.stringify(path)})\n${HOLDS}`)
        yield* Effect.promise(() => other.line())
        const holds = (pid: number) => processes.holdsLock(pid, ".handoff.lock")
        expect(yield* holds(taker.pid)).toBe(true)
        expect(yield* holds(other.pid)).toBe(false)
        taker.child.kill("SIGKILL")
        yield* Effect.promise(() => taker.ended)
        expect(yield* holds(taker.pid)).toBe(true)
        process.kill(child, "SIGKILL")
        yield* Effect.promise(() =>
          eventually(
            () => Effect.runPromise(holds(taker.pid)),
            (held) => !held
          )
        )
      })
    )
  )
})

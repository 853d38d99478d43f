import { readdirSync, readlinkSync, statSync } from "node:fs"
import { join } from "node:path"
import * as FileLock from "@handoff/backend-ffi/FileLock"
import * as Flock from "@handoff/backend-ffi/Flock"
import * as Libc from "@handoff/backend-ffi/Libc"
import { Locks } from "@handoff/core/backend/Locks"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { describe, expect, it } from "vitest"
import { fdCount, python, runner, tempDir } from "./support/Harness.ts"

const run = runner(FileLock.layer)
const acquire = (path: string) => Locks.use((locks) => locks.acquire(path))

const fdOf = (path: string): number =>
  Number(
    readdirSync("/proc/self/fd").find((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`) === path
      } catch {
        return false
      }
    }) ?? -1
  )

describe("a file lock", () => {
  it("is refused to a second taker, who is told the holder", async () => {
    const path = join(tempDir(), "lock")
    await run(
      Effect.gen(function* () {
        yield* acquire(path)
        expect(yield* Effect.flip(acquire(path))).toMatchObject({ reason: { _tag: "Held", holder: process.pid } })
      })
    )
    expect(statSync(path).mode & 0o777).toBe(0o600)
    await run(acquire(path))
  })

  it("held by another process names that process and is free once it is gone", async () => {
    const path = join(tempDir(), "lock")
    const holder = python(
      `import fcntl,sys\nf=open(${JSON.stringify(path)},"w")\nfcntl.flock(f,fcntl.LOCK_EX)\nprint("held",flush=True)\nsys.stdin.read()`
    )
    await holder.line()
    expect(await run(Effect.flip(acquire(path)))).toMatchObject({ reason: { _tag: "Held", holder: holder.pid } })
    holder.child.kill("SIGKILL")
    await holder.ended
    await run(acquire(path))
  })

  it("ends with the scope although a copy of the descriptor is still open", async () => {
    const path = join(tempDir(), "lock")
    const libc = Result.getOrThrow(Libc.open())
    const copy = await run(
      Effect.gen(function* () {
        yield* acquire(path)
        return libc.call("dup", "i32", ["i32"], [fdOf(path)]).value
      })
    )
    expect(copy).toBeGreaterThan(2)
    await run(acquire(path))
    libc.call("close", "i32", ["i32"], [copy])
  })

  it("leaves no descriptor behind, taken or refused", async () => {
    const path = join(tempDir(), "lock")
    const round = () =>
      run(
        Effect.gen(function* () {
          yield* acquire(path)
          yield* Effect.flip(acquire(path))
        })
      )
    await round()
    const before = fdCount()
    for (let index = 0; index < 10; index++) await round()
    expect(fdCount()).toBe(before)
  })

  it("in a directory that is missing is an error of open", async () => {
    const path = join(tempDir(), "missing", "lock")
    expect(await run(Effect.flip(acquire(path)))).toMatchObject({
      reason: { _tag: "CallFailed", call: "open", errno: "ENOENT" }
    })
  })
})

describe("a lock taken by plain functions", () => {
  it("is refused to a second taker until it is unlocked, also while a copy of its descriptor is open", () => {
    const path = join(tempDir(), "lock")
    const libc = Result.getOrThrow(Libc.open())
    const before = fdCount()
    const lock = Result.getOrThrow(Flock.tryLock(path))
    expect(Flock.tryLock(path)).toMatchObject({ failure: { _tag: "Held", holder: process.pid } })
    const copy = libc.call("dup", "i32", ["i32"], [lock.fd]).value
    Flock.unlock(lock)
    Flock.unlock(Result.getOrThrow(Flock.tryLock(path)))
    libc.call("close", "i32", ["i32"], [copy])
    expect(fdCount()).toBe(before)
  })

  it("names the call that failed", () => {
    const failure = { _tag: "CallFailed", call: "open", errno: "ENOENT" }
    expect(Flock.tryLock(join(tempDir(), "missing", "lock"))).toMatchObject({ failure })
  })
})

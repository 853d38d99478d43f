import { spawnSync } from "node:child_process"
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from "node:fs"
import { DataDirLock } from "@handoff/supervisor/daemon/DataDirLock"
import { describe, expect, it } from "vitest"
import { temporaryDirectory } from "../../../../test/support/TemporaryDirectory.ts"
import { until } from "./ScriptedSupervisor.ts"
import { warnings } from "./Warnings.ts"

/** The pid of a process that has ended. */
const deadPid = (): number => spawnSync("true").pid

describe("the lock of a data directory", () => {
  it("is taken, names its holder in one line, and is given back with the lock file left", () => {
    using directory = temporaryDirectory()
    const lock = new DataDirLock(directory.file("made", "here"))
    expect(lock.tryAcquire()).toBe(undefined)
    expect(lock.held).toBe(true)
    expect(readFileSync(directory.file("made", "here", ".handoff.pidfile"), "utf8")).toBe(`${process.pid}\n`)
    lock.release()
    expect(readdirSync(directory.file("made", "here"))).toEqual([".handoff.lock"])
  })

  it("is refused while another has it, and free afterwards, as often as asked", () => {
    using directory = temporaryDirectory()
    const [one, other] = [new DataDirLock(directory.path), new DataDirLock(directory.path)]
    for (let times = 0; times < 3; times += 1) {
      expect(one.tryAcquire()).toBe(undefined)
      expect(other.tryAcquire()?.reason).toMatchObject({ _tag: "DataLocked", holder: process.pid, alive: true })
      one.release()
      expect(other.tryAcquire()).toBe(undefined)
      other.release()
    }
  })

  it("is refused though the named process is dead, since a descriptor it left may hold it", () => {
    using directory = temporaryDirectory()
    const holder = new DataDirLock(directory.path)
    expect(holder.tryAcquire()).toBe(undefined)
    const pid = deadPid()
    writeFileSync(directory.file(".handoff.pidfile"), `${pid}\n`)
    const refused = new DataDirLock(directory.path).tryAcquire()
    expect(refused?.reason).toMatchObject({ _tag: "DataLocked", holder: pid, alive: false })
    expect(refused?.message).toMatch(/though process \d+, which took it, is gone: a child of it may hold/)
    holder.release()
  })

  it("takes with it what a holder left that was killed while it wrote its pid", () => {
    using directory = temporaryDirectory()
    writeFileSync(directory.file(".handoff.pidfile.tmp"), "")
    const lock = new DataDirLock(directory.path)
    expect(lock.tryAcquire()).toBeUndefined()
    expect(readdirSync(directory.path).sort()).toEqual([".handoff.lock", ".handoff.pidfile"])
    lock.release()
  })

  it("is taken over from a dead process, whose pidfile is replaced", () => {
    using directory = temporaryDirectory()
    writeFileSync(directory.file(".handoff.pidfile"), `${deadPid()}\n`)
    const lock = new DataDirLock(directory.path)
    expect(lock.tryAcquire()).toBe(undefined)
    expect(readFileSync(directory.file(".handoff.pidfile"), "utf8")).toBe(`${process.pid}\n`)
    lock.release()
    expect(existsSync(directory.file(".handoff.pidfile"))).toBe(false)
  })

  it("is released though its pidfile cannot be removed, with a warning", async () => {
    using directory = temporaryDirectory()
    using warned = warnings()
    const [one, other] = [new DataDirLock(directory.path), new DataDirLock(directory.path)]
    expect(one.tryAcquire()).toBe(undefined)
    const pidfile = directory.file(".handoff.pidfile")
    rmSync(pidfile)
    mkdirSync(pidfile)
    one.release()
    expect(one.held).toBe(false)
    await until("the warning", () => warned.heard.length > 0)
    expect(warned.heard).toEqual([
      expect.stringMatching(/pidfile could not be removed, the lock is released all the same/)
    ])
    rmdirSync(pidfile)
    expect(other.tryAcquire()).toBe(undefined)
    other.release()
  })

  it("is given back when its pidfile cannot be written, with nothing of it left", () => {
    using directory = temporaryDirectory()
    const [one, other] = [new DataDirLock(directory.path), new DataDirLock(directory.path)]
    mkdirSync(directory.file(".handoff.pidfile"))
    expect(one.tryAcquire()?.reason).toMatchObject({ _tag: "DataLockFailed", detail: expect.stringMatching(/EISDIR/) })
    expect([one.held, readdirSync(directory.path).sort()]).toEqual([false, [".handoff.lock", ".handoff.pidfile"]])
    rmdirSync(directory.file(".handoff.pidfile"))
    expect(other.tryAcquire()).toBe(undefined)
    other.release()
  })

  it("counts a process of another user as alive", () => {
    using directory = temporaryDirectory()
    const holder = new DataDirLock(directory.path)
    expect(holder.tryAcquire()).toBe(undefined)
    writeFileSync(directory.file(".handoff.pidfile"), "1\n")
    expect(new DataDirLock(directory.path).tryAcquire()?.reason).toMatchObject({ holder: 1, alive: true })
    holder.release()
  })

  it("says which call failed when the directory cannot be used", () => {
    using directory = temporaryDirectory()
    writeFileSync(directory.file("plain"), "")
    expect(new DataDirLock(directory.file("plain")).tryAcquire()?.reason).toMatchObject({ _tag: "DataLockFailed" })
  })
})

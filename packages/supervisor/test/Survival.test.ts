/**
 * A supervisor's death costs nothing: it is killed (SIGKILL, nothing run or flushed) at every turn, and the next one of
 * its name goes on.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmdirSync, rmSync, writeFileSync } from "node:fs"
import { type AddressInfo, createServer } from "node:net"
import { join } from "node:path"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as FfiBackend from "@handoff/backend-ffi/FfiBackend"
import { LaunchError } from "@handoff/core/backend/Launcher"
import { Processes } from "@handoff/core/backend/Processes"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { describe, expect, it } from "vitest"
import { startLoad } from "../../../test/support/Load.ts"
import { type ManagedProcesses, managedProcesses } from "../../../test/support/ManagedProcesses.ts"
import { isAlive } from "../../../test/support/ProcessTable.ts"
import { temporaryDirectory } from "../../../test/support/TemporaryDirectory.ts"
import { requireRoot, requireTool } from "../../../test/support/Tools.ts"
import { Supervisor } from "../src/Supervisor.ts"
import { fetchFrom, type Name, nameIn } from "./SurvivalHarness.ts"

const root = requireRoot()
const setpriv = requireTool("setpriv")
const WITHOUT_PTRACE = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"]
const QUICK = ["--ready", "settle:200ms"]

const within = async (body: (name: Name, processes: ManagedProcesses) => Promise<void>): Promise<void> => {
  await using processes = managedProcesses()
  using directory = temporaryDirectory()
  await body(nameIn(processes, directory.path), processes)
}

const scenario = (title: string, body: (name: Name, processes: ManagedProcesses) => Promise<void>) =>
  it(title, () => within(body), 90_000)

const gone = (pid: number, timeout = 10_000) => expect.poll(() => isAlive(pid), { timeout, interval: 20 }).toBe(false)

/** Without exec the shell leads the group, and what serves is its child. */
const wrapped = (name: Name) => ["sh", "-c", '"$@" & wait', "sh", ...name.server("v1")]

/** Pid of a generation that the document knows. */
const pidOf = (name: Name, id: number): number => {
  const pid = name.read().generations.find((one) => one.id === id)?.process?.pid
  if (pid === undefined) throw new Error(`generation ${id} is not in the document`)
  return pid
}

describe("killed under load", () => {
  const programs = [
    ["overlap", (name: Name) => name.server("v1"), ["--ready", "settle:200ms"]],
    ["exclusive", (name: Name) => name.server("v1"), ["--mode", "exclusive", "--ready", "settle:200ms"]],
    ["sealed", (name: Name) => name.daemon, []]
  ] as const
  for (const [mode, program, args] of programs) {
    scenario(`no request fails, and the next one adopts, swaps at once, and ends clean (${mode})`, async (name) => {
      const first = await name.start(program(name), { args })
      const { port } = first
      const { pid } = await fetchFrom(port)
      using load = startLoad({ port, pauseMs: 5 })
      await expect.poll(() => load.counts().requests, { timeout: 10_000 }).toBeGreaterThan(100)
      await first.kill()
      const between = load.counts().requests
      await expect.poll(() => load.counts().requests, { timeout: 10_000 }).toBeGreaterThan(between + 100)
      expect((await fetchFrom(port)).pid).toBe(pid)

      const second = await name.start(program(name), { args, listen: `127.0.0.1:${port}` })
      expect(second.run.output().stderr).toContain(`generation 1 lives on as process ${pid} (serving)`)
      expect((await second.status()).generations).toMatchObject([{ id: 1, pid, phase: "serving" }])
      const swapped = await second.swap()
      expect(swapped.code, swapped.stdout + swapped.stderr).toBe(0)
      const { swaps, serving } = await second.status()
      expect(swaps).toMatchObject([{ outcome: "committed", mode, from: 1, to: 2 }])
      expect(serving).toBe(2)
      await gone(pid)
      expect((await fetchFrom(port)).pid).not.toBe(pid)
      const { failed, errors } = await load.stop()
      expect({ failed, errors }).toEqual({ failed: 0, errors: {} })

      expect((await second.stop()).code).toBe(0)
      expect(existsSync(join(name.directory, "state.json"))).toBe(false)
    })
  }

  scenario("three times in a row, and once before it has said that it serves", async (name) => {
    let life = await name.start(name.server("v1"), { args: QUICK })
    const { port } = life
    const { pid } = await fetchFrom(port)
    using load = startLoad({ port, pauseMs: 5 })
    for (let turn = 0; turn < 3; turn++) {
      await life.kill()
      const hasty = name.begin(name.server("v1"), { args: QUICK })
      await new Promise((resolve) => setTimeout(resolve, 100 * (turn + 1)))
      process.kill(hasty.pid, "SIGKILL")
      await hasty.ended
      life = await name.start(name.server("v1"), { args: QUICK })
      expect(life.port).toBe(port)
    }
    expect((await fetchFrom(port)).pid).toBe(pid)
    expect(await load.stop()).toMatchObject({ failed: 0 })
  })
})

describe("the next one", () => {
  scenario("sees the end of what it adopted at once, and starts it again", async (name) => {
    const first = await name.start(name.server("v1"), { args: QUICK })
    const { pid } = await fetchFrom(first.port)
    await first.kill()
    const second = await name.start(name.server("v1"), { args: QUICK })
    const killedAt = Date.now()
    process.kill(pid, "SIGKILL")
    await second.run.line(/generation 1 ended|restart in/)
    // Within 250 ms; the rest is for a loaded machine.
    expect(Date.now() - killedAt).toBeLessThan(3_000)
    expect((await fetchFrom(second.port)).pid).not.toBe(pid)
    expect((await second.status()).restarts.total).toBe(1)
  })

  scenario("starts anew when what served has died meanwhile", async (name) => {
    const first = await name.start(name.server("v1"), { args: QUICK })
    const { port } = first
    const { pid } = await fetchFrom(port)
    await first.kill()
    process.kill(pid, "SIGKILL")
    await gone(pid)
    const second = await name.start(name.server("v1"), { args: QUICK, listen: `127.0.0.1:${port}` })
    expect(second.port).toBe(port)
    expect((await second.status()).generations).toMatchObject([{ id: 2, phase: "serving" }])
  })

  scenario("takes the listener from who outlived the leader of a group, ends that, and starts anew", async (name) => {
    const first = await name.start(wrapped(name), { args: QUICK })
    const { port } = first
    const { pid } = await fetchFrom(port)
    const leader = pidOf(name, 1)
    expect(leader).not.toBe(pid)
    await first.kill()
    process.kill(leader, "SIGKILL")
    await gone(leader)
    expect((await fetchFrom(port)).pid).toBe(pid)
    const second = await name.start(wrapped(name), { args: QUICK, listen: `127.0.0.1:${port}` })
    expect(second.run.output().stderr).toContain(`killed what outlived the leader of its group: process ${pid}`)
    expect(isAlive(pid)).toBe(false)
    expect((await second.status()).generations).toMatchObject([{ id: 2, phase: "serving" }])
    expect((await fetchFrom(port)).version).toBe("v1")
  })

  scenario(
    "that may not end what outlived the leader of a group says who that is, and starts nothing",
    async (name) => {
      const first = await name.start(wrapped(name), { args: QUICK })
      const { port } = first
      const { pid } = await fetchFrom(port)
      const leader = pidOf(name, 1)
      await first.kill()
      process.kill(leader, "SIGKILL")
      await gone(leader)
      const reason = { _tag: "ParentCallFailed", call: `kill(${pid}, SIGKILL)`, errno: "EPERM" } as const
      const powerless = Layer.effect(
        Processes,
        Effect.map(Processes, (processes) =>
          Processes.of({
            ...processes,
            adopt: (identity) =>
              Effect.map(processes.adopt(identity), (one) =>
                one === undefined ? undefined : { ...one, signal: () => Effect.fail(new LaunchError({ reason })) }
              )
          })
        )
      )
      const layer = Supervisor.layer({
        listeners: { http: `127.0.0.1:${port}` },
        command: name.server("v1"),
        stateDirectory: name.directory,
        onOutput: () => undefined
      }).pipe(
        Layer.provide(Layer.provideMerge(powerless, FfiBackend.layer)),
        Layer.provide(NodeFileSystem.layer),
        Layer.build,
        Effect.scoped
      )
      const { message } = await Effect.runPromise(Effect.flip(layer))
      expect(message).toMatch(new RegExp(`^process ${pid}.* generation 1, .*kill\\(${pid}, SIGKILL\\).*EPERM`))
      expect((await fetchFrom(port)).pid).toBe(pid)
    }
  )

  scenario("leaves a group alone that has the number of a generation's, and is another's", async (name, processes) => {
    const first = await name.start(name.server("v1"), { args: QUICK })
    const { pid } = await fetchFrom(first.port)
    await first.kill()
    process.kill(pid, "SIGKILL")
    await gone(pid)
    const other = processes.start("sh", ["-c", "sleep 60 >/dev/null 2>&1 & echo $!"], { detached: true })
    const member = Number((await other.line(/^(\d+)$/m))[1])
    await other.ended
    name.write((document) => ({
      ...document,
      generations: document.generations.map((one) => ({
        ...one,
        process: one.process && { ...one.process, pid: other.pid }
      }))
    }))
    const second = await name.start(name.server("v1"), { args: QUICK })
    expect((await second.status()).generations).toMatchObject([{ id: 2, phase: "serving" }])
    expect(isAlive(member)).toBe(true)
  })

  scenario("follows the output on", async (name) => {
    const first = await name.start(name.server("v1"), { args: QUICK })
    await fetchFrom(first.port, "/say?before")
    await first.run.line(/\[gen 1\] before/)
    await first.kill()
    await fetchFrom(first.port, "/say?between")
    const second = await name.start(name.server("v1"), { args: QUICK })
    await fetchFrom(second.port, "/say?after")
    await second.run.line(/\[gen 1\] after/)
    expect(readFileSync(join(name.directory, "generation-1.log"), "utf8")).toBe("before\nbetween\nafter\n")
  })

  scenario("goes on with what runs when the command line says something else, and says so", async (name) => {
    const first = await name.start(name.server("v1"), { args: QUICK })
    const { pid } = await fetchFrom(first.port)
    await first.kill()
    const args = [...QUICK, "-l", "admin=127.0.0.1:0"]
    const second = await name.start(name.server("v2"), { args })
    const { stderr } = second.run.output()
    expect(stderr).toMatch(/the command line says .* v2 0 0, kept is .* v1 0 0: swap to change it/)
    expect(stderr).toMatch(/listener "admin" is now 127\.0\.0\.1:\d+: nobody accepts on it before the next swap/)
    expect(await fetchFrom(second.port)).toEqual({ version: "v1", pid })
    const admin = (await second.status()).listeners.find((one) => one.name === "admin")
    expect((await second.swap("--", ...name.server("v2"))).code).toBe(0)
    expect((await fetchFrom(Number(admin?.address.split(":")[1]))).version).toBe("v2")
  })

  scenario("of the same name while one lives is refused, naming its process", async (name) => {
    const first = await name.start(name.server("v1"), { args: QUICK })
    const second = await name.begin(name.server("v1")).ended
    expect(second.code).not.toBe(0)
    expect(second.stderr).toMatch(new RegExp(`\\b${first.run.pid}\\b`))
    expect((await fetchFrom(first.port)).version).toBe("v1")
  })

  scenario("keeps the handoff socket where the daemon that runs was told to serve it, and says so", async (name) => {
    const first = await name.start(name.daemon)
    const { pid } = await fetchFrom(first.port)
    await first.kill()
    const elsewhere = join(name.directory, "elsewhere.sock")
    const second = await name.start(name.daemon, { args: ["--control-socket", elsewhere] })
    expect(second.run.output().stderr).toContain(`handoff.sock, not ${elsewhere}, as long as anything runs`)
    const swapped = await second.swap()
    expect(swapped.code, swapped.stdout + swapped.stderr).toBe(0)
    expect((await second.status()).swaps).toMatchObject([{ outcome: "committed", mode: "sealed" }])
    expect((await fetchFrom(second.port)).pid).not.toBe(pid)
  })

  scenario("that can't read the document ends, leaves it, and the next one that can takes over", async (name) => {
    const first = await name.start(name.server("v1"), { args: QUICK })
    const { pid } = await fetchFrom(first.port)
    await first.kill()
    const [path, hidden] = [join(name.directory, "state.json"), join(name.directory, "hidden")]
    renameSync(path, hidden)
    mkdirSync(path)
    const refused = await name.begin(name.server("v1")).ended
    expect(refused.code).not.toBe(0)
    expect(refused.stderr).toMatch(/state\.json.*cannot be read.*EISDIR/s)
    rmdirSync(path)
    renameSync(hidden, path)
    const second = await name.start(name.server("v1"), { args: QUICK })
    expect((await fetchFrom(second.port)).pid).toBe(pid)
  })

  scenario("that finds a damaged document and the address held says both", async (name) => {
    const first = await name.start(name.server("v1"), { args: QUICK })
    const { pid } = await fetchFrom(first.port)
    await first.kill()
    writeFileSync(join(name.directory, "state.json"), "{ torn")
    const { code, stderr } = await name.begin(name.server("v1"), { listen: `127.0.0.1:${first.port}` }).ended
    expect(code).not.toBe(0)
    expect(stderr).toMatch(new RegExp(`\\b${pid}\\b`))
    expect(stderr).toContain("state.json.damaged-1")
    expect((await fetchFrom(first.port)).pid).toBe(pid)
  })

  scenario("sets a damaged document aside, reports it, and starts", async (name) => {
    const first = await name.start(name.server("v1"), { args: QUICK })
    const { pid } = await fetchFrom(first.port)
    await first.kill()
    process.kill(pid, "SIGKILL")
    await gone(pid)
    writeFileSync(join(name.directory, "state.json"), "{ torn")
    const second = await name.start(name.server("v1"), { args: QUICK })
    const [aside] = readdirSync(name.directory).filter((file) => file.startsWith("state.json.damaged"))
    expect(second.run.output().stderr).toMatch(/could not be read and is set aside as .*state\.json\.damaged-1/)
    expect(readFileSync(join(name.directory, aside ?? ""), "utf8")).toBe("{ torn")
    expect((await fetchFrom(second.port)).version).toBe("v1")
  })
})

describe("what is not the supervisor's", () => {
  scenario("an address that a stranger holds is never taken, and the error names the stranger", async (name) => {
    const first = await name.start(name.server("v1"), { args: QUICK })
    const { pid } = await fetchFrom(first.port)
    await first.kill()
    process.kill(pid, "SIGKILL")
    await gone(pid)
    const stranger = createServer((socket) => socket.destroy())
    await new Promise<void>((resolve, reject) => {
      stranger.once("error", reject)
      stranger.listen(0, "127.0.0.1", resolve)
    })
    // Any free port will do; the one that was served may be somebody else's by now.
    const { port } = stranger.address() as AddressInfo
    name.write((document) => ({
      ...document,
      listeners: document.listeners.map((one) => ({ ...one, address: `127.0.0.1:${port}` }))
    }))
    try {
      const { code, stderr } = await name.begin(name.server("v1"), { listen: `127.0.0.1:${port}` }).ended
      expect(code).not.toBe(0)
      expect(stderr).toContain(`127.0.0.1:${port}`)
      expect(stderr).toMatch(new RegExp(`\\b${process.pid}\\b`))
      expect(stranger.listening).toBe(true)
    } finally {
      await new Promise((resolve) => stranger.close(resolve))
    }
  })

  scenario("a process that has the pid of one that ended is not adopted, nor ended", async (name, processes) => {
    const first = await name.start(name.server("v1"), { args: QUICK })
    const { pid } = await fetchFrom(first.port)
    await first.kill()
    process.kill(pid, "SIGKILL")
    await gone(pid)
    const stranger = processes.start("sleep", ["600"])
    name.write((document) => ({
      ...document,
      generations: document.generations.map((one) => ({
        ...one,
        process: one.process === null ? null : { ...one.process, pid: stranger.pid }
      }))
    }))
    const second = await name.start(name.server("v1"), { args: QUICK })
    expect((await second.status()).generations).toMatchObject([{ id: 2, phase: "serving" }])
    await second.stop()
    expect(isAlive(stranger.pid)).toBe(true)
  })

  scenario("a daemon of another boot is a stranger, and holds its address", async (name) => {
    const first = await name.start(name.server("v1"), { args: QUICK })
    const { port } = first
    const { pid } = await fetchFrom(port)
    await first.kill()
    name.write((document) => ({
      ...document,
      generations: document.generations.map((one) => ({
        ...one,
        process: one.process === null ? null : { ...one.process, bootId: "another" }
      }))
    }))
    const { code, stderr } = await name.begin(name.server("v1"), { listen: `127.0.0.1:${port}` }).ended
    expect(code).not.toBe(0)
    expect(stderr).toMatch(new RegExp(`\\b${pid}\\b`))
    expect((await fetchFrom(port)).pid).toBe(pid)
  })

  it.skipIf(!root.available || !setpriv.available)(
    `without the permission to copy sockets it says what is missing, and what still serves${root.reason}${setpriv.reason}`,
    () =>
      within(async (name) => {
        const first = await name.start(name.server("v1"), { args: QUICK })
        const { port } = first
        const { pid } = await fetchFrom(port)
        await first.kill()
        const listen = `127.0.0.1:${port}`
        const { code, stderr } = await name.begin(name.server("v1"), { listen, prefix: WITHOUT_PTRACE }).ended
        expect(code).not.toBe(0)
        expect(stderr).toContain("CAP_SYS_PTRACE")
        expect(stderr).toContain(`Process ${pid} of the supervisor before this one still serves on ${listen}`)
        expect((await fetchFrom(port)).pid).toBe(pid)
        // It is still written down: with the permission the next one goes on.
        const third = await name.start(name.server("v1"), { args: QUICK, listen })
        expect((await third.status()).generations).toMatchObject([{ id: 1, pid }])
      }),
    90_000
  )
})

describe("killed in the middle", () => {
  scenario("of a launch: what was cloned and not written down is found by its token", async (name) => {
    const first = await name.start(name.server("v1"), { args: QUICK })
    const { pid } = await fetchFrom(first.port)
    await first.kill()
    name.write((document) => ({
      ...document,
      serving: null,
      generations: document.generations.map((one) => ({ ...one, process: null, phase: "launching", readyAt: null }))
    }))
    const second = await name.start(name.server("v1"), { args: QUICK })
    expect((await second.status()).generations).toMatchObject([{ id: 1, pid, phase: "serving" }])
  })

  scenario("of a launch: what outlived the leader of a group that was not written down is ended", async (name) => {
    const first = await name.start(wrapped(name), { args: QUICK })
    const { pid } = await fetchFrom(first.port)
    const leader = pidOf(name, 1)
    await first.kill()
    process.kill(leader, "SIGKILL")
    await gone(leader)
    name.write((document) => ({
      ...document,
      serving: null,
      generations: document.generations.map((one) => ({ ...one, process: null, phase: "launching", readyAt: null }))
    }))
    const second = await name.start(wrapped(name), { args: QUICK, listen: `127.0.0.1:${first.port}` })
    expect(isAlive(pid)).toBe(false)
    expect((await second.status()).generations).toMatchObject([{ id: 2, phase: "serving" }])
  })

  scenario(
    "of an overlap swap: the old version serves on, the new one is ended, and the swap is told",
    async (name) => {
      const first = await name.start(name.server("v1"), { args: ["--ready", "accepting"] })
      const { pid } = await fetchFrom(first.port)
      const swap = first.swap("--", ...name.server("v2", 60_000))
      await expect
        .poll(() => name.read().generations.map((one) => one.phase), { timeout: 10_000 })
        .toContain("starting")
      const next = pidOf(name, 2)
      await first.kill()
      expect((await swap).code).not.toBe(0)
      const second = await name.start(name.server("v1"), { args: ["--ready", "accepting"] })
      expect(second.run.output().stderr).toMatch(/swap 1 rolled back .*the supervisor died in the middle of the swap/)
      await gone(next)
      await expect.poll(async () => (await second.status()).generations.length, { timeout: 10_000 }).toBe(1)
      expect(await fetchFrom(second.port)).toEqual({ version: "v1", pid })
      expect((await second.swap("--", ...name.server("v3"))).code).toBe(0)
      expect((await second.status()).swaps.map((one) => one.outcome)).toEqual(["rolled-back", "committed"])
    }
  )

  scenario("of an overlap swap whose old version died as well: its command is started again", async (name) => {
    const first = await name.start(name.server("v1"), { args: ["--ready", "accepting"] })
    const { pid } = await fetchFrom(first.port)
    const swap = first.swap("--", ...name.server("v2", 60_000))
    await expect.poll(() => name.read().generations.map((one) => one.phase), { timeout: 10_000 }).toContain("starting")
    const next = pidOf(name, 2)
    await first.kill()
    await swap
    process.kill(pid, "SIGKILL")
    await gone(pid)
    const second = await name.start(name.server("v1"), { args: ["--ready", "accepting"] })
    expect((await fetchFrom(second.port)).version).toBe("v1")
    await gone(next)
    expect((await second.status()).swaps).toMatchObject([{ outcome: "rolled-back" }])
  })

  /** Generation 1 has got its stop signal, and that is written down. */
  const isAsked = (name: Name) =>
    expect
      .poll(() => name.read().generations[0], { timeout: 10_000 })
      .toMatchObject({ id: 1, phase: "draining", asked: true })

  scenario("of a drain: what the old version still answers is answered", async (name) => {
    const first = await name.start(name.server("v1"), { args: QUICK })
    const slow = fetchFrom(first.port, "/slow?9000", 30_000)
    await expect
      .poll(async () => (await first.status()).generations[0]?.connections, { timeout: 10_000 })
      .toBeGreaterThan(0)
    expect((await first.swap("--", ...name.server("v2"))).code).toBe(0)
    await isAsked(name)
    await first.kill()
    const second = await name.start(name.server("v2"), { args: QUICK })
    expect((await slow).version).toBe("v1")
    expect(second.run.output().stderr).toMatch(/generation 1 lives on as process \d+ \(draining\)/)
    await expect
      .poll(async () => (await second.status()).generations.map((one) => one.id), { timeout: 10_000 })
      .toEqual([2])
  })

  scenario(
    "of an exclusive swap, while the old version ends: it is waited for, then its command runs again",
    async (name) => {
      const args = ["--mode", "exclusive", ...QUICK]
      const first = await name.start(name.server("v1", 0, 60_000), { args })
      const { pid } = await fetchFrom(first.port)
      const swap = first.swap("--", ...name.server("v2"))
      await isAsked(name)
      await first.kill()
      await swap
      const second = name.begin(name.server("v1"), { args })
      await second.line(/generation 1 lives on as process \d+ \(draining\)/, 30_000)
      await new Promise((resolve) => setTimeout(resolve, 500))
      expect(second.output().stderr).not.toContain("generation 2")
      process.kill(pid, "SIGKILL")
      await second.line(/serves on/, 30_000)
      expect(name.read()).toMatchObject({ serving: 2, swap: null, command: { argv: name.server("v1", 0, 60_000) } })
    }
  )

  scenario(
    "of an exclusive swap, while the new version starts: that is ended, then the old command runs",
    async (name) => {
      const args = ["--mode", "exclusive", "--ready", "accepting"]
      const first = await name.start(name.server("v1"), { args })
      const swap = first.swap("--", ...name.server("v2", 60_000))
      await expect
        .poll(() => name.read().generations.map((one) => `${one.id} ${one.phase}`), { timeout: 10_000 })
        .toEqual(["2 starting"])
      const next = pidOf(name, 2)
      await first.kill()
      await swap
      const second = await name.start(name.server("v1"), { args })
      expect(isAlive(next)).toBe(false)
      expect((await fetchFrom(second.port)).version).toBe("v1")
      expect((await second.status()).swaps).toMatchObject([{ mode: "exclusive", outcome: "rolled-back" }])
    }
  )

  scenario("of its stop: what must not run twice is waited for before it is started again", async (name) => {
    const args = ["--mode", "exclusive", ...QUICK]
    const first = await name.start(name.server("v1", 0, 60_000), { args })
    const { pid } = await fetchFrom(first.port)
    process.kill(first.run.pid, "SIGTERM")
    await isAsked(name)
    await first.kill()
    const second = name.begin(name.server("v1"), { args })
    await second.line(/generation 1 lives on as process \d+ \(draining\)/, 30_000)
    await new Promise((resolve) => setTimeout(resolve, 500))
    expect(second.output().stderr).not.toContain("generation 2")
    process.kill(pid, "SIGKILL")
    await second.line(/serves on/, 30_000)
  })

  scenario(
    "of its own start, or stopped before it: what it has found stays written down, and lives on",
    async (name) => {
      const first = await name.start(name.server("v1"), { args: QUICK })
      const { pid } = await fetchFrom(first.port)
      await first.kill()
      const before = name.read()
      const layer = Supervisor.layer({
        listeners: { http: `127.0.0.1:${first.port}` },
        command: name.server("v1"),
        stateDirectory: name.directory,
        onOutput: () => undefined
      }).pipe(Layer.provide(FfiBackend.layer), Layer.provide(NodeFileSystem.layer))
      const program = Effect.gen(function* () {
        const supervisor = yield* Supervisor
        const refused = yield* Effect.flip(supervisor.swap())
        expect(refused.message).toBe("the supervisor has not been started")
        expect(name.read()).toEqual(before)
        yield* supervisor.stop
      })
      await Effect.runPromise(Effect.provide(program, layer))
      expect(name.read()).toEqual(before)
      const second = await name.start(name.server("v1"), { args: QUICK })
      expect((await fetchFrom(second.port)).pid).toBe(pid)
    }
  )
})

describe("a state directory that can't be written", () => {
  for (const mode of ["overlap", "exclusive"]) {
    scenario(`refuses swaps with the reason while the old version serves on (${mode})`, async (name) => {
      const first = await name.start(name.server("v1"), { args: ["--mode", mode, ...QUICK] })
      const { pid } = await fetchFrom(first.port)
      const state = join(name.directory, "state.json")
      rmSync(state)
      // Nobody, not even root, can rename a file over a directory that is not empty.
      mkdirSync(join(state, "in-the-way"), { recursive: true })
      const refused = await first.swap("--", ...name.server("v2"))
      expect(refused.code).not.toBe(0)
      expect(refused.stdout + refused.stderr).toMatch(/its start could not be written down: .*state\.json: E[A-Z]+/)
      expect(await fetchFrom(first.port)).toEqual({ version: "v1", pid })
      expect(first.run.output().stderr).toMatch(/the state could not be saved: .*state\.json: E[A-Z]+/)
      rmSync(state, { recursive: true })
      expect((await first.swap("--", ...name.server("v2"))).code).toBe(0)
      await gone(pid)
      expect((await fetchFrom(first.port)).version).toBe("v2")
      expect(name.read()).toMatchObject({ swap: null, command: { argv: name.server("v2") } })
    })
  }
})

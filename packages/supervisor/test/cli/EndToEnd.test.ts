import { type ChildProcess, spawn } from "node:child_process"
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { get } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest"
import type { Status } from "../../src/Supervisor.ts"
import { VERSION } from "../../src/Version.ts"

/** A server on descriptor 3; its first argument is its version, the second how it behaves. */
const SERVER = `
const [version, how] = process.argv.slice(2)
if (how === "exit") { console.error("cannot open database"); process.exit(3) }
const server = require("node:http").createServer((request, response) => {
  response.setHeader("connection", "close")
  response.end(version + " " + process.env.FLAVOUR)
})
server.listen({ fd: 3 }, () => console.log("listening"))
process.on("SIGTERM", () => { if (how !== "stubborn") server.close(() => process.exit(0)) })
`
const MAIN = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url))
const LAUNCHER = fileURLToPath(new URL("../../bin/handoff.js", import.meta.url))

let files = ""
let script = ""
let stateDirectory = ""
const started = new Set<ChildProcess>()
const generations = new Set<number>()

beforeAll(() => {
  files = mkdtempSync(join(tmpdir(), "handoff-e2e-"))
  script = join(files, "server.cjs")
  writeFileSync(script, SERVER)
})
afterAll(() => rmSync(files, { recursive: true, force: true }))
beforeEach(() => {
  stateDirectory = mkdtempSync(join(files, "state-"))
})
afterEach(() => {
  for (const child of started) child.kill("SIGKILL")
  started.clear()
  // Generations outlive a supervisor that was killed. A pid may be another's by now: only what runs our script is ended.
  for (const pid of generations) if (runsOurs(pid)) process.kill(pid, "SIGKILL")
  generations.clear()
})

const runsOurs = (pid: number): boolean => {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(script)
  } catch {
    return false
  }
}

/** Remembers every process that a supervisor tells of. */
const remember = (text: string) => {
  for (const [, pid] of text.matchAll(/(?:runs as process |"GenerationLaunched",.*"pid":)(\d+)/g)) {
    generations.add(Number(pid))
  }
}

const node = (file: string, argv: ReadonlyArray<string>) => {
  const child = spawn(process.execPath, ["--conditions=@handoff/source", file, ...argv], { stdio: "pipe" })
  const got = { stdout: "", stderr: "" }
  child.stdout.on("data", (chunk) => {
    got.stdout += String(chunk)
    remember(got.stdout)
  })
  child.stderr.on("data", (chunk) => {
    got.stderr += String(chunk)
    remember(got.stderr)
  })
  started.add(child)
  const end = new Promise<{ code: number | null; stdout: string; stderr: string }>((resolve) =>
    child.on("close", (code) => {
      started.delete(child)
      resolve({ code, ...got })
    })
  )
  return { child, got, end }
}

const handoff = (...argv: ReadonlyArray<string>) => node(MAIN, [...argv]).end
const ask = (command: string, ...argv: ReadonlyArray<string>) =>
  handoff(command, "--state-dir", stateDirectory, ...argv)

const until = async <A>(what: string, look: () => Promise<A | undefined> | A | undefined): Promise<A> => {
  const deadline = Date.now() + 15_000
  for (;;) {
    const found = await look()
    if (found !== undefined) return found
    if (Date.now() > deadline) throw new Error(`waited in vain for ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

const status = async (): Promise<Status> => {
  const { stdout } = await ask("status", "--json")
  return JSON.parse(stdout)
}

/** Starts a supervisor and waits until it serves. */
const run = async (options: ReadonlyArray<string>, ...server: ReadonlyArray<string>) => {
  const argv = ["--state-dir", stateDirectory, "-l", "http=127.0.0.1:0", "--ready", "settle:200ms", ...options]
  const running = node(MAIN, ["run", ...argv, "--", process.execPath, script, ...server])
  const address = await until("the supervisor to serve", () => {
    if (running.child.exitCode !== null) throw new Error(`it ended: ${running.got.stderr}`)
    return / serves on http=(\S+);/.exec(running.got.stderr)?.[1]
  })
  return { ...running, address }
}

const fetchText = (address: string): Promise<string> =>
  new Promise((resolve, reject) => {
    get(`http://${address}/`, { agent: false }, (response) => {
      let text = ""
      response.on("data", (chunk) => {
        text += String(chunk)
      })
      response.on("end", () => resolve(text))
      response.on("error", reject)
    }).on("error", reject)
  })

describe("handoff run, for real", () => {
  it("swaps, rolls a broken version back, goes back, obeys SIGHUP and stops", { timeout: 60_000 }, async () => {
    const { child, end, address, got } = await run(["--env", "FLAVOUR=mild"], "v1")
    expect(await fetchText(address)).toBe("v1 mild")

    const swapped = await ask("swap", "--env", "FLAVOUR=hot", "--", process.execPath, script, "v2")
    expect(swapped).toMatchObject({ code: 0, stdout: expect.stringMatching(/^committed in .*generation 2 serves/) })
    expect(await fetchText(address)).toBe("v2 hot")

    const broken = await ask("swap", "--", process.execPath, script, "v3", "exit")
    expect(broken.code).toBe(3)
    expect(broken.stdout).toContain("generation 2 keeps serving")
    expect(broken.stdout).toContain("exited with status 3")
    expect(broken.stdout).toContain("  | cannot open database")
    expect(await fetchText(address)).toBe("v2 hot")

    expect((await ask("rollback")).code).toBe(0)
    expect(await fetchText(address)).toBe("v1 mild")

    expect((await ask("swap", "--mode", "exclusive")).code).toBe(0)
    expect((await ask("status")).stdout).toMatch(/mode auto\n[\s\S]*swap 4 \(exclusive\), \d+s ago: committed/)
    expect(await fetchText(address)).toBe("v1 mild")

    const second = await ask("run", "--", process.execPath, script, "v9")
    expect(second).toMatchObject({
      code: 1,
      stderr: expect.stringContaining(`already running as process ${child.pid}`)
    })
    expect(await fetchText(address)).toBe("v1 mild")

    const { serving = 0 } = await status()
    child.kill("SIGHUP")
    await until("SIGHUP to swap", async () => ((await status()).serving ?? 0) > serving || undefined)

    expect(await ask("stop")).toMatchObject({ code: 0, stdout: "default stopped\n" })
    expect((await end).code).toBe(0)
    expect(got.stdout).toContain("[gen 1] listening\n")
    expect(existsSync(join(stateDirectory, "default", "admin.sock"))).toBe(false)
    expect((await ask("status")).code).toBe(4)
  })

  it("exits 1 with the reason and the last lines when the first start fails", { timeout: 30_000 }, async () => {
    const { code, stderr } = await ask("run", "--", process.execPath, script, "v1", "exit")
    expect(code).toBe(1)
    expect(stderr).toContain("generation 1 did not start: it exited with status 3")
    expect(stderr).toContain("  | cannot open database")
  })

  it("names the address that is in use and starts nothing", { timeout: 30_000 }, async () => {
    const { address } = await run([], "v1")
    const argv = ["--name", "other", "-l", `http=${address}`, "--", process.execPath, script, "v1"]
    const { code, stderr } = await ask("run", ...argv)
    expect(code).toBe(1)
    expect(stderr).toContain(`${address} is already in use`)
  })

  it("takes over from a supervisor that was killed: its socket, listener and generation", {
    timeout: 30_000
  }, async () => {
    const first = await run([], "v1")
    first.child.kill("SIGKILL")
    await first.end
    expect(existsSync(join(stateDirectory, "default", "admin.sock"))).toBe(true)
    expect((await ask("status")).code).toBe(4)
    const second = await run([], "v2")
    expect(second.address).toBe(first.address)
    expect(await fetchText(second.address)).toMatch(/^v1/)
    expect(second.got.stderr).toContain(`kept is ${process.execPath} ${script} v1: swap to change it`)
    expect(second.got.stderr).toMatch(/generation 1 lives on as process \d+ \(serving\) and is taken over/)
    expect((await ask("swap", "--", process.execPath, script, "v2")).code).toBe(0)
    expect(await fetchText(second.address)).toMatch(/^v2/)
    expect((await ask("stop")).code).toBe(0)
    await expect(fetchText(second.address)).rejects.toThrow("ECONNREFUSED")
  })

  it("stops on SIGTERM, and kills what will not stop on the second one", { timeout: 30_000 }, async () => {
    const { child, end, got } = await run(["--grace", "10m"], "v1", "stubborn")
    child.kill("SIGTERM")
    await until("it to drain", () => got.stderr.includes("drains, for at most") || undefined)
    expect(child.exitCode).toBe(null)
    child.kill("SIGTERM")
    expect((await end).code).toBe(0)
    expect(got.stderr).toContain("generation 1 is killed")
  })

  it("survives that nobody reads its output any more", { timeout: 30_000 }, async () => {
    const { child, address } = await run([], "v1")
    child.stdout.destroy()
    child.stderr.destroy()
    expect((await ask("swap")).code).toBe(0)
    expect((await ask("swap")).code).toBe(0)
    expect(await fetchText(address)).toMatch(/^v1/)
    expect((await ask("stop")).code).toBe(0)
  })

  it("speaks JSON lines with --json", { timeout: 30_000 }, async () => {
    const { end, got } = await run(["--json"], "v1")
    await ask("stop")
    await end
    const lines = got.stdout
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line))
    expect(lines).toContainEqual({ _tag: "Output", generation: 1, line: "listening" })
    expect(lines.at(-1)).toMatchObject({ _tag: "Stopped" })
  })
})

describe("plan, doctor, launcher", () => {
  it("shows a launch as tables and system calls, and starts nothing", { timeout: 30_000 }, async () => {
    const { code, stdout } = await ask("plan", "-l", "http=127.0.0.1:1", "--", process.execPath, script, "v1")
    expect(code).toBe(0)
    expect(stdout).toContain("listener http 127.0.0.1:1")
    expect(stdout).toContain("LISTEN_FDNAMES=http")
    expect(stdout).toMatch(/execve\(.*server\.cjs/)
    const json = await ask("plan", "--json", "--", process.execPath, script)
    expect(JSON.parse(json.stdout)).toMatchObject({ program: process.execPath, plan: { version: 1 } })
    const missing = await ask("plan", "--", "no-such-program")
    expect(missing).toMatchObject({ code: 1, stderr: expect.stringContaining('"no-such-program"') })
  })

  it("tells whether this machine can do it", { timeout: 30_000 }, async () => {
    const { code, stdout } = await ask("doctor", "--json")
    const diagnosis = JSON.parse(stdout)
    expect(code).toBe(diagnosis.ok ? 0 : 1)
    expect(diagnosis).toMatchObject({ version: VERSION, stateDirectory, backend: { supported: diagnosis.ok } })
  })

  it("starts from the launcher, built or not", { timeout: 30_000 }, async () => {
    expect(await node(LAUNCHER, ["--version"]).end).toMatchObject({ code: 0, stdout: `handoff ${VERSION}\n` })
  })
})

import { once } from "node:events"
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { createConnection } from "node:net"
import { fileURLToPath } from "node:url"
import * as CrateJournal from "@handoff/core/protocol/CrateJournal"
import * as Config from "@handoff/supervisor/Config"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import { describe, expect, it } from "vitest"
import { managedProcesses } from "../../../../test/support/ManagedProcesses.ts"
import { type TemporaryDirectory, temporaryDirectory } from "../../../../test/support/TemporaryDirectory.ts"
import * as Journal from "../../src/cli/CrateJournal.ts"
import * as LaunchFlags from "../../src/cli/LaunchFlags.ts"
import { handoff } from "./Harness.ts"

const MAIN = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url))
const SEALED = fileURLToPath(new URL("fixtures/sealed.ts", import.meta.url))
const DOCUMENT = fileURLToPath(new URL("../../../../docs/configuration.md", import.meta.url))

const values = (over: Partial<LaunchFlags.Values>): LaunchFlags.Values => ({
  config: Option.none(),
  listen: [],
  mode: "auto",
  controlSocket: Option.none(),
  drainGrace: Option.none(),
  deadline: Option.none(),
  ready: { policy: "auto" },
  readyTimeout: 30_000,
  grace: 25_000,
  stopSignal: "SIGTERM",
  output: "log",
  generations: 3,
  env: [],
  program: [],
  ...over
})

const withFile = (directory: TemporaryDirectory, text: string): Option.Option<string> => {
  const path = directory.file("handoff.toml")
  writeFileSync(path, text)
  return Option.some(path)
}

const settled = (over: Partial<LaunchFlags.Values>) => Effect.runPromise(LaunchFlags.settle("run", values(over)))
const refusal = (over: Partial<LaunchFlags.Values>) =>
  Effect.runPromise(Effect.flip(LaunchFlags.settle("run", values(over))))

describe("the file and the flags", () => {
  it("have the reference's times when neither says anything", async () => {
    const { options, trigger, journal } = await settled({ program: ["app"] })
    expect(options).toMatchObject({ command: ["app"], mode: "auto" })
    expect(options.sealed).toEqual({ drainGraceMs: 25_000, deadlineMs: 60_000 })
    expect([trigger, journal]).toEqual([undefined, undefined])
  })

  it("give what they say; flags win where they overlap", async () => {
    using directory = temporaryDirectory()
    const config = withFile(
      directory,
      `control_socket = "/run/c"
       trigger_socket = "/run/t"
       binary = "/bin/app"
       args = ["-v"]
       env = [["A", "file"], ["B", "file"]]
       journal = "/run/j"
       drain_grace_secs = 1
       deadline_secs = 2
       allowed_uids = [7]
       allowed_binaries = ["/bin/app2"]
       [[listeners]]
       name = "http"
       addr = ":1"
       [[listeners]]
       name = "admin"
       addr = ":2"`
    )
    const file = await settled({ config })
    expect(file.options).toMatchObject({
      command: ["/bin/app", "-v"],
      environment: { A: "file", B: "file" },
      sealed: { controlSocket: "/run/c", drainGraceMs: 1_000, deadlineMs: 2_000 }
    })
    expect(Object.entries(file.options.listeners)).toEqual([
      ["http", ":1"],
      ["admin", ":2"]
    ])
    expect(file.trigger).toEqual({
      path: "/run/t",
      binary: "/bin/app",
      args: ["-v"],
      allowedUids: [7],
      allowedBinaries: ["/bin/app2"]
    })
    expect(file.journal).toBe("/run/j")

    const { options } = await settled({
      config,
      mode: "sealed",
      listen: [
        { name: "admin", address: ":3" },
        { name: "more", address: ":4" }
      ],
      controlSocket: Option.some("/run/d"),
      drainGrace: Option.some(10),
      deadline: Option.some(20),
      env: [["B", "flag"]]
    })
    expect(options).toMatchObject({
      mode: "sealed",
      environment: { A: "file", B: "flag" },
      sealed: { controlSocket: "/run/d", drainGraceMs: 10, deadlineMs: 20 }
    })
    expect(Object.entries(options.listeners)).toEqual([
      ["http", ":1"],
      ["admin", ":3"],
      ["more", ":4"]
    ])
  })

  it("may not both name the program, and one of them must", async () => {
    using directory = temporaryDirectory()
    const both = await refusal({ config: withFile(directory, 'binary = "/bin/app"'), program: ["node"] })
    expect(both).toMatchObject({ code: 2, text: expect.stringContaining('names binary "/bin/app"') })
    const none = await refusal({ config: withFile(directory, "") })
    expect(none).toMatchObject({ code: 2, text: expect.stringContaining("no program given") })
  })

  it("take the program after -- for the trigger when the file names none", async () => {
    using directory = temporaryDirectory()
    const config = withFile(directory, 'trigger_socket = "/run/t"')
    expect((await settled({ config, program: ["node", "s.js"] })).trigger).toMatchObject({
      binary: "node",
      args: ["s.js"]
    })
  })

  it("stop a start with exit status 2 and one line that names the file", async () => {
    using directory = temporaryDirectory()
    const path = Option.getOrThrow(withFile(directory, "drain_grace = 5"))
    for (const command of ["run", "plan"]) {
      expect(await handoff(command, "--config", path, "--", "node")).toEqual({
        code: 2,
        stdout: "",
        stderr: `handoff: ${path}: drain_grace: is not a known key; did you mean drain_grace_secs?\n`
      })
    }
    const missing = await handoff("run", "--config", directory.file("absent"), "--", "node")
    expect(missing).toMatchObject({ code: 2, stderr: expect.stringContaining("ENOENT") })
  })
})

describe("the journal of the crate's supervisor", () => {
  const bytes = Result.getOrThrow(
    CrateJournal.encode({
      handoffId: "6f0d2c5e-9a1b-4c3d-8e7f-102132435465",
      phase: "Sealing",
      incumbentPid: 41,
      successorPid: 42,
      startedAtUnixMs: 1_764_000_000_000n
    })
  )

  it("is reported in one line and set aside", () => {
    using directory = temporaryDirectory()
    const path = directory.file("journal")
    expect(Journal.setAside(path)).toBe(undefined)
    writeFileSync(path, bytes)
    expect(Journal.setAside(path)).toBe(
      `journal ${path}: swap 6f0d2c5e-9a1b-4c3d-8e7f-102132435465 from process 41 to process 42, begun at ` +
        `2025-11-24T16:00:00.000Z, had come to Sealing; set aside as ${path}.old`
    )
    expect(existsSync(path)).toBe(false)
    expect(readFileSync(`${path}.old`)).toEqual(Buffer.from(bytes))
  })

  it("is set aside when it is torn, too, and reported when it can't be moved", () => {
    using directory = temporaryDirectory()
    const path = directory.file("journal")
    writeFileSync(path, bytes.subarray(0, 5))
    expect(Journal.setAside(path)).toBe(`journal ${path}: it can't be read; set aside as ${path}.old`)
    expect(Journal.setAside(directory.path)).toMatch(/EISDIR.*; left as it is$/)
  })
})

/** Reads the first block of that language from the document. */
const block = (language: string): string =>
  new RegExp(`\`\`\`${language}\n([^]*?)\`\`\``).exec(readFileSync(DOCUMENT, "utf8"))?.[1] ?? ""

describe("docs/configuration.md", () => {
  it("shows a file that is read, with every key", () => {
    const config = Result.getOrThrow(Config.parse(block("toml")))
    for (const [key, value] of Object.entries(config)) {
      expect([key, Array.isArray(value) ? value.length > 0 : value !== undefined]).toEqual([key, true])
    }
  })

  it("names every option of run that it speaks of as the command does", async () => {
    const { stdout } = await handoff("run", "--help")
    const options = new Set(readFileSync(DOCUMENT, "utf8").match(/--[a-z][a-z-]+/g))
    expect(options.size).toBeGreaterThan(5)
    for (const option of options) expect(stdout).toContain(option)
  })
})

const SERVER = `#!${process.execPath}
require("node:http").createServer((_, response) => response.end("x")).listen({ fd: 3 }, () => console.log("up", process.argv.slice(1).join(" "), process.env.LOG))
process.on("SIGTERM", () => process.exit(0))
`

const ask = (path: string, text: string): Promise<string> =>
  new Promise((resolve, reject) => {
    let answer = ""
    const socket = createConnection({ path }, () => socket.end(text))
    // Bounded: a test that times out is left where it waits, and never comes to end what it started.
    socket.setTimeout(15_000, () => socket.destroy(new Error(`no answer to ${text}`)))
    socket.on("error", reject).on("close", () => resolve(answer))
    socket.on("data", (chunk) => {
      answer += String(chunk)
    })
  })

describe("handoff run --config, for real", () => {
  it("serves, swaps on the trigger, and tells of the journal", { timeout: 60_000 }, async () => {
    using directory = temporaryDirectory()
    await using processes = managedProcesses()
    const [v1, v2, trigger, journal] = ["v1", "v2", "trigger", "journal"].map((name) => directory.file(name))
    for (const path of [v1 ?? "", v2 ?? ""]) writeFileSync(path, SERVER, { mode: 0o755 })
    writeFileSync(journal ?? "", "torn")
    const config = directory.file("handoff.toml")
    writeFileSync(
      config,
      `trigger_socket = "${trigger}"
       binary = "${v1}"
       args = ["one two"]
       env = [["LOG", "debug"]]
       journal = "${journal}"
       allowed_binaries = ["${v2}"]
       [[listeners]]
       name = "http"
       addr = "127.0.0.1:0"`
    )
    const run = processes.start(process.execPath, [
      ...["--conditions=@handoff/source", MAIN, "run", "--state-dir", directory.file("state")],
      ...["--ready", "settle:200ms", "--config", config]
    ])
    await run.line(/ serves on http=127\.0\.0\.1:\d+;/)
    await run.line(/handoff: journal .*\/journal: it can't be read; set aside as .*\/journal\.old/)
    await run.line(/\[gen 1\] up .*\/v1 one two debug/)
    expect(await ask(trigger ?? "", `handoff ${v2}\n`)).toMatch(
      /^ok: handoff_id=[0-9a-f-]{36} committed=true abort_reason=None\n$/
    )
    await run.line(/\[gen 2\] up .*\/v2 one two debug/)
    // Without a name it is the file's program again, not the one that serves.
    expect(await ask(trigger ?? "", "handoff\n")).toContain("committed=true")
    await run.line(/\[gen 3\] up .*\/v1 one two debug/)
    expect(await ask(trigger ?? "", `handoff ${process.execPath}\n`)).toContain("err: binary ")
    run.child.kill("SIGTERM")
    expect(await Promise.race([run.ended, once(AbortSignal.timeout(10_000), "abort")])).toMatchObject({ code: 0 })
    expect(existsSync(trigger ?? "")).toBe(false)
  })

  it("makes sealed swaps through the control socket it names", { timeout: 60_000 }, async () => {
    using directory = temporaryDirectory()
    await using processes = managedProcesses()
    const config = directory.file("handoff.toml")
    writeFileSync(
      config,
      `control_socket = "${directory.file("control")}"
       trigger_socket = "${directory.file("trigger")}"
       binary = "${process.execPath}"
       args = ["--conditions=@handoff/source", "${SEALED}", "${directory.file("data")}"]
       deadline_secs = 40
       [[listeners]]
       name = "http"
       addr = "127.0.0.1:0"`
    )
    mkdirSync(directory.file("data"))
    const run = processes.start(process.execPath, [
      ...["--conditions=@handoff/source", MAIN, "run", "--state-dir", directory.file("state"), "--config", config]
    ])
    await run.line(/ serves on http=127\.0\.0\.1:\d+;/)
    expect(existsSync(directory.file("control"))).toBe(true)
    const answer = await ask(directory.file("trigger"), "handoff\n")
    expect(answer).toMatch(/^ok: handoff_id=[0-9a-f]{8}-[0-9a-f-]{27} committed=true abort_reason=None\n$/)
    expect(answer).not.toContain("00000000-0000")
    await run.line(/it has the data/)
    run.child.kill("SIGTERM")
    expect(await Promise.race([run.ended, once(AbortSignal.timeout(10_000), "abort")])).toMatchObject({ code: 0 })
  })
})

import { existsSync, writeFileSync } from "node:fs"
import { get } from "node:http"
import { fileURLToPath } from "node:url"
import type * as Address from "@handoff/core/Address"
import * as Result from "effect/Result"
import { describe, expect, it } from "vitest"
import { managedProcesses } from "../../../../test/support/ManagedProcesses.ts"
import { type TemporaryDirectory, temporaryDirectory } from "../../../../test/support/TemporaryDirectory.ts"
import { requireTool } from "../../../../test/support/Tools.ts"
import * as ServiceManager from "../../src/cli/ServiceManager.ts"

const tcp: Address.Address = { _tag: "Tcp", host: "127.0.0.1", port: 8080 }
const descriptor = (fd: number, name: string, reachable = true): ServiceManager.Descriptor => ({
  name,
  fd,
  address: tcp,
  reachable
})

describe("descriptors of a service manager", () => {
  it("go to the listeners of their names, in whatever order", () => {
    const { taken, unused } = ServiceManager.assign([descriptor(3, "b"), descriptor(4, "a")], ["a", "b", "c"])
    expect([...taken]).toEqual([
      ["b", 3],
      ["a", 4]
    ])
    expect(unused).toEqual([])
  })

  it.each(["unknown", "", "web.socket"])(
    "go to the only listener when there is one of each and it is named %j",
    (name) => expect([...ServiceManager.assign([descriptor(3, name)], ["http"]).taken]).toEqual([["http", 3]])
  )

  it.each([
    ["a name that no listener has", [descriptor(3, "htpp")], ["http"], "no listener has that name"],
    ["two unnamed ones", [descriptor(3, "unknown"), descriptor(4, "unknown")], ["http"], "no listener has that name"],
    ["an unnamed one for two listeners", [descriptor(3, "unknown")], ["a", "b"], "no listener has that name"],
    ["a unix socket without its path", [descriptor(3, "http", false)], ["http"], "its path is gone"]
  ] as const)("are left and reported: %s", (_, descriptors, wanted, why) => {
    const { taken, unused, notes } = ServiceManager.assign(descriptors, wanted)
    expect(taken.size).toBe(0)
    expect(unused).toEqual(descriptors)
    for (const note of notes) expect(note).toContain(`is not used: ${why}`)
  })

  it("are taken once: a second one of the name is left", () => {
    const { taken, unused, notes } = ServiceManager.assign([descriptor(3, "http"), descriptor(4, "http")], ["http"])
    expect([...taken]).toEqual([["http", 3]])
    expect(unused.map(({ fd }) => fd)).toEqual([4])
    expect(notes.at(-1)).toContain("another one of that name was taken")
  })

  it("are for us only when LISTEN_PID says so; then the variables are consumed", () => {
    for (const LISTEN_PID of [undefined, "1", ""]) {
      const environment = { LISTEN_FDS: "1", NOTIFY_SOCKET: "/n", ...(LISTEN_PID === undefined ? {} : { LISTEN_PID }) }
      expect(Result.getOrThrow(ServiceManager.take(environment, 42))).toEqual({ descriptors: [], notifySocket: "/n" })
      expect(environment).toEqual({ LISTEN_FDS: "1", ...(LISTEN_PID === undefined ? {} : { LISTEN_PID }) })
    }
    const none = { LISTEN_FDS: "0", LISTEN_PID: "42", PATH: "/bin" }
    expect(Result.getOrThrow(ServiceManager.take(none, 42)).descriptors).toEqual([])
    expect(none).toEqual({ PATH: "/bin" })
  })

  it("that are no listeners are refused, and nothing is consumed", () => {
    const environment = { LISTEN_FDS: "9999", LISTEN_PID: "42" }
    const failure = Result.getOrThrow(Result.flip(ServiceManager.take(environment, 42)))
    expect(failure.message).toMatch(/^listeners of the service manager: "unknown": descriptor \d+|.*not/)
    expect(environment).toEqual({ LISTEN_FDS: "9999", LISTEN_PID: "42" })
  })
})

const SERVER = `
const server = require("node:http").createServer((request, response) => {
  response.setHeader("connection", "close")
  response.end(process.pid + " " + Object.keys(process.env).filter((key) => /^(LISTEN_|NOTIFY)/.test(key)).sort())
})
server.listen({ fd: 3 }, () => {
  const { NOTIFY_SOCKET } = process.env
  console.log("notify " + NOTIFY_SOCKET)
})
process.on("SIGTERM", () => server.close(() => process.exit(0)))
`
const MAIN = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url))
const MANAGER = fileURLToPath(new URL("fixtures/manager.py", import.meta.url))

const fetchText = (address: string): Promise<string> =>
  new Promise((resolve, reject) => {
    // Bounded: a test that times out is left where it waits, and never comes to end what it started.
    get(`http://${address}/`, { agent: false, signal: AbortSignal.timeout(10_000) }, (response) => {
      let text = ""
      response.on("data", (chunk) => {
        text += String(chunk)
      })
      response.on("end", () => resolve(text))
      response.on("error", reject)
    }).on("error", reject)
  })

const python = requireTool("python3")

/** A manager that can start `handoff run` with one listener. */
const manage = (
  processes: ReturnType<typeof managedProcesses>,
  directory: TemporaryDirectory,
  listener = "http=127.0.0.1:0",
  notify = directory.file("notify")
) => {
  const script = directory.file("server.cjs")
  writeFileSync(script, SERVER)
  const run = [process.execPath, "--conditions=@handoff/source", MAIN, "run", "--state-dir", directory.file("state")]
  const options = ["-l", listener, "--ready", "settle:200ms", "--", process.execPath, script]
  const manager = processes.start(python.path ?? "", [MANAGER, notify, ...run, ...options], {
    stdio: ["pipe", "pipe", "pipe"]
  })
  const command = (text: string) => void manager.child.stdin?.write(`${text}\n`)
  return { manager, command }
}

describe.skipIf(!python.available)(`handoff run under a service manager${python.reason}`, () => {
  it("stores its listener, says when it serves and when it stops", { timeout: 40_000 }, async () => {
    using directory = temporaryDirectory()
    await using processes = managedProcesses()
    const name = `@handoff-test-${process.pid}-${Date.now()}`
    const { manager, command } = manage(processes, directory, "http=127.0.0.1:0", name)
    command("start")
    const [, stored] = await manager.line(/"FDNAME": "http"\}, "bound": \["\('127.0.0.1', (\d+)\)"\]/)
    await manager.line(/"READY": "1", "STATUS": "serving"/)
    const [, served] = await manager.line(/ serves on http=127\.0\.0\.1:(\d+);/)
    expect(served).toBe(stored)
    const { stdout } = manager.output()
    expect(stdout.indexOf("FDSTORE")).toBeLessThan(stdout.indexOf("READY"))
    // Its own variables, not ours.
    expect(await fetchText(`127.0.0.1:${served}`)).toMatch(/ LISTEN_FDNAMES,LISTEN_FDS,LISTEN_PID,NOTIFY_SOCKET$/)
    const [, told] = await manager.line(/notify (\S+)/)
    expect(told).not.toBe(name)

    command("kill SIGTERM")
    await manager.line(/"STOPPING": "1"/)
    await manager.line(/"ended": 0/)
  })

  it("gets its listener back after it was killed, with the connections that waited", { timeout: 40_000 }, async () => {
    using directory = temporaryDirectory()
    await using processes = managedProcesses()
    const { manager, command } = manage(processes, directory)
    command("start")
    const [, port] = await manager.line(/ serves on http=127\.0\.0\.1:(\d+);/)
    const first = await fetchText(`127.0.0.1:${port}`)
    command("kill SIGKILL")
    await manager.line(/"ended": 9/)
    // Nobody but the store holds the listener now.
    process.kill(Number(first.split(" ")[0]), "SIGKILL")
    const waiting = fetchText(`127.0.0.1:${port}`)
    command("start")
    await manager.line(/listener http is descriptor 3 \("http", 127\.0\.0\.1:\d+\) of the service manager/)
    const second = await waiting
    expect(second.split(" ")[0]).not.toBe(first.split(" ")[0])
    // What came out of the store is not stored again.
    expect(manager.output().stdout.match(/FDSTORE"/g)).toHaveLength(1)
    command("kill SIGTERM")
    await manager.line(/"ended": 0/)
  })

  it("goes on with the generation that outlived it", { timeout: 40_000 }, async () => {
    using directory = temporaryDirectory()
    await using processes = managedProcesses()
    const { manager, command } = manage(processes, directory)
    command("start")
    const [, port] = await manager.line(/ serves on http=127\.0\.0\.1:(\d+);/)
    const before = await fetchText(`127.0.0.1:${port}`)
    command("kill SIGKILL")
    await manager.line(/"ended": 9/)
    expect(await fetchText(`127.0.0.1:${port}`)).toBe(before)
    command("start")
    await manager.line(/listener http is descriptor 3 /)
    await manager.line(/generation 1 lives on as process \d+ \(serving\) and is taken over/)
    await manager.line(/"READY": "1"(.*\n)*.*"READY": "1"/)
    expect(await fetchText(`127.0.0.1:${port}`)).toBe(before)
    command("kill SIGTERM")
    await manager.line(/"ended": 0/)
  })

  it("takes an activated socket named for its unit, and reports what nobody takes", { timeout: 40_000 }, async () => {
    using directory = temporaryDirectory()
    await using processes = managedProcesses()
    const { manager, command } = manage(processes, directory)
    command("bind web.socket")
    const [, address = ""] = await manager.line(/"bound": "([^"]+)"/)
    command("start")
    await manager.line(/listener http is descriptor 3 \("web\.socket"/)
    await manager.line(/"READY": "1"/)
    expect(await fetchText(address)).toMatch(/^\d+ /)
    command("kill SIGTERM")
    await manager.line(/"ended": 0/)
    command("bind other")
    command("start")
    await manager.line(/descriptor 4 \("other", .*\) of the service manager is not used: no listener has that name/)
    command("kill SIGTERM")
  })

  it("binds a unix socket anew whose path went with an orderly stop", { timeout: 40_000 }, async () => {
    using directory = temporaryDirectory()
    await using processes = managedProcesses()
    const path = directory.file("web.sock")
    const { manager, command } = manage(processes, directory, `http=unix:${path}`)
    command("start")
    await manager.line(/"READY": "1"/)
    command("kill SIGTERM")
    await manager.line(/"ended": 0/)
    expect(existsSync(path)).toBe(false)
    command("start")
    await manager.line(/is not used: its path is gone; the listener binds anew/)
    await manager.line(/"FDSTOREREMOVE": "1", "FDNAME": "http"/)
    await manager.line(/"FDSTORE": "1", "FDNAME": "http"[^\n]*\n(.*\n)*.*"FDSTORE": "1"/)
    await manager.line(/"READY": "1"(.*\n)*.*"READY": "1"/)
    expect(existsSync(path)).toBe(true)
    command("kill SIGTERM")
  })
})

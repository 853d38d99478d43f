import { existsSync, writeFileSync } from "node:fs"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { describe, expect, it } from "vitest"
import { parseWrk, startLoad } from "./Load.ts"
import { managedProcesses } from "./ManagedProcesses.ts"
import { descriptorsOf, isAlive } from "./ProcessTable.ts"
import { count, format } from "./Reporter.ts"
import { temporaryDirectory } from "./TemporaryDirectory.ts"
import { requireTool } from "./Tools.ts"

describe("managed processes", () => {
  it("ends an orphaned grandchild that ignores SIGTERM, by pid", async () => {
    let grandchild = 0
    {
      await using processes = managedProcesses()
      const script = "sh -c 'trap \"\" TERM; echo pid $$; while :; do sleep 0.1; done' & echo started"
      const started = processes.start("sh", ["-c", script])
      grandchild = Number((await started.line(/pid (\d+)/))[1])
      expect(isAlive(grandchild)).toBe(true)
    }
    expect(isAlive(grandchild)).toBe(false)
  })

  it("a line that never comes is an error that shows what came instead", async () => {
    await using processes = managedProcesses()
    const started = processes.start("sh", ["-c", "echo something else"])
    await expect(started.line(/expected/)).rejects.toThrow("something else")
  })

  it("gives the status of a program that ran to its end, and kills one that does not end", async () => {
    await using processes = managedProcesses()
    expect((await processes.run("sh", ["-c", "exit 7"])).code).toBe(7)
    expect((await processes.run("sleep", ["60"], { timeoutMs: 50 })).signal).toBe("SIGKILL")
  })
})

it("a temporary directory is gone after its block, with what is in it", () => {
  let path = ""
  {
    using directory = temporaryDirectory()
    path = directory.path
    writeFileSync(directory.file("a"), "")
    expect(existsSync(path)).toBe(true)
  }
  expect(existsSync(path)).toBe(false)
})

describe("a missing program", () => {
  const withCi = <A>(value: string | undefined, body: () => A): A => {
    const before = process.env.CI
    if (value === undefined) delete process.env.CI
    else process.env.CI = value
    try {
      return body()
    } finally {
      if (before === undefined) delete process.env.CI
      else process.env.CI = before
    }
  }

  it("is a reason to skip on a developer's machine", () => {
    expect(withCi(undefined, () => requireTool("no-such-program"))).toEqual({
      available: false,
      path: undefined,
      reason: " (skipped: no no-such-program in PATH)"
    })
  })

  it("is one that is too old", () => {
    using directory = temporaryDirectory()
    const before = process.env.PATH
    writeFileSync(directory.file("old-program"), "#!/bin/sh\necho old-program 1.85.0\n", { mode: 0o755 })
    process.env.PATH = `${directory.path}:${before}`
    try {
      expect(withCi(undefined, () => requireTool("old-program", "1.92")).reason).toContain("is 1.85, needed is 1.92")
      expect(() => withCi("true", () => requireTool("old-program", "2.0"))).toThrow("needed is 2.0")
      expect(requireTool("old-program", "1.9").available).toBe(true)
    } finally {
      process.env.PATH = before
    }
  })

  it("is an error in CI, never a skip", () => {
    expect(() => withCi("true", () => requireTool("no-such-program"))).toThrow("no-such-program")
  })
})

it("the closing line counts modules that fail to load, failing hooks and unhandled errors as failures", () => {
  const test = (state: string) => ({ result: () => ({ state }) })
  const module = (errors: number, suiteErrors: number, states: ReadonlyArray<string>) => ({
    errors: () => Array.from({ length: errors }),
    children: {
      allSuites: () => [{ errors: () => Array.from({ length: suiteErrors }) }],
      allTests: () => states.map(test)
    }
  })
  const modules = [module(1, 0, []), module(0, 1, ["skipped", "passed"]), module(0, 0, ["failed", "pending", "passed"])]
  const counts = count(modules as never, 1)
  expect(format(counts)).toBe("2 passed, 5 failed, 1 skipped")
})

it("descriptors of a process name what they refer to", () => {
  expect([...descriptorsOf(process.pid).keys()]).toContain(0)
})

describe("wrk's report", () => {
  const report = (more: string) =>
    `Running 1s test @ http://127.0.0.1:1/\n  24000 requests in 1.00s, 3.8MB read\n${more}`

  it("counts refused, reset, cut and late requests and error statuses as failed", () => {
    expect(parseWrk(report(""))).toMatchObject({ requests: 24_000, failed: 0 })
    const errors = "  Socket errors: connect 1, read 2, write 3, timeout 4\n  Non-2xx or 3xx responses: 5\n"
    expect(parseWrk(report(errors)).failed).toBe(15)
  })

  it("is not taken for a success when wrk said nothing", () => {
    expect(() => parseWrk("unable to connect to 127.0.0.1:1")).toThrow("unable to connect")
  })
})

it("the load counts cut bodies, error statuses and refused connections as failed, and whole answers by version", async () => {
  let answers = 0
  const server = createServer((_, response) => {
    answers += 1
    if (answers % 3 === 1) response.end(JSON.stringify({ version: "v1" }))
    else if (answers % 3 === 2) response.writeHead(503).end()
    else response.writeHead(200, { "content-length": 100 }).end("cut", () => response.destroy())
  })
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  const { port } = server.address() as AddressInfo
  using load = startLoad({ port, kept: 2, fresh: 2 })
  await expect.poll(() => answers).toBeGreaterThan(30)
  server.close()
  server.closeAllConnections()
  await expect.poll(() => load.counts().errors.ECONNREFUSED ?? 0).toBeGreaterThan(0)
  const { byVersion, failed, errors, requests } = await load.stop()
  expect(byVersion.v1).toBeGreaterThan(0)
  expect(errors["status 503"]).toBeGreaterThan(0)
  expect(failed + (byVersion.v1 ?? 0)).toBe(requests)
})

import { chmodSync, mkdirSync, renameSync, symlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as FfiExecutables from "@handoff/backend-ffi/Executables"
import { Executables } from "@handoff/core/backend/Executables"
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { runner, tempDir } from "./support/Harness.ts"

const run = runner(FfiExecutables.layer)

const resolve = (program: string, workingDirectory: string, path: string) =>
  Executables.use((executables) => executables.resolve(program, { workingDirectory, path }))

const program = (directory: string, name: string, mode = 0o755): string => {
  mkdirSync(directory, { recursive: true })
  const path = join(directory, name)
  writeFileSync(path, "#!/bin/sh\n")
  chmodSync(path, mode)
  return path
}

describe("a program", () => {
  it("is the first of PATH that can be run, past directories and files that can't", async () => {
    const root = tempDir()
    mkdirSync(join(root, "a", "tool"), { recursive: true })
    program(join(root, "b"), "tool", 0o644)
    const found = program(join(root, "c"), "tool")
    program(join(root, "d"), "tool")
    expect(await run(resolve("tool", "/", ["a", "b", "c", "d"].map((name) => join(root, name)).join(":")))).toBe(found)
  })

  it("is looked up in the working directory for an empty entry only", async () => {
    const root = tempDir()
    const found = program(root, "tool")
    expect(await run(resolve("tool", root, "/nowhere::/usr/bin"))).toBe(found)
    expect(await run(Effect.flip(resolve("tool", root, "/nowhere")))).toMatchObject({
      reason: "NotFound",
      tried: ["/nowhere/tool"]
    })
  })

  it("with a slash is taken relative to the working directory, never from PATH", async () => {
    const root = tempDir()
    const found = program(join(root, "bin"), "tool")
    expect(await run(resolve("./bin/tool", root, ""))).toBe(found)
    expect(await run(resolve("bin/tool", root, ""))).toBe(found)
    expect(await run(resolve(found, "/", ""))).toBe(found)
  })

  it("that can't be run is said to be so, and a directory too", async () => {
    const root = tempDir()
    program(root, "tool", 0o644)
    expect(await run(Effect.flip(resolve("tool", "/", root)))).toMatchObject({ reason: "NotExecutable" })
    expect(await run(Effect.flip(resolve(root, "/", "")))).toMatchObject({ reason: "IsDirectory" })
    expect(await run(Effect.flip(resolve("", "/", root)))).toMatchObject({ reason: "NotFound" })
  })

  it("behind a link that moved is the new one at the next look", async () => {
    const root = tempDir()
    program(join(root, "v1"), "tool")
    symlinkSync("v1", join(root, "current"))
    expect(await run(resolve("current/tool", root, ""))).toBe(join(root, "current", "tool"))
    symlinkSync("v2", join(root, "next"))
    renameSync(join(root, "next"), join(root, "current"))
    expect(await run(Effect.flip(resolve("current/tool", root, "")))).toMatchObject({ reason: "NotFound" })
    program(join(root, "v2"), "tool")
    expect(await run(resolve("current/tool", root, ""))).toBe(join(root, "current", "tool"))
  })
})

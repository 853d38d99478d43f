import { execFileSync } from "node:child_process"
import { describe, expect, it } from "vitest"

/** The modules a fresh process loads for an entry, as file paths. */
const modulesOf = (entry: string): ReadonlyArray<string> => {
  const script = `
    import { registerHooks } from "node:module"
    const urls = []
    registerHooks({ load: (url, context, next) => (urls.push(url), next(url, context)) })
    await import(${JSON.stringify(entry)})
    console.log(urls.join("\\n"))`
  const args = ["--conditions=@handoff/source", "--input-type=module", "--eval", script]
  return execFileSync(process.execPath, args, { cwd: import.meta.dirname, encoding: "utf8" })
    .trim()
    .split("\n")
}

describe("importing the daemon library", () => {
  it("loads neither Effect's runtime, nor Schema, nor a platform, nor the FFI", () => {
    const modules = modulesOf("@handoff/supervisor/daemon")
    const heavy =
      /effect\/dist\/(Effect|Schema|Layer|Scope|Context|Stream)\.js|platform-node|ffi-rs|backend-ffi|node:http2?$/
    expect(modules.some((url) => url.endsWith("daemon/index.ts"))).toBe(true)
    expect(modules.filter((url) => heavy.test(url))).toEqual([])
    expect(modules.length).toBeLessThan(45)
  })

  it("offers the same to programs in Effect", () => {
    expect(modulesOf("@handoff/supervisor/daemon/effect").some((url) => url.endsWith("effect/dist/Effect.js"))).toBe(
      true
    )
  })
})

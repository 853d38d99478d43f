/**
 * core decides and does nothing: it must run in a simulator, in another runtime and in a test without a clock. The lint
 * rules that say so are run here against the sources, and against a bad file so that we know they bite; and the plan
 * modules must not draw Effect's runtime or Schema in, which would cost every short command its start.
 */
import { execFile, execFileSync } from "node:child_process"
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { dirname, join, relative } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { describe, expect, it } from "vitest"

const root = fileURLToPath(new URL("../../..", import.meta.url))
const sources = join(root, "packages/core/src")
const biome = join(dirname(createRequire(import.meta.url).resolve("@biomejs/biome/package.json")), "bin/biome")

/** Runs the lint rules of purity in a directory that has the project's configuration. */
const lint = (directory: string): { readonly failed: boolean; readonly output: string } => {
  const rules = ["style/noRestrictedGlobals", "style/noRestrictedImports", "correctness/noNodejsModules"]
  const options = ["--colors=off", "--error-on-warnings", "--max-diagnostics=50", "--vcs-enabled=false"]
  const args = [biome, "lint", ...options, ...rules.map((rule) => `--only=${rule}`), "packages/core/src"]
  try {
    const output = execFileSync(process.execPath, args, { cwd: directory, encoding: "utf8", stdio: "pipe" })
    return { failed: false, output }
  } catch (error) {
    return { failed: true, output: `${Reflect.get(Object(error), "stdout")}${Reflect.get(Object(error), "stderr")}` }
  }
}

const FORBIDDEN = {
  Process: ["process.exit()", "noRestrictedGlobals"],
  Buffer: ["Buffer.alloc(1)", "noRestrictedGlobals"],
  Timer: ["setTimeout(() => {}, 1)", "noRestrictedGlobals"],
  Clock: ["new Date()", "noRestrictedGlobals"],
  Now: ["Date.now()", "noRestrictedGlobals"],
  Console: ["console.log(1)", "noRestrictedGlobals"],
  Performance: ["performance.now()", "noRestrictedGlobals"],
  Node: ['import "node:fs"', "noNodejsModules"],
  Ffi: ['import "ffi-rs"', "noRestrictedImports"]
} as const

describe("core is pure", () => {
  it("no file imports node: or another platform module", () => {
    const files = readdirSync(sources, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".ts"))
    expect(files.length).toBeGreaterThan(20)
    const allowed = /^(\.{1,2}\/|effect\/)/
    const strangers = files.flatMap((file) => {
      const text = readFileSync(join(sources, file), "utf8")
      const imported = text.matchAll(/(?:\b(?:from|import) |\bimport\()"([^"]+)"\)?$/gm)
      return Array.from(imported, ([, name = ""]) => name)
        .filter((name) => !allowed.test(name))
        .map((name) => `${file}: ${name}`)
    })
    expect(strangers).toEqual([])
  })

  it("no file uses a global of the platform or reads a clock", () => {
    expect(lint(root)).toMatchObject({ failed: false })
  })

  it("the lint rules refuse each of them in core, as they should, and do not mind a local name", () => {
    const directory = mkdtempSync(join(tmpdir(), "purity-"))
    try {
      const bad = join(directory, "packages/core/src")
      mkdirSync(bad, { recursive: true })
      copyFileSync(join(root, "biome.json"), join(directory, "biome.json"))
      for (const [name, [line]] of Object.entries(FORBIDDEN)) writeFileSync(join(bad, `${name}.ts`), `${line}\n`)
      writeFileSync(join(bad, "Local.ts"), "export const run = (process: { exit: () => number }) => process.exit()\n")
      const { output } = lint(directory)
      for (const [name, [, rule]] of Object.entries(FORBIDDEN)) {
        expect(output).toMatch(new RegExp(`core/src/${name}\\.ts:1:\\d+ lint/\\w+/${rule}`))
      }
      expect(output).not.toContain("Local.ts")
    } finally {
      rmSync(directory, { recursive: true })
    }
  })
})

const LIST_LOADED = `
import { registerHooks } from "node:module"
const loaded = []
registerHooks({ load: (url, context, next) => { loaded.push(url); return next(url, context) } })
await import(process.argv[1])
console.log(JSON.stringify(loaded))
`

const loadedBy = async (module: string): Promise<ReadonlyArray<string>> => {
  const args = ["--conditions=@handoff/source", "--input-type=module", "--eval", LIST_LOADED, module]
  const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: dirname(sources), timeout: 15_000 })
  return (JSON.parse(stdout) as ReadonlyArray<string>).map((url) => relative(root, fileURLToPath(url)))
}

// Type stripping and module.registerHooks: Node 22.18 and later.
const [major = 0, minor = 0] = process.versions.node.split(".").map(Number)
const canStrip = major > 22 || (major === 22 && minor >= 18)

describe.skipIf(!canStrip)("what a plan module loads (needs Node 22.18)", () => {
  it.each(["PlacementPlan", "Placement", "FdTable", "FdTableDraft", "Seal", "Launch", "ListenEnvironment", "Address"])(
    "@handoff/core/%s neither Effect's runtime nor Schema nor a backend contract",
    async (module) => {
      const loaded = await loadedBy(`@handoff/core/${module}`)
      expect(loaded).toContain(`packages/core/src/${module}.ts`)
      const heavy =
        /effect\/(dist|src)\/(Effect|Schema\w*|Layer|Context|Runtime|Fiber|Stream|Cause|Exit|Scope|Config|index|internal\/(effect|schema)[^/]*)\.[jt]s$/
      expect(loaded.filter((file) => heavy.test(file) || file.includes("core/src/backend/"))).toEqual([])
      expect(loaded.length).toBeLessThan(40)
    }
  )

  it("the check finds Effect's runtime where it is", async () => {
    const loaded = await loadedBy("@handoff/core/backend/Launcher")
    expect(loaded.length).toBeGreaterThan(0)
    expect(loaded.some((file) => /effect\/dist\/(Context|Effect)\.js$/.test(file))).toBe(true)
  })
})

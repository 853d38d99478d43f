/**
 * What a user gets: the three packages packed, installed from their tarballs in an empty project, every public module
 * imported there, the command run. Dependencies come from the registry (or npm's cache) as they would for a user.
 */
import { globSync, readFileSync, writeFileSync } from "node:fs"
import { basename, join } from "node:path"
import { beforeAll, describe, expect, it } from "vitest"
import { BUILD_TIMEOUT, ensureBuilt, ROOT } from "../support/Build.ts"
import { managedProcesses } from "../support/ManagedProcesses.ts"
import { temporaryDirectory } from "../support/TemporaryDirectory.ts"

const PACKAGES = ["core", "backend-ffi", "supervisor"] as const

beforeAll(ensureBuilt, BUILD_TIMEOUT)

interface Manifest {
  readonly name: string
  readonly version: string
  readonly exports: Readonly<Record<string, string | null | Readonly<Record<string, string>>>>
}

const manifestOf = (name: string): Manifest =>
  JSON.parse(readFileSync(join(ROOT, "packages", name, "package.json"), "utf8")) as Manifest

/** Every module that the exports map lets out, as one imports it. */
const publicModules = (folder: string): ReadonlyArray<string> => {
  const { name, exports } = manifestOf(folder)
  const hidden = Object.keys(exports).filter((key) => exports[key] === null)
  const specifiers = globSync("**/*.ts", { cwd: join(ROOT, "packages", folder, "src") })
    .map((file) => `./${file.replace(/\.ts$/, "")}`)
    .filter((path) => path !== "./index" && !path.endsWith("/index"))
    .filter((path) => !hidden.some((pattern) => path.startsWith(pattern.replace("*", ""))))
  const named = Object.keys(exports).filter((key) => !key.includes("*"))
  return [...new Set([...named, ...specifiers])].map((path) => join(name, path))
}

describe("the packed packages", () => {
  it("install in an empty project, where every public module can be imported and the command runs", {
    timeout: 240_000
  }, async () => {
    await using processes = managedProcesses()
    using project = temporaryDirectory("handoff-pack-")
    const tarballs: Array<string> = []
    for (const folder of PACKAGES) {
      const packed = await processes.run("npm", ["pack", "--json", "--pack-destination", project.path], {
        cwd: join(ROOT, "packages", folder)
      })
      expect(packed.code, packed.stderr).toBe(0)
      const { name, version } = manifestOf(folder)
      tarballs.push(project.file(`${name.slice(1).replace("/", "-")}-${version}.tgz`))
    }
    writeFileSync(project.file("package.json"), JSON.stringify({ name: "empty", private: true, type: "module" }))
    const options = ["--no-audit", "--no-fund", "--prefer-offline", "--ignore-scripts", "--loglevel=error"]
    const installed = await processes.run("npm", ["install", ...options, ...tarballs], {
      cwd: project.path,
      timeoutMs: 200_000
    })
    expect(installed.code, installed.stderr).toBe(0)

    const specifiers = PACKAGES.flatMap(publicModules)
    expect(specifiers.length).toBeGreaterThan(20)
    const script = `
      const failed = []
      for (const name of ${JSON.stringify(specifiers)}) await import(name).catch((error) => failed.push(name + ": " + error.message))
      console.log(JSON.stringify(failed))
      process.exit(0)`
    const imported = await processes.run(process.execPath, ["--input-type=module", "-e", script], { cwd: project.path })
    expect(imported.stdout.trim(), imported.stderr).toBe("[]")

    const refused = await processes.run(
      process.execPath,
      ["--input-type=module", "-e", `await import("@handoff/core/internal/SupervisionDraft")`],
      { cwd: project.path }
    )
    expect(refused.stderr).toContain("ERR_PACKAGE_PATH_NOT_EXPORTED")

    const bin = project.file("node_modules", ".bin", "handoff")
    const version = await processes.run(process.execPath, [bin, "--version"], { cwd: project.path })
    expect(version).toMatchObject({ code: 0, stderr: "" })
    expect(version.stdout).toContain(manifestOf("supervisor").version)
    const doctor = await processes.run(process.execPath, [bin, "doctor"], { cwd: project.path })
    expect(doctor.code, doctor.stdout + doctor.stderr).toBe(0)
  })

  it("contain what they need and no tests", async () => {
    await using processes = managedProcesses()
    for (const folder of PACKAGES) {
      const { stdout } = await processes.run("npm", ["pack", "--dry-run", "--json"], {
        cwd: join(ROOT, "packages", folder)
      })
      const entry: unknown = JSON.parse(stdout)
      const listed = JSON.stringify(entry)
      for (const wanted of ["LICENSE", "README.md", "package.json", "dist/index.js", "dist/index.d.ts"]) {
        expect(listed, `${folder} lacks ${wanted}`).toContain(`"${wanted}"`)
      }
      expect(listed, basename(folder)).not.toMatch(/\.test\.|"test\//)
    }
  })
})

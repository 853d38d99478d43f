/**
 * The real side of the backend contract: the observing program, built once a process, and a harness around it.
 *
 * Reports go into files that exist before the launch and that anybody may write: a child may have become another user.
 */
import { execFileSync } from "node:child_process"
import {
  chmodSync,
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as BackendContract from "@handoff/core/testing/BackendContract"
import type { ChildView } from "@handoff/core/testing/ChildView"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { requireTool } from "../../../../../test/support/Tools.ts"

/** The C compiler, or why tests with an observer are skipped. */
export const compiler = requireTool("cc")

const makeDirectory = (): string => {
  const path = mkdtempSync(join(tmpdir(), "handoff-observer-"))
  chmodSync(path, 0o755)
  return path
}

export interface Observer extends Disposable {
  readonly program: string
  readonly directory: string
}

/** Compiles the observer into a directory of its own. */
export const build = (): Observer => {
  const directory = makeDirectory()
  const program = join(directory, "observer")
  const source = fileURLToPath(new URL("./observer.c", import.meta.url))
  const fixed = ["-O1", "-o", program, source]
  try {
    // Without the dynamic linker it starts in half the time.
    execFileSync(compiler.path ?? "cc", ["-static", ...fixed], { stdio: "ignore" })
  } catch {
    execFileSync(compiler.path ?? "cc", fixed)
  }
  return { program, directory, [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }) }
}

interface RawReport
  extends Omit<ChildView, "descriptors" | "closeOnExec" | "environment" | "identity" | "noNewPrivileges"> {
  readonly fds: ReadonlyArray<{ readonly fd: number; readonly closeOnExec: boolean; readonly name: string }>
  readonly environ: ReadonlyArray<string>
  readonly uid: number
  readonly gid: number
  readonly groups: ReadonlyArray<number>
  readonly noNewPrivileges: number
}

/** Reads what an observer has written. */
export const readReport = (path: string): ChildView => {
  const { fds, environ, uid, gid, groups, noNewPrivileges, ...rest } = JSON.parse(
    readFileSync(path, "utf8")
  ) as RawReport
  const sorted = [...fds].sort((a, b) => a.fd - b.fd)
  return {
    ...rest,
    descriptors: Object.fromEntries(sorted.map(({ fd, name }) => [fd, name])),
    closeOnExec: sorted.filter(({ closeOnExec }) => closeOnExec).map(({ fd }) => fd),
    environment: Object.fromEntries(
      environ.map((text) => [text.slice(0, text.indexOf("=")), text.slice(text.indexOf("=") + 1)])
    ),
    identity: { uid, gid, groups },
    noNewPrivileges: noNewPrivileges !== 0
  }
}

/** A file for one report; anybody may write it. */
export const reportFile = (observer: Observer, name: string): string => {
  const path = join(observer.directory, name)
  writeFileSync(path, "")
  chmodSync(path, 0o666)
  return path
}

const children = (): number =>
  readdirSync("/proc/self/task").reduce((sum, task) => {
    const text = readFileSync(`/proc/self/task/${task}/children`, "utf8")
    return sum + text.split(" ").filter((part) => part.trim() !== "").length
  }, 0)

const scopedDirectory = Effect.acquireRelease(Effect.sync(makeDirectory), (path) =>
  Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

const openFiles = (count: number) =>
  Effect.flatMap(scopedDirectory, (directory) =>
    Effect.forEach(
      Array.from({ length: count }, (_, index) => join(directory, `file-${index}`)),
      (name) =>
        Effect.acquireRelease(
          Effect.sync(() => {
            writeFileSync(name, "")
            return { name, fd: openSync(name, "r") }
          }),
          ({ fd }) => Effect.sync(() => closeSync(fd))
        )
    )
  )

let reports = 0

/** The harness of a backend on this machine. */
export const harness = (observer: Observer): Layer.Layer<BackendContract.Harness> =>
  Layer.succeed(BackendContract.Harness, {
    observer: Effect.sync(() => {
      const path = reportFile(observer, `report-${reports++}`)
      const view = Effect.try({
        try: () => readReport(path),
        catch: (error) => new BackendContract.ContractViolation({ detail: `the observer wrote no report: ${error}` })
      })
      return { program: observer.program, argv: ["observer", "report", path], view: () => view }
    }),
    command: (behaviour) => ({
      program: observer.program,
      argv: typeof behaviour === "string" ? ["observer", behaviour] : ["observer", "exit", String(behaviour.exit)]
    }),
    openFiles,
    temporaryDirectory: scopedDirectory,
    contents: (directory) =>
      Effect.sync(() =>
        Object.fromEntries(
          readdirSync(directory).map((name) => {
            const path = join(directory, name)
            return [name, { text: readFileSync(path, "utf8"), mode: statSync(path).mode & 0o777 }]
          })
        )
      ),
    self: Effect.sync(() => ({
      pid: process.pid,
      uid: process.getuid?.() ?? -1,
      umask: process.umask(),
      workingDirectory: process.cwd(),
      descriptors: readdirSync("/proc/self/fd").length,
      children: children()
    }))
  })

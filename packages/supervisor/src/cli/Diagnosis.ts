/**
 * What `handoff doctor` finds out: the backend's own probe, the kernel's limit on backlogs, the state directory, Node.
 */
import { accessSync, constants, existsSync, readFileSync, statSync } from "node:fs"
import { dirname } from "node:path"
import * as Platform from "@handoff/backend-ffi/Platform"
import * as Effect from "effect/Effect"
import { VERSION } from "../Version.ts"
import * as StateDirectory from "./StateDirectory.ts"
import { table } from "./StatusText.ts"

export interface Finding {
  readonly subject: string
  /** `bad` ends the hope, `note` is worth knowing. */
  readonly state: "ok" | "note" | "bad"
  readonly detail: string
}

export interface Diagnosis {
  readonly ok: boolean
  readonly version: string
  readonly node: string
  readonly stateDirectory: string
  readonly running: ReadonlyArray<string>
  readonly backend: Platform.Report
  readonly findings: ReadonlyArray<Finding>
}

/** What a supervisor asks for by default. */
const BACKLOG = 4096
const SOMAXCONN = "/proc/sys/net/core/somaxconn"

const backendFindings = (report: Platform.Report): ReadonlyArray<Finding> => [
  {
    subject: "platform",
    state: report.supported ? "ok" : "bad",
    detail: `${report.platform} ${report.arch}, kernel ${report.kernel}, ${report.libc ?? "no C library"}`
  },
  ...report.checks.map(
    ({ name, required, ok, why }): Finding => ({
      subject: name,
      state: ok ? "ok" : required ? "bad" : "note",
      detail: why
    })
  )
]

const backlog = (): Finding => {
  try {
    const limit = Number(readFileSync(SOMAXCONN, "utf8"))
    return limit >= BACKLOG
      ? { subject: "backlog", state: "ok", detail: `somaxconn is ${limit}` }
      : {
          subject: "backlog",
          state: "note",
          detail: `somaxconn is ${limit}: more connections than that can't wait; raise it with sysctl net.core.somaxconn=${BACKLOG}`
        }
  } catch {
    return { subject: "backlog", state: "note", detail: `${SOMAXCONN} can't be read` }
  }
}

const existing = (path: string): string => (existsSync(path) || dirname(path) === path ? path : existing(dirname(path)))

const directory = (path: string): Finding => {
  const subject = "state directory"
  const at = existing(path)
  try {
    accessSync(at, constants.W_OK | constants.X_OK)
    if (!statSync(at).isDirectory()) return { subject, state: "bad", detail: `${at} is no directory` }
    return { subject, state: "ok", detail: at === path ? path : `${path} (will be made under ${at})` }
  } catch {
    return { subject, state: "bad", detail: `${at} can't be written: choose another with --state-dir` }
  }
}

export const diagnose = (stateDirectory: string): Effect.Effect<Diagnosis> =>
  Effect.gen(function* () {
    const backend = Platform.probe()
    const running = yield* StateDirectory.running(stateDirectory)
    const findings: ReadonlyArray<Finding> = [
      { subject: "handoff", state: "ok", detail: VERSION },
      { subject: "node", state: "ok", detail: `${process.versions.node} (${process.execPath})` },
      ...backendFindings(backend),
      backlog(),
      directory(stateDirectory),
      { subject: "supervisors", state: "ok", detail: running.length === 0 ? "none runs" : running.join(", ") }
    ]
    return {
      ok: findings.every(({ state }) => state !== "bad"),
      version: VERSION,
      node: process.versions.node,
      stateDirectory,
      running,
      backend,
      findings
    }
  })

const MARKS = { ok: "ok", note: "note", bad: "MISSING" } as const

export const format = ({ findings, ok }: Diagnosis): string =>
  [
    ...table(findings.map(({ state, subject, detail }) => [MARKS[state], subject, detail])),
    "",
    ok ? "handoff works here" : "handoff does not work here"
  ].join("\n")

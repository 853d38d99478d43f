/**
 * Processes of one test: started with a mark in their environment, ended by pid on every path, descendants included.
 *
 * @example
 * await using processes = managedProcesses()
 * const server = processes.start(process.execPath, ["server.js"])
 * await server.line(/listening/)
 */
import { type ChildProcess, type SpawnOptions, spawn } from "node:child_process"
import { randomUUID } from "node:crypto"
import { once } from "node:events"
import { setTimeout as sleep } from "node:timers/promises"
import { isAlive, processesMarked } from "./ProcessTable.ts"

const MARK = "HANDOFF_TEST_MARK"

export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

export interface ManagedProcess {
  readonly child: ChildProcess
  readonly pid: number
  /** Everything written so far. */
  readonly output: () => { readonly stdout: string; readonly stderr: string }
  /** Waits until a line of either stream matches; fails when the process ends before, or after `timeoutMs` (15,000). */
  readonly line: (pattern: RegExp, timeoutMs?: number) => Promise<RegExpExecArray>
  readonly ended: Promise<Ended>
}

export interface ManagedProcesses extends AsyncDisposable {
  readonly start: (program: string, args: ReadonlyArray<string>, options?: SpawnOptions) => ManagedProcess
  /** Starts a program and waits for its end; kills it after `timeoutMs` (60,000). */
  readonly run: (
    program: string,
    args: ReadonlyArray<string>,
    options?: SpawnOptions & { readonly timeoutMs?: number; readonly input?: string }
  ) => Promise<Ended>
  /** Pids of everything of this test that is alive. */
  readonly alive: () => ReadonlyArray<number>
}

const collect = (child: ChildProcess, chunks: Array<string>, stream: "stdout" | "stderr", tell: () => void): void => {
  child[stream]?.setEncoding("utf8").on("data", (chunk: string) => {
    chunks.push(chunk)
    tell()
  })
}

const manage = (child: ChildProcess): ManagedProcess => {
  const stdout: Array<string> = []
  const stderr: Array<string> = []
  const waiting = new Set<() => void>()
  const tell = () => {
    for (const look of waiting) look()
  }
  collect(child, stdout, "stdout", tell)
  collect(child, stderr, "stderr", tell)
  const output = () => ({ stdout: stdout.join(""), stderr: stderr.join("") })
  const ended = new Promise<Ended>((resolve, reject) => {
    child.once("error", reject)
    child.once("close", (code, signal) => resolve({ code, signal, ...output() }))
  })
  ended.catch(() => undefined)

  const line = (pattern: RegExp, timeoutMs = 15_000): Promise<RegExpExecArray> =>
    new Promise((resolve, reject) => {
      const finish = (act: () => void) => {
        waiting.delete(look)
        clearTimeout(timer)
        act()
      }
      const complain = (why: string) =>
        finish(() => reject(new Error(`no line like ${pattern} ${why}:\n${output().stdout}${output().stderr}`)))
      const look = () => {
        const found = pattern.exec(output().stdout) ?? pattern.exec(output().stderr)
        if (found !== null) finish(() => resolve(found))
      }
      const timer = setTimeout(() => complain(`within ${timeoutMs} ms`), timeoutMs)
      waiting.add(look)
      ended.then(() => {
        look()
        if (waiting.has(look)) complain("before the process ended")
      }, reject)
      look()
    })

  return { child, pid: child.pid ?? -1, output, line, ended }
}

/** Not yet ended, e.g. because their test ran out of time in the middle of its block. */
const open = new Set<ManagedProcesses>()

/** Ends everything that was started here and is left. */
export const endAll = async (): Promise<void> => {
  for (const left of open) await left[Symbol.asyncDispose]()
}

const killAll = async (mark: string): Promise<void> => {
  // A supervisor that gets SIGTERM first may end its generations well; after two seconds nobody is asked any more.
  const deadline = Date.now() + 2_000
  let first = true
  for (let pids = processesMarked(mark); pids.length > 0; pids = processesMarked(mark)) {
    for (const pid of pids) {
      try {
        process.kill(pid, first ? "SIGTERM" : "SIGKILL")
      } catch {
        // Gone meanwhile.
      }
    }
    first = false
    while (Date.now() < deadline && processesMarked(mark).length > 0) await sleep(25)
    await sleep(10)
  }
}

export const managedProcesses = (): ManagedProcesses => {
  const value = randomUUID()
  const mark = `${MARK}=${value}`
  const started: Array<ManagedProcess> = []

  const start: ManagedProcesses["start"] = (program, args, options = {}) => {
    const child = spawn(program, args, {
      stdio: ["ignore", "pipe", "pipe"],
      ...options,
      env: { ...process.env, ...options.env, [MARK]: value }
    })
    const managed = manage(child)
    started.push(managed)
    return managed
  }

  const run: ManagedProcesses["run"] = async (program, args, { timeoutMs = 60_000, input, ...options } = {}) => {
    const managed = start(program, args, {
      ...options,
      ...(input === undefined ? {} : { stdio: ["pipe", "pipe", "pipe"] as const })
    })
    if (input !== undefined) managed.child.stdin?.end(input)
    const timer = setTimeout(() => managed.child.kill("SIGKILL"), timeoutMs)
    try {
      return await managed.ended
    } finally {
      clearTimeout(timer)
    }
  }

  const made: ManagedProcesses = {
    start,
    run,
    alive: () => processesMarked(mark),
    [Symbol.asyncDispose]: async () => {
      open.delete(made)
      await killAll(mark)
      for (const { child } of started) {
        if (child.exitCode === null && child.signalCode === null && isAlive(child.pid ?? -1)) await once(child, "exit")
        child.stdout?.destroy()
        child.stderr?.destroy()
      }
    }
  }
  open.add(made)
  return made
}

/** Real processes, descriptors and directories for tests; everything made here ends with its test. */
import { type ChildProcess, spawn } from "node:child_process"
import { mkdtempSync, readdirSync, rmSync } from "node:fs"
import { connect, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { afterEach } from "vitest"

const cleanups: Array<() => void | Promise<void>> = []

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

export const atEnd = (cleanup: () => void | Promise<void>): void => {
  cleanups.push(cleanup)
}

/** Runs an effect in the real world, its scope closed at the end. */
export const runner =
  <R, E>(layer: Layer.Layer<R, E>) =>
  <A, E2>(effect: Effect.Effect<A, E2, R | Scope.Scope>): Promise<A> =>
    Effect.runPromise(Effect.scoped(effect).pipe(Effect.provide(layer)))

export const tempDir = (): string => {
  const path = mkdtempSync(join(tmpdir(), "handoff-"))
  atEnd(() => rmSync(path, { recursive: true, force: true }))
  return path
}

/** How many descriptors this process has open; the one that reads the directory is always among them. */
export const fdCount = (): number => readdirSync("/proc/self/fd").length

const ended = (child: ChildProcess): Promise<void> =>
  child.exitCode !== null || child.signalCode !== null
    ? Promise.resolve()
    : new Promise((resolve) => child.once("exit", () => resolve()))

export interface Running {
  readonly pid: number
  readonly child: ChildProcess
  readonly ended: Promise<void>
  /** The next line it prints. */
  readonly line: () => Promise<string>
}

/** Starts a program with these descriptors from 3 up; killed at the test's end. */
export const start = (
  command: string,
  args: ReadonlyArray<string>,
  fds: ReadonlyArray<number> = [],
  options: { readonly detached?: boolean; readonly uid?: number } = {}
): Running => {
  const child = spawn(command, [...args], { stdio: ["pipe", "pipe", "inherit", ...fds], ...options })
  if (child.pid === undefined) throw new Error(`${command} did not start`)
  let text = ""
  const waiting: Array<() => void> = []
  const wake = () => {
    for (const resolve of waiting.splice(0)) resolve()
  }
  child.stdout?.on("data", (data: Buffer) => {
    text += data.toString()
    wake()
  })
  child.once("close", wake)
  const line = async (): Promise<string> => {
    while (!text.includes("\n")) {
      if (child.exitCode !== null || child.signalCode !== null) throw new Error(`${command} ended without a line`)
      await new Promise<void>((resolve) => waiting.push(resolve))
    }
    const [first = "", ...rest] = text.split("\n")
    text = rest.join("\n")
    return first
  }
  atEnd(async () => {
    child.kill("SIGKILL")
    await ended(child)
  })
  return { pid: child.pid, child, ended: ended(child), line }
}

export const python = (
  script: string,
  fds: ReadonlyArray<number> = [],
  options: { readonly detached?: boolean; readonly uid?: number } = {}
): Running => start("python3", ["-c", script], fds, options)

/** A connected client, or the code of the error. */
export const client = (
  where: { readonly path: string } | { readonly host: string; readonly port: number }
): Promise<Socket | string> =>
  new Promise((resolve) => {
    const socket = connect(where)
    atEnd(() => {
      socket.destroy()
    })
    socket.once("connect", () => resolve(socket))
    socket.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? "unknown"))
  })

/** Asks again until the answer is good; fails with the last one. */
export const eventually = async <A>(ask: () => Promise<A>, good: (answer: A) => boolean): Promise<A> => {
  const limit = Date.now() + 8000
  for (;;) {
    const answer = await ask()
    if (good(answer)) return answer
    if (Date.now() > limit) throw new Error(`still ${JSON.stringify(answer)}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

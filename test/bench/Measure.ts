/** What the benches share: medians, times of whole processes, a compiled C program. */
import { execFile, spawn } from "node:child_process"
import { once } from "node:events"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { promisify } from "node:util"
import { findTool } from "../support/Tools.ts"

export const median = (values: ReadonlyArray<number>): number => {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
}

/** Wall time of a program from start to end, in milliseconds. Throws when it fails. */
export const timeOf = async (program: string, args: ReadonlyArray<string>, cwd?: string): Promise<number> => {
  const from = performance.now()
  const child = spawn(program, args, { stdio: ["ignore", "ignore", "pipe"], ...(cwd === undefined ? {} : { cwd }) })
  let stderr = ""
  child.stderr.on("data", (chunk) => {
    stderr += String(chunk)
  })
  const [code] = await once(child, "exit")
  const taken = performance.now() - from
  if (code !== 0) throw new Error(`${program} ${args.join(" ")} ended with ${code}: ${stderr}`)
  return taken
}

/**
 * Medians of several programs that take turns, so that a busy machine slows all of them. One round before is not counted:
 * it fills caches.
 */
export const takeTurns = async (
  subjects: Readonly<Record<string, () => Promise<number>>>,
  rounds: number
): Promise<Readonly<Record<string, number>>> => {
  const times = new Map(Object.keys(subjects).map((name) => [name, [] as Array<number>]))
  for (let round = 0; round <= rounds; round += 1) {
    for (const [name, run] of Object.entries(subjects)) {
      const taken = await run()
      if (round > 0) times.get(name)?.push(taken)
    }
  }
  return Object.fromEntries([...times].map(([name, taken]) => [name, median(taken)]))
}

/** Compiles a C program into the directory; undefined without a compiler. */
export const compileC = async (directory: string, name: string, source: string): Promise<string | undefined> => {
  const compiler = findTool("cc")
  if (compiler === undefined) return undefined
  const program = join(directory, name)
  writeFileSync(`${program}.c`, source)
  await promisify(execFile)(compiler, ["-O2", "-D_GNU_SOURCE", "-o", program, `${program}.c`])
  return program
}

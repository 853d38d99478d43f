/**
 * Program look-up as a shell does it (execvp(3), POSIX "Command Search and Execution"): the contract `Executables` of core.
 *
 * Nothing is remembered: a link that moved is followed at the next launch. The path found is not resolved further, because
 * a program may look at the name it was called by.
 */
import { accessSync, constants, statSync } from "node:fs"
import { resolve as resolvePath } from "node:path"
import { ExecutableError, Executables } from "@handoff/core/backend/Executables"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"

type Verdict = "Executable" | ExecutableError["reason"]

const look = (path: string): Verdict => {
  try {
    if (statSync(path).isDirectory()) return "IsDirectory"
  } catch {
    return "NotFound"
  }
  try {
    accessSync(path, constants.X_OK)
    return "Executable"
  } catch {
    return "NotExecutable"
  }
}

const find = (
  program: string,
  options: { readonly workingDirectory: string; readonly path: string }
): Result.Result<string, ExecutableError> => {
  if (program === "" || program.includes("\0")) {
    return Result.fail(new ExecutableError({ program, reason: "NotFound", tried: [] }))
  }
  const entries = program.includes("/") ? [""] : options.path.split(":")
  const tried: Array<string> = []
  let reason: ExecutableError["reason"] = "NotFound"
  for (const entry of entries) {
    const path = resolvePath(options.workingDirectory, entry, program)
    tried.push(path)
    const verdict = look(path)
    if (verdict === "Executable") return Result.succeed(path)
    // What is there but can't be run says more than what is not there; a directory in PATH is passed over silently.
    if (verdict === "NotExecutable" || (verdict === "IsDirectory" && entries.length === 1)) reason = verdict
  }
  return Result.fail(new ExecutableError({ program, reason, tried }))
}

/** Looks programs up in the file system. */
export const layer = Layer.succeed(Executables, {
  resolve: (program, options) => Effect.suspend(() => Effect.fromResult(find(program, options)))
})

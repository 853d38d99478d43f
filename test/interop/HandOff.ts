/** One process per role, by the contract of an external fault test: an incumbent, and a supervisor that hands it over once. */
import { closeSync, openSync, readFileSync } from "node:fs"
import type { ManagedProcess, ManagedProcesses } from "../support/ManagedProcesses.ts"
import type { Place, Variables } from "./Place.ts"

/** Starts a daemon cold and waits until it can be handed over. */
export const startIncumbent = async (
  processes: ManagedProcesses,
  where: Place,
  daemon: string,
  variables: Variables = {}
): Promise<ManagedProcess> => {
  const incumbent = processes.start(daemon, [], {
    env: { ...process.env, ...where.variables, HANDOFF_CRASH_ROLE: "primitive", ...variables }
  })
  const told = await Promise.race([where.awaitMarker("incumbent-pid"), incumbent.ended])
  if (told !== String(incumbent.pid)) throw new Error(`the incumbent does not serve:\n${incumbent.output().stderr}`)
  return incumbent
}

/**
 * Runs a supervisor to its end; gives its exit status and its output, which is its successor's too.
 *
 * The output goes to a file: the successor inherits it and lives on, so a pipe would not end with the supervisor.
 */
export const handOff = async (
  processes: ManagedProcesses,
  where: Place,
  programs: { readonly supervisor: string; readonly daemon: string },
  variables: Variables = {}
): Promise<{ readonly code: number | null; readonly output: string }> => {
  const path = `${where.journal}.output`
  const output = openSync(path, "w")
  try {
    const { code } = await processes.run(programs.supervisor, [], {
      stdio: ["ignore", output, output],
      env: {
        ...process.env,
        ...where.variables,
        HANDOFF_JOURNAL: where.journal,
        HANDOFF_PRIMITIVE_BINARY: programs.daemon,
        HANDOFF_CRASH_ROLE: "supervisor",
        ...variables
      }
    })
    return { code, output: readFileSync(path, "utf8") }
  } finally {
    closeSync(output)
  }
}

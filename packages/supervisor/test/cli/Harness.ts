/** Runs the command inside the test's process and gives what it printed, and serves fake supervisors for it. */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { vi } from "vitest"
import * as AdminApi from "../../src/AdminApi.ts"
import * as AdminSocket from "../../src/AdminSocket.ts"
import { main } from "../../src/cli/Cli.ts"
import * as FakeSupervisor from "../FakeSupervisor.ts"

export interface Ran {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

export const handoff = async (...argv: ReadonlyArray<string>): Promise<Ran> => {
  const got = { stdout: "", stderr: "" }
  const spies = (["stdout", "stderr"] as const).map((name) =>
    vi.spyOn(process[name], "write").mockImplementation((text) => {
      got[name] += String(text)
      return true
    })
  )
  try {
    return { code: await main(argv), ...got }
  } finally {
    for (const spy of spies) spy.mockRestore()
  }
}

/** Gives a state directory with fake supervisors of these names for as long as `use` runs. */
export const withSupervisors = async (
  names: ReadonlyArray<string>,
  use: (stateDirectory: string, fakes: ReadonlyArray<FakeSupervisor.Fake>) => Promise<void>
): Promise<void> => {
  const stateDirectory = mkdtempSync(join(tmpdir(), "handoff-cli-"))
  const serveAll = (
    rest: ReadonlyArray<string>,
    fakes: ReadonlyArray<FakeSupervisor.Fake>
  ): Effect.Effect<void, AdminSocket.AdminSocketError> => {
    const [name, ...others] = rest
    if (name === undefined) return Effect.promise(() => use(stateDirectory, fakes))
    return Effect.gen(function* () {
      const fake = yield* FakeSupervisor.make
      fake.status = FakeSupervisor.status({ name })
      yield* AdminSocket.prepare(join(stateDirectory, name))
      const layer = AdminApi.layer(join(stateDirectory, name, "admin.sock")).pipe(Layer.provide(fake.layer))
      yield* Effect.provide(serveAll(others, [...fakes, fake]), layer)
    })
  }
  try {
    await Effect.runPromise(serveAll(names, []))
  } finally {
    rmSync(stateDirectory, { recursive: true, force: true })
  }
}

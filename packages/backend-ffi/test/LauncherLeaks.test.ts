import { join } from "node:path"
import { describe, expect, it } from "vitest"
import { managedProcesses } from "../../../test/support/ManagedProcesses.ts"

const FIXTURE = join(import.meta.dirname, "fixtures", "leak.ts")
const COUNT = 10_000
/** A kilobyte a launch would be over it; Node's own ups and downs are about half of it. */
const KILOBYTES = 8_000

const leftBy = async (program: string) => {
  await using processes = managedProcesses()
  const args = ["--expose-gc", "--conditions=@handoff/source", FIXTURE, String(COUNT), program]
  const { stdout, stderr } = await processes.run(process.execPath, args, { timeoutMs: 150_000 })
  try {
    return JSON.parse(stdout)
  } catch {
    throw new Error(`the fixture failed: ${stdout}${stderr}`)
  }
}

describe("10,000 launches leave no zombie, no descriptor and no memory", () => {
  it("when they succeed", { timeout: 160_000 }, async () => {
    const left = await leftBy("/bin/true")
    expect(left).toMatchObject({ started: COUNT, failed: 0, descriptors: 0, children: 0 })
    expect(left.kilobytes).toBeLessThan(KILOBYTES)
  })

  it("when they fail", { timeout: 160_000 }, async () => {
    const left = await leftBy("/no/such/program")
    expect(left).toMatchObject({ started: 0, failed: COUNT, descriptors: 0, children: 0 })
    expect(left.kilobytes).toBeLessThan(KILOBYTES)
  })
})

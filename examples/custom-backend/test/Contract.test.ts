import * as FfiBackend from "@handoff/backend-ffi/FfiBackend"
import * as BackendContract from "@handoff/core/testing/BackendContract"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { afterAll, beforeAll, describe, it } from "vitest"
import * as Observer from "../../../packages/core/test/testing/observer/Observer.ts"
import * as ChildProcessLauncher from "../src/ChildProcessLauncher.ts"

const cases: ReadonlyArray<BackendContract.ContractCase<FfiBackend.Services>> = [
  ...BackendContract.launcherCases,
  ...BackendContract.notificationCases,
  ...BackendContract.processCases,
  ...BackendContract.survivalCases
]

const { available, reason } = Observer.compiler

describe.skipIf(!available)(`a launcher on node:child_process keeps the contract${reason}`, () => {
  let observer: Observer.Observer | undefined
  beforeAll(() => {
    observer = Observer.build()
  })
  afterAll(() => observer?.[Symbol.dispose]())

  it.for(cases)("$name", async ({ run }, context) => {
    if (observer === undefined) throw new Error("the observer was not built")
    // The later layer's launcher takes the place of the earlier one's.
    const backend = Layer.merge(FfiBackend.layer, ChildProcessLauncher.layer)
    const layer = Layer.merge(backend, Observer.harness(observer))
    const verdict = await Effect.runPromise(run.pipe(Effect.provide(layer)))
    if (verdict !== "passed") context.skip(verdict.skipped)
  })
})

import * as FfiBackend from "@handoff/backend-ffi/FfiBackend"
import * as BackendContract from "@handoff/core/testing/BackendContract"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { afterAll, beforeAll, describe, it } from "vitest"
import * as Observer from "../../core/test/testing/observer/Observer.ts"

const cases: ReadonlyArray<BackendContract.ContractCase<FfiBackend.Services>> = [
  ...BackendContract.launcherCases,
  ...BackendContract.socketCases,
  ...BackendContract.channelCases,
  ...BackendContract.executableCases,
  ...BackendContract.fileCases,
  ...BackendContract.lockCases,
  ...BackendContract.notificationCases,
  ...BackendContract.processCases,
  ...BackendContract.survivalCases
]

describe.skipIf(!Observer.compiler.available)(`the ffi backend keeps the contract${Observer.compiler.reason}`, () => {
  let observer: Observer.Observer | undefined
  beforeAll(() => {
    observer = Observer.build()
  })
  afterAll(() => observer?.[Symbol.dispose]())

  it.for(cases)("$name", async ({ run }, context) => {
    if (observer === undefined) throw new Error("the observer was not built")
    const layer = Layer.merge(FfiBackend.layer, Observer.harness(observer))
    const verdict = await Effect.runPromise(run.pipe(Effect.provide(layer)))
    if (verdict !== "passed") context.skip(verdict.skipped)
  })
})

/**
 * Random launches carried out for real, and predicted by the simulated kernel: what the child says it was given must be
 * what was predicted, and a launch that fails must fail at the predicted call with the predicted errno.
 *
 * HANDOFF_DIFFERENTIAL_CASES sets how many (default 3,000); HANDOFF_DIFFERENTIAL_SEED repeats a run that failed.
 */
import { chmodSync, chownSync, closeSync, mkdirSync, openSync, realpathSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as LauncherLayer from "@handoff/backend-ffi/Launcher"
import * as Libc from "@handoff/backend-ffi/Libc"
import { Launcher } from "@handoff/core/backend/Launcher"
import * as Launch from "@handoff/core/Launch"
import * as Arbitraries from "@handoff/core/testing/Arbitraries"
import * as ChildView from "@handoff/core/testing/ChildView"
import * as SimulatedLaunch from "@handoff/core/testing/SimulatedLaunch"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import * as Observer from "../../core/test/testing/observer/Observer.ts"
import * as RealWorld from "../../core/test/testing/observer/RealWorld.ts"

const CASES = Number(process.env.HANDOFF_DIFFERENTIAL_CASES ?? 3000)
const SEED = Number(process.env.HANDOFF_DIFFERENTIAL_SEED ?? 20_240_229)
const ROOT = process.getuid?.() === 0
/** Cases that share one set of open descriptors and dispositions. */
const BATCH = 50
const SIG_DFL = 0
const SIG_IGN = 1
const O_CLOEXEC = 0o2000000
/** Signals that neither Node nor the launcher cares about. */
const FREE_SIGNALS = [1, 12, 16, 34, 40, 64] as const

/** Directories that some users may enter and others not, a file, and nothing at all. */
const makeDirectories = (base: string): readonly [string, ...ReadonlyArray<string>] => {
  const make = (name: string, mode: number, gid = 0) => {
    const path = join(base, name)
    mkdirSync(path)
    if (ROOT) chownSync(path, 0, gid)
    chmodSync(path, mode)
    return path
  }
  writeFileSync(join(base, "file"), "")
  return [
    make("everyone", 0o755),
    make("owner", 0o700),
    make("group", 0o750, 5),
    join(base, "file"),
    join(base, "file", "below"),
    join(base, "missing")
  ]
}

/** Descriptors at numbers of our choice, with flags of our choice: the parent's table is part of what is random. */
const openBatch = (libc: Libc.Libc, next: Arbitraries.Random, base: string): ReadonlyArray<number> => {
  const opened = Array.from({ length: 6 }, (_, index) => {
    const path = join(base, `file-${index}`)
    writeFileSync(path, "")
    return openSync(path, "r")
  })
  const taken = new Set(opened)
  for (let count = 0; count < 10; count++) {
    const target = Arbitraries.pick(next, [60 + next(20), 100 + next(400)])
    if (taken.has(target)) continue
    const source = opened[next(opened.length)] ?? 0
    const flags = Arbitraries.oneIn(next, 2) ? O_CLOEXEC : 0
    if (libc.call("dup3", "i32", ["i32", "i32", "i32"], [source, target, flags]).value === target) taken.add(target)
  }
  return [...taken]
}

/**
 * The same calls in an order no planner would choose, some of them twice: setuid before setgid, setsid after setpgid, a
 * parent-death signal that a uid change clears. Descriptor operations keep their order, execve comes last.
 */
const disorder = (next: Arbitraries.Random, plan: Launch.LaunchPlan): Launch.LaunchPlan => {
  const operations = Launch.fdOperations(plan)
  const others = plan.calls.slice(0, -1).filter((call) => Launch.capabilityOf(call) !== "placement")
  const rest = others.filter((call) => Launch.capabilityOf(call) !== "seal")
  const lead: Launch.SystemCall = { _tag: Arbitraries.oneIn(next, 2) ? "SetSession" : "SetProcessGroup" }
  const shuffled = Arbitraries.shuffle(next, [...rest, lead, ...rest.filter(() => Arbitraries.oneIn(next, 6))])
  return { version: 1, calls: [...operations, ...shuffled, ...plan.calls.slice(-1)] }
}

interface Tally {
  launched: number
  /** Wishes that the planner refuses: a soft limit over the hard one. */
  refused: number
  failed: number
  calls: number
}

describe.skipIf(!Observer.compiler.available)(`launches for real and predicted${Observer.compiler.reason}`, () => {
  let observer: Observer.Observer | undefined
  beforeAll(() => {
    observer = Observer.build()
  })
  afterAll(() => observer?.[Symbol.dispose]())

  const oneCase = Effect.fnUntraced(function* (
    spec: Launch.LaunchSpec,
    files: ReturnType<typeof RealWorld.tree>,
    report: string,
    next: Arbitraries.Random,
    tally: Tally
  ) {
    const launcher = yield* Launcher
    const facts = yield* launcher.facts
    const before = RealWorld.kernel(files, 1 << 22)
    const openDescriptors = [...(before.processes.get(process.pid)?.table.entries.keys() ?? [])]
    const old = Arbitraries.oneIn(next, 8)
    const planned = Launch.plan(spec, old ? { ...facts, closeRange: false, openDescriptors } : facts)
    if (Result.isFailure(planned)) {
      tally.refused++
      return []
    }
    const plan = Arbitraries.oneIn(next, 4) ? disorder(next, planned.success) : planned.success
    tally.calls += plan.calls.length
    const launched = yield* Effect.result(launcher.launch(plan))
    const pid = Result.isSuccess(launched) ? launched.success.pid : before.next.pid
    const predicted = SimulatedLaunch.run({ ...before, next: { ...before.next, pid } }, process.pid, plan)
    if (Result.isFailure(launched) || Result.isFailure(predicted)) {
      tally.failed++
      if (Result.isSuccess(launched)) yield* launched.success.exit
      const found = Result.isFailure(launched) ? launched.failure.message : "it was started"
      const failure = Result.isFailure(predicted) ? predicted.failure : undefined
      const wanted =
        failure === undefined
          ? "it starts"
          : `launch failed at step ${failure.step}: ${Launch.formatCall(failure.call)} = ${failure.errno}`
      return found === wanted ? [] : [`outcome: expected ${wanted}, found ${found}`, Launch.explain(plan)]
    }
    tally.launched++
    const exit = yield* launched.success.exit
    if (exit._tag !== "Exited" || exit.code !== 0) return [`exit: ${JSON.stringify(exit)}`, Launch.explain(plan)]
    const differences = ChildView.differences(predicted.success.view, Observer.readReport(report))
    return differences.length === 0 ? [] : [...differences, Launch.explain(plan)]
  })

  const runAll = Effect.fnUntraced(function* (built: Observer.Observer, libc: Libc.Libc, tally: Tally) {
    const next = Arbitraries.random(SEED)
    const base = realpathSync(built.directory)
    const report = Observer.reportFile(built, "report")
    const directories = makeDirectories(base)
    const program = realpathSync(built.program)
    const files = RealWorld.tree([program, ...directories])
    const umask = process.umask()
    const dispose = (signal: number, how: number) => libc.call("signal", "address", ["i32", "address"], [signal, how])
    for (let done = 0; done < CASES; done += BATCH) {
      const opened = openBatch(libc, next, base)
      for (const signal of FREE_SIGNALS) dispose(signal, Arbitraries.oneIn(next, 3) ? SIG_IGN : SIG_DFL)
      process.umask(Arbitraries.pick(next, [0o022, 0o077, 0o002]))
      try {
        for (let index = 0; index < BATCH; index++) {
          const missing = Arbitraries.oneIn(next, 40)
          const spec = Arbitraries.launchSpec(next, {
            program: Arbitraries.oneIn(next, 60) ? (directories[next(directories.length)] ?? program) : program,
            argv: ["observer", "report", report],
            sources: [0, 1, 2, ...opened, ...(missing ? [910] : [])],
            below: Arbitraries.oneIn(next, 10) ? 3000 : 40,
            directories: Arbitraries.oneIn(next, 2) ? directories : [directories[0]],
            root: ROOT
          })
          const wrong = yield* oneCase(spec, files, report, next, tally)
          if (wrong.length > 0) return expect.fail(`seed ${SEED}, case ${done + index}:\n${wrong.join("\n")}`)
        }
      } finally {
        process.umask(umask)
        for (const signal of FREE_SIGNALS) dispose(signal, SIG_DFL)
        for (const fd of opened) closeSync(fd)
      }
    }
  })

  it(`${CASES} random launches give the child that the simulated kernel predicts`, { timeout: 180_000 }, async () => {
    const libc = Result.getOrThrow(Libc.open())
    if (observer === undefined) throw new Error("the observer was not built")
    const tally = { launched: 0, refused: 0, failed: 0, calls: 0 }
    await Effect.runPromise(runAll(observer, libc, tally).pipe(Effect.provide(LauncherLayer.layer)))
    console.log(
      `differential: ${tally.launched} children and ${tally.failed} failing launches compared, ${tally.calls} calls, ` +
        `${tally.refused} wishes refused by the planner`
    )
    // Both kinds must have been seen, or this test has tested nothing.
    expect(tally.launched).toBeGreaterThan(CASES / 2)
    expect(tally.failed).toBeGreaterThan(CASES / 100)
  })
})

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
import { Launcher, type Process } from "@handoff/core/backend/Launcher"
import * as Launch from "@handoff/core/Launch"
import * as Arbitraries from "@handoff/core/testing/Arbitraries"
import * as ChildView from "@handoff/core/testing/ChildView"
import * as SimulatedLaunch from "@handoff/core/testing/SimulatedLaunch"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { describe, expect, it } from "vitest"
import { temporaryDirectory } from "../../../test/support/TemporaryDirectory.ts"
import { findTool } from "../../../test/support/Tools.ts"
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

/** How a child is looked at. */
interface Look {
  readonly program: string
  readonly argv: ReadonlyArray<string>
  /** What the child saw; its end is waited for. A string says what went wrong. */
  readonly view: (child: Process) => Effect.Effect<ChildView.ChildView | string>
}

/** The observer reports on itself. */
const byReport = (observer: Observer.Observer): Look => {
  const report = Observer.reportFile(observer, "report")
  return {
    program: realpathSync(observer.program),
    argv: ["observer", "report", report],
    view: ({ exit }) =>
      Effect.map(exit, (status) =>
        status._tag === "Exited" && status.code === 0 ? Observer.readReport(report) : `exit: ${JSON.stringify(status)}`
      )
  }
}

/** A program that sleeps is looked at from outside, until it looks the same twice: no compiler is needed. */
const byProc = (): Look => {
  const settled = Effect.fnUntraced(function* (pid: number) {
    let last = ""
    for (let attempt = 0; attempt < 400; attempt++) {
      const view = RealWorld.view(pid)
      const text = JSON.stringify(view)
      if (view !== undefined && text === last) return view
      last = text ?? ""
      yield* Effect.sleep(2)
    }
    return `process ${pid} did not come to rest`
  })
  return {
    program: realpathSync(findTool("sleep") ?? "/bin/sleep"),
    argv: ["sleep", "1000"],
    view: (child) =>
      Effect.ensuring(settled(child.pid), Effect.andThen(Effect.ignore(child.signal("SIGKILL")), child.exit))
  }
}

const oneCase = Effect.fnUntraced(function* (
  spec: Launch.LaunchSpec,
  files: ReturnType<typeof RealWorld.tree>,
  look: Look,
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
  const found = Result.isSuccess(launched) ? yield* look.view(launched.success) : launched.failure.message
  if (Result.isSuccess(predicted) && typeof found !== "string") {
    tally.launched++
    const { view } = predicted.success
    const unknown = found.parentDeathSignal === RealWorld.UNKNOWN_SIGNAL
    const wanted = unknown ? { ...view, parentDeathSignal: RealWorld.UNKNOWN_SIGNAL } : view
    const differences = ChildView.differences(wanted, found)
    return differences.length === 0 ? [] : [...differences, Launch.explain(plan)]
  }
  tally.failed++
  const seen = typeof found === "string" ? found : "it was started"
  const wanted = Result.isSuccess(predicted)
    ? "it starts"
    : `launch failed at step ${predicted.failure.step}: ${Launch.formatCall(predicted.failure.call)} = ${predicted.failure.errno}`
  return seen === wanted ? [] : [`outcome: expected ${wanted}, found ${seen}`, Launch.explain(plan)]
})

const runAll = Effect.fnUntraced(function* (base: string, look: Look, cases: number, tally: Tally) {
  const libc = Result.getOrThrow(Libc.open())
  const next = Arbitraries.random(SEED)
  const directories = makeDirectories(base)
  const { program, argv } = look
  const files = RealWorld.tree([program, ...directories])
  const umask = process.umask()
  const dispose = (signal: number, how: number) => libc.call("signal", "address", ["i32", "address"], [signal, how])
  for (let done = 0; done < cases; done += BATCH) {
    const opened = openBatch(libc, next, base)
    for (const signal of FREE_SIGNALS) dispose(signal, Arbitraries.oneIn(next, 3) ? SIG_IGN : SIG_DFL)
    process.umask(Arbitraries.pick(next, [0o022, 0o077, 0o002]))
    try {
      for (let index = 0; index < BATCH; index++) {
        const missing = Arbitraries.oneIn(next, 40)
        const spec = Arbitraries.launchSpec(next, {
          program: Arbitraries.oneIn(next, 60) ? (directories[next(directories.length)] ?? program) : program,
          argv,
          sources: [0, 1, 2, ...opened, ...(missing ? [910] : [])],
          below: Arbitraries.oneIn(next, 10) ? 3000 : 40,
          directories: Arbitraries.oneIn(next, 2) ? directories : [directories[0]],
          root: ROOT
        })
        const wrong = yield* oneCase(spec, files, look, next, tally)
        if (wrong.length > 0) return expect.fail(`seed ${SEED}, case ${done + index}:\n${wrong.join("\n")}`)
      }
    } finally {
      process.umask(umask)
      for (const signal of FREE_SIGNALS) dispose(signal, SIG_DFL)
      for (const fd of opened) closeSync(fd)
    }
  }
})

const compare = async (base: string, look: Look, cases: number): Promise<void> => {
  const tally = { launched: 0, refused: 0, failed: 0, calls: 0 }
  await Effect.runPromise(runAll(base, look, cases, tally).pipe(Effect.provide(LauncherLayer.layer)))
  console.log(
    `differential: ${tally.launched} children and ${tally.failed} failing launches compared, ${tally.calls} calls, ` +
      `${tally.refused} wishes refused by the planner`
  )
  // Both kinds must have been seen, or this test has tested nothing.
  expect(tally.launched).toBeGreaterThan(cases / 2)
  expect(tally.failed).toBeGreaterThan(cases / 100)
}

const { available, reason } = Observer.compiler

describe("random launches give the child that the simulated kernel predicts", () => {
  it.skipIf(!available)(`${CASES} of them, as the child reports${reason}`, { timeout: 180_000 }, async () => {
    using observer = Observer.build()
    await compare(realpathSync(observer.directory), byReport(observer), CASES)
  })

  it("200 of them, as /proc shows a child, without a compiler", { timeout: 60_000 }, async () => {
    using directory = temporaryDirectory()
    chmodSync(directory.path, 0o755)
    await compare(realpathSync(directory.path), byProc(), 200)
  })
})

/**
 * The last line of a test run, plain and alone: `13 passed, 0 failed, 0 skipped`.
 *
 * It is written when the process exits, after the coverage table and whatever else prints at the end. What failed outside
 * of a test counts as failed too: a module that could not be loaded, a suite whose hook threw, an error nobody handled, a
 * test that an interrupted run left without a result.
 */
import { writeSync } from "node:fs"
import type { Reporter, TestModule, TestRunEndReason } from "vitest/node"

export interface Counts {
  passed: number
  failed: number
  skipped: number
}

/** Counts tests, and what failed around them. */
export const count = (modules: ReadonlyArray<TestModule>, unhandledErrors: number): Counts => {
  const counts: Counts = { passed: 0, failed: unhandledErrors, skipped: 0 }
  for (const module of modules) {
    counts.failed += module.errors().length
    for (const suite of module.children.allSuites()) counts.failed += suite.errors().length
    for (const test of module.children.allTests()) {
      const state = test.result().state
      counts[state === "pending" ? "failed" : state] += 1
    }
  }
  return counts
}

export const format = ({ passed, failed, skipped }: Counts): string =>
  `${passed} passed, ${failed} failed, ${skipped} skipped`

export default class ClosingLine implements Reporter {
  private counts: Counts = { passed: 0, failed: 0, skipped: 0 }
  private ended = false

  onInit(): void {
    process.once("exit", (status) => {
      // A run that ended otherwise than through its end, or with a status that no count explains, has failed.
      if (!this.ended || (status !== 0 && this.counts.failed === 0)) this.counts.failed += 1
      writeSync(1, `\n${format(this.counts)}\n`)
    })
  }

  onTestRunEnd(
    modules: ReadonlyArray<TestModule>,
    unhandledErrors: ReadonlyArray<unknown>,
    _reason: TestRunEndReason
  ): void {
    this.ended = true
    this.counts = count(modules, unhandledErrors.length)
  }
}

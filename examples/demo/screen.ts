/**
 * What the demo shows: plain lines, and on a terminal a line below them that is redrawn ten times a second.
 */
import type { Counts } from "../../test/support/Load.ts"

export interface Screen {
  readonly say: (line: string) => void
  readonly close: () => void
}

const FRAME_MS = 100
const BAR = "▁▂▃▄▅▆▇█"

const share = (part: number, whole: number): string =>
  BAR[Math.min(BAR.length - 1, Math.floor((part / Math.max(1, whole)) * BAR.length))] ?? " "

/** `live` redraws a line of counts; `quiet` says nothing at all. */
export const makeScreen = (options: {
  readonly live: boolean
  readonly quiet: boolean
  readonly counts: () => Counts
}): Screen => {
  const begun = performance.now()
  let before = { requests: 0, byVersion: {} as Record<string, number> }
  const clear = () => {
    if (options.live) process.stdout.write("\r\x1b[K")
  }
  const frame = () => {
    const { requests, failed, byVersion, maxLatencyMs } = options.counts()
    const fresh = requests - before.requests
    const bars = Object.entries(byVersion).map(
      ([version, count]) => `${version} ${share(count - (before.byVersion[version] ?? 0), fresh)} ${count}`
    )
    before = { requests, byVersion: { ...byVersion } }
    clear()
    process.stdout.write(
      `${requests} requests, ${failed} failed, worst ${maxLatencyMs.toFixed(0)} ms   ${bars.join("   ")}`
    )
  }
  const ticker = options.live ? setInterval(frame, FRAME_MS) : undefined
  return {
    say: (line) => {
      if (options.quiet) return
      clear()
      const seconds = ((performance.now() - begun) / 1000).toFixed(1).padStart(5)
      process.stdout.write(`${seconds} s  ${line}\n`)
    },
    close: () => {
      clearInterval(ticker)
      clear()
    }
  }
}

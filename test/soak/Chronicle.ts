/** The diary of a soak: every swap, fault and word of a supervisor with its time, in a file, and the last of them at hand. */
import { closeSync, openSync, writeSync } from "node:fs"

export interface Chronicle extends Disposable {
  readonly path: string
  /** Seconds since the beginning. */
  readonly elapsed: () => number
  readonly note: (who: string, what: string) => void
  /** What was noted last, the latest at the end. */
  readonly last: (count: number) => ReadonlyArray<string>
}

const KEPT = 200

/** Creates the file. */
export const chronicle = (path: string): Chronicle => {
  const fd = openSync(path, "w", 0o600)
  const begun = performance.now()
  const kept: Array<string> = []
  let isOpen = true
  const elapsed = () => (performance.now() - begun) / 1000
  return {
    path,
    elapsed,
    note: (who, what) => {
      const line = `${elapsed().toFixed(3).padStart(9)}  ${who.padEnd(8)} ${what}`
      kept.push(line)
      if (kept.length > KEPT) kept.shift()
      if (isOpen) writeSync(fd, `${line}\n`)
    },
    last: (count) => kept.slice(-count),
    [Symbol.dispose]: () => {
      isOpen = false
      closeSync(fd)
    }
  }
}

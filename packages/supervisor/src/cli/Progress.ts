/**
 * Progress of long work on stderr: a line that shows the elapsed time where stderr is a terminal, plain lines elsewhere.
 *
 * The moving line is erased before anything else is written, and when the scope closes.
 */
import * as Effect from "effect/Effect"
import { formatDuration } from "../SupervisorError.ts"

export interface Progress {
  /** Something happened: a line that stays. */
  readonly line: (text: string) => void
}

interface Output {
  readonly isTTY?: boolean
  readonly columns?: number
  readonly write: (text: string) => unknown
}

const FRAMES = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"]
const FRAME_MS = 80
const ERASE = "\r\x1b[2K"

/** `what` is shown next to the elapsed time, with the newest line. */
export const make = (what: string, output: Output = process.stderr) =>
  Effect.gen(function* () {
    const live = output.isTTY === true && process.env.TERM !== "dumb"
    if (!live) return { line: (text: string) => void output.write(`${text}\n`) } satisfies Progress
    const startedAt = performance.now()
    let frame = 0
    let newest = ""
    const draw = () => {
      const symbol = FRAMES[frame++ % FRAMES.length] ?? ""
      const text = `${symbol} ${what} ${formatDuration(performance.now() - startedAt)}${newest === "" ? "" : ` · ${newest}`}`
      output.write(`${ERASE}${text.slice(0, Math.max(20, (output.columns || 80) - 1))}`)
    }
    yield* Effect.acquireRelease(
      Effect.sync(() => setInterval(draw, FRAME_MS)),
      (timer) =>
        Effect.sync(() => {
          clearInterval(timer)
          output.write(ERASE)
        })
    )
    return {
      line: (text: string) => {
        newest = text
        output.write(`${ERASE}  ${text}\n`)
        draw()
      }
    } satisfies Progress
  })

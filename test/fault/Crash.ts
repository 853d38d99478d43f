/**
 * How a role program of a supervisor ends at a crash point, and the markers it writes ("the contract of an external fault
 * test").
 *
 * The variables are read and removed here: a supervisor's environment is what its daemons' is made from, and they are not
 * to end at its point.
 */
import { closeSync, fsyncSync, openSync, writeSync } from "node:fs"
import { join } from "node:path"

const { env } = process

const write = (directory: string | undefined, name: string, content: string): void => {
  if (directory === undefined || directory === "") return
  const fd = openSync(join(directory, `${name}.marker`), "w")
  writeSync(fd, content)
  fsyncSync(fd)
  closeSync(fd)
}

/** Writes `NAME.marker` into HANDOFF_MARKER_DIR. */
export const mark = (name: string, content = String(process.pid)): void => write(env.HANDOFF_MARKER_DIR, name, content)

/** Gives what ends this process at the point named in HANDOFF_CRASH_AT, at once: nothing is run or flushed. */
export const takeCrashPoint = (): ((point: string) => void) => {
  const { HANDOFF_CRASH_AT: wanted, HANDOFF_CRASH_ROLE: role = "supervisor", HANDOFF_CRASH_MARKER_DIR } = env
  delete env.HANDOFF_CRASH_AT
  delete env.HANDOFF_CRASH_ROLE
  return (point) => {
    if (point !== wanted) return
    write(HANDOFF_CRASH_MARKER_DIR, `crashed-${role}`, point)
    // Not process.exit, which runs the handlers of "exit".
    Reflect.get(process, "reallyExit")(99)
  }
}

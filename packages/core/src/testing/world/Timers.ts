/**
 * The timers that are set, as sorted names; no times. One that came due while its process was stopped is marked: it may
 * fire at any moment after, beside whatever else has come in.
 *
 * A prompt timer is part of the normal course (a settle time, the next try). A slow one fires only when somebody is late:
 * it fires by itself when nothing else can happen, and any earlier it counts as a fault. `stable` only resets a count.
 */
const MARK = "!"

export const nameOf = (timer: string): string => (timer.startsWith(MARK) ? timer.slice(1) : timer)

export const isDue = (timer: string): boolean => timer.startsWith(MARK)

export const clear = (timers: ReadonlyArray<string>, name: string): ReadonlyArray<string> =>
  timers.some((one) => nameOf(one) === name) ? timers.filter((one) => nameOf(one) !== name) : timers

export const set = (timers: ReadonlyArray<string>, name: string): ReadonlyArray<string> =>
  timers.includes(name) ? timers : [...clear(timers, name), name].sort()

/** The process goes on after a while. */
export const expire = (timers: ReadonlyArray<string>): ReadonlyArray<string> =>
  timers.map((one) => MARK + nameOf(one)).sort()

/** Tries again and again; a world where only these can fire is at rest. */
export const isPoll = (name: string): boolean =>
  name === "handoff:probe" || name === "relock" || name === "publish" || name === "reclaim"

export const isPrompt = (name: string): boolean => isPoll(name) || name.startsWith("settle:") || name === "restart"

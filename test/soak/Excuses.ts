/**
 * What the faults of a soak make inevitable for clients and swaps, and nothing beyond it.
 *
 *   a killed process          resets the connections that it held at that moment, so many and no more
 *   nobody holds a listener   refuses and resets until the next supervisor serves
 *   somebody is stopped       answers wait until it goes on; so they do while a new version hangs with the data in its hands
 *   a restart is put off      answers wait until then (the supervisor says so: it backs off from a program that keeps dying)
 *   a supervisor lacks means  to write or to open anything: swaps fail, and no request does
 *
 * Times are milliseconds of `clock`.
 */

import { clock, type Failure } from "./Clients.ts"

/** What became of a request that failed. */
export const REASONS = ["its server was killed", "nobody held the listener"] as const
export type Reason = (typeof REASONS)[number]

export interface Excuses {
  /** Answers may wait until the function is called that this gives. */
  readonly hold: () => () => void
  /** Swaps may fail until the function is called that this gives, or for some time afterwards. */
  readonly disturb: () => () => void
  /** Answers may wait until then. */
  readonly putOff: (until: number) => void
  /** Processes with so many connections are about to be killed; to be told, by the function that this gives, when they are gone. */
  readonly killed: (connections: number) => () => void
  /** Nobody will hold the listener, until the function is called that this gives. */
  readonly vacant: () => () => void
  /** Whether nobody had to hold the listener at some moment since this was last asked. */
  readonly wasVacant: () => boolean
  /** From when on the time of somebody counts who has waited since then. */
  readonly countsFrom: (since: number) => number
  /** Why a request failed; undefined when nothing makes that inevitable. */
  readonly explain: (failure: Failure) => Reason | undefined
  /** Whether anything was out of order since then, or shortly before it. */
  readonly disturbed: (since: number) => boolean
}

/** Milliseconds: for a killed process's connection to show itself to a client that had not asked yet. */
const LATE = 250
/** Milliseconds after a fault in which a swap may still fail for it. */
const AFTERMATH = 5_000

const CUTS = new Set(["ECONNRESET", "EPIPE", "cut"])
const REFUSALS = new Set([...CUTS, "ECONNREFUSED"])

export const excuses = (now: () => number = clock): Excuses => {
  const kills: Array<{ readonly at: number; gone: number; left: number }> = []
  const vacancies: Array<{ readonly from: number; until: number }> = []
  let asked = Number.NEGATIVE_INFINITY
  let holds = 0
  let disturbances = 0
  let until = Number.NEGATIVE_INFINITY
  let calmSince = Number.NEGATIVE_INFINITY

  const putOff = (time: number) => {
    until = Math.max(until, time)
  }
  const once = (act: () => void) => {
    let done = false
    return () => {
      if (!done) act()
      done = true
    }
  }
  return {
    hold: () => {
      holds += 1
      return once(() => {
        holds -= 1
        putOff(now())
      })
    },
    disturb: () => {
      disturbances += 1
      return once(() => {
        disturbances -= 1
        calmSince = now()
      })
    },
    putOff,
    killed: (connections) => {
      putOff(now())
      const kill = { at: now(), gone: Number.POSITIVE_INFINITY, left: connections }
      kills.push(kill)
      return () => {
        kill.gone = now()
        putOff(now())
      }
    },
    vacant: () => {
      const vacancy = { from: now(), until: Number.POSITIVE_INFINITY }
      vacancies.push(vacancy)
      return () => {
        vacancy.until = now()
        putOff(now())
      }
    },
    wasVacant: () => {
      const since = asked
      asked = now()
      return vacancies.some((vacancy) => vacancy.until > since)
    },
    countsFrom: (since) => (holds > 0 ? now() : Math.max(since, until)),
    explain: ({ error, begun, ended: at }) => {
      const isVacant = vacancies.some((vacancy) => at >= vacancy.from && begun <= vacancy.until)
      if (isVacant && REFUSALS.has(error)) return "nobody held the listener"
      const kill = CUTS.has(error)
        ? kills.find((one) => one.left > 0 && begun <= one.gone + LATE && at >= one.at)
        : undefined
      if (kill === undefined) return undefined
      kill.left -= 1
      return "its server was killed"
    },
    disturbed: (since) =>
      holds + disturbances > 0 ||
      Math.max(until, calmSince) + AFTERMATH > since ||
      vacancies.some((vacancy) => vacancy.until + AFTERMATH > since)
  }
}

/**
 * What a sampled path of a World comes down to for real processes: which party is hit how, and when.
 *
 * Parties are named alike in both worlds: `S` is the supervisor, whichever runs; #0 is the daemon that serves at first, #1
 * the first process started after it, and so on. A point is a moment that both can name:
 *
 *   S     takes E    it has taken the event, and nothing has come of it yet
 *         saves E    it writes down what came of it (only there can a save fail)
 *         saved E    that is written, and no command has been carried out
 *         launches in E   it starts a process in that step (only there can a launch fail)
 *         s-...      a message is written, or a successor has been started (packages/supervisor/src/internal/Observer.ts)
 *   #n    open, drain, seal, resume, close, start, SIGTERM   the daemon's own code has just been entered
 *         o-..., n-...    packages/supervisor/src/daemon/internal/Points.ts
 *
 * Whoever comes to a point at which another party is to be hit stands still until that is done.
 */

export type Party = "S" | number

export type Act =
  | { readonly _tag: "dies" }
  | { readonly _tag: "fails"; readonly how: "failed" | "unhealthy" | "behind" }
  | { readonly _tag: "kill"; readonly victim: Party }
  /** SIGSTOP, and SIGCONT a moment later. */
  | { readonly _tag: "stop"; readonly victim: Party }
  | { readonly _tag: "abort" }

export interface Fault {
  readonly party: Party
  readonly point: string
  readonly act: Act
}

export const modes = ["sealed", "overlap", "exclusive"] as const
export type Mode = (typeof modes)[number]

export interface Script {
  readonly mode: Mode
  readonly faults: ReadonlyArray<Fault>
}

/** How it ended, as both worlds can tell. */
export interface Outcome {
  /** What the caller of the swap heard. */
  readonly told: string
  /** Which process serves in the end. */
  readonly serves: string
  /** What a restart would start: the old version or the new one. */
  readonly kept: string
  /** Which faults of the script came to happen, by their place in it. */
  readonly happened: string
}

export const nameOf = (party: Party): string => (party === "S" ? "S" : `#${party}`)

const actText = (fault: Fault): string => {
  const { act } = fault
  switch (act._tag) {
    case "dies":
      return "dies"
    case "fails":
      return act.how
    case "kill":
      return `kill -9 ${nameOf(act.victim)}`
    case "stop":
      return `SIGSTOP ${nameOf(act.victim)}`
    case "abort":
      return "abort"
  }
}

export const faultText = (fault: Fault): string => `${nameOf(fault.party)} at "${fault.point}": ${actText(fault)}`

export const scriptText = ({ mode, faults }: Script): string =>
  `${mode}: ${faults.length === 0 ? "no fault" : faults.map(faultText).join("; ")}`

export const outcomeText = ({ told, serves, kept, happened }: Outcome): string =>
  `${told}, ${serves} serves, ${kept} version kept, faults ${happened === "" ? "-" : happened}`

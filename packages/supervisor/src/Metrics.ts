/**
 * What Prometheus reads of a supervisor: its status and counts, as text in the exposition format 0.0.4.
 *
 * A pure function over plain values. Counters live with whoever watches the events (the status remembers only the last
 * swaps), so they start at 0 with each supervisor, as Prometheus expects of a restarted process.
 */
import type { Phase } from "@handoff/core/swap/Sealed"
import type { Status, SupervisorEvent } from "./Supervisor.ts"

/** Counted since the supervisor started. Durations are in milliseconds. */
export interface Counts {
  readonly committed: number
  readonly rolledBack: number
  readonly swapMilliseconds: number
  readonly connectionsCut: number
  readonly generationsKilled: number
  readonly sealed: SealedCounts
}

interface Total {
  readonly count: number
  readonly milliseconds: number
}

/** Of sealed swaps alone, as the Rust crate counts them. */
export interface SealedCounts {
  readonly committed: number
  readonly rolledBack: number
  readonly sealFailures: number
  readonly duration: Total
  /** Time spent in a phase by the swaps that left it for the next one. */
  readonly drain: Total
  readonly seal: Total
  readonly open: Total
  /** Where the running one is, and since when. */
  readonly phase: { readonly name: Phase; readonly at: number } | undefined
}

const nothing: Total = { count: 0, milliseconds: 0 }

const noSealedCounts: SealedCounts = {
  committed: 0,
  rolledBack: 0,
  sealFailures: 0,
  duration: nothing,
  drain: nothing,
  seal: nothing,
  open: nothing,
  phase: undefined
}

export const noCounts: Counts = {
  committed: 0,
  rolledBack: 0,
  swapMilliseconds: 0,
  connectionsCut: 0,
  generationsKilled: 0,
  sealed: noSealedCounts
}

const add = (total: Total, milliseconds: number): Total => ({
  count: total.count + 1,
  milliseconds: total.milliseconds + milliseconds
})

const timed = { draining: "drain", sealing: "seal", opening: "open" } as const
const next = { draining: "sealing", sealing: "opening", opening: "publishing" } as const

const isTimed = (phase: Phase | undefined): phase is keyof typeof timed => phase !== undefined && phase in timed

const countPhase = (counts: SealedCounts, name: Phase, at: number): SealedCounts => {
  const { phase: before } = counts
  const after = { ...counts, phase: name === "ended" ? undefined : { name, at } }
  if (before === undefined || !isTimed(before.name) || next[before.name] !== name) return after
  const key = timed[before.name]
  return { ...after, [key]: add(counts[key], at - before.at) }
}

const countSealed = (counts: SealedCounts, event: Extract<SupervisorEvent, { readonly _tag: "SwapEnded" }>) => {
  const { mode, outcome, durationMs, failure } = event.record
  if (mode !== "sealed") return counts
  const sealFailed = failure?._tag === "HandoffFailed" && failure.reason._tag === "SealFailed"
  return {
    ...counts,
    committed: counts.committed + (outcome === "committed" ? 1 : 0),
    rolledBack: counts.rolledBack + (outcome === "committed" ? 0 : 1),
    sealFailures: counts.sealFailures + (sealFailed ? 1 : 0),
    duration: add(counts.duration, durationMs)
  }
}

/** The counts after one more event. */
export const count = (counts: Counts, event: SupervisorEvent): Counts => {
  switch (event._tag) {
    case "SwapEnded": {
      const { outcome, durationMs, cut } = event.record
      const committed = outcome === "committed" ? 1 : 0
      return {
        ...counts,
        committed: counts.committed + committed,
        rolledBack: counts.rolledBack + 1 - committed,
        swapMilliseconds: counts.swapMilliseconds + durationMs,
        connectionsCut: counts.connectionsCut + cut,
        sealed: countSealed(counts.sealed, event)
      }
    }
    case "HandoffPhase":
      return { ...counts, sealed: countPhase(counts.sealed, event.phase, event.at) }
    case "GenerationKilled":
      return { ...counts, generationsKilled: counts.generationsKilled + 1 }
    default:
      return counts
  }
}

interface Sample {
  readonly suffix?: string
  readonly labels?: Readonly<Record<string, string>>
  readonly value: number
}

const escapeLabel = (text: string): string =>
  text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n")

const family = (name: string, type: "counter" | "gauge" | "summary", help: string, samples: ReadonlyArray<Sample>) => {
  const lines = samples.map(({ suffix = "", labels = {}, value }) => {
    const pairs = Object.entries(labels).map(([key, text]) => `${key}="${escapeLabel(text)}"`)
    return `${name}${suffix}${pairs.length === 0 ? "" : `{${pairs.join(",")}}`} ${value}`
  })
  return [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`, ...lines].join("\n")
}

const summary = (name: string, help: string, { count, milliseconds }: Total) =>
  family(name, "summary", help, [
    { suffix: "_sum", value: milliseconds / 1000 },
    { suffix: "_count", value: count }
  ])

/** Under the names of the Rust crate, so that its dashboards go on. */
const sealedFamilies = (sealed: SealedCounts): ReadonlyArray<string> => {
  const counter = (name: string, help: string, value: number) => family(name, "counter", help, [{ value }])
  const { committed, rolledBack, sealFailures } = sealed
  return [
    counter("handoff_handoffs_total", "Ended sealed swaps.", committed + rolledBack),
    counter("handoff_failures_total", "Sealed swaps that did not commit.", rolledBack),
    counter("handoff_rolled_back_total", "Sealed swaps after which the old version serves as before.", rolledBack),
    counter("handoff_seal_failures_total", "Sealed swaps whose incumbent could not seal.", sealFailures),
    summary("handoff_duration_seconds", "Time from the request of a sealed swap to its end.", sealed.duration),
    summary("handoff_drain_seconds", "Time from PrepareHandoff to Drained.", sealed.drain),
    summary("handoff_seal_seconds", "Time from SealRequest to SealComplete.", sealed.seal),
    summary("handoff_begin_to_ready_seconds", "Time from Begin to Ready.", sealed.open)
  ]
}

const PHASES = ["launching", "starting", "serving", "draining", "rejected"] as const

/**
 * The text of `GET /metrics`.
 *
 * @example
 * Metrics.format(status, Metrics.noCounts).includes('handoff_swaps_total{outcome="committed"} 0')
 */
export const format = (status: Status, counts: Counts): string => {
  const connections = (phase: string) =>
    status.generations.filter((one) => one.phase === phase).reduce((sum, one) => sum + one.connections, 0)
  const families = [
    family("handoff_info", "gauge", "Name and version of the supervisor.", [
      { labels: { name: status.name, version: status.version }, value: 1 }
    ]),
    family("handoff_start_time_seconds", "gauge", "When the supervisor started, in seconds since 1970.", [
      { value: status.startedAt / 1000 }
    ]),
    family("handoff_swaps_total", "counter", "Ended swaps and rollbacks by outcome.", [
      { labels: { outcome: "committed" }, value: counts.committed },
      { labels: { outcome: "rolled_back" }, value: counts.rolledBack }
    ]),
    family("handoff_swap_duration_seconds", "summary", "Time from the request of a swap to its end.", [
      { suffix: "_sum", value: counts.swapMilliseconds / 1000 },
      { suffix: "_count", value: counts.committed + counts.rolledBack }
    ]),
    family("handoff_swap_running", "gauge", "1 while a swap runs.", [{ value: status.swap === undefined ? 0 : 1 }]),
    family("handoff_restarts_total", "counter", "Restarts of a serving generation that died.", [
      { value: status.restarts.total }
    ]),
    family("handoff_generations", "gauge", "Generations that exist, by phase.", [
      ...PHASES.map((phase) => ({
        labels: { phase },
        value: status.generations.filter((one) => one.phase === phase).length
      }))
    ]),
    family("handoff_generations_killed_total", "counter", "Generations that had to be killed.", [
      { value: counts.generationsKilled }
    ]),
    family("handoff_serving_generation", "gauge", "Number of the generation that serves, 0 for none.", [
      { value: status.serving ?? 0 }
    ]),
    family("handoff_connections_serving", "gauge", "Connections held by the generation that serves.", [
      { value: connections("serving") }
    ]),
    family("handoff_connections_draining", "gauge", "Connections held by generations that drain.", [
      { value: connections("draining") }
    ]),
    family("handoff_connections_cut_total", "counter", "Connections cut when a rejected generation was ended.", [
      { value: counts.connectionsCut }
    ]),
    ...sealedFamilies(counts.sealed)
  ]
  return `${families.join("\n")}\n`
}

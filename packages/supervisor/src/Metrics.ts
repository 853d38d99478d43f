/**
 * What Prometheus reads of a supervisor: its status and counts, as text in the exposition format 0.0.4.
 *
 * A pure function over plain values. Counters live with whoever watches the events (the status remembers only the last
 * swaps), so they start at 0 with each supervisor, as Prometheus expects of a restarted process.
 */
import type { Status, SupervisorEvent } from "./Supervisor.ts"

/** Counted since the supervisor started. Durations are in milliseconds. */
export interface Counts {
  readonly committed: number
  readonly rolledBack: number
  readonly swapMilliseconds: number
  readonly connectionsCut: number
  readonly generationsKilled: number
}

export const noCounts: Counts = {
  committed: 0,
  rolledBack: 0,
  swapMilliseconds: 0,
  connectionsCut: 0,
  generationsKilled: 0
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
        connectionsCut: counts.connectionsCut + cut
      }
    }
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
    ])
  ]
  return `${families.join("\n")}\n`
}

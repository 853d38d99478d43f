/**
 * How a swap replaces one generation by the next.
 *
 *   sealed      the daemon owns data and speaks the handoff protocol: old drains, seals and lets go, then new takes over
 *   overlap     new starts beside old on the same listeners; when it is ready old drains. Any program, no gap
 *   exclusive   old stops, then new starts: for a program that must not run twice and knows no protocol
 *
 * In the gap of the first and the last, connections wait in the listeners' queues.
 */
export type Mode = "sealed" | "overlap" | "exclusive"

/** `auto`: sealed for a generation that serves a handoff socket, overlap for any other. */
export const WISHES = ["auto", "sealed", "overlap", "exclusive"] as const

export type Wish = (typeof WISHES)[number]

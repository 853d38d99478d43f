/**
 * What goes over the admin socket, for both ends. Types only: a client that imports this loads nothing.
 */
import type { Refusal } from "@handoff/core/swap/Supervision"
import type { Status, SupervisorEvent, SwapReport } from "./Supervisor.ts"

/** The last line of `POST /swap` and `POST /rollback`. `message` is one sentence for a person. */
export type SwapVerdict =
  | ({ readonly _tag: "SwapEnded"; readonly message: string } & SwapReport)
  | { readonly _tag: "SwapRefused"; readonly refusal: Refusal; readonly message: string }

/** The first line of `GET /events`: where things stand when the watch begins. */
export interface Watching {
  readonly _tag: "Watching"
  readonly phase: Status["phase"]
  readonly serving: number | null
}

/** One line of a streamed answer. The verdict stands in for the SwapEnded event. */
export type AdminLine = SupervisorEvent | SwapVerdict | Watching

export type AbortAnswer =
  | { readonly _tag: "Aborting"; readonly swap: number }
  | { readonly _tag: "Refused"; readonly refusal: Refusal; readonly message: string }

/** The body of every 4xx that is about the input: which part of it, and what is wrong with it. */
export interface ErrorBody {
  readonly error: { readonly at: string; readonly message: string }
}

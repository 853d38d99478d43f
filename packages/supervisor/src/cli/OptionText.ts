/**
 * The text forms of the command's options: durations, listeners, variables, readiness, signals. Pure; a failure says what
 * was expected, the option's name is added by whoever asked.
 */
import * as Address from "@handoff/core/Address"
import * as ListenEnvironment from "@handoff/core/ListenEnvironment"
import * as Signal from "@handoff/core/Signal"
import type * as Readiness from "@handoff/core/swap/Readiness"
import * as Result from "effect/Result"

type Parsed<A> = Result.Result<A, string>

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }
/** Longer timers overflow setTimeout, which then fires at once. */
const MAX_DURATION_MS = 2 ** 31 - 1

/** `500ms`, `1.5s`, `2m`, `1h`, `0s` in milliseconds. A number without a unit is refused: of which unit? */
export const duration = (text: string): Parsed<number> => {
  const [, number, unit = ""] = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(text) ?? []
  const factor = UNITS[unit]
  if (number === undefined || factor === undefined) return Result.fail("a duration such as 500ms, 30s or 2m")
  const milliseconds = Math.round(Number(number) * factor)
  return milliseconds > MAX_DURATION_MS ? Result.fail("a duration of at most 596h") : Result.succeed(milliseconds)
}

export interface NamedListener {
  readonly name: string
  readonly address: string
}

/** `http=127.0.0.1:8080`. The address is checked here and kept as text. */
export const listener = (text: string): Parsed<NamedListener> => {
  const equals = text.indexOf("=")
  if (equals < 1) return Result.fail("NAME=ADDR, such as http=127.0.0.1:8080 or http=unix:/run/app.sock")
  const name = text.slice(0, equals)
  const address = text.slice(equals + 1)
  if (!ListenEnvironment.isName(name)) {
    return Result.fail("a name of 1 to 255 printable ASCII characters without a colon")
  }
  // Listeners are kept by name in descriptor order, and JavaScript puts keys that are numbers first.
  if (/^\d+$/.test(name)) return Result.fail("a name that is not a number")
  const parsed = Address.parse(address)
  return Result.isFailure(parsed)
    ? Result.fail(
        `NAME=ADDR with an address that is HOST:PORT, :PORT, [V6]:PORT or unix:PATH; ${parsed.failure.detail}`
      )
    : Result.succeed({ name, address })
}

/** `KEY=VALUE`; the value may be empty and may hold `=`. */
export const variable = (text: string): Parsed<readonly [string, string]> => {
  const equals = text.indexOf("=")
  if (equals < 1) return Result.fail("KEY=VALUE")
  const key = text.slice(0, equals)
  if (ListenEnvironment.VARIABLES.some((own) => own === key)) {
    return Result.fail(`another variable: handoff sets ${key} itself`)
  }
  return Result.succeed([key, text.slice(equals + 1)])
}

/** A path, as it is. */
export const path = (text: string): Parsed<string> =>
  text === "" || text.includes("\0") ? Result.fail("a path") : Result.succeed(text)

export interface Ready {
  readonly policy: Readiness.Policy
  readonly settleMs?: number
}

/** `auto`, `notify`, `accepting`, `settle:2s`. */
export const ready = (text: string): Parsed<Ready> => {
  if (text === "auto" || text === "notify" || text === "accepting") return Result.succeed({ policy: text })
  const failure = "auto, notify, accepting or settle:DURATION such as settle:2s"
  if (!text.startsWith("settle:")) return Result.fail(failure)
  return Result.mapBoth(duration(text.slice("settle:".length)), {
    onSuccess: (settleMs) => ({ policy: "settle" as const, settleMs }),
    onFailure: () => failure
  })
}

/** `SIGTERM`, `TERM` or `15`. */
export const stopSignal = (text: string): Parsed<Signal.SignalName> => {
  const name = Signal.parse(text)
  if (name === undefined) return Result.fail("a signal such as SIGTERM, QUIT or 15")
  return name === "SIGKILL" || name === "SIGSTOP"
    ? Result.fail(`a signal that a program can catch: ${name} would let nothing drain`)
    : Result.succeed(name)
}

/** A supervisor's name is a directory's name. */
export const supervisorName = (text: string): Parsed<string> =>
  /^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$/.test(text)
    ? Result.succeed(text)
    : Result.fail("a name of 1 to 64 letters, digits, dots, dashes and underscores")

/** `--generations`: a swap needs two. */
export const generationLimit = (text: string): Parsed<number> =>
  /^\d{1,4}$/.test(text) && Number(text) >= 2 ? Result.succeed(Number(text)) : Result.fail("a number of at least 2")

/** What the cases of the backend contract are made of. */
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Fd } from "../../Fd.ts"
import type { ChildView } from "../ChildView.ts"

/** A backend does not do what its contract says. */
export class ContractViolation extends Data.TaggedError("ContractViolation")<{ readonly detail: string }> {
  override get message(): string {
    return this.detail
  }
}

/** What a case found: that the backend passes, or why it was not asked. */
export type Verdict = "passed" | { readonly skipped: string }

/** One case. It fails with whatever went wrong; what it needs is provided by the harness of a backend. */
export interface ContractCase<R> {
  readonly name: string
  readonly run: Effect.Effect<Verdict, { readonly message: string }, R | Harness>
}

/** A program that a case starts. */
export interface Command {
  readonly program: string
  readonly argv: ReadonlyArray<string>
}

/** A program that reports on itself. */
export interface Observer extends Command {
  /** What the observer with this pid saw right after exec; asked once it has exited. */
  readonly view: (pid: number) => Effect.Effect<ChildView, ContractViolation>
}

/** `"sleep"` waits for ever; `"wrap"` starts a child process in its own group that does, and waits too. */
export type Behaviour = { readonly exit: number } | "sleep" | "wrap"

/** What the harness of a backend brings: programs to start, and a look at the world outside of the contract. */
export class Harness extends Context.Service<
  Harness,
  {
    /** A fresh observer. It sends READY=1 to NOTIFY_SOCKET if there is one, and exits with status 0. */
    readonly observer: Effect.Effect<Observer, never, Scope.Scope>
    readonly command: (behaviour: Behaviour) => Command
    /** Distinct files opened with close-on-exec, and the names that an observer reports for them. */
    readonly openFiles: (
      count: number
    ) => Effect.Effect<ReadonlyArray<{ readonly fd: Fd; readonly name: string }>, never, Scope.Scope>
    /** A short absolute path, searchable by everyone. */
    readonly temporaryDirectory: Effect.Effect<string, never, Scope.Scope>
    /** The files right in a directory: their text and permission bits by name. */
    readonly contents: (
      directory: string
    ) => Effect.Effect<Readonly<Record<string, { readonly text: string; readonly mode: number }>>>
    /** The process that uses the backend. `descriptors` and `children` are counts, zombies included. */
    readonly self: Effect.Effect<{
      readonly pid: number
      readonly uid: number
      readonly umask: number
      readonly workingDirectory: string
      readonly descriptors: number
      readonly children: number
    }>
  }
>()("@handoff/core/testing/contract/Harness") {}

/** Fails unless `found` and `wanted` have the same JSON. */
export const same = (what: string, found: unknown, wanted: unknown): Effect.Effect<void, ContractViolation> => {
  const [a, b] = [JSON.stringify(found), JSON.stringify(wanted)]
  return a === b ? Effect.void : Effect.fail(new ContractViolation({ detail: `${what} is ${a}, expected ${b}` }))
}

export const holds = (detail: string, condition: boolean): Effect.Effect<void, ContractViolation> =>
  condition ? Effect.void : Effect.fail(new ContractViolation({ detail }))

const ATTEMPTS = 500
const PAUSE_MS = 10

/** Asks again until the answer is as it must become; a violation after five seconds. */
export const eventually = <A, E, R>(
  what: string,
  ask: Effect.Effect<A, E, R>,
  good: (answer: A) => boolean
): Effect.Effect<A, E | ContractViolation, R> =>
  Effect.gen(function* () {
    for (let attempt = 1; ; attempt++) {
      const answer = yield* ask
      if (good(answer)) return answer
      if (attempt === ATTEMPTS) {
        return yield* new ContractViolation({ detail: `${what} is still ${JSON.stringify(answer)}` })
      }
      yield* Effect.sleep(PAUSE_MS)
    }
  })

/** The error of an effect that must fail. */
export const refused = <A, E, R>(
  what: string,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<E, ContractViolation, R> =>
  Effect.matchEffect(effect, {
    onFailure: (error) => Effect.succeed(error),
    onSuccess: () => Effect.fail(new ContractViolation({ detail: `${what} succeeded, it must fail` }))
  })

/** A case; its scope closes when it ends. Without a verdict it has passed. */
export const contractCase = <E extends { readonly message: string }, R>(
  name: string,
  body: Effect.Effect<Verdict | undefined, E, R>
): ContractCase<Exclude<R, Scope.Scope | Harness>> => ({
  name,
  // The compiler can't see through two steps of Exclude: R less Scope is R less Scope and Harness, or Harness.
  run: Effect.map(Effect.scoped(body), (verdict) => verdict ?? "passed") as Effect.Effect<
    Verdict,
    E,
    Exclude<R, Scope.Scope | Harness> | Harness
  >
})

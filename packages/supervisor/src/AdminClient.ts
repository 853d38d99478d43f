/**
 * A small client of the admin socket on `node:http`, with nothing of effect/http: `handoff status` must start quickly.
 *
 * Fails with AdminClientError: `NotRunning` when nobody listens, `Lost` when the connection broke before the answer was
 * whole, `BadAnswer` for anything that is no answer of a supervisor.
 */
import { type IncomingMessage, request } from "node:http"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import type { AbortAnswer, AdminLine } from "./AdminMessages.ts"
import type { Status } from "./Supervisor.ts"

export type AdminClientReason =
  | { readonly _tag: "NotRunning" }
  | { readonly _tag: "Lost"; readonly detail: string }
  | { readonly _tag: "BadAnswer"; readonly status: number; readonly detail: string }

export class AdminClientError extends Data.TaggedError("AdminClientError")<{
  readonly path: string
  readonly reason: AdminClientReason
}> {
  override get message(): string {
    return describe(this.path, this.reason)
  }
}

const describe = (path: string, reason: AdminClientReason): string => {
  switch (reason._tag) {
    case "NotRunning":
      return `no supervisor listens at ${path}`
    case "Lost":
      return `the connection to the supervisor was lost: ${reason.detail}`
    case "BadAnswer":
      return `the supervisor answered with status ${reason.status}: ${reason.detail}`
  }
}

export interface Call {
  readonly method: "GET" | "POST"
  readonly resource: string
  readonly body?: unknown
  /** Called with each line of the answer as it comes. */
  readonly onLine?: (line: string) => void
}

interface Answer {
  readonly status: number
  readonly text: string
}

const ABSENT = new Set(["ENOENT", "ECONNREFUSED", "ENOTDIR", "ENOTSOCK"])
const MAX_ANSWER_CHARACTERS = 64 * 1024 * 1024

const receive = (answer: IncomingMessage, onLine: Call["onLine"], done: (text: string) => void): void => {
  let text = ""
  let scanned = 0
  answer.setEncoding("utf8")
  answer.on("data", (chunk: string) => {
    text += chunk
    if (onLine === undefined) {
      if (text.length > MAX_ANSWER_CHARACTERS) answer.destroy(new Error("the answer is too long"))
      return
    }
    for (let end = text.indexOf("\n", scanned); end >= 0; end = text.indexOf("\n", scanned)) {
      onLine(text.slice(scanned, end))
      scanned = end + 1
    }
    text = text.slice(scanned)
    scanned = 0
  })
  answer.on("end", () => done(text))
}

/** One request. Interrupting it closes the connection. */
export const call = (path: string, { method, resource, body, onLine }: Call): Effect.Effect<Answer, AdminClientError> =>
  Effect.callback<Answer, AdminClientError>((resume) => {
    const fail = (reason: AdminClientReason) => resume(Effect.fail(new AdminClientError({ path, reason })))
    const text = body === undefined ? undefined : JSON.stringify(body)
    const outgoing = request({
      socketPath: path,
      host: "handoff",
      method,
      path: resource,
      agent: false,
      headers:
        text === undefined ? {} : { "content-type": "application/json", "content-length": Buffer.byteLength(text) }
    })
    outgoing.on("error", (error: NodeJS.ErrnoException) =>
      fail(ABSENT.has(error.code ?? "") ? { _tag: "NotRunning" } : { _tag: "Lost", detail: error.message })
    )
    outgoing.on("response", (answer) => {
      answer.on("error", (error) => fail({ _tag: "Lost", detail: error.message }))
      receive(answer, onLine, (rest) => resume(Effect.succeed({ status: answer.statusCode ?? 0, text: rest })))
    })
    outgoing.end(text)
    return Effect.sync(() => outgoing.destroy())
  })

const badAnswer = (path: string, status: number, text: string) => {
  const detail = errorIn(text) ?? text.slice(0, 200)
  return new AdminClientError({ path, reason: { _tag: "BadAnswer", status, detail } })
}

/** The message of an error body, as `at: message`. */
const errorIn = (text: string): string | undefined => {
  try {
    const { error } = JSON.parse(text)
    return `${error.at}: ${error.message}`
  } catch {
    return undefined
  }
}

const callJson = <A>(path: string, wish: Call, statuses: ReadonlyArray<number>): Effect.Effect<A, AdminClientError> =>
  Effect.flatMap(call(path, wish), ({ status, text }) => {
    if (!statuses.includes(status)) return Effect.fail(badAnswer(path, status, text))
    // The answer's shape is the contract of AdminMessages: both ends are the same package.
    return Effect.try({ try: () => JSON.parse(text) as A, catch: () => badAnswer(path, status, text) })
  })

/** `GET /status`. */
export const status = (path: string): Effect.Effect<Status, AdminClientError> =>
  callJson(path, { method: "GET", resource: "/status" }, [200])

/** `POST /abort`. */
export const abort = (path: string): Effect.Effect<AbortAnswer, AdminClientError> =>
  callJson(path, { method: "POST", resource: "/abort" }, [200, 409])

const lineIn = (text: string): AdminLine | undefined => {
  try {
    const line = JSON.parse(text)
    return typeof line?._tag === "string" ? (line as AdminLine) : undefined
  } catch {
    return undefined
  }
}

/**
 * A request with a streamed answer; gives its last line. A stream that ends without a line is `Lost`.
 */
export const stream = (
  path: string,
  wish: Omit<Call, "onLine">,
  onLine: (line: AdminLine) => void
): Effect.Effect<AdminLine, AdminClientError> =>
  Effect.suspend(() => {
    let last: AdminLine | undefined
    const refused: Array<string> = []
    const take = (text: string) => {
      const line = lineIn(text)
      if (line === undefined) return void refused.push(text)
      last = line
      onLine(line)
    }
    return Effect.flatMap(call(path, { ...wish, onLine: take }), (answer) => {
      if (answer.status !== 200 && answer.status !== 409) {
        return Effect.fail(badAnswer(path, answer.status, refused.join("") + answer.text))
      }
      if (last !== undefined) return Effect.succeed(last)
      return Effect.fail(new AdminClientError({ path, reason: { _tag: "Lost", detail: "it ended without an answer" } }))
    })
  })

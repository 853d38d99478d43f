/**
 * The admin API of a supervisor: HTTP over a unix socket, so that curl and Prometheus speak it.
 *
 *   GET  /status    the status as JSON
 *   GET  /events    JSON lines of everything that happens, until the client leaves or the supervisor ends
 *   GET  /metrics   Prometheus text
 *   POST /swap      optional body {"command"?: {"argv": [...], "environment"?: {...}, "workingDirectory"?: "/..."},
 *                   "mode"?: "auto" | "sealed" | "overlap" | "exclusive"};
 *                   JSON lines of what happens, the last one is the verdict: SwapEnded or SwapRefused
 *   POST /rollback  the same, to the command before
 *   POST /abort     asks the running swap to end; its own caller gets the verdict
 *   POST /stop      JSON lines until everything has stopped; with `?now` generations are killed at once
 *
 * A request that was refused at once has status 409, bad input 4xx with `{"error": {"at", "message"}}`. A client that goes
 * away leaves its swap running. Trust is the socket's mode: whoever may connect may swap.
 *
 * One fiber follows the supervisor's events and hands each to everyone who listens. Listening begins in the same turn
 * as the request, so no event of a swap is missed; a client that reads slowly loses old lines, never the verdict.
 *
 * `effect/http` is unstable: only this module knows it.
 *
 * @example curl --unix-socket /run/handoff/default/admin.sock http://handoff/status
 */

import { createServer } from "node:http"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as Mode from "@handoff/core/swap/Mode"
import type { Command } from "@handoff/core/swap/Supervision"
import type * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { AbortAnswer, AdminLine, ErrorBody, SwapVerdict } from "./AdminMessages.ts"
import * as AdminSocket from "./AdminSocket.ts"
import { messageOf } from "./internal/ErrorText.ts"
import * as Metrics from "./Metrics.ts"
import { Supervisor, type SupervisorEvent, type SwapReport } from "./Supervisor.ts"
import { formatRefusal, type SwapError } from "./SupervisorError.ts"
import * as SwapText from "./SwapText.ts"

type Lines = Queue.Queue<AdminLine, Cause.Done>

/** Gives every event to every listener, and counts. */
interface Hub {
  readonly listen: (listener: (event: SupervisorEvent) => void) => () => void
  readonly counts: () => Metrics.Counts
  /** Lives as long as the API: what a client began goes on in it when the client is gone. */
  readonly scope: Scope.Scope
}

const MAX_BODY_BYTES = 256 * 1024
/** How many lines a slow client may be behind. */
const MAX_PENDING_LINES = 1024
/** The events of an ended swap are on their way through the hub; more than this is not waited for. */
const LAST_EVENT_MS = 1000

const makeHub = Effect.gen(function* () {
  const supervisor = yield* Supervisor
  const listeners = new Set<(event: SupervisorEvent) => void>()
  let counts = Metrics.noCounts
  const deliver = (event: SupervisorEvent) => {
    counts = Metrics.count(counts, event)
    for (const listener of listeners) listener(event)
  }
  const follow = Stream.runForEach(supervisor.events, (event) => Effect.sync(() => deliver(event)))
  yield* Effect.forkScoped(follow, { startImmediately: true })
  const listen = (listener: (event: SupervisorEvent) => void) => {
    listeners.add(listener)
    return () => void listeners.delete(listener)
  }
  return { listen, counts: () => counts, scope: yield* Effect.scope } satisfies Hub
})

const failure = (status: number, at: string, message: string) =>
  HttpServerResponse.jsonUnsafe({ error: { at, message } } satisfies ErrorBody, { status })

const encoder = new TextEncoder()

const respondLines = (lines: Stream.Stream<AdminLine>, status = 200) =>
  HttpServerResponse.stream(
    Stream.map(lines, (line) => encoder.encode(`${JSON.stringify(line)}\n`)),
    { status, contentType: "application/x-ndjson" }
  )

const ended = (report: SwapReport): SwapVerdict => ({
  _tag: "SwapEnded",
  ...report,
  message: SwapText.formatRecord(report.record)
})

const verdictOf = (error: SwapError): SwapVerdict =>
  error.reason._tag === "RolledBack"
    ? ended(error.reason.report)
    : { _tag: "SwapRefused", refusal: error.reason.refusal, message: error.message }

/** Passes on what happens from the request of a swap to its end. The verdict takes the place of the SwapEnded event. */
const followSwap = (hub: Hub, lines: Lines, over: Deferred.Deferred<void>) => {
  let begun = false
  return hub.listen((event) => {
    begun ||= event._tag === "SwapRequested"
    if (event._tag === "SwapEnded") Deferred.doneUnsafe(over, Effect.void)
    else if (begun) Queue.offerUnsafe(lines, event)
  })
}

const swapRoute = (hub: Hub, request: Effect.Effect<SwapReport, SwapError>) =>
  Effect.gen(function* () {
    const lines: Lines = yield* Queue.sliding<AdminLine, Cause.Done>(MAX_PENDING_LINES)
    const over = yield* Deferred.make<void>()
    const leave = followSwap(hub, lines, over)
    const run = Effect.gen(function* () {
      const verdict = yield* Effect.match(request, {
        onSuccess: ended,
        onFailure: verdictOf
      })
      if (verdict._tag === "SwapEnded") yield* Effect.timeoutOption(Deferred.await(over), LAST_EVENT_MS)
      leave()
      yield* Queue.offer(lines, verdict)
      yield* Queue.end(lines)
    })
    yield* Effect.forkIn(Effect.ensuring(run, Effect.sync(leave)), hub.scope, { startImmediately: true })
    const first = yield* Effect.orDie(Queue.take(lines))
    return respondLines(
      Stream.concat(Stream.succeed(first), Stream.fromQueue(lines)),
      first._tag === "SwapRefused" ? 409 : 200
    )
  })

const CommandSchema = Schema.Struct({
  argv: Schema.NonEmptyArray(Schema.String),
  environment: Schema.optionalKey(Schema.Record(Schema.String, Schema.String)),
  workingDirectory: Schema.optionalKey(Schema.String)
})
const BodySchema = Schema.Struct({
  command: Schema.optionalKey(CommandSchema),
  mode: Schema.optionalKey(Schema.Literals(Mode.WISHES))
})
const decodeBody = Schema.decodeUnknownResult(BodySchema, { errors: "first", onExcessProperty: "error" })

/** What is wrong with a command beyond its shape; undefined when nothing is. */
const commandProblem = (command: Command): { readonly at: string; readonly message: string } | undefined => {
  const [program = ""] = command.argv
  if (program === "") return { at: "command.argv[0]", message: "names no program" }
  const nul = command.argv.findIndex((text) => text.includes("\0"))
  if (nul >= 0) return { at: `command.argv[${nul}]`, message: "holds a NUL byte" }
  for (const [key, value] of Object.entries(command.environment ?? {})) {
    if (key === "" || /[=\0]/.test(key)) return { at: "command.environment", message: `"${key}" is no variable's name` }
    if (value.includes("\0")) return { at: `command.environment.${key}`, message: "holds a NUL byte" }
  }
  const { workingDirectory } = command
  if (workingDirectory !== undefined && !workingDirectory.startsWith("/")) {
    return { at: "command.workingDirectory", message: `must be an absolute path; got "${workingDirectory}"` }
  }
  return undefined
}

/** `at ["command"]["argv"][0]` of a schema's error as `command.argv[0]`. */
const pathIn = (text: string): string => {
  const [, path = ""] = /\n\s*at (\[.*)$/m.exec(text) ?? []
  return path.replace(/\["([^"]*)"\]/g, ".$1").replace(/^\./, "")
}

const readSwapBody = (text: string) => {
  if (text.length > MAX_BODY_BYTES) return { response: failure(413, "body", `may have ${MAX_BODY_BYTES} bytes`) }
  if (text.trim() === "") return {}
  let parsed: unknown
  try {
    parsed = JSON.parse(text)
  } catch (error) {
    return { response: failure(400, "body", `is not JSON: ${messageOf(error)}`) }
  }
  const decoded = decodeBody(parsed)
  if (decoded._tag === "Failure") {
    const { message } = decoded.failure
    const [first = message] = message.split("\n")
    return { response: failure(400, pathIn(message) || "body", first) }
  }
  const { command, mode } = decoded.success
  const problem = command === undefined ? undefined : commandProblem(command)
  return problem === undefined ? { command, mode } : { response: failure(400, problem.at, problem.message) }
}

const postSwap = (hub: Hub) =>
  Effect.gen(function* () {
    const supervisor = yield* Supervisor
    const request = yield* HttpServerRequest.HttpServerRequest
    const body = yield* Effect.option(request.text)
    if (body._tag === "None") return failure(400, "body", "could not be read")
    const read = readSwapBody(body.value)
    if (read.response !== undefined) return read.response
    const { command, mode } = read
    return yield* swapRoute(hub, supervisor.swap(command, mode === undefined ? {} : { mode }))
  })

const postAbort = Effect.gen(function* () {
  const supervisor = yield* Supervisor
  return yield* Effect.match(supervisor.abort, {
    onSuccess: (swap) => HttpServerResponse.jsonUnsafe({ _tag: "Aborting", swap } satisfies AbortAnswer),
    onFailure: (error) => {
      const refusal = error.reason._tag === "Refused" ? error.reason.refusal : ({ _tag: "NoSwap" } as const)
      const answer: AbortAnswer = { _tag: "Refused", refusal, message: formatRefusal(refusal) }
      return HttpServerResponse.jsonUnsafe(answer, { status: 409 })
    }
  })
})

const getEvents = (hub: Hub) =>
  Effect.gen(function* () {
    const supervisor = yield* Supervisor
    const lines: Lines = yield* Queue.sliding<AdminLine, Cause.Done>(MAX_PENDING_LINES)
    const leave = hub.listen((event) => {
      Queue.offerUnsafe(lines, event)
      if (event._tag === "Stopped") Queue.endUnsafe(lines)
    })
    const { phase, serving } = yield* supervisor.status
    const watching: AdminLine = { _tag: "Watching", phase, serving: serving ?? null }
    yield* Effect.forkIn(Effect.andThen(supervisor.finished, Queue.end(lines)), hub.scope)
    const stream = Stream.concat(Stream.succeed(watching), Stream.fromQueue(lines))
    return respondLines(Stream.ensuring(stream, Effect.sync(leave)))
  })

const postStop = (hub: Hub) =>
  Effect.gen(function* () {
    const supervisor = yield* Supervisor
    const request = yield* HttpServerRequest.HttpServerRequest
    const now = new URL(request.url, "http://handoff").searchParams.has("now")
    const { phase } = yield* supervisor.status
    const lines: Lines = yield* Queue.sliding<AdminLine, Cause.Done>(MAX_PENDING_LINES)
    let told = false
    const leave = hub.listen((event) => {
      told ||= event._tag === "Stopped"
      Queue.offerUnsafe(lines, event)
    })
    // The supervisor takes a second stop as "at once", so a mere second client must not become one.
    const stop = Effect.forkIn(supervisor.stop, hub.scope, { startImmediately: true })
    if (phase !== "stopping" && phase !== "stopped") yield* stop
    if (now) yield* stop
    const end = Effect.gen(function* () {
      yield* supervisor.finished
      yield* Effect.yieldNow
      if (!told) yield* Queue.offer(lines, { _tag: "Stopped", at: Date.now() })
      leave()
      yield* Queue.end(lines)
    })
    yield* Effect.forkIn(end, hub.scope)
    return respondLines(Stream.ensuring(Stream.fromQueue(lines), Effect.sync(leave)))
  })

const METHODS: Readonly<Record<string, "GET" | "POST">> = {
  "/status": "GET",
  "/events": "GET",
  "/metrics": "GET",
  "/swap": "POST",
  "/rollback": "POST",
  "/abort": "POST",
  "/stop": "POST"
}

const notFound = (request: HttpServerRequest.HttpServerRequest) => {
  const { pathname } = new URL(request.url, "http://handoff")
  const method = METHODS[pathname]
  const response =
    method === undefined
      ? failure(404, pathname, `there is no such resource; there are ${Object.keys(METHODS).join(", ")}`)
      : HttpServerResponse.setHeader(failure(405, request.method, `${pathname} takes ${method}`), "allow", method)
  return Effect.succeed(response)
}

/** The routes, for a router of any platform. */
export const routes = HttpRouter.use((router) =>
  Effect.gen(function* () {
    const supervisor = yield* Supervisor
    const hub = yield* makeHub
    const add = (
      path: `/${string}`,
      handler: Effect.Effect<
        HttpServerResponse.HttpServerResponse,
        never,
        Supervisor | HttpServerRequest.HttpServerRequest
      >
    ) => router.add(METHODS[path] ?? "GET", path, Effect.provideService(handler, Supervisor, supervisor))
    const status = Effect.map(supervisor.status, (value) => HttpServerResponse.jsonUnsafe(value))
    const metrics = Effect.map(supervisor.status, (value) =>
      HttpServerResponse.text(Metrics.format(value, hub.counts()), { contentType: "text/plain; version=0.0.4" })
    )
    yield* add("/status", status)
    yield* add("/events", getEvents(hub))
    yield* add("/metrics", metrics)
    yield* add("/swap", postSwap(hub))
    yield* add("/rollback", swapRoute(hub, supervisor.rollback))
    yield* add("/abort", postAbort)
    yield* add("/stop", postStop(hub))
    yield* router.add("*", "*", notFound)
  })
)

/**
 * Serves the API on a unix socket (mode 0600) until the scope closes. The directory must exist and be private: see
 * {@link AdminSocket.prepare}.
 */
export const layer = (path: string): Layer.Layer<never, AdminSocket.AdminSocketError, Supervisor> =>
  HttpRouter.serve(routes, { disableLogger: true, disableListenLog: true }).pipe(
    Layer.provide(
      // A request may last as long as a swap: no limit on its time. Streams end when the supervisor has finished.
      NodeHttpServer.layer(() => createServer({ requestTimeout: 0 }), { path, gracefulShutdownTimeout: "2 seconds" })
    ),
    Layer.tap(() => AdminSocket.restrict(path)),
    Layer.provide(Layer.effectDiscard(AdminSocket.claim(path))),
    Layer.catchTag("ServeError", (error) =>
      Layer.effectDiscard(
        Effect.fail(
          new AdminSocket.AdminSocketError({ path, reason: { _tag: "CallFailed", detail: String(error.cause) } })
        )
      )
    )
  )

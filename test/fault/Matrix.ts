/**
 * The crash matrix: every party of a sealed swap dies at every point, in real processes under writing clients.
 *
 * One case: a supervisor and a daemon serve, four clients write, a swap is asked for, and the party is gone at its point.
 * A dead supervisor is started again. What must hold then, whatever died (numbers of the design's invariants):
 *
 *   1, 5  nobody wrote after another had opened the log; the lock's file is the same one
 *   2, 3  every acknowledged line is in the log, once, at the place that was acknowledged
 *   4     no client was refused; only the death of a process that serves may cut what it was answering
 *   6     who is to serve by then does; it and its supervisor are left, and no process, file or descriptor beside them
 *   7     a new connection is answered soon, the document says no swap, and the next swap commits
 */
import { readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import { append, startWriters, type Written } from "../interop/Writers.ts"
import {
  DAEMON,
  descriptorChanges,
  descriptorKinds,
  lockInode,
  logProblems,
  readDocument,
  type Service,
  type Stage,
  stage,
  strayFiles,
  until
} from "./Stage.ts"

export type Party = "supervisor" | "incumbent" | "successor"

export interface Case {
  readonly party: Party
  readonly point: string
}

export type Server = "the incumbent" | "the successor" | "a new process"

const INCUMBENT: ReadonlyArray<Server> = ["the incumbent"]
const SUCCESSOR: ReadonlyArray<Server> = ["the successor"]
const RESTARTED: ReadonlyArray<Server> = ["a new process"]

/** Who may serve afterwards. Another one is a process that was ended though it served, or one that served and must not. */
const POINTS: Record<Party, Readonly<Record<string, ReadonlyArray<Server>>>> = {
  supervisor: {
    "s-after-o-hello": INCUMBENT,
    "s-after-spawn-successor": INCUMBENT,
    "s-after-n-hello": INCUMBENT,
    "s-after-prepare-sent": INCUMBENT,
    "s-after-drained-recv": INCUMBENT,
    "s-after-seal-request-sent": INCUMBENT,
    "s-after-seal-complete-recv": INCUMBENT,
    // The successor has Begin and the end of its channel at once: it may be ready before it looks at the latter.
    "s-after-begin-sent": ["the incumbent", "the successor"],
    "s-after-ready-recv": SUCCESSOR,
    "s-after-commit-sent": SUCCESSOR,
    "s-after-journal-clear": SUCCESSOR
  },
  incumbent: {
    "o-inside-drain": RESTARTED,
    "o-after-drained-sent": RESTARTED,
    "o-inside-seal": RESTARTED,
    "o-after-seal-flock-released": RESTARTED,
    "o-after-seal-complete-sent": SUCCESSOR,
    "o-after-commit-recv": SUCCESSOR
  },
  successor: {
    "n-before-handshake": INCUMBENT,
    "n-after-handshake": INCUMBENT,
    "n-after-begin": INCUMBENT,
    "n-before-announce-ready": INCUMBENT,
    "n-after-announce-ready": INCUMBENT,
    "n-before-publish": INCUMBENT,
    // The supervisor may have found it at the path, and told the incumbent to go.
    "n-after-publish": ["the incumbent", "a new process"]
  }
}

export const cases: ReadonlyArray<Case> = (["supervisor", "incumbent", "successor"] as const).flatMap((party) =>
  Object.keys(POINTS[party]).map((point) => ({ party, point }))
)

/** In the names of the contract of an external fault test. */
const ROLES = { supervisor: "supervisor", incumbent: "primitive", successor: "successor" } as const

export interface Outcome extends Case {
  /** What was told to whoever asked for the swap. */
  readonly swap: string
  /** Who serves afterwards. */
  readonly serves: Server
  /** From the death to the answer that a client gets who came after it, in milliseconds. */
  readonly answeredMs: number
  /** From the death to one generation, supervised, and nothing else under way. */
  readonly settledMs: number
  /** How long the supervisor and its first daemon took to start: what this machine takes for a start now. */
  readonly startMs: number
  /** Requests that were cut, all clients together. */
  readonly cut: number
  /** What does not hold. */
  readonly problems: ReadonlyArray<string>
}

const CLIENTS = 4

/** A death shows to the client whose request was being answered, and in no other way. */
const isCut = (failure: string): boolean => failure === "ECONNRESET"

/** When the marker was written, in milliseconds since 1970. */
const diedAt = (it: Stage, { party, point }: Case): Promise<number> =>
  until(`the ${party} dies at ${point}`, () => {
    const name = `crashed-${ROLES[party]}`
    if (it.where.marker(name) !== point) return undefined
    return statSync(join(it.where.variables.HANDOFF_MARKER_DIR ?? "", `${name}.marker`)).mtimeMs
  })

/** Asks for the swap in which the party dies; gives the supervisor that goes on, and what the caller was told. */
const crash = async (it: Stage, service: Service, one: Case) => {
  if (one.party === "successor") it.arm({ HANDOFF_CRASH_AT: one.point, HANDOFF_CRASH_ROLE: ROLES.successor })
  const asked = service.swap().then(
    ({ committed, message }) => (committed ? "committed" : message),
    () => "no answer"
  )
  const at = await diedAt(it, one)
  const answered = append(service.port, `after the death at ${one.point}`).then(
    (revision) => ({ revision, ms: Date.now() - at }),
    (error: Error) => error.message
  )
  if (one.party !== "supervisor") return { at, answered, asked, service }
  await service.process.ended
  return { at, answered, asked, service: await it.start() }
}

const failureProblems = ({ party, point }: Case, { failures }: Written): ReadonlyArray<string> => {
  const mayCut = party === "incumbent"
  const cut = failures.filter(isCut)
  return [
    ...failures.filter((failure) => !isCut(failure)).map((failure) => `a request failed: ${failure}`),
    ...(cut.length > (mayCut ? CLIENTS : 0) ? [`${cut.length} requests were cut by the death at ${point}`] : [])
  ]
}

/** One case, from the first start to the last end. */
export const run = async (one: Case): Promise<Outcome> => {
  await using it = stage()
  if (one.party === "incumbent") it.arm({ HANDOFF_CRASH_AT: one.point, HANDOFF_CRASH_ROLE: ROLES.incumbent })
  const first = await it.start(one.party === "supervisor" ? { HANDOFF_CRASH_AT: one.point } : {})
  using writers = startWriters(first.port, CLIENTS)
  await until("clients write", () => (writers.count() > 20 ? true : undefined))
  const incumbent = (await it.settle(first)).generations[0]?.pid
  const inode = lockInode(it.where)
  const descriptors = descriptorKinds(first.process.pid)

  const { at, answered, asked, service } = await crash(it, first, one)
  const answer = await answered
  const { serving, generations } = await it.settle(service)
  const settledMs = Date.now() - at
  const pid = generations[0]?.pid
  const successor = Number(it.where.marker("successor-pid") ?? 0)
  const problems: Array<string> = []
  const expectSame = (what: string, found: unknown, wanted: unknown) => {
    if (String(found) !== String(wanted)) problems.push(`${what}: ${found}, not ${wanted}`)
  }

  const serves: Server = pid === incumbent ? "the incumbent" : pid === successor ? "the successor" : "a new process"
  const may = POINTS[one.party][one.point] ?? []
  if (!may.includes(serves)) problems.push(`${serves} serves, not ${may.join(" or ")}`)
  if (typeof answer === "string") problems.push(`a client that came after the death was not answered: ${answer}`)
  expectSame("files that belong to nobody", await strayFiles(it, serving), [])
  expectSame(
    "the swap in the document",
    readDocument(readFileSync(`${it.stateDirectory}/state.json`, "utf8")).swap,
    null
  )
  expectSame("holders of the lock", it.where.lockHolders(it.processes.alive()), [pid])

  const next = await service.swap({ argv: [DAEMON] })
  if (!next.committed) problems.push(`the next swap did not commit: ${next.message}`)
  const last = await it.settle(service)
  await append(service.port, "after the next swap")
  const written = await writers.stop()
  expectSame("holders of the lock after the next swap", it.where.lockHolders(it.processes.alive()), [
    last.generations[0]?.pid
  ])
  expectSame("files that belong to nobody after the next swap", await strayFiles(it, last.serving), [])
  expectSame("change of descriptors", await descriptorChanges(service.process.pid, descriptors), [])
  await service.stop()
  expectSame("processes after the stop", it.processes.alive(), [])
  expectSame("files after the stop", await strayFiles(it, undefined), [])
  expectSame("inode of the lock's file", lockInode(it.where), inode)
  problems.push(...logProblems(it.where.log(), it.where.openings(), written), ...failureProblems(one, written))
  return {
    ...one,
    swap: one.party === "supervisor" ? "no answer" : await asked,
    serves,
    answeredMs: typeof answer === "string" ? Number.POSITIVE_INFINITY : answer.ms,
    settledMs,
    startMs: first.startedMs,
    cut: written.failures.filter(isCut).length,
    problems
  }
}

/** Case after case, two at a time, in this order. */
export const runAll = async (
  these: ReadonlyArray<Case>,
  done: (outcome: Outcome) => void,
  atOnce = 2
): Promise<void> => {
  const left = [...these]
  const worker = async () => {
    for (let one = left.shift(); one !== undefined; one = left.shift()) done(await run(one))
  }
  await Promise.all(Array.from({ length: atOnce }, worker))
}

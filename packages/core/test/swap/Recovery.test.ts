import {
  type Document,
  FORMAT,
  type JournalPhase,
  type SavedGeneration,
  type SavedSwap
} from "@handoff/core/swap/Document"
import * as Recovery from "@handoff/core/swap/Recovery"
import * as Supervision from "@handoff/core/swap/Supervision"
import { describe, expect, it } from "vitest"

/**
 * Every case of a sealed swap that was cut short. O: incumbent, N: successor; `lock` and `path` name who holds the data's
 * lock and who answers on the handoff socket's path, `-` nobody, `*` any. The rows do not overlap and leave nothing out.
 */
const table = `
journal                                            O     N     lock  path  patient  verdict
*                                                  *     lives *     N     *        Successor
Negotiating,Draining,Sealing,ResumingAfterAbort    lives lives *     O,-   *        Incumbent
Negotiating,Draining,Sealing,ResumingAfterAbort    lives gone  *     *     *        Incumbent
Negotiating,Draining,Sealing,ResumingAfterAbort    gone  lives *     O,-   *        Start old
Negotiating,Draining,Sealing,ResumingAfterAbort    gone  gone  *     *     *        Start old
AwaitingReady,Committed                            *     lives N     O,-   yes      Wait
AwaitingReady                                      lives lives N     O,-   no       Incumbent
AwaitingReady                                      gone  lives N     O,-   no       Start old
Committed                                          *     lives N     O,-   no       Successor
AwaitingReady,Committed                            lives lives O,-   O,-   *        Incumbent
AwaitingReady,Committed                            lives gone  *     *     *        Incumbent
AwaitingReady                                      gone  lives O,-   O,-   *        Start old
AwaitingReady                                      gone  gone  *     *     *        Start old
Committed                                          gone  lives O,-   O,-   *        Start new
Committed                                          gone  gone  *     *     *        Start new
`

const rows = table
  .trim()
  .split("\n")
  .slice(1)
  .map((line) => line.split(/\s{2,}|(?<=lives|gone) /).map((cell) => cell.trim()))

const journals: ReadonlyArray<JournalPhase> = [
  "Negotiating",
  "Draining",
  "Sealing",
  "AwaitingReady",
  "Committed",
  "ResumingAfterAbort"
]
const parties = ["incumbent", "successor", "neither"] as const
const answering = ["incumbent", "successor", "nobody"] as const
const both = [true, false] as const

const situations: ReadonlyArray<Recovery.Situation> = journals.flatMap((journal) =>
  both.flatMap((incumbentAlive) =>
    both.flatMap((successorAlive) =>
      parties.flatMap((lock) =>
        answering.flatMap((answers) =>
          both.map((patient) => ({ journal, incumbentAlive, successorAlive, lock, answers, patient }))
        )
      )
    )
  )
)

const short = { incumbent: "O", successor: "N", neither: "-", nobody: "-" } as const

const cells = (one: Recovery.Situation): ReadonlyArray<string> => [
  one.journal,
  one.incumbentAlive ? "lives" : "gone",
  one.successorAlive ? "lives" : "gone",
  short[one.lock],
  short[one.answers],
  one.patient ? "yes" : "no"
]

const covers = (row: ReadonlyArray<string>, one: Recovery.Situation): boolean =>
  cells(one).every((cell, column) => row[column] === "*" || (row[column] ?? "").split(",").includes(cell))

const written = (verdict: Recovery.Verdict): string =>
  verdict._tag === "Start" ? `Start ${verdict.command}` : verdict._tag

describe("the verdict on a sealed swap that was cut short", () => {
  it("is the table's, in each of its 432 cases", () => {
    expect(situations).toHaveLength(432)
    for (const situation of situations) {
      const covering = rows.filter((row) => covers(row, situation))
      expect(covering, cells(situation).join(" ")).toHaveLength(1)
      expect(written(Recovery.settle(situation)), cells(situation).join(" ")).toBe(covering[0]?.[6])
    }
  })

  it("has no row that covers nothing", () => {
    for (const row of rows) {
      expect(
        situations.some((situation) => covers(row, situation)),
        row.join(" ")
      ).toBe(true)
    }
  })

  it("waits only while there is patience, and only for a living successor that may have been told to serve", () => {
    for (const situation of situations) {
      if (Recovery.settle(situation)._tag !== "Wait") continue
      expect(situation).toMatchObject({ patient: true, successorAlive: true, lock: "successor" })
      expect(["AwaitingReady", "Committed"]).toContain(situation.journal)
    }
  })

  it("never says Successor of one that neither answers nor holds the lock, and never ends one that answers", () => {
    for (const situation of situations) {
      const { _tag } = Recovery.settle(situation)
      const { successorAlive, incumbentAlive, answers, lock } = situation
      if (_tag === "Successor") expect(successorAlive && (answers === "successor" || lock === "successor")).toBe(true)
      if (_tag === "Incumbent" || _tag === "Start") expect(successorAlive && answers === "successor").toBe(false)
      if (_tag === "Incumbent") expect(incumbentAlive).toBe(true)
    }
  })

  it("starts a command only when the incumbent is gone", () => {
    for (const situation of situations) {
      if (Recovery.settle(situation)._tag === "Start") expect(situation.incumbentAlive).toBe(false)
    }
  })
})

const options: Supervision.Options = {
  ...Supervision.defaults,
  listeners: 1,
  historyLimit: 5,
  instance: "later"
}

const generation = (id: number, change: Partial<SavedGeneration> = {}): SavedGeneration => ({
  id,
  command: { argv: [`v${id}`] },
  phase: "serving",
  token: `earlier.${id}`,
  process: { pid: 100 + id, startTime: id, bootId: "boot" },
  launchedAt: 10 * id,
  readyAt: null,
  notified: true,
  handoffSocket: "none",
  ...change
})

const swapOf = (change: Partial<SavedSwap>): SavedSwap => ({
  id: 4,
  kind: "swap",
  mode: "overlap",
  phase: "running",
  journal: null,
  handoffId: "id",
  from: 1,
  to: 2,
  restored: null,
  command: { argv: ["v2"] },
  requestedAt: 100,
  ...change
})

const documentOf = (change: Partial<Document>): Document => ({
  format: FORMAT,
  name: "default",
  supervisor: { pid: 1, version: "0", instance: "earlier" },
  handoffSocket: "/run/handoff.sock",
  listeners: [],
  command: { argv: ["v1"] },
  previous: { command: { argv: ["v0"] }, notified: false },
  serving: 1,
  mustNotify: true,
  nextGeneration: 4,
  nextSwap: 5,
  generations: [generation(1)],
  swap: null,
  history: [],
  ...change
})

const LIVES: Recovery.Sighting = { alive: true, holdsLock: false, answers: false }
const GONE: Recovery.Sighting = { alive: false, holdsLock: false, answers: false }

const recover = (
  document: Document,
  seen: Readonly<Record<number, Partial<Recovery.Sighting>>>,
  change: Partial<Supervision.Options> = {},
  patient = false
): Recovery.Decision =>
  Recovery.decide(
    document,
    new Map(Object.entries(seen).map(([id, sighting]) => [Number(id), { ...LIVES, ...sighting }])),
    { ...options, ...change },
    1_000,
    patient
  )

const go = (...given: Parameters<typeof recover>): Supervision.Recovered => {
  const decision = recover(...given)
  if (decision._tag === "Wait") throw new Error("it waits")
  return decision.recovered
}

/** `1 serving, 2 rejected; rolled-back; after 2`: what becomes of whom, the record, who must be gone first. */
const summary = (recovered: Supervision.Recovered): string =>
  [
    recovered.generations.map((one) => `${one.id} ${one.phase}`).join(", ") || "nobody",
    ...(recovered.interrupted === undefined ? [] : [recovered.interrupted.outcome]),
    ...(recovered.waitFor.length > 0 ? [`after ${recovered.waitFor.join(" ")}`] : [])
  ].join("; ")

describe("without a swap", () => {
  it.each([
    ["the serving one lives", "serving", "1 serving"],
    ["one that drains", "draining", "1 draining"],
    ["one that was starting", "starting", "1 starting"],
    ["one whose launch was not written down", "launching", "1 starting"]
  ] as const)("%s: it goes on", (_, phase, expected) => {
    const document = documentOf({
      serving: phase === "serving" ? 1 : null,
      generations: [generation(1, { phase })]
    })
    const recovered = go(document, { 1: LIVES })
    expect(summary(recovered)).toBe(expected)
    expect(recovered).toMatchObject({ command: { argv: ["v1"] }, previous: { command: { argv: ["v0"] } } })
    expect(recovered.generations[0]).toMatchObject({ pid: 101, token: "earlier.1", identity: { pid: 101 } })
  })

  it("the serving one gone: nobody is left, numbers go on, and what must notify still must", () => {
    const recovered = go(documentOf({}), { 1: GONE })
    expect(recovered).toMatchObject({ generations: [], serving: undefined, nextGeneration: 4, nextSwap: 5 })
    expect(recovered).toMatchObject({ interrupted: undefined, mustNotify: true })
  })

  it("the serving one lives and another was starting: only one goes on", () => {
    const generations = [generation(1), generation(2, { phase: "starting" })]
    expect(summary(go(documentOf({ generations }), { 1: LIVES, 2: LIVES }))).toBe("1 serving, 2 draining")
  })

  it.each([
    ["holds the data's lock", { holdsLock: true }, "auto", "1 draining; after 1"],
    ["must not run twice", {}, "exclusive", "1 draining; after 1"],
    ["is neither", {}, "auto", "1 draining"]
  ] as const)("nobody serves and the one that drains %s", (_, seen, mode, expected) => {
    const document = documentOf({ serving: null, generations: [generation(1, { phase: "draining" })] })
    expect(summary(go(document, { 1: seen }, { mode }))).toBe(expected)
  })

  it("a process that was not found is not adopted, whatever is seen", () => {
    const document = documentOf({ generations: [generation(1, { process: null })] })
    expect(summary(go(document, { 1: LIVES }))).toBe("nobody")
  })
})

describe("a swap that had not begun", () => {
  it.each(["waiting", "deciding"] as const)("%s: it is rolled back, and told", (phase) => {
    const swap = swapOf({ mode: null, phase, to: null })
    const recovered = go(documentOf({ swap }), { 1: LIVES })
    expect(summary(recovered)).toBe("1 serving; rolled-back")
    expect(recovered.interrupted).toMatchObject({
      id: 4,
      failure: { _tag: "SupervisorDied" },
      durationMs: 900,
      serving: 1
    })
    expect(recovered.history).toEqual([recovered.interrupted])
  })
})

const swapTable = (mode: SavedSwap["mode"], text: string) =>
  it.each(
    text
      .trim()
      .split("\n")
      .map((line) => line.split(/\s{2,}/) as [string, string, string])
  )("%s, alive: %s -> %s", (phase, alive, expected) => {
    const ids = alive === "nobody" ? [] : alive.split(" ").map(Number)
    const restored = phase === "restoring" ? 3 : null
    const document = documentOf({
      serving: mode === "overlap" ? 1 : null,
      generations: [
        generation(1, { phase: mode === "overlap" ? "serving" : "draining" }),
        generation(2, { phase: phase === "rolling-back" ? "rejected" : "starting" }),
        ...(restored === null ? [] : [generation(3, { phase: "starting" })])
      ],
      swap: swapOf({ mode, phase: phase as SavedSwap["phase"], restored, to: phase === "clearing" ? null : 2 })
    })
    const recovered = go(document, Object.fromEntries([1, 2, 3].map((id) => [id, ids.includes(id) ? LIVES : GONE])))
    expect(summary(recovered)).toBe(expected)
    expect(recovered.command.argv).toEqual(recovered.interrupted?.outcome === "committed" ? ["v2"] : ["v1"])
    expect(recovered.interrupted?.evidence).toBeUndefined()
  })

describe("an overlap swap", () => {
  swapTable(
    "overlap",
    `
running       1 2     1 serving, 2 rejected; rolled-back
running       1       1 serving; rolled-back
running       2       2 rejected; rolled-back
running       nobody  nobody; rolled-back
rolling-back  1 2     1 serving, 2 rejected; rolled-back
rolling-back  1       1 serving; rolled-back
rolling-back  2       2 rejected; rolled-back
rolling-back  nobody  nobody; rolled-back
`
  )

  it("lets the new version, which may have accepted, finish what it holds", () => {
    const generations = [generation(1), generation(2, { phase: "starting" })]
    const recovered = go(documentOf({ generations, swap: swapOf({}) }), { 1: LIVES, 2: LIVES })
    expect(recovered.generations[1]).toMatchObject({ phase: "rejected", accepted: true })
  })

  it("whose old version died with the supervisor starts that again: the new one may never get ready", () => {
    const generations = [generation(2, { phase: "starting" })]
    const recovered = go(documentOf({ generations, swap: swapOf({}) }), { 1: GONE, 2: LIVES })
    expect(recovered.command).toEqual({ argv: ["v1"] })
    const { commands } = Supervision.step(Supervision.initial(options, { argv: ["v1"] }), {
      _tag: "StartRequested",
      request: 1,
      recovered,
      at: 1_000
    })
    expect(commands).toContainEqual(expect.objectContaining({ _tag: "Launch", command: { argv: ["v1"] } }))
  })
})

describe("an exclusive swap", () => {
  swapTable(
    "exclusive",
    `
clearing      1       1 draining; rolled-back; after 1
clearing      nobody  nobody; rolled-back
running       2       2 rejected; rolled-back; after 2
running       nobody  nobody; rolled-back
rolling-back  2       2 rejected; rolled-back; after 2
rolling-back  nobody  nobody; rolled-back
restoring     3       3 starting; rolled-back
restoring     nobody  nobody; rolled-back
`
  )
})

/** Every document of a cut swap with every sight of its generations that the kernel could give. */
const everything = function* () {
  const modes = [
    ...journals.map((journal) => ({ mode: "sealed", phase: "running", journal }) as const),
    ...(["running", "rolling-back"] as const).map((phase) => ({ mode: "overlap", phase, journal: null }) as const),
    ...(["clearing", "running", "rolling-back", "restoring"] as const).map(
      (phase) => ({ mode: "exclusive", phase, journal: null }) as const
    ),
    ...(["waiting", "deciding"] as const).map((phase) => ({ mode: null, phase, journal: null }) as const)
  ]
  for (const kind of modes) {
    const restored = kind.phase === "restoring" ? 3 : null
    const document = documentOf({
      serving: kind.mode === "exclusive" ? null : 1,
      generations: [
        generation(1, { phase: kind.mode === "exclusive" ? "draining" : "serving" }),
        generation(2, { phase: "starting" }),
        generation(3, { phase: restored === null ? "draining" : "starting" })
      ],
      swap: swapOf({ ...kind, restored, to: kind.mode === null ? null : 2 })
    })
    for (let alive = 0; alive < 8; alive++) {
      for (const lock of [0, 1, 2, 3]) {
        for (const answers of [0, 1, 2]) {
          for (const patient of both) {
            for (const mode of ["auto", "exclusive"] as const) {
              const lives = (id: number) => (alive & (1 << (id - 1))) !== 0
              const seen = new Map(
                [1, 2, 3].map((id) => [
                  id,
                  { alive: lives(id), holdsLock: lives(id) && lock === id, answers: lives(id) && answers === id }
                ])
              )
              yield { document, seen, patient, limits: { ...options, mode } }
            }
          }
        }
      }
    }
  }
}

describe("over everything that can be found", () => {
  it("a decision is reached without patience, names whom it found, and has one at most who is to serve", () => {
    for (const { document, seen, patient, limits } of everything()) {
      const decision = Recovery.decide(document, seen, limits, 1_000, patient)
      if (decision._tag === "Wait") {
        expect(patient).toBe(true)
        continue
      }
      const { generations, serving, interrupted, command, history } = decision.recovered
      expect(generations.map((one) => one.id)).toEqual([1, 2, 3].filter((id) => seen.get(id)?.alive))
      const upcoming = generations.filter((one) => one.phase === "serving" || one.phase === "starting")
      expect(upcoming.length).toBeLessThanOrEqual(1)
      expect(generations.filter((one) => one.phase === "serving").map((one) => one.id)).toEqual(
        serving === undefined ? [] : [serving]
      )
      expect(history.at(-1)).toEqual(interrupted)
      expect(command.argv).toEqual(interrupted?.outcome === "committed" ? ["v2"] : ["v1"])
    }
  })

  it("nothing is launched beside one that may write and is not ended first", () => {
    for (const { document, seen, patient, limits } of everything()) {
      const decision = Recovery.decide(document, seen, limits, 1_000, patient)
      if (decision._tag === "Wait") continue
      const { recovered } = decision
      const start = Supervision.initial(limits, { argv: ["v1"] })
      const { commands } = Supervision.step(start, { _tag: "StartRequested", request: 1, recovered, at: 1_000 })
      const upcoming = recovered.generations.some((one) => one.phase === "serving" || one.phase === "starting")
      const writers = recovered.generations.filter(
        (one) => seen.get(one.id)?.holdsLock || limits.mode === "exclusive" || document.swap?.mode === "exclusive"
      )
      const launched = commands.some((one) => one._tag === "Launch")
      expect(launched).toBe(!upcoming && recovered.waitFor.length === 0)
      if (launched) expect(writers).toEqual([])
      if (document.swap?.mode === "sealed" && launched) {
        expect(recovered.generations.filter((one) => one.id !== 3)).toEqual([])
      }
    }
  })

  it("one that answers on the path and holds the lock is never asked to end", () => {
    for (const { document, seen, patient, limits } of everything()) {
      if (document.swap?.mode !== "sealed") continue
      const decision = Recovery.decide(document, seen, limits, 1_000, patient)
      if (decision._tag === "Wait") continue
      for (const { id, phase } of decision.recovered.generations) {
        const sighting = seen.get(id)
        if (id !== 3 && sighting?.answers && sighting.holdsLock) expect(phase).toBe("serving")
      }
    }
  })

  it("whoever is left to end comes to its end, and then somebody serves, starts or is due to start", () => {
    for (const { document, seen, limits } of everything()) {
      const decision = Recovery.decide(document, seen, limits, 1_000, false)
      if (decision._tag === "Wait") throw new Error("it waits")
      const { recovered } = decision
      let state = Supervision.initial(limits, { argv: ["v1"] })
      const take = (event: Supervision.Event) => {
        state = Supervision.step(state, event).state
      }
      take({ _tag: "StartRequested", request: 1, recovered, at: 1_000 })
      for (const { id, phase } of recovered.generations) {
        if (phase === "serving" || phase === "starting") continue
        take({ _tag: "Exited", generation: id, status: { _tag: "Unknown" }, at: 1_001 })
        take({ _tag: "Gone", generation: id, at: 1_002 })
      }
      const upcoming = state.generations.some((one) => one.phase !== "draining" && one.phase !== "rejected")
      expect(upcoming || state.restarts.nextAt !== undefined).toBe(true)
    }
  })
})

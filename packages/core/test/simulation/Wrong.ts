/**
 * Policies that are wrong on purpose. The explorer must catch each, by the property named.
 *
 * Each is a small change of a shipped machine's step, or of a driver's habit; the rest is as shipped.
 */
import * as Incumbent from "@handoff/core/protocol/Incumbent"
import * as Successor from "@handoff/core/protocol/Successor"
import * as Document from "@handoff/core/swap/Document"
import * as Recovery from "@handoff/core/swap/Recovery"
import * as Supervision from "@handoff/core/swap/Supervision"
import * as SimulatedFiles from "@handoff/core/testing/SimulatedFiles"
import * as SimulatedKernel from "@handoff/core/testing/SimulatedKernel"
import type { Daemon } from "@handoff/core/testing/World"
import * as World from "@handoff/core/testing/World"
import * as Result from "effect/Result"

export interface Wrong {
  readonly name: string
  readonly breaks: string
  readonly settings: Partial<Parameters<typeof World.make<number, number>>[0]>
}

const policies = (change: Partial<World.Policies>) => ({ policies: { ...World.shipped, ...change } })

/** Changes the commands of the incumbent's steps. */
const incumbent = (
  change: (commands: ReadonlyArray<Incumbent.Command>, before: Incumbent.State) => ReadonlyArray<Incumbent.Command>
) =>
  policies({
    incumbent: (state, event) => {
      const step = Incumbent.step(state, event)
      return { ...step, commands: change(step.commands, state) }
    }
  })

type Action = Supervision.Action

const supervision = (
  change: (commands: ReadonlyArray<Action>, after: Supervision.State, event: Supervision.Event) => ReadonlyArray<Action>
) =>
  policies({
    supervision: (state, event) => {
      const step = Supervision.step(state, event)
      return { ...step, commands: change(step.commands, step.state, event) }
    }
  })

const backend = (change: Partial<World.Backend>) => ({ backend: { ...World.linux, ...change } })

/** Takes what it has written for durable. */
export const hastyReplace: World.Backend["replace"] = (calls, path, text) =>
  World.linux.replace(World.skipping("fsync directory", World.skipping("fsync", calls)), path, text)

/** Truncated first, then written. */
const inPlace: World.Backend["replace"] = ({ pid, call }, path, text) => {
  const opened = call("open", (kernel) => SimulatedKernel.open(kernel, pid, path, "truncate"))
  if (Result.isFailure(opened)) return Result.fail(opened.failure)
  const fd = opened.success
  const written = call("write", (kernel) => SimulatedFiles.write(kernel, pid, fd, text))
  call("fsync", (kernel) => SimulatedFiles.sync(kernel, pid, fd))
  call("close", (kernel) => SimulatedKernel.close(kernel, pid, fd))
  return Result.map(written, () => undefined)
}

/** Every process of a pid is the same one. */
const byPidAlone: Partial<World.Backend> = {
  identify: (calls, pid) => {
    const identity = World.linux.identify(calls, pid)
    return identity === undefined ? undefined : { ...identity, startTime: pid }
  },
  signal: ({ pid, call }, process, signal) =>
    call("kill", (kernel) => {
      const done = SimulatedKernel.kill(kernel, pid, process.pid, signal)
      return typeof done === "string" ? done : { kernel: done.kernel, value: undefined }
    })
}

/** Launches, and takes the listener away again. */
const withoutListener: World.Backend["launch"] = (calls, request) =>
  Result.map(World.linux.launch(calls, request), (launched) => {
    if (request.successor) calls.call("clone", (kernel) => SimulatedKernel.close(kernel, launched.pid, 3))
    return launched
  })

const keepingBothEnds: World.Backend["launch"] = (calls, request) =>
  World.linux.launch(World.skipping("close", calls), request)

/** A write is acknowledged first, and goes to the disk later: bits 0..7 requests, 8..15 acknowledged, 16 closed. */
const hasty: Daemon<number, number> = {
  ...World.careful,
  name: "acknowledges before it is durable",
  work: (memory, disk) => {
    const request = memory & 0xff
    if (request !== 0) {
      const write = 31 - Math.clz32(request & -request)
      return [{ memory: (memory & ~(1 << write)) | (1 << (write + 8)), disk, acknowledges: write }]
    }
    const buffered = (memory >> 8) & 0xff
    return buffered === 0 ? [] : [{ memory: 0, disk: disk | buffered }]
  },
  isDrained: (memory) => memory === 0,
  seal: (memory, disk) => ({ memory: 0, disk: disk | ((memory >> 8) & 0xff) })
}

/** The seal writes what is acknowledged, and the rest is answered from memory afterwards. */
const sealsTooSoon: Daemon<number, number> = {
  ...World.careful,
  name: "seals before it has drained",
  isDrained: () => true,
  work: (memory, disk) => {
    const request = memory & 0xff
    if (request === 0) return []
    const write = 31 - Math.clz32(request & -request)
    const isSealed = (memory & 0x100) !== 0
    return [{ memory: memory & ~(1 << write), disk: isSealed ? disk : disk | (1 << write), acknowledges: write }]
  }
}

/** It goes on writing after its seal. */
const writesOn: Daemon<number, number> = {
  ...World.careful,
  name: "writes after its seal",
  isDrained: () => true,
  seal: (memory, disk) => ({ memory, disk })
}

/** Closed by its drain, and never opened again. */
const sulks: Daemon<number, number> = {
  ...World.careful,
  name: "refuses after a drain",
  drain: (memory) => memory | (1 << 8)
}

export const wrong: ReadonlyArray<Wrong> = [
  {
    name: "the incumbent releases the lock before it seals",
    breaks: "2 released only after the seal",
    settings: policies({
      incumbent: (state, event) => {
        if (event._tag === "LockReleased" && state.phase === "sealing") {
          return { state, commands: [], violation: undefined }
        }
        const step = Incumbent.step(state, event)
        const release: Incumbent.Command = { _tag: "ReleaseLock" }
        const early = step.commands.some((one) => one._tag === "Seal") ? [release] : []
        return { ...step, commands: [...early, ...step.commands] }
      }
    })
  },
  {
    name: "the incumbent resumes without the lock",
    breaks: "1 one holder of the data",
    settings: policies({
      incumbent: (state, event) => {
        const step = Incumbent.step(state, event)
        if (step.state.phase !== "relocking" || step.commands.every((one) => one._tag !== "AcquireLock")) return step
        return { ...step, state: { ...step.state, phase: "resuming" }, commands: [{ _tag: "Resume" }] }
      }
    })
  },
  {
    name: "an incumbent leaves for a held lock, though nobody serves",
    breaks: "6 the incumbent serves on",
    settings: policies({
      incumbent: (state, event) => {
        if (state.phase !== "relocking" || event._tag !== "LockHeld") return Incumbent.step(state, event)
        const commands = [{ _tag: "Exit", status: 0, why: "replaced" }] as const
        return { state: { ...state, phase: "exiting" }, commands, violation: undefined }
      }
    })
  },
  {
    name: "the incumbent forgets to try the lock again",
    breaks: "liveness",
    settings: incumbent((commands) => commands.filter((one) => one._tag !== "SetTimer" || one.timer !== "relock"))
  },
  {
    name: "the incumbent takes messages of another handoff",
    breaks: "6 the incumbent serves on",
    settings: policies({
      incumbent: (state, event) => {
        if (event._tag !== "Received" || !("handoffId" in event.message)) return Incumbent.step(state, event)
        const handoffId = state.handoffId === "" ? event.message.handoffId : state.handoffId
        return Incumbent.step(state, { ...event, message: { ...event.message, handoffId } })
      }
    })
  },
  {
    name: "the successor opens before it has the lock",
    breaks: "1 one holder of the data",
    settings: policies({
      successor: (state, event) => {
        const step = Successor.step(state, event)
        if (step.state.phase !== "locking" || step.commands.every((one) => one._tag !== "AcquireLock")) return step
        return { ...step, state: { ...step.state, phase: "opening" }, commands: [{ _tag: "Open" }] }
      }
    })
  },
  {
    name: "the successor releases the lock under a running open",
    breaks: "1 one holder of the data",
    settings: policies({
      successor: (state, event) => {
        const step = Successor.step(state, event)
        if (step.commands.every((one) => one._tag !== "CancelOpen")) return step
        return { ...step, commands: [...step.commands, { _tag: "ReleaseLock" }] }
      }
    })
  },
  {
    name: "the supervisor does not kill what it has given up",
    breaks: "liveness",
    settings: supervision((commands) => commands.filter((one) => one._tag !== "Signal" || one.signal !== "SIGKILL"))
  },
  {
    name: "the supervisor commits before Ready",
    breaks: "7 what was told stays true",
    settings: policies({
      supervision: (state, event) => {
        const step = Supervision.step(state, event)
        const handoff = step.state.swap?.handoff
        if (handoff?.phase !== "opening" || state.swap?.handoff?.phase !== "sealing") return step
        const hasty: Supervision.State = {
          ...step.state,
          swap: { ...step.state.swap, handoff: { ...handoff, phase: "publishing" } } as Supervision.Swap
        }
        const end = Supervision.step(hasty, { _tag: "TimerFired", timer: "handoff:publish", at: 0 })
        return { state: end.state, commands: [...step.commands, ...end.commands] }
      }
    })
  },
  {
    name: "the supervisor begins before the seal is complete",
    breaks: "0 without a fault a swap commits",
    settings: policies({
      supervision: (state, event) => {
        const handoff = state.swap?.handoff
        const isDrained =
          event._tag === "Handoff" && event.event._tag === "Received" && event.event.message._tag === "Drained"
        const step = Supervision.step(state, event)
        const after = step.state.swap?.handoff
        if (handoff?.phase !== "draining" || !isDrained || after === undefined) return step
        const skipped: Supervision.State = {
          ...step.state,
          swap: { ...step.state.swap, handoff: { ...after, phase: "opening", revisions: [] } } as Supervision.Swap
        }
        const begin: Action = {
          _tag: "Handoff",
          swap: event.swap,
          incumbent: 1,
          command: { _tag: "Send", to: "successor", message: { _tag: "Begin", handoffId: after.handoffId }, version: 1 }
        }
        return { state: skipped, commands: [...step.commands.filter((one) => one._tag !== "Handoff"), begin] }
      }
    })
  },
  {
    name: "the supervisor takes any look at the path for the incumbent's return",
    breaks: "6 the incumbent serves on",
    settings: {
      ...policies({
        supervision: (state, event) => {
          const isLook = event._tag === "Handoff" && event.event._tag === "PathAnswered"
          return Supervision.step(state, isLook ? { ...event, event: { ...event.event, hello: true } } : event)
        }
      }),
      faults: 2,
      kinds: ["kill", "stop", "hook"]
    }
  },
  {
    name: "the supervisor kills the wrong generation",
    breaks: "6 the incumbent serves on",
    settings: supervision((commands, after) =>
      commands.map((one) =>
        one._tag === "Signal" && one.signal === "SIGKILL" && after.serving !== undefined
          ? { ...one, generation: after.serving }
          : one
      )
    )
  },
  {
    name: "the supervisor asks the incumbent to resume before the successor is gone",
    breaks: "6 nothing is left of an abort",
    settings: policies({
      supervision: (state, event) => {
        const step = Supervision.step(state, event)
        const { swap } = step.state
        if (swap?.handoff?.phase !== "reverting" || swap.to === undefined) return step
        const end = Supervision.step(step.state, { _tag: "Gone", generation: swap.to, at: 0 })
        const last = Supervision.step(end.state, { _tag: "TimerFired", timer: "handoff:resume", at: 0 })
        const commands = [...step.commands, ...end.commands, ...last.commands]
        return { state: last.state, commands: commands.filter((one) => one._tag !== "Signal") }
      }
    })
  },
  {
    name: "the supervisor forgets the timer of a starting generation",
    breaks: "0 without a fault a swap commits",
    settings: {
      mode: "overlap",
      ...supervision((commands) => commands.filter((one) => one._tag !== "SetTimer" || one.timer !== "settle:2"))
    }
  },
  {
    name: "the supervisor forgets to try again",
    breaks: "liveness",
    settings: supervision((commands) => commands.filter((one) => one._tag !== "SetTimer" || one.timer !== "restart"))
  },
  {
    name: "the document is written after the commands",
    breaks: "7 what was told stays true",
    settings: { mode: "overlap", ...policies({ savesFirst: false }) }
  },
  {
    name: "the document is renamed without a sync",
    breaks: "7 what was told stays true",
    settings: backend({ replace: hastyReplace })
  },
  {
    name: "the document does not name what is about to be launched",
    breaks: "liveness",
    settings: {
      mode: "overlap",
      ...policies({
        document: (state, facts) => {
          const document = Document.of(state, facts)
          return { ...document, generations: document.generations.filter((one) => one.process !== null) }
        }
      })
    }
  },
  {
    name: "a process is known by its pid alone",
    breaks: "6 nothing but the handoff's own",
    settings: { ...backend(byPidAlone), faults: 2 }
  },
  {
    name: "a restarted supervisor binds its listener anew",
    breaks: "liveness",
    settings: backend({ adopt: () => undefined })
  },
  {
    name: "the document is written in place",
    breaks: "7 what was told stays true",
    settings: { mode: "overlap", ...backend({ replace: inPlace }) }
  },
  {
    name: "a successor gets no listener",
    breaks: "0 without a fault a swap commits",
    settings: backend({ launch: withoutListener })
  },
  {
    name: "the supervisor keeps the successor's end of the channel",
    breaks: "liveness",
    settings: backend({ launch: keepingBothEnds })
  },
  {
    name: "a restarted supervisor starts the old command beside what lives",
    breaks: "8 a stop leaves nobody",
    settings: policies({
      recovery: (document, sightings, options, at, patient) =>
        Recovery.decide({ ...document, generations: [], serving: null, swap: null }, sightings, options, at, patient)
    })
  },
  {
    name: "a daemon removes the handoff socket's path when it leaves",
    breaks: "liveness",
    settings: policies({ removesOwnPathOnly: false })
  },
  {
    name: "an incumbent that resumes leaves the path to the dead successor",
    breaks: "liveness",
    settings: policies({ reclaimsPath: "never" })
  },
  {
    name: "an incumbent that could not take the path back leaves it at that",
    breaks: "liveness",
    settings: { ...policies({ reclaimsPath: "once" }), faults: 2, kinds: ["kill", "call"] }
  },
  {
    name: "the exclusive program is started before the old one has ended",
    breaks: "1 one program runs",
    settings: {
      mode: "exclusive",
      ...policies({
        supervision: (state, event) => {
          const step = Supervision.step(state, event)
          const { swap } = step.state
          if (swap?.phase !== "clearing" || swap.from === undefined || state.swap !== undefined) return step
          const early = Supervision.step(step.state, { _tag: "Gone", generation: swap.from, at: 0 })
          return { state: early.state, commands: [...step.commands, ...early.commands] }
        }
      })
    }
  },
  {
    name: "the supervisor kills the leader of a group and nobody else",
    breaks: "liveness",
    settings: {
      mode: "overlap",
      ...supervision((commands) =>
        commands.map((one) => (one._tag === "Signal" && one.to === "group" ? { ...one, to: "process" as const } : one))
      )
    }
  },
  {
    name: "a restarted supervisor sees of a group its leader alone",
    breaks: "liveness",
    settings: {
      mode: "overlap",
      faults: 2,
      kinds: ["kill", "group"],
      ...backend({
        groupMembers: (calls, group) => World.linux.groupMembers(calls, group).filter((pid) => pid === group)
      })
    }
  },
  {
    name: "a silent sealed daemon is swapped by overlap",
    breaks: "0 without a fault a swap commits",
    settings: {
      ...policies({
        supervision: (state, event) =>
          Supervision.step(state, event._tag === "SwapRequested" ? { ...event, mode: "overlap" } : event)
      })
    }
  },
  {
    name: "the daemon acknowledges before it is durable",
    breaks: "3 no acknowledged write is lost",
    settings: { daemon: hasty }
  },
  {
    name: "the daemon seals before it has drained",
    breaks: "3 no acknowledged write is lost",
    settings: { daemon: sealsTooSoon }
  },
  {
    name: "the daemon that resumes refuses every write",
    breaks: "6 the incumbent serves on",
    settings: { daemon: sulks }
  },
  {
    name: "the daemon writes after its seal",
    breaks: "5 only the lock's holder writes",
    settings: { daemon: writesOn }
  }
]

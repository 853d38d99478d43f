/**
 * Programs on the Rust crate of the protocol, for tests that put them and this project's in each other's roles.
 *
 * They are a cargo project of their own beside this file. `ensureBuilt` builds it; cargo itself finds out what is outdated and
 * makes parallel builds wait for each other, so that test modules in processes of their own do not collide.
 */
import { execFile } from "node:child_process"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { promisify } from "node:util"
import type { Ended, ManagedProcess, ManagedProcesses } from "../support/ManagedProcesses.ts"
import { requireTool } from "../support/Tools.ts"
import type { Place, Variables } from "./Place.ts"

/** A test that needs the programs is skipped without it: `it.skipIf(!cargo.available)`. The crate asks for this version. */
export const cargo = requireTool("cargo", "1.92")

const built = (name: string): string => join(import.meta.dirname, "target", "release", name)

/** Executables that run without arguments in the role that their environment gives them. */
export const RUST_DAEMON = built("rust-daemon")
/** Needs INTEROP_NODE, which every place's variables have, and nothing built. */
export const TYPESCRIPT_DAEMON = join(import.meta.dirname, "typescript-daemon")
export const RUST_SUPERVISOR = built("rust-supervisor")
export const BENCH_DAEMON = built("bench-daemon")
export const BENCH_SUPERVISOR = built("bench-supervisor")

/** Milliseconds, for the hook that calls `ensureBuilt`: a first build fetches and compiles some fifty crates. */
export const BUILD_TIMEOUT = 300_000

const build = async (program: string): Promise<void> => {
  try {
    await promisify(execFile)(program, ["build", "--release", "--locked", "--quiet", "--jobs", "1"], {
      cwd: import.meta.dirname,
      maxBuffer: 16 * 1024 * 1024
    })
  } catch (error) {
    throw new Error(`the Rust programs do not build:\n${(error as { stderr?: string }).stderr ?? String(error)}`)
  }
}

/** Builds the Rust programs, optimised, unless they are up to date; does nothing without cargo. */
export const ensureBuilt = async (): Promise<void> => {
  if (cargo.available) await build(cargo.path)
}

/** What the crate's supervisor says of a swap; the milliseconds of phases that were not reached are null. */
export interface Swap {
  readonly event: "swap"
  readonly committed: boolean
  readonly abort_reason: string | null
  /** The crate's error, where it gave no outcome. */
  readonly error: string | null
  /** What went wrong after a commit: the new control socket did not answer, or the predecessor did not end. */
  readonly aftermath: string | null
  readonly handoff_id: string | null
  /** Of the daemon that serves now. */
  readonly pid: number
  readonly predecessor: number | null
  readonly ms: number
  readonly hello_and_spawn_ms: number | null
  readonly drain_ms: number | null
  readonly seal_ms: number | null
  readonly begin_to_ready_ms: number | null
  /** From PrepareHandoff to Ready. */
  readonly gap_ms: number | null
  readonly settled_ms: number | null
}

type Said =
  | Swap
  | { readonly event: "listening"; readonly address: string }
  | { readonly event: "started"; readonly pid: number }
  | { readonly event: "ended" }
  | { readonly event: "refused"; readonly error: string }

export interface RustSupervisor {
  readonly process: ManagedProcess
  /** Of the listener named http. */
  readonly port: number
  /** Pid of the first daemon. */
  readonly first: number
  /** A handoff to a program; `variables` are the successor's own. One at a time. */
  readonly swap: (program: string, variables?: Variables) => Promise<Swap>
  /** Ends the supervisor and leaves the daemon running, unless told to stop it. */
  readonly quit: (how?: { readonly stop: boolean }) => Promise<Ended>
}

/** Milliseconds: over the deadline that the supervisor works with by default. */
const PATIENCE = 70_000

/** The lines that a supervisor says, one after the other. */
const conversation = (supervisor: ManagedProcess) => {
  if (supervisor.child.stdout === null) throw new Error("the supervisor was started without a pipe to read from")
  const said = createInterface({ input: supervisor.child.stdout })[Symbol.asyncIterator]()
  const next = async <Event extends Said["event"]>(event: Event): Promise<Extract<Said, { event: Event }>> => {
    const { promise: late, reject } = Promise.withResolvers<never>()
    const timer = setTimeout(() => reject(new Error(`nothing said within ${PATIENCE} ms`)), PATIENCE)
    const heard = await Promise.race([said.next(), late]).finally(() => clearTimeout(timer))
    const line = heard.done === true ? undefined : (JSON.parse(heard.value) as Said)
    if (line?.event === event) return line as Extract<Said, { event: Event }>
    const { stderr } = supervisor.output()
    throw new Error(`expected ${event}, the supervisor said ${JSON.stringify(line ?? "nothing more")}:\n${stderr}`)
  }
  return { next, say: (words: ReadonlyArray<string>) => supervisor.child.stdin?.write(`${words.join(" ")}\n`) }
}

const words = (variables: Variables): ReadonlyArray<string> =>
  Object.entries(variables).map(([name, value]) => {
    if (/\s/.test(value)) throw new Error(`${name} may hold no blank: ${value}`)
    return `${name}=${value}`
  })

/**
 * A supervisor on the crate's API with one listener, once its first daemon serves. It stops the daemon when its stdin ends.
 *
 * @example
 * const supervisor = await startRustSupervisor(processes, where, { daemon: RUST_DAEMON })
 * const swap = await supervisor.swap(TYPESCRIPT_DAEMON, { HANDOFF_CRASH_AT: "n-after-begin" })
 */
export const startRustSupervisor = async (
  processes: ManagedProcesses,
  where: Place,
  how: {
    readonly daemon: string
    /** Of the first daemon alone. */
    readonly daemonVariables?: Variables
    /** Of the supervisor and all its daemons. */
    readonly variables?: Variables
  }
): Promise<RustSupervisor> => {
  const supervisor = processes.start(RUST_SUPERVISOR, ["serve"], {
    stdio: ["pipe", "pipe", "pipe"],
    env: {
      ...process.env,
      ...where.variables,
      ...how.variables,
      HANDOFF_PRIMITIVE_BINARY: how.daemon,
      INTEROP_INCUMBENT_ENV: words(how.daemonVariables ?? {}).join(" ")
    }
  })
  // A supervisor that crashed can't read: the reader of its answers tells why, a broken pipe would tell it as an exception.
  supervisor.child.stdin?.on("error", () => undefined)
  const { next, say } = conversation(supervisor)
  const { address } = await next("listening")
  const { pid: first } = await next("started")
  return {
    process: supervisor,
    port: Number(address.slice(address.lastIndexOf(":") + 1)),
    first,
    swap: (program, variables = {}) => {
      say(["swap", program, ...words(variables)])
      return next("swap")
    },
    quit: async (how = { stop: false }) => {
      say(how.stop ? ["quit", "stop"] : ["quit"])
      await next("ended")
      return supervisor.ended
    }
  }
}

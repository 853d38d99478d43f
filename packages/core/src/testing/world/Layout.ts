/** Where things are in the kernel of a world: pids, paths, the address of the service. */
import type { Address } from "../../Address.ts"

/** The supervisor, and whoever connects to the service. */
export const SUPERVISOR = 10
export const CLIENT = 20

export const PORT = 80
export const ADDRESS: Address = { _tag: "Tcp", host: "127.0.0.1", port: PORT }

export const PROGRAM = "/bin/daemon"
export const STATE_FILE = "/run/state.json"
export const HANDOFF_SOCKET = "/run/handoff.sock"
export const LOCK_FILE = "/data/.handoff.lock"

/** What a generation's process is: it has one. */
export const pidOf = (generation: number): number => 100 + generation
export const generationOf = (pid: number): number => pid - 100

/** A child of a generation's process, in its group. */
export const childOf = (pid: number): number => 1_000 + pid

/** The first boot's id. */
export const BOOT = "boot 1"

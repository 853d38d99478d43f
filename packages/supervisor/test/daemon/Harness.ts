/** Starts test servers: by hand, or several generations on sockets that a holder keeps. */
import { once } from "node:events"
import { createServer, type Server } from "node:net"
import { fileURLToPath } from "node:url"
import {
  type ManagedProcess,
  type ManagedProcesses,
  managedProcesses
} from "../../../../test/support/ManagedProcesses.ts"
import { descriptorOf } from "../../src/internal/NodeHandle.ts"

const fixture = (name: string): string => fileURLToPath(new URL(`./fixtures/${name}`, import.meta.url))
const CONDITION = "--conditions=@handoff/source"

export interface Generation {
  readonly pid: number
  /** Waits for a line that this process wrote. */
  readonly said: (words: string) => Promise<RegExpExecArray>
  /** Waits for a line of its output, or of another generation on the same holder. */
  readonly printed: (words: string) => Promise<RegExpExecArray>
  readonly terminate: () => void
}

const generation = (pid: number, source: ManagedProcess): Generation => ({
  pid,
  said: (words) => source.line(new RegExp(`\\[${pid}\\] ${words}`, "m")),
  printed: (words) => source.line(new RegExp(words)),
  terminate: () => {
    process.kill(pid, "SIGTERM")
  }
})

export interface Harness extends AsyncDisposable {
  readonly processes: ManagedProcesses
  readonly byHand: (
    env?: Record<string, string>,
    program?: string,
    descriptors?: ReadonlyArray<number>
  ) => Generation & { readonly process: ManagedProcess }
  /** Sockets held by a process that never accepts; `start` begins a generation on them. */
  readonly held: (count?: number) => Promise<Held>
}

export interface Held {
  readonly ports: ReadonlyArray<number>
  readonly port: number
  readonly start: (env?: Record<string, string>, program?: string) => Promise<Generation>
}

const listening = async (): Promise<Server> => {
  const server = createServer()
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  return server
}

const hold = async (processes: ManagedProcesses, count: number): Promise<Held> => {
  const servers = await Promise.all(Array.from({ length: count }, listening))
  const ports = servers.map((server) => {
    const address = server.address()
    return typeof address === "object" && address !== null ? address.port : 0
  })
  const holder = processes.start(process.execPath, [fixture("holder.ts")], {
    stdio: ["pipe", "pipe", "pipe", ...servers.map(descriptorOf)],
    env: { COUNT: String(count) }
  })
  for (const server of servers) server.close()
  let started = 0
  return {
    ports,
    port: ports[0] ?? 0,
    start: async (env = {}, program = fixture("server.ts")) => {
      started += 1
      holder.child.stdin?.write(`${JSON.stringify({ args: [CONDITION, program], env })}\n`)
      const [, pid] = await holder.line(new RegExp(`(?:started (\\d+)\\n[\\s\\S]*?){${started}}`))
      return generation(Number(pid), holder)
    }
  }
}

export const harness = (): Harness => {
  const processes = managedProcesses()
  return {
    processes,
    byHand: (env = {}, program = fixture("server.ts"), descriptors = []) => {
      const stdio = ["ignore", "pipe", "pipe", ...descriptors] as const
      const started = processes.start(process.execPath, [CONDITION, program], { env, stdio: [...stdio] })
      return { ...generation(started.pid, started), process: started }
    },
    held: (count = 1) => hold(processes, count),
    [Symbol.asyncDispose]: () => processes[Symbol.asyncDispose]()
  }
}

/**
 * Starts one generation: looks its program up, opens its stdio and its notify socket, plans, launches.
 *
 * Everything a child needs of the supervisor (log file, notify socket) lives in the scope given here, which is closed
 * when the generation is gone. Nothing of a launch that failed is left once that scope is closed.
 */
import type { Channels } from "@handoff/core/backend/Channels"
import { Executables } from "@handoff/core/backend/Executables"
import { Launcher, type Process } from "@handoff/core/backend/Launcher"
import { Notifications } from "@handoff/core/backend/Notifications"
import type { Processes } from "@handoff/core/backend/Processes"
import { Sockets } from "@handoff/core/backend/Sockets"
import { type Fd, FIRST_INHERITED_FD } from "@handoff/core/Fd"
import * as Launch from "@handoff/core/Launch"
import * as ListenEnvironment from "@handoff/core/ListenEnvironment"
import * as Placement from "@handoff/core/Placement"
import type { Command } from "@handoff/core/swap/Supervision"
import * as Effect from "effect/Effect"
import type { Listener } from "../Listeners.ts"
import type { OutputLog } from "../OutputLog.ts"
import * as ReadinessProbes from "../ReadinessProbes.ts"
import type { Options } from "../Supervisor.ts"

/** Where programs are looked for when there is no PATH: environ(7) leaves it open, this is what shells and systemd take. */
export const DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/** What launching and looking at generations needs of a backend. */
export type Requirements = Launcher | Executables | Notifications | Processes | Sockets | Channels

export interface Settings {
  readonly options: Options
  readonly directory: string
  readonly listeners: ReadonlyArray<Listener>
  /** The path at which a daemon that owns data serves its handoff socket. */
  readonly handoffSocket: string
  readonly output: OutputLog
  /** What a child's environment and working directory are made from when the command says nothing. */
  readonly environment: Readonly<Record<string, string | undefined>>
  readonly workingDirectory: string
}

const withoutActivation = (environment: Readonly<Record<string, string | undefined>>): Record<string, string> => {
  const own = new Set<string>(ListenEnvironment.VARIABLES)
  const kept: Record<string, string> = {}
  for (const [key, value] of Object.entries(environment)) if (value !== undefined && !own.has(key)) kept[key] = value
  return kept
}

/** What a generation's environment is made from. */
const environmentOf = (
  { options, environment }: Pick<Settings, "options" | "environment">,
  command: Command
): Readonly<Record<string, string | undefined>> => ({ ...environment, ...options.environment, ...command.environment })

/** The wish for one generation, before it is fitted to what the launcher can do. */
export const specify = (
  settings: Pick<Settings, "options" | "listeners" | "environment" | "workingDirectory" | "handoffSocket">,
  command: Command,
  found: {
    readonly program: string
    readonly notifySocket: string
    readonly stdio: readonly [number, number, number]
    readonly token?: string
    /** The successor's end of its channel. */
    readonly channel?: Fd | undefined
  }
): Launch.LaunchSpec => {
  const { options, listeners } = settings
  const workingDirectory = command.workingDirectory ?? settings.workingDirectory
  return {
    program: found.program,
    argv: command.argv,
    environment: {
      ...withoutActivation(environmentOf(settings, command)),
      PWD: workingDirectory,
      ...ListenEnvironment.write({
        names: listeners.map((listener) => listener.name),
        notifySocket: found.notifySocket,
        controlSocket: settings.handoffSocket,
        successor: found.channel !== undefined,
        ...(found.token === undefined ? {} : { token: found.token })
      })
    },
    workingDirectory,
    placements: [
      ...found.stdio.map((source, target) => Placement.move(source, target)),
      ...listeners.map((listener, index) => Placement.move(listener.socket.fd, FIRST_INHERITED_FD + index)),
      ...(found.channel === undefined ? [] : [Placement.move(found.channel, FIRST_INHERITED_FD + listeners.length)])
    ],
    stampListenPid: true,
    ...(options.umask === undefined ? {} : { umask: options.umask }),
    ...(options.identity === undefined ? {} : { identity: options.identity })
  }
}

/** The path of a generation's notify socket. */
export const notifyPath = (settings: Pick<Settings, "directory">, generation: number): string =>
  `${settings.directory}/notify-${generation}.sock`

/** Hears what a generation sends to its NOTIFY_SOCKET, for the scope's life. */
export const hear = Effect.fnUntraced(function* (
  settings: Settings,
  generation: number,
  onNotify: (fields: Readonly<Record<string, string>>) => void
) {
  const notifications = yield* Notifications
  const uid = settings.options.identity?.uid
  const notify = yield* notifications.open(notifyPath(settings, generation), uid === undefined ? {} : { uid })
  yield* Effect.forkScoped(ReadinessProbes.listen(notify, onNotify))
  return notify.path
})

export interface Wish {
  readonly generation: number
  readonly token: string
  readonly command: Command
  /** Called with the fields of every datagram it sends to its NOTIFY_SOCKET. */
  readonly onNotify: (fields: Readonly<Record<string, string>>) => void
  /** For a successor: called with our end of its channel, which is closed when this is done. */
  readonly attach: ((fd: Fd) => Effect.Effect<void, { readonly message: string }>) | undefined
}

/** The program of a command, as it is found now. */
export const lookUp = Effect.fnUntraced(function* (
  settings: Pick<Settings, "options" | "environment" | "workingDirectory">,
  command: Command
) {
  const executables = yield* Executables
  const [name = ""] = command.argv
  return yield* executables.resolve(name, {
    workingDirectory: command.workingDirectory ?? settings.workingDirectory,
    path: environmentOf(settings, command).PATH ?? DEFAULT_PATH
  })
})

/** Ends what was started, and waits until nothing of it is left. */
const end = Effect.fnUntraced(function* (started: Process) {
  yield* Effect.ignore(started.signalGroup("SIGKILL"))
  yield* started.exit
  yield* ReadinessProbes.groupEmpty(started.pid)
})

/** Launches a generation. When it fails, nothing runs. */
export const launch = Effect.fnUntraced(function* (
  settings: Settings,
  { generation, token, command, onNotify, attach }: Wish
) {
  const launcher = yield* Launcher
  const program = yield* lookUp(settings, command)
  const stdio = yield* settings.output.open(generation)
  const notifySocket = yield* hear(settings, generation, onNotify)
  const start = (pair: readonly [Fd, Fd] | undefined) =>
    Effect.gen(function* () {
      const wish = specify(settings, command, {
        program,
        notifySocket,
        token,
        stdio: [stdio.stdin, stdio.stdout, stdio.stderr],
        channel: pair?.[1]
      })
      const { spec } = Launch.forCapabilities(wish, launcher.capabilities)
      const plan = yield* Effect.fromResult(Launch.plan(spec, yield* launcher.facts))
      return yield* launcher.launch(plan)
    })
  if (attach === undefined) return yield* start(undefined)
  // Both ends go when the child has its own and the channel a copy: an end kept open would hide that the other is gone.
  return yield* Effect.scoped(
    Effect.gen(function* () {
      const pair = yield* (yield* Sockets).pair
      const started = yield* start(pair)
      yield* Effect.tapError(attach(pair[0]), () => end(started))
      return started
    })
  )
})

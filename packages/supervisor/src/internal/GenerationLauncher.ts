/**
 * Starts one generation: looks its program up, opens its stdio and its notify socket, plans, launches.
 *
 * Everything a child needs of the supervisor (log file, notify socket) lives in the scope given here, which is closed
 * when the generation is gone. Nothing of a launch that failed is left once that scope is closed.
 */
import { Executables } from "@handoff/core/backend/Executables"
import { Launcher } from "@handoff/core/backend/Launcher"
import { Notifications } from "@handoff/core/backend/Notifications"
import type { Processes } from "@handoff/core/backend/Processes"
import { FIRST_INHERITED_FD } from "@handoff/core/Fd"
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
export type Requirements = Launcher | Executables | Notifications | Processes

export interface Settings {
  readonly options: Options
  readonly directory: string
  readonly listeners: ReadonlyArray<Listener>
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

/** The wish for one generation, before it is fitted to what the launcher can do. */
export const specify = (
  settings: Pick<Settings, "options" | "listeners" | "environment" | "workingDirectory">,
  command: Command,
  found: { readonly program: string; readonly notifySocket: string; readonly stdio: readonly [number, number, number] }
): Launch.LaunchSpec => {
  const { options, listeners } = settings
  const workingDirectory = command.workingDirectory ?? settings.workingDirectory
  return {
    program: found.program,
    argv: command.argv,
    environment: {
      ...withoutActivation({ ...settings.environment, ...options.environment, ...command.environment }),
      PWD: workingDirectory,
      ...ListenEnvironment.write({
        names: listeners.map((listener) => listener.name),
        notifySocket: found.notifySocket
      })
    },
    workingDirectory,
    placements: [
      ...found.stdio.map((source, target) => Placement.move(source, target)),
      ...listeners.map((listener, index) => Placement.move(listener.socket.fd, FIRST_INHERITED_FD + index))
    ],
    stampListenPid: true,
    ...(options.umask === undefined ? {} : { umask: options.umask }),
    ...(options.identity === undefined ? {} : { identity: options.identity })
  }
}

/** Launches a generation. `onNotify` is called with the fields of every datagram it sends to its NOTIFY_SOCKET. */
export const launch = Effect.fnUntraced(function* (
  settings: Settings,
  generation: number,
  command: Command,
  onNotify: (fields: Readonly<Record<string, string>>) => void
) {
  const launcher = yield* Launcher
  const executables = yield* Executables
  const notifications = yield* Notifications
  const { options } = settings
  const [name = ""] = command.argv
  const environment = { ...settings.environment, ...options.environment, ...command.environment }
  const program = yield* executables.resolve(name, {
    workingDirectory: command.workingDirectory ?? settings.workingDirectory,
    path: environment.PATH ?? DEFAULT_PATH
  })
  const stdio = yield* settings.output.open(generation)
  const uid = options.identity?.uid
  const notify = yield* notifications.open(
    `${settings.directory}/notify-${generation}.sock`,
    uid === undefined ? {} : { uid }
  )
  yield* Effect.forkScoped(ReadinessProbes.listen(notify, onNotify))
  const wish = specify(settings, command, {
    program,
    notifySocket: notify.path,
    stdio: [stdio.stdin, stdio.stdout, stdio.stderr]
  })
  const { spec } = Launch.forCapabilities(wish, launcher.capabilities)
  const plan = yield* Effect.fromResult(Launch.plan(spec, yield* launcher.facts))
  return yield* launcher.launch(plan)
})

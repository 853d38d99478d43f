/**
 * The whole backend as one layer: every contract of `@handoff/core/backend` on Linux, x86-64 and arm64, through ffi-rs.
 *
 * Each service has a layer of its own in its module, to be taken alone beside services from elsewhere. Building the layer
 * opens the C library; nothing else is opened until a service is used.
 */
import type { Channels } from "@handoff/core/backend/Channels"
import type { Executables } from "@handoff/core/backend/Executables"
import type { Files } from "@handoff/core/backend/Files"
import type { Launcher } from "@handoff/core/backend/Launcher"
import type { Locks } from "@handoff/core/backend/Locks"
import type { Notifications } from "@handoff/core/backend/Notifications"
import type { Processes } from "@handoff/core/backend/Processes"
import type { Sockets } from "@handoff/core/backend/Sockets"
import * as Layer from "effect/Layer"
import * as ChannelsLayer from "./Channels.ts"
import * as ExecutablesLayer from "./Executables.ts"
import * as FileLock from "./FileLock.ts"
import * as FilesLayer from "./Files.ts"
import * as LauncherLayer from "./Launcher.ts"
import * as NotificationsLayer from "./Notifications.ts"
import * as ProcessView from "./ProcessView.ts"
import * as SocketsLayer from "./Sockets.ts"
import type { UnsupportedPlatform } from "./UnsupportedPlatform.ts"

/** What {@link layer} provides. */
export type Services = Launcher | Executables | Sockets | Channels | Notifications | Locks | Processes | Files

/**
 * Every service of a backend. Fails with `UnsupportedPlatform` where the C library can't be used.
 *
 * @example
 * program.pipe(Effect.provide(FfiBackend.layer))
 */
export const layer: Layer.Layer<Services, UnsupportedPlatform> = Layer.mergeAll(
  LauncherLayer.layer,
  ExecutablesLayer.layer,
  SocketsLayer.layer,
  ChannelsLayer.layer,
  NotificationsLayer.layer,
  FileLock.layer,
  ProcessView.layer,
  FilesLayer.layer
)

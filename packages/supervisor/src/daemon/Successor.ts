/**
 * A successor's way to serving, one step after the other: each step is an object whose methods are the next steps, so that
 * a program cannot take them in another order.
 *
 *   handshake()          greets the supervisor                                  -> Acquainted
 *     .begin()           waits until the process before has let go              -> Begun
 *     .takeListeners()   checks the inherited listeners                         -> Equipped
 *     .lock()            takes the data lock                                    -> Locked
 *     .open(...)         opens the state                                        -> Opened
 *     .announce(...)     says Ready, and waits for the word to serve            -> Serving
 *
 * Before `begin` nothing is touched: not the data, not the lock, not the listeners. Nothing is accepted before `announce`
 * has resolved. Each step rejects with a DaemonError when this process will not serve; what it held is given back then,
 * and it should end (with status 1). `daemon()` takes all these steps itself.
 */
import { join, resolve } from "node:path"
import type { DataDirLock } from "./DataDirLock.ts"
import type { HandoffSocket } from "./HandoffSocket.ts"
import { type InheritedListener, inherit } from "./Inheritance.ts"
import { observeNothing } from "./internal/Points.ts"
import { SuccessorDriver } from "./internal/SuccessorDriver.ts"
import { programName } from "./ProgramName.ts"

export interface Acquainted {
  /** A UUID: the handoff's name. */
  readonly handoffId: string
  readonly begin: () => Promise<Begun>
}

export interface Begun {
  readonly takeListeners: () => Promise<Equipped>
}

export interface Equipped {
  readonly listeners: ReadonlyArray<InheritedListener>
  /** Tries for two seconds: the process before released it. */
  readonly lock: () => Promise<Locked>
}

export interface Locked {
  /** `close` undoes `open` when the state is not wanted after all; the lock is given back after it. */
  readonly open: (open: (signal: AbortSignal) => unknown, close: () => unknown) => Promise<Opened>
}

export interface Announcement {
  readonly listeningOn: ReadonlyArray<string>
  readonly healthy: boolean
  readonly revisions: ReadonlyArray<bigint>
}

export interface Opened {
  readonly announce: (announcement: Announcement) => Promise<Serving>
}

/** This process is the one that serves: accept now. */
export interface Serving {
  readonly lock: DataDirLock
  /** For `serveHandoffs` (daemon/Incumbent.ts), which hears the next supervisor. */
  readonly socket: HandoffSocket
  /** Resolves when the handoff socket's path leads to this process: at once, unless something is in its way. */
  readonly published: Promise<void>
}

const announced = async (driver: SuccessorDriver, announcement: Announcement): Promise<Serving> => {
  if (driver.phase !== "opening") return driver.ended
  driver.report({ _tag: "Opened", ...announcement, at: Date.now() })
  await driver.asked("Accept")
  return { lock: driver.lock, socket: driver.socket, published: driver.published }
}

const locked = (driver: SuccessorDriver): Locked => ({
  open: async (open, close) => {
    await driver.open(open, close)
    if (driver.phase !== "opening") return driver.ended
    return { announce: (announcement) => announced(driver, announcement) }
  }
})

const begun = (driver: SuccessorDriver, take: () => Promise<ReadonlyArray<InheritedListener>>): Begun => ({
  takeListeners: async () => {
    try {
      const listeners = await take()
      driver.report({ _tag: "ListenersTaken", at: Date.now() })
      return {
        listeners,
        lock: async () => {
          await driver.asked("Open")
          return locked(driver)
        }
      }
    } catch (error) {
      driver.explain(error)
      driver.report({ _tag: "ListenersFailed", at: Date.now() })
      return driver.ended
    }
  }
})

/** The first step on a driver that was made but not started. */
export const greet = async (
  driver: SuccessorDriver,
  take: () => Promise<ReadonlyArray<InheritedListener>>
): Promise<Acquainted> => {
  driver.start()
  await driver.asked("Begin")
  return {
    handoffId: driver.handoffId,
    begin: async () => {
      await driver.asked("TakeListeners")
      return begun(driver, take)
    }
  }
}

export interface HandshakeOptions {
  readonly dataDir: string
  /** Default: HANDOFF_CONTROL_SOCKET, else `<dataDir>/.handoff.sock`. */
  readonly controlSocket?: string
  readonly name?: string
}

/**
 * Greets the supervisor that started this process; consumes the variables it was started with. Undefined when this
 * process is no successor.
 *
 * @example
 * const acquainted = await handshake({ dataDir: "./data" })
 * const begun = await acquainted?.begin()
 */
export const handshake = async (options: HandshakeOptions): Promise<Acquainted | undefined> => {
  if (process.env.HANDOFF_ROLE === undefined) return undefined
  const inheritance = await inherit(process.env, true)
  if (inheritance.handoffFd === undefined) return undefined
  const dataDir = resolve(options.dataDir)
  const controlSocket = options.controlSocket ?? inheritance.controlSocket ?? join(dataDir, ".handoff.sock")
  const { name = programName() } = options
  const driver = new SuccessorDriver(
    { descriptor: inheritance.handoffFd, dataDir, controlSocket, name },
    observeNothing
  )
  return greet(driver, inheritance.take)
}

/**
 * Misfortunes for the service: loaded before it (`node --import .../faults.ts server.ts`), it reads the name of one from the
 * file `fault` in the data directory at the moment it can strike. A misfortune strikes once.
 *
 *   seal-fails, seal-fails-late   the old version's seal throws, before or after it closed the database
 *   seal-slow                     the seal takes 300 ms
 *   seal-killed                   the old version is killed in its seal
 *   open-fails, open-exits        the new version's open throws, or ends the process
 *   open-killed, open-killed-late the new version is killed after Begin, before or after it opened the database
 *   open-hangs                    the new version blocks in its open
 *   unhealthy, behind             the new version cannot read its revision, or knows an old one
 *
 * It also looks, at each opening, for a second writer: with the data lock held nobody else may have the database open. Whoever
 * was killed has left its line `close` out of `generations.log`, but does not live; one that lives is written to
 * the file `overlaps`.
 */
import { appendFileSync, readFileSync, rmSync } from "node:fs"
import { join } from "node:path"
import { isAlive } from "../../../test/support/ProcessTable.ts"
import { Store } from "../Store.ts"
import { generations } from "./Audit.ts"

export type Fault =
  | "seal-fails"
  | "seal-fails-late"
  | "seal-slow"
  | "seal-killed"
  | "open-fails"
  | "open-exits"
  | "open-killed"
  | "open-killed-late"
  | "open-hangs"
  | "unhealthy"
  | "behind"

/** Whether this misfortune was asked for. */
const strikes = (store: Store, fault: Fault): boolean => {
  const path = join(store.directory, "fault")
  try {
    if (readFileSync(path, "utf8") !== fault) return false
  } catch {
    return false
  }
  rmSync(path)
  return true
}

const block = (milliseconds: number): void => {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds)
}

const kill = (): void => {
  process.kill(process.pid, "SIGKILL")
}

/** One that is being killed gives the lock back a moment before it is gone. */
const DYING_MS = 2_000

const lookForWriter = (store: Store): void => {
  const last = generations(store.directory).at(-1)
  if (last === undefined || last.what === "close" || last.pid === process.pid) return
  const deadline = Date.now() + DYING_MS
  while (isAlive(last.pid) && Date.now() < deadline) block(5)
  if (isAlive(last.pid)) appendFileSync(join(store.directory, "overlaps"), `${last.pid} lives, ${process.pid} opens\n`)
}

const { open, seal, revision } = Store.prototype

/** What is meant for a new version must not strike an old one that opens its data again. */
let isNew = process.env.HANDOFF_ROLE === "successor"

Store.prototype.open = function (this: Store): void {
  lookForWriter(this)
  if (!isNew) return open.call(this)
  isNew = false
  if (strikes(this, "open-fails")) throw new Error("unable to open the database file")
  if (strikes(this, "open-killed")) kill()
  if (strikes(this, "open-hangs")) block(Number.POSITIVE_INFINITY)
  if (strikes(this, "open-exits")) {
    console.error("the schema is of a newer version")
    process.exit(1)
  }
  open.call(this)
  if (strikes(this, "open-killed-late")) kill()
  if (strikes(this, "behind")) this.revision = () => revision.call(this) - 1n
  if (strikes(this, "unhealthy")) {
    this.revision = () => {
      throw new Error("database disk image is malformed")
    }
  }
}

Store.prototype.seal = function (this: Store): bigint {
  if (strikes(this, "seal-fails")) throw new Error("disk I/O error")
  if (strikes(this, "seal-killed")) kill()
  if (strikes(this, "seal-slow")) block(300)
  const last = seal.call(this)
  if (strikes(this, "seal-fails-late")) throw new Error("disk I/O error")
  return last
}

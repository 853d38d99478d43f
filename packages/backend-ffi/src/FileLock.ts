/**
 * Whole-file advisory locks (flock(2)): the contract `Locks` of core, over the plain functions of Flock.ts.
 *
 * A daemon that stays clear of Effect's runtime imports those from Flock.ts.
 */
import { LockError, Locks } from "@handoff/core/backend/Locks"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Flock from "./Flock.ts"
import * as Libc from "./Libc.ts"

export { type Lock, type Refusal, tryLock, unlock } from "./Flock.ts"

const locks: Locks["Service"] = {
  acquire: (path) =>
    Effect.asVoid(
      Effect.acquireRelease(
        Effect.suspend(() =>
          Effect.fromResult(Result.mapError(Flock.tryLock(path), (reason) => new LockError({ path, reason })))
        ),
        (lock) => Effect.sync(() => Flock.unlock(lock))
      )
    )
}

/** Locks through flock(2). Fails with `UnsupportedPlatform` where the C library can't be used. */
export const layer = Layer.effect(
  Locks,
  Effect.as(
    Effect.suspend(() => Effect.fromResult(Libc.open())),
    locks
  )
)

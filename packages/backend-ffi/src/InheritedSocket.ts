/**
 * What a daemon must know of a descriptor it was started with, as plain synchronous functions.
 *
 * Order of the questions: is it open (fcntl), is it a socket of a family we know (SO_DOMAIN), where is it bound
 * (getsockname), does it listen (SO_ACCEPTCONN). Nothing is changed by asking.
 *
 * Limit: the kernel keeps the name a unix socket was bound under. One bound by this backend was renamed into place after
 * that, so the ending of its temporary name is taken off when the path without it exists.
 */
import { existsSync, fstatSync } from "node:fs"
import type { SocketErrorReason, SocketFacts } from "@handoff/core/backend/Sockets"
import type { ErrnoName } from "@handoff/core/Errno"
import { type Fd, isFd } from "@handoff/core/Fd"
import * as Result from "effect/Result"
import * as Libc from "./Libc.ts"
import * as SocketAddress from "./SocketAddress.ts"
import * as Calls from "./SocketCalls.ts"
import type { UnsupportedPlatform } from "./UnsupportedPlatform.ts"

/** The ending of the names under which unix listeners are bound before they are renamed into place. */
export const TEMPORARY_ENDING = /\.~[0-9a-z]{4}$/

/** Why a descriptor is not the listener it was said to be. */
export type Refusal =
  | Extract<SocketErrorReason, { readonly _tag: "NotASocket" | "BadAddress" | "CallFailed" }>
  | { readonly _tag: "NotOpen"; readonly fd: Fd }
  | { readonly _tag: "NotListening"; readonly fd: Fd }
  | { readonly _tag: "Unsupported"; readonly missing: ReadonlyArray<string> }

const families: Readonly<Record<number, SocketFacts["family"]>> = {
  [SocketAddress.AF_INET]: "tcp4",
  [SocketAddress.AF_INET6]: "tcp6",
  [SocketAddress.AF_UNIX]: "unix"
}

const settledPath = (path: string): string => {
  const settled = path.replace(TEMPORARY_ENDING, "")
  return settled !== path && existsSync(settled) ? settled : path
}

/** What is open at `fd`, through these calls; listening or not. */
export const factsOf = (calls: Calls.SocketCalls, fd: Fd): Result.Result<SocketFacts, Refusal> =>
  Result.gen(function* () {
    const flags = calls.fcntl(fd, Calls.F_GETFL, 0)
    if (Result.isFailure(flags)) return yield* Result.fail<Refusal>({ _tag: "NotOpen", fd })
    const domain = calls.option(fd, Calls.SOL_SOCKET, Calls.SO_DOMAIN)
    if (Result.isFailure(domain)) {
      return yield* Result.fail<Refusal>(
        domain.failure.errno === "ENOTSOCK" ? { _tag: "NotASocket", fd } : domain.failure
      )
    }
    const name = yield* calls.getsockname(fd)
    const family = families[domain.success]
    const address = SocketAddress.decode(name.bytes, name.length)
    if (family === undefined || address === undefined) {
      return yield* Result.fail<Refusal>({
        _tag: "BadAddress",
        detail: `address family ${domain.success} is not known`
      })
    }
    const listening = yield* calls.option(fd, Calls.SOL_SOCKET, Calls.SO_ACCEPTCONN)
    return {
      listening: listening === 1,
      family,
      address: address._tag === "Unix" ? { ...address, path: settledPath(address.path) } : address,
      inode: fstatSync(fd).ino,
      nonBlocking: (flags.success & Calls.O_NONBLOCK) !== 0
    }
  })

const withCalls = <A>(
  fd: Fd,
  use: (calls: Calls.SocketCalls) => Result.Result<A, Refusal>
): Result.Result<A, Refusal> => {
  if (!isFd(fd)) return Result.fail({ _tag: "NotOpen", fd })
  const libc = Libc.open()
  if (Result.isFailure(libc)) {
    const unsupported: UnsupportedPlatform = libc.failure
    return Result.fail({ _tag: "Unsupported", missing: unsupported.missing })
  }
  return use(Calls.of(libc.success))
}

/**
 * The facts of the listening socket at `fd`, or why it is none.
 *
 * @example
 * const facts = inspectListener(3)
 * if (Result.isSuccess(facts)) console.log(facts.success.address)
 */
export const inspectListener = (fd: Fd): Result.Result<SocketFacts, Refusal> =>
  withCalls(fd, (calls) =>
    Result.flatMap(factsOf(calls, fd), (facts) =>
      facts.listening ? Result.succeed(facts) : Result.fail<Refusal>({ _tag: "NotListening", fd })
    )
  )

/** Sets or clears FD_CLOEXEC (fcntl(2), F_SETFD); fails with the errno's name, `"EBADF"` for a closed descriptor. */
export const setCloseOnExec = (fd: Fd, closeOnExec = true): Result.Result<void, ErrnoName> => {
  const done = withCalls(fd, (calls) => calls.fcntl(fd, Calls.F_SETFD, closeOnExec ? Calls.FD_CLOEXEC : 0))
  if (Result.isSuccess(done)) return Result.succeed(undefined)
  if (done.failure._tag === "CallFailed") return Result.fail(done.failure.errno)
  return Result.fail(done.failure._tag === "Unsupported" ? "ENOSYS" : "EBADF")
}

/** A refusal in words. */
export const describe = (refusal: Refusal): string => {
  switch (refusal._tag) {
    case "NotOpen":
      return `descriptor ${refusal.fd} is not open`
    case "NotASocket":
      return `descriptor ${refusal.fd} is not a socket`
    case "NotListening":
      return `the socket at descriptor ${refusal.fd} does not listen`
    case "BadAddress":
      return refusal.detail
    case "CallFailed":
      return `${refusal.call} = ${refusal.errno}`
    case "Unsupported":
      return refusal.missing.join("; ")
  }
}

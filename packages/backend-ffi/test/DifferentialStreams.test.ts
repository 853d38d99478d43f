/**
 * Random sequences of calls on unix stream sockets made twice: on this machine's kernel, and on the simulated one. Each call
 * must give the same bytes, or the same errno.
 *
 * Two differences are known and looked past: a full buffer (the kernel counts its own overhead), and ECONNRESET, which the
 * simulated kernel leaves out; the real one gives it once before the end of a stream whose other end left bytes unread or
 * was never accepted.
 */
import { closeSync, openSync, realpathSync, unlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Libc from "@handoff/backend-ffi/Libc"
import * as SocketAddress from "@handoff/backend-ffi/SocketAddress"
import * as SocketCalls from "@handoff/backend-ffi/SocketCalls"
import type { ErrnoName } from "@handoff/core/Errno"
import * as FileTree from "@handoff/core/testing/FileTree"
import * as SimulatedFiles from "@handoff/core/testing/SimulatedFiles"
import * as SimulatedKernel from "@handoff/core/testing/SimulatedKernel"
import * as SimulatedProcess from "@handoff/core/testing/SimulatedProcess"
import * as SimulatedStreams from "@handoff/core/testing/SimulatedStreams"
import * as Result from "effect/Result"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { temporaryDirectory } from "../../../test/support/TemporaryDirectory.ts"
import { callsOn } from "./support/SimulatedCalls.ts"

const SEQUENCES = Number(process.env.HANDOFF_DIFFERENTIAL_SEQUENCES ?? 400)
const MSG_NOSIGNAL = 0x4000
const STREAM = SocketCalls.SOCK_STREAM | SocketCalls.SOCK_NONBLOCK | SocketCalls.SOCK_CLOEXEC
const DATAGRAM = SocketCalls.SOCK_DGRAM | SocketCalls.SOCK_NONBLOCK | SocketCalls.SOCK_CLOEXEC

type Opened = ReadonlyArray<number> | ErrnoName

/** A kernel, as these sequences use it: each call gives its value or the name of its errno. */
interface Calls {
  readonly pair: () => Opened
  readonly listen: (path: string, backlog: number) => Opened
  readonly datagram: (path: string) => Opened
  readonly file: (path: string) => Opened
  readonly connect: (path: string) => Opened
  readonly accept: (fd: number) => Opened
  readonly send: (fd: number, text: string) => number | ErrnoName
  readonly receive: (fd: number, limit: number) => string | ErrnoName
  readonly close: (fd: number) => unknown
  readonly unlink: (path: string) => string | undefined
}

const libc = Result.getOrThrow(Libc.open())
const sockets = SocketCalls.of(libc)
const accept4 = libc.bind("accept4", "i32", ["i32", "address", "address", "i32"])
const send = libc.bind("send", "i64", ["i32", "bytes", "i64", "i32"])
const recv = libc.bind("recv", "i64", ["i32", "bytes", "i64", "i32"])

/** A new socket that goes through some more calls, and is closed if one of them fails. */
const socketWith = (
  type: number,
  ...steps: ReadonlyArray<(fd: number) => Result.Result<number, SocketCalls.CallFailure>>
): Opened => {
  const fd = Result.getOrThrow(sockets.socket(SocketAddress.AF_UNIX, type))
  for (const step of steps) {
    const done = step(fd)
    if (Result.isSuccess(done)) continue
    closeSync(fd)
    return done.failure.errno
  }
  return [fd]
}

const receive = (fd: number, limit: number): string | ErrnoName => {
  // One more than asked for: an empty buffer has no address.
  const buffer = Buffer.alloc(limit + 1)
  const { value, errno } = recv(fd, buffer, limit, 0)
  if (errno === "ECONNRESET") return receive(fd, limit)
  return errno ?? `${buffer.toString("utf8", 0, value)}.`
}

const realCalls: Calls = {
  pair: () => Result.getOrThrow(sockets.pair(SocketAddress.AF_UNIX, STREAM)),
  listen: (path, backlog) =>
    socketWith(
      STREAM,
      (fd) => sockets.bind(fd, SocketAddress.encodeUnix(path)),
      (fd) => sockets.listen(fd, backlog)
    ),
  datagram: (path) => socketWith(DATAGRAM, (fd) => sockets.bind(fd, SocketAddress.encodeUnix(path))),
  file: (path) => [openSync(path, "r")],
  connect: (path) => socketWith(STREAM, (fd) => sockets.connect(fd, SocketAddress.encodeUnix(path))),
  accept: (fd) => {
    const { value, errno } = accept4(fd, 0, 0, SocketCalls.SOCK_NONBLOCK | SocketCalls.SOCK_CLOEXEC)
    return errno ?? [value]
  },
  send: (fd, text) => {
    const { value, errno } = send(fd, Buffer.from(`${text}\0`), text.length, MSG_NOSIGNAL)
    return errno ?? value
  },
  receive,
  close: (fd) => closeSync(fd),
  unlink: (path) => {
    try {
      unlinkSync(path)
      return undefined
    } catch (error) {
      return (error as NodeJS.ErrnoException).code
    }
  }
}

const simulatedCalls = (start: SimulatedKernel.Kernel): Calls => {
  const self = process.pid
  const { call } = callsOn(start)
  const opening = (f: (kernel: SimulatedKernel.Kernel) => SimulatedKernel.Done<number> | ErrnoName): Opened => {
    const fd = call(f)
    return typeof fd === "string" ? fd : [fd]
  }
  return {
    pair: () => call((now) => SimulatedStreams.pair(now, self)),
    listen: (path, backlog) => {
      const options = { address: { _tag: "Unix", path }, backlog, nonBlocking: true, mode: 0o777 } as const
      return opening((now) => SimulatedKernel.listen(now, self, options))
    },
    datagram: (path) => opening((now) => SimulatedKernel.bindDatagram(now, self, path)),
    file: (path) => opening((now) => SimulatedKernel.open(now, self, path, "read")),
    connect: (path) => opening((now) => SimulatedStreams.connect(now, self, path)),
    accept: (fd) => opening((now) => SimulatedStreams.accept(now, self, fd)),
    send: (fd, text) => call((now) => SimulatedStreams.send(now, self, fd, Buffer.from(text))),
    receive: (fd, limit) => {
      const bytes = call((now) => SimulatedStreams.receive(now, self, fd, limit))
      return typeof bytes === "string" ? bytes : `${Buffer.from(bytes).toString("utf8")}.`
    },
    close: (fd) => call((now) => SimulatedKernel.close(now, self, fd)),
    unlink: (path) => call((now) => SimulatedFiles.unlink(now, self, path))
  }
}

type Step =
  | { readonly _tag: "pair" | "file" }
  | { readonly _tag: "listen"; readonly path: string; readonly backlog: number }
  | { readonly _tag: "datagram" | "connect"; readonly path: string }
  | { readonly _tag: "unlink"; readonly path: string }
  | { readonly _tag: "accept" | "close"; readonly slot: number }
  | { readonly _tag: "send"; readonly slot: number; readonly text: string }
  | { readonly _tag: "receive"; readonly slot: number; readonly limit: number }

const socketPath = fc.constantFrom("s", "t")
const slot = fc.nat(7)
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 1, arbitrary: fc.record({ _tag: fc.constantFrom("pair", "file") }) },
  { weight: 3, arbitrary: fc.record({ _tag: fc.constant("listen"), path: socketPath, backlog: fc.nat(2) }) },
  { weight: 1, arbitrary: fc.record({ _tag: fc.constant("datagram"), path: socketPath }) },
  { weight: 1, arbitrary: fc.record({ _tag: fc.constant("unlink"), path: socketPath }) },
  {
    weight: 6,
    arbitrary: fc.record({
      _tag: fc.constant("connect"),
      path: fc.constantFrom("s", "s", "s", "t", "file", "missing", ".", "file/x")
    })
  },
  { weight: 5, arbitrary: fc.record({ _tag: fc.constant("accept"), slot }) },
  { weight: 2, arbitrary: fc.record({ _tag: fc.constant("close"), slot }) },
  {
    weight: 6,
    arbitrary: fc.record({ _tag: fc.constant("send"), slot, text: fc.constantFrom("", "a", "bcd", "efghij") })
  },
  { weight: 6, arbitrary: fc.record({ _tag: fc.constant("receive"), slot, limit: fc.constantFrom(0, 1, 2, 5, 100) }) }
)

const open = (calls: Calls, base: string, one: Exclude<Step, { _tag: "unlink" } | { slot: number }>): Opened => {
  switch (one._tag) {
    case "pair":
      return calls.pair()
    case "file":
      return calls.file(join(base, "file"))
    case "listen":
      return calls.listen(join(base, one.path), one.backlog)
    case "datagram":
      return calls.datagram(join(base, one.path))
    case "connect":
      return calls.connect(join(base, one.path))
  }
}

/** Makes one call; a slot counts around what is open. */
const take = (calls: Calls, slots: Array<number>, base: string, one: Step): unknown => {
  const keep = (opened: Opened) => {
    if (typeof opened !== "string") slots.push(...opened)
    return typeof opened === "string" ? opened : `${opened.length} opened`
  }
  if (one._tag === "unlink") return calls.unlink(join(base, one.path))
  if (!("slot" in one)) return keep(open(calls, base, one))
  const fd = slots[one.slot % slots.length]
  if (fd === undefined) return "nothing"
  switch (one._tag) {
    case "accept":
      return keep(calls.accept(fd))
    case "send":
      return calls.send(fd, one.text)
    case "receive":
      return calls.receive(fd, one.limit)
    case "close":
      slots.splice(one.slot % slots.length, 1)
      return calls.close(fd)
  }
}

const seen = new Set<string>()

const compare = (base: string, steps: ReadonlyArray<Step>): void => {
  writeFileSync(join(base, "file"), "")
  const files = FileTree.add(FileTree.empty, {
    [base]: FileTree.directory(0o777),
    [join(base, "file")]: FileTree.file("", 0o666)
  })
  const identity = { uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0, groups: [] }
  const self = SimulatedProcess.make({ pid: process.pid, identity })
  const simulated = simulatedCalls(SimulatedKernel.make({ processes: [self], files }))
  const [realSlots, simulatedSlots]: [Array<number>, Array<number>] = [[], []]
  try {
    for (const [index, one] of steps.entries()) {
      const found = take(realCalls, realSlots, base, one)
      const predicted = take(simulated, simulatedSlots, base, one)
      expect(predicted, `call ${index}: ${JSON.stringify(one)}`).toEqual(found)
      seen.add(`${one._tag} ${found === "." || (typeof found === "string" && /^E[A-Z]/.test(found)) ? found : "done"}`)
    }
  } finally {
    for (const fd of realSlots) closeSync(fd)
  }
}

describe("random sequences of calls on unix streams end as the simulated kernel predicts", () => {
  it(`${SEQUENCES} of them`, () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80, size: "max" }), (steps) => {
        using directory = temporaryDirectory()
        compare(realpathSync(directory.path), steps)
      }),
      { numRuns: SEQUENCES }
    )
    const outcomes = [
      ...["listen EADDRINUSE", "connect EAGAIN", "connect ECONNREFUSED", "connect ENOENT", "connect ENOTDIR"],
      ...[
        "connect EPROTOTYPE",
        "accept done",
        "accept EAGAIN",
        "accept EINVAL",
        "accept ENOTSOCK",
        "accept EOPNOTSUPP"
      ],
      ...["send done", "send EPIPE", "send ENOTCONN", "send ENOTSOCK"],
      ...["receive done", "receive .", "receive EAGAIN", "receive EINVAL", "receive ENOTSOCK"]
    ]
    // Or this test would have tested nothing.
    expect(outcomes.filter((one) => !seen.has(one))).toEqual([])
  })
})

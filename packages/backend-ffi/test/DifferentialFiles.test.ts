/**
 * Random sequences of file calls made twice: on this machine's kernel, and on the simulated one. Each call must give the
 * same result or the same errno, and the files must be the same afterwards.
 *
 * As root, half of the sequences run as another user: what may not be searched or written is part of what is compared.
 * What a power cut leaves can't be compared so; its laws are in core (SimulatedFiles.test.ts).
 */
import {
  chmodSync,
  closeSync,
  constants,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  realpathSync,
  renameSync,
  unlinkSync,
  writeFileSync,
  writeSync
} from "node:fs"
import { join } from "node:path"
import * as Libc from "@handoff/backend-ffi/Libc"
import type { ErrnoName } from "@handoff/core/Errno"
import * as FileTree from "@handoff/core/testing/FileTree"
import * as SimulatedFiles from "@handoff/core/testing/SimulatedFiles"
import * as SimulatedKernel from "@handoff/core/testing/SimulatedKernel"
import * as SimulatedProcess from "@handoff/core/testing/SimulatedProcess"
import * as Result from "effect/Result"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { temporaryDirectory } from "../../../test/support/TemporaryDirectory.ts"
import { callsOn } from "./support/SimulatedCalls.ts"

const SEQUENCES = Number(process.env.HANDOFF_DIFFERENTIAL_SEQUENCES ?? 400)
const ROOT = process.getuid?.() === 0
const OTHER = 1000
const LOCK_EX_NB = 2 | 4

type How = "read" | "append" | "truncate"
type Outcome = string | number | undefined

/** A kernel, as these sequences use it: each call gives its value or the name of its errno. */
interface Calls {
  readonly open: (path: string, how: How) => number | ErrnoName
  readonly write: (fd: number, text: string) => Outcome
  readonly read: (fd: number) => Outcome
  readonly sync: (fd: number) => Outcome
  readonly lock: (fd: number) => Outcome
  readonly close: (fd: number) => Outcome
  readonly rename: (from: string, to: string) => Outcome
  readonly unlink: (path: string) => Outcome
  /** What /proc says is open there. */
  readonly name: (fd: number) => string
}

const FLAGS = {
  read: constants.O_RDONLY,
  append: constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT,
  truncate: constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_TRUNC
} as const

const attempt = <A>(call: () => A): A | ErrnoName => {
  try {
    return call()
  } catch (error) {
    return (error as NodeJS.ErrnoException).code as ErrnoName
  }
}

const quietly = (call: () => void): ErrnoName | undefined =>
  attempt(() => {
    call()
    return undefined
  })

const libc = Result.getOrThrow(Libc.open())

const realCalls: Calls = {
  open: (path, how) => attempt(() => openSync(path, FLAGS[how], 0o640)),
  write: (fd, text) => attempt(() => writeSync(fd, text)),
  read: (fd) =>
    attempt(() => {
      const buffer = Buffer.alloc(4096)
      return buffer.toString("utf8", 0, readSync(fd, buffer, 0, buffer.length, 0))
    }),
  sync: (fd) => quietly(() => fsyncSync(fd)),
  lock: (fd) => {
    const { errno } = libc.call("flock", "i32", ["i32", "i32"], [fd, LOCK_EX_NB])
    return errno === "EAGAIN" ? "EWOULDBLOCK" : errno
  },
  close: (fd) => quietly(() => closeSync(fd)),
  rename: (from, to) => quietly(() => renameSync(from, to)),
  unlink: (path) => quietly(() => unlinkSync(path)),
  name: (fd) => readlinkSync(`/proc/self/fd/${fd}`)
}

const simulatedCalls = (start: SimulatedKernel.Kernel): Calls & { readonly kernel: () => SimulatedKernel.Kernel } => {
  const self = process.pid
  const { kernel, call } = callsOn(start)
  return {
    kernel,
    open: (path, how) => call((now) => SimulatedKernel.open(now, self, path, how, 0o640)),
    write: (fd, text) => call((now) => SimulatedFiles.write(now, self, fd, text)),
    read: (fd) => call((now) => SimulatedFiles.read(now, self, fd)),
    sync: (fd) => call((now) => SimulatedFiles.sync(now, self, fd)),
    lock: (fd) => call((now) => SimulatedKernel.lock(now, self, fd)),
    close: (fd) => call((now) => SimulatedKernel.close(now, self, fd)),
    rename: (from, to) => call((now) => SimulatedFiles.rename(now, self, from, to)),
    unlink: (path) => call((now) => SimulatedFiles.unlink(now, self, path)),
    name: (fd) => SimulatedKernel.describe(kernel(), self, fd)?.name.trimEnd() ?? ""
  }
}

type Step =
  | { readonly _tag: "open"; readonly path: string; readonly how: How }
  | { readonly _tag: "write"; readonly slot: number; readonly text: string }
  | { readonly _tag: "read" | "sync" | "lock" | "close"; readonly slot: number }
  | { readonly _tag: "rename"; readonly path: string; readonly to: string }
  | { readonly _tag: "unlink"; readonly path: string }

/** Some thrice, so that most sequences meet them. */
const COMMON = ["a", "b", "open/a"]
const PATHS = [
  ...[...COMMON, ...COMMON, ...COMMON],
  ...["fixed/text", "fixed/new", "closed/secret", "closed/none", "program/x", "fixed/text/x", "missing/x"]
]
const DIRECTORIES = [".", "open", "fixed", "closed"]

const path = fc.constantFrom(...PATHS)
const anyPath = fc.constantFrom(...PATHS, ...DIRECTORIES)
const slot = fc.nat(3)
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      _tag: fc.constant("open"),
      path: anyPath,
      how: fc.constantFrom<How>("read", "append", "truncate")
    })
  },
  { weight: 3, arbitrary: fc.record({ _tag: fc.constant("write"), slot, text: fc.constantFrom("x", "yz", "ü", "") }) },
  { weight: 3, arbitrary: fc.record({ _tag: fc.constantFrom("read", "sync"), slot }) },
  { weight: 3, arbitrary: fc.record({ _tag: fc.constant("lock"), slot }) },
  { weight: 1, arbitrary: fc.record({ _tag: fc.constant("close"), slot }) },
  { weight: 3, arbitrary: fc.record({ _tag: fc.constant("rename"), path, to: anyPath }) },
  { weight: 2, arbitrary: fc.record({ _tag: fc.constant("unlink"), path: anyPath }) }
)

const prepare = (base: string): void => {
  mkdirSync(base)
  const directory = (name: string, mode: number) => {
    mkdirSync(join(base, name))
    chmodSync(join(base, name), mode)
  }
  const file = (name: string, text: string, mode: number) => {
    writeFileSync(join(base, name), text)
    chmodSync(join(base, name), mode)
  }
  chmodSync(base, 0o777)
  for (const [name, mode] of [
    ["open", 0o777],
    ["fixed", 0o755],
    ["closed", 0o700]
  ] as const)
    directory(name, mode)
  file("program", "", 0o755)
  file("b", "b", 0o666)
  file("fixed/text", "text", 0o644)
  file("closed/secret", "secret", 0o666)
}

/** Everything below a directory, as the simulated kernel describes it. */
const survey = (base: string): ReadonlyArray<readonly [string, FileTree.Node]> =>
  readdirSync(base, { withFileTypes: true }).flatMap((entry) => {
    const found = join(base, entry.name)
    const { mode, uid, gid } = lstatSync(found)
    if (entry.isDirectory()) return [[found, FileTree.directory(mode & 0o777, uid, gid)] as const, ...survey(found)]
    return [[found, FileTree.file(readFileSync(found, "utf8"), mode & 0o777, uid, gid)] as const]
  })

/** The tree below `base` as text; what is only about power cuts is left out. */
const listing = (nodes: Iterable<readonly [string, FileTree.Node]>, base: string): ReadonlyArray<string> =>
  [...nodes]
    .filter(([found]) => found.startsWith(`${base}/`))
    .map(([found, node]) => {
      const content = node._tag === "File" ? JSON.stringify(node.content) : node._tag
      return `${found} ${node.mode.toString(8)} ${node.uid}:${node.gid} ${content}`
    })
    .sort()

/** Makes one call; a slot counts around what is open. */
const take = (calls: Calls, slots: Array<number>, base: string, one: Step): Outcome => {
  const at = (name: string) => join(base, name)
  if (one._tag === "open") {
    const fd = calls.open(at(one.path), one.how)
    if (typeof fd === "string") return fd
    slots.push(fd)
    return "opened"
  }
  if (one._tag === "rename") return calls.rename(at(one.path), at(one.to))
  if (one._tag === "unlink") return calls.unlink(at(one.path))
  const fd = slots[one.slot % slots.length]
  if (fd === undefined) return "nothing"
  if (one._tag === "write") return calls.write(fd, one.text)
  // The simulated kernel forgets what was in a file that is open and has no name.
  if (one._tag === "read" && calls.name(fd).endsWith("(deleted)")) return "forgotten"
  if (one._tag === "close") slots.splice(one.slot % slots.length, 1)
  return calls[one._tag](fd)
}

const asUser = <A>(uid: number, f: () => A): A => {
  if (uid === process.geteuid?.()) return f()
  process.setegid?.(uid)
  process.seteuid?.(uid)
  try {
    return f()
  } finally {
    process.seteuid?.(0)
    process.setegid?.(0)
  }
}

const seen = new Map<string, number>()

const compare = (directory: string, uid: number, steps: ReadonlyArray<Step>): void => {
  // Not what is right below /tmp, which is sticky.
  chmodSync(directory, 0o755)
  const base = join(directory, "base")
  prepare(base)
  const files = FileTree.add(FileTree.empty, {
    [directory]: FileTree.directory(0o755, process.geteuid?.(), process.getegid?.()),
    ...Object.fromEntries(survey(directory))
  })
  const gid = uid === process.geteuid?.() ? (process.getegid?.() ?? 0) : uid
  const identity = { uid, gid, groups: process.getgroups?.() ?? [] }
  const self = SimulatedProcess.make({ pid: process.pid, identity, umask: process.umask() })
  const simulated = simulatedCalls(SimulatedKernel.make({ processes: [self], files }))
  const [realSlots, simulatedSlots]: [Array<number>, Array<number>] = [[], []]
  try {
    asUser(uid, () => {
      for (const [index, one] of steps.entries()) {
        const found = take(realCalls, realSlots, base, one)
        const predicted = take(simulated, simulatedSlots, base, one)
        expect(predicted, `call ${index} as uid ${uid}: ${JSON.stringify(one)}`).toEqual(found)
        const key = `${one._tag}: ${typeof found === "string" && /^E[A-Z]/.test(found) ? found : "done"}`
        seen.set(key, (seen.get(key) ?? 0) + 1)
      }
    })
    expect(listing(simulated.kernel().files, base)).toEqual(listing(survey(base), base))
    for (const [index, fd] of realSlots.entries()) {
      expect(simulated.name(simulatedSlots[index] ?? -1)).toBe(realCalls.name(fd))
    }
  } finally {
    for (const fd of realSlots) closeSync(fd)
  }
}

describe("random sequences of file calls end as the simulated kernel predicts", () => {
  const run = (uid: number): void => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60, size: "max" }), (steps) => {
        using directory = temporaryDirectory()
        compare(realpathSync(directory.path), uid, steps)
      }),
      { numRuns: SEQUENCES }
    )
  }

  it(`${SEQUENCES} of them, as the user of this process`, () => run(process.geteuid?.() ?? 0))

  it.skipIf(!ROOT)(`${SEQUENCES} of them, as a user who may not do everything`, () => run(OTHER))

  it("and they have met what they are about", () => {
    const wanted = ["open: done", "open: EISDIR", "open: ENOENT", "open: ENOTDIR", "read: EBADF", "read: EISDIR"]
    const more = ["lock: EWOULDBLOCK", "rename: EISDIR", "rename: ENOTDIR", "rename: done", "unlink: EISDIR"]
    const refused = ROOT ? ["open: EACCES", "rename: EACCES", "unlink: EACCES"] : []
    expect([...wanted, ...more, ...refused].filter((key) => !seen.has(key))).toEqual([])
    expect(seen.get("write: done")).toBeGreaterThan(SEQUENCES / 2)
  })
})

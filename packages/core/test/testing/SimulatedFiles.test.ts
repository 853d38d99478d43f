import * as FileTree from "@handoff/core/testing/FileTree"
import * as SimulatedFiles from "@handoff/core/testing/SimulatedFiles"
import * as SimulatedKernel from "@handoff/core/testing/SimulatedKernel"
import * as SimulatedProcess from "@handoff/core/testing/SimulatedProcess"
import fc from "fast-check"
import { describe, expect, it } from "vitest"

type Kernel = SimulatedKernel.Kernel

const ROOT = 100
const USER = 200

const boot = (): Kernel =>
  SimulatedKernel.make({
    processes: [
      SimulatedProcess.make({ pid: ROOT }),
      SimulatedProcess.make({ pid: USER, identity: { uid: 1000, gid: 1000, groups: [] }, workingDirectory: "/tmp" })
    ],
    files: FileTree.add(FileTree.empty, {
      "/tmp": FileTree.directory(0o777),
      "/tmp/other": FileTree.directory(0o777),
      "/tmp/old": FileTree.file("old", 0o666),
      "/fixed": FileTree.directory(0o755),
      "/fixed/text": FileTree.file("text", 0o644),
      "/fixed/program": FileTree.file("", 0o755),
      "/closed": FileTree.directory(0o700),
      "/closed/secret": FileTree.file("secret", 0o666)
    })
  })

const done = <A>(outcome: SimulatedKernel.Done<A> | string): SimulatedKernel.Done<A> => {
  if (typeof outcome === "string") throw new Error(outcome)
  return outcome
}

/** Opens, does something with the descriptor and closes it. */
const within = <A>(
  kernel: Kernel,
  path: string,
  how: "read" | "append" | "truncate",
  f: (kernel: Kernel, fd: number) => SimulatedKernel.Done<A> | string
): SimulatedKernel.Done<A> => {
  const opened = done(SimulatedKernel.open(kernel, ROOT, path, how))
  const { kernel: next, value } = done(f(opened.kernel, opened.value))
  return { kernel: done(SimulatedKernel.close(next, ROOT, opened.value)).kernel, value }
}

const write = (kernel: Kernel, path: string, text: string, how: "append" | "truncate" = "append"): Kernel =>
  within(kernel, path, how, (now, fd) => SimulatedFiles.write(now, ROOT, fd, text)).kernel

const sync = (kernel: Kernel, path: string): Kernel =>
  within(kernel, path, "read", (now, fd) => SimulatedFiles.sync(now, ROOT, fd)).kernel

const rename = (kernel: Kernel, from: string, to: string): Kernel =>
  done(SimulatedFiles.rename(kernel, ROOT, from, to)).kernel

const unlink = (kernel: Kernel, path: string): Kernel => done(SimulatedFiles.unlink(kernel, ROOT, path)).kernel

const contents = (kernel: Kernel): Readonly<Record<string, string>> =>
  Object.fromEntries(
    [...kernel.files].flatMap(([path, node]) => (node._tag === "File" ? [[path, node.content] as const] : [])).sort()
  )

const textAt = (kernel: Kernel, path: string): string | undefined => contents(kernel)[path]

const afterPowerCut = (kernel: Kernel, path: string): string | undefined =>
  textAt(SimulatedFiles.powerCut(kernel), path)

const errno = (outcome: SimulatedKernel.Done<unknown> | string): string =>
  typeof outcome === "string" ? outcome : "done"

describe("open", () => {
  const open = (path: string, how: "read" | "append" | "truncate", pid = ROOT) =>
    errno(SimulatedKernel.open(boot(), pid, path, how))

  it.each([
    ["a missing file for reading", open("/tmp/none", "read"), "ENOENT"],
    ["a file in a missing directory", open("/none/file", "append"), "ENOENT"],
    ["a file below a file", open("/fixed/text/file", "append"), "ENOTDIR"],
    ["a directory for writing", open("/tmp", "append"), "EISDIR"],
    ["another's directory for writing", open("/fixed", "truncate", USER), "EISDIR"],
    ["a directory for reading", open("/tmp", "read"), "done"],
    ["what is below a closed directory", open("/closed/secret", "read", USER), "EACCES"],
    ["another's file for writing", open("/fixed/text", "append", USER), "EACCES"],
    ["a new file in another's directory", open("/fixed/new", "append", USER), "EACCES"],
    ["a relative path", open("old", "read", USER), "done"],
    ["by a process that is not there", open("/tmp/old", "read", 999), "ESRCH"]
  ])("%s", (_, found, wanted) => expect(found).toBe(wanted))

  it("a new file has the mode less the umask, and its creator's ids", () => {
    const { kernel } = done(SimulatedKernel.open(boot(), USER, "new", "append", 0o666))
    expect(kernel.files.get("/tmp/new")).toMatchObject({ mode: 0o644, uid: 1000, gid: 1000, content: "" })
  })

  it("truncation empties a file, which keeps its mode and what of it is on the disk", () => {
    const { kernel } = done(SimulatedKernel.open(boot(), ROOT, "/tmp/old", "truncate"))
    expect(kernel.files.get("/tmp/old")).toMatchObject({ mode: 0o666, content: "" })
    expect(afterPowerCut(kernel, "/tmp/old")).toBe("old")
  })

  it("of a socket is ENXIO", () => {
    const address = { _tag: "Unix", path: "/tmp/socket" } as const
    const listening = done(
      SimulatedKernel.listen(boot(), ROOT, { address, backlog: 1, nonBlocking: false, mode: 0o600 })
    )
    expect(SimulatedKernel.open(listening.kernel, ROOT, "/tmp/socket", "read")).toBe("ENXIO")
  })
})

describe("read and write", () => {
  const opened = (path: string, how: "read" | "append") => {
    const { kernel, value } = done(SimulatedKernel.open(boot(), ROOT, path, how))
    return [kernel, ROOT, value] as const
  }

  it("go by what the descriptor was opened for", () => {
    expect(SimulatedFiles.read(...opened("/tmp/old", "append"))).toBe("EBADF")
    expect(SimulatedFiles.write(...opened("/tmp/old", "read"), "x")).toBe("EBADF")
    expect(SimulatedFiles.read(...opened("/tmp", "read"))).toBe("EISDIR")
    expect(SimulatedFiles.write(...opened("/tmp", "read"), "x")).toBe("EBADF")
    expect(done(SimulatedFiles.read(...opened("/tmp/old", "read"))).value).toBe("old")
  })

  it("need an open descriptor of a file", () => {
    const kernel = boot()
    expect(SimulatedFiles.read(kernel, ROOT, 7)).toBe("EBADF")
    expect(SimulatedFiles.write(kernel, ROOT, 7, "x")).toBe("EBADF")
    expect(SimulatedFiles.sync(kernel, ROOT, 7)).toBe("EBADF")
    const bound = done(SimulatedKernel.bindDatagram(kernel, ROOT, "/tmp/socket"))
    expect(SimulatedFiles.sync(bound.kernel, ROOT, bound.value)).toBe("EINVAL")
  })

  it("a write goes to the end, and counts bytes", () => {
    const { kernel, value } = within(boot(), "/tmp/old", "append", (now, fd) =>
      SimulatedFiles.write(now, ROOT, fd, "ü")
    )
    expect([value, textAt(kernel, "/tmp/old")]).toEqual([2, "oldü"])
  })

  it("follow a file to its new name, and a file that lost its name gets nothing", () => {
    const reading = done(SimulatedKernel.open(boot(), ROOT, "/tmp/old", "read"))
    const writing = done(SimulatedKernel.open(reading.kernel, ROOT, "/tmp/old", "append"))
    const moved = rename(writing.kernel, "/tmp/old", "/tmp/new")
    const written = done(SimulatedFiles.write(moved, ROOT, writing.value, "er")).kernel
    expect(done(SimulatedFiles.read(written, ROOT, reading.value)).value).toBe("older")
    expect(SimulatedKernel.describe(written, ROOT, reading.value)?.name).toBe("/tmp/new")
    const replaced = rename(write(written, "/tmp/other/next", "next"), "/tmp/other/next", "/tmp/new")
    const late = done(SimulatedFiles.write(replaced, ROOT, writing.value, "late")).kernel
    expect(textAt(late, "/tmp/new")).toBe("next")
    expect(SimulatedKernel.describe(late, ROOT, reading.value)?.name).toBe("/tmp/new (deleted)")
  })
})

describe("rename and unlink", () => {
  const renamed = (from: string, to: string, pid = ROOT) => errno(SimulatedFiles.rename(boot(), pid, from, to))
  const unlinked = (path: string, pid = ROOT) => errno(SimulatedFiles.unlink(boot(), pid, path))

  it.each([
    ["a missing file", renamed("/tmp/none", "/tmp/x"), "ENOENT"],
    ["into a missing directory", renamed("/tmp/old", "/none/x"), "ENOENT"],
    ["below a file", renamed("/tmp/old", "/fixed/text/x"), "ENOTDIR"],
    ["below a program", renamed("/tmp/old", "/fixed/program/x"), "ENOTDIR"],
    ["from below a file", renamed("/fixed/text/x", "/tmp/x"), "ENOTDIR"],
    ["over a directory", renamed("/tmp/old", "/tmp/other"), "EISDIR"],
    ["over a directory above it", renamed("/tmp/old", "/tmp", USER), "ENOTEMPTY"],
    ["out of another's directory", renamed("/fixed/text", "/tmp/x", USER), "EACCES"],
    ["into another's directory", renamed("/tmp/old", "/fixed/x", USER), "EACCES"],
    ["a missing file of another's directory", renamed("/fixed/none", "/tmp/x", USER), "ENOENT"],
    ["a file of a closed directory", renamed("/closed/secret", "/tmp/x", USER), "EACCES"],
    ["a missing file of a closed directory", renamed("/closed/none", "/tmp/x", USER), "EACCES"],
    ["to its own name, where nothing may be changed", renamed("/fixed/text", "/fixed/text", USER), "done"],
    ["relative names", renamed("old", "./other/../new", USER), "done"],
    ["by a process that is not there", renamed("/tmp/old", "/tmp/x", 999), "ESRCH"]
  ])("rename %s", (_, found, wanted) => expect(found).toBe(wanted))

  it.each([
    ["a missing file", unlinked("/tmp/none"), "ENOENT"],
    ["below a file", unlinked("/fixed/text/x"), "ENOTDIR"],
    ["a directory", unlinked("/tmp/other"), "EISDIR"],
    ["a file of another's directory", unlinked("/fixed/text", USER), "EACCES"],
    ["a missing file of another's directory", unlinked("/fixed/none", USER), "ENOENT"],
    ["another's file in a directory of all", unlinked("old", USER), "done"],
    ["by a process that is not there", unlinked("/tmp/old", 999), "ESRCH"]
  ])("unlink %s", (_, found, wanted) => expect(found).toBe(wanted))

  it("a lock goes with its file, and a new file of the name has none", () => {
    const opened = done(SimulatedKernel.open(boot(), ROOT, "/tmp/lock", "append"))
    const locked = done(SimulatedKernel.lock(opened.kernel, ROOT, opened.value)).kernel
    const tryLock = (kernel: Kernel, path: string) => {
      const other = done(SimulatedKernel.open(kernel, USER, path, "append"))
      return errno(SimulatedKernel.lock(other.kernel, USER, other.value))
    }
    const open = { ...locked, files: FileTree.add(locked.files, { "/tmp/lock": FileTree.file("", 0o666) }) }
    expect(tryLock(open, "/tmp/lock")).toBe("EWOULDBLOCK")
    expect(tryLock(rename(open, "/tmp/lock", "/tmp/moved"), "/tmp/moved")).toBe("EWOULDBLOCK")
    expect(tryLock(rename(open, "/tmp/lock", "/tmp/moved"), "/tmp/lock")).toBe("done")
    expect(tryLock(unlink(open, "/tmp/lock"), "/tmp/lock")).toBe("done")
  })

  it("a unix listener goes with its socket's name: the old name is free and refuses", () => {
    const options = { backlog: 1, nonBlocking: false, mode: 0o666 }
    const at = (path: string) => ({ _tag: "Unix", path }) as const
    const first = done(SimulatedKernel.listen(boot(), ROOT, { ...options, address: at("/tmp/socket") })).kernel
    expect(SimulatedKernel.listen(first, ROOT, { ...options, address: at("/tmp/socket") })).toBe("EADDRINUSE")
    const moved = rename(first, "/tmp/socket", "/tmp/moved")
    expect(SimulatedKernel.listenerAt(moved, at("/tmp/socket"))).toBeUndefined()
    expect(SimulatedKernel.listenerAt(moved, at("/tmp/moved"))).toBeDefined()
    expect(errno(SimulatedKernel.listen(moved, ROOT, { ...options, address: at("/tmp/socket") }))).toBe("done")
  })
})

describe("a power cut", () => {
  it("ends every process, and leaves what was there at the start", () => {
    const cut = SimulatedFiles.powerCut(boot())
    expect([cut.processes.size, cut.descriptions.size, cut.locks.size]).toEqual([0, 0, 0])
    expect(cut.bootId).not.toBe(boot().bootId)
    expect(contents(cut)).toEqual(contents(boot()))
  })

  it("takes content that was not synced, also of a file that was there at the start", () => {
    const written = write(boot(), "/tmp/old", "er")
    expect(afterPowerCut(written, "/tmp/old")).toBe("old")
    expect(afterPowerCut(sync(written, "/tmp/old"), "/tmp/old")).toBe("older")
  })

  it("takes a name that its directory was not synced with, however well its file was", () => {
    const written = sync(write(boot(), "/tmp/new", "new"), "/tmp/new")
    expect(afterPowerCut(written, "/tmp/new")).toBeUndefined()
    expect(afterPowerCut(sync(written, "/tmp"), "/tmp/new")).toBe("new")
  })

  it("leaves a file empty whose name was synced and whose content was not", () => {
    expect(afterPowerCut(sync(write(boot(), "/tmp/new", "new"), "/tmp"), "/tmp/new")).toBe("")
  })

  it("brings back a name that was removed, until its directory is synced", () => {
    const removed = unlink(boot(), "/tmp/old")
    expect(afterPowerCut(removed, "/tmp/old")).toBe("old")
    expect(afterPowerCut(sync(removed, "/tmp"), "/tmp/old")).toBeUndefined()
  })

  it("a file that was renamed away does not come back under its old name with what is written later", () => {
    const moved = sync(rename(boot(), "/tmp/old", "/tmp/other/old"), "/tmp")
    const written = sync(write(moved, "/tmp/other/old", "er"), "/tmp/other/old")
    expect(contents(SimulatedFiles.powerCut(written))["/tmp/old"]).toBeUndefined()
    const another = sync(sync(write(written, "/tmp/old", "another"), "/tmp/old"), "/tmp")
    const late = sync(write(another, "/tmp/other/old", "!"), "/tmp/other/old")
    expect(afterPowerCut(late, "/tmp/old")).toBe("another")
    expect(afterPowerCut(sync(late, "/tmp/other"), "/tmp/other/old")).toBe("older!")
  })

  it("takes what is in a directory that is itself not on the disk", () => {
    const kernel = boot()
    const files = FileTree.add(kernel.files, { "/tmp/fresh": FileTree.directory(0o777) })
    const written = sync(sync(write({ ...kernel, files }, "/tmp/fresh/a", "a"), "/tmp/fresh/a"), "/tmp/fresh")
    expect([...SimulatedFiles.powerCut(written).files.keys()].filter((path) => path.includes("fresh"))).toEqual([])
    expect(afterPowerCut(sync(written, "/tmp"), "/tmp/fresh/a")).toBe("a")
  })
})

type Step =
  | { readonly _tag: "write" | "rewrite"; readonly path: string; readonly text: string }
  | { readonly _tag: "sync" | "unlink"; readonly path: string }
  | { readonly _tag: "rename"; readonly path: string; readonly to: string }

const DIRECTORIES = ["/tmp", "/tmp/other"]
const FILES = ["/tmp/old", "/tmp/a", "/tmp/b", "/tmp/other/a"]

const path = fc.constantFrom(...FILES)
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    _tag: fc.constantFrom("write" as const, "rewrite" as const),
    path,
    text: fc.constantFrom("x", "y", "zz")
  }),
  fc.record({ _tag: fc.constant("sync" as const), path: fc.constantFrom(...FILES, ...DIRECTORIES) }),
  fc.record({ _tag: fc.constant("unlink" as const), path }),
  fc.record({ _tag: fc.constant("rename" as const), path, to: path })
)

const take = (kernel: Kernel, one: Step): Kernel => {
  const missing = one._tag !== "write" && one._tag !== "rewrite" && !kernel.files.has(one.path)
  if (missing) return kernel
  switch (one._tag) {
    case "write":
      return write(kernel, one.path, one.text)
    case "rewrite":
      return write(kernel, one.path, one.text, "truncate")
    case "sync":
      return sync(kernel, one.path)
    case "unlink":
      return unlink(kernel, one.path)
    case "rename":
      return rename(kernel, one.path, one.to)
  }
}

/**
 * The same told by inodes: names lead to them, and the disk has names of its own. What the simulated kernel keeps with
 * each path must come to this.
 */
class Disk {
  private readonly inodes: Array<{ content: string; synced: string }> = []
  private readonly names = new Map<string, number>()
  private readonly durable = new Map<string, number>()

  constructor(files: Readonly<Record<string, string>>) {
    for (const [name, content] of Object.entries(files)) {
      this.names.set(name, this.inodes.push({ content, synced: content }) - 1)
      this.durable.set(name, this.inodes.length - 1)
    }
  }

  take(one: Step): void {
    const inode = this.names.get(one.path)
    const file = this.inodes[inode ?? -1]
    switch (one._tag) {
      case "write":
      case "rewrite":
        if (file === undefined) this.names.set(one.path, this.inodes.push({ content: one.text, synced: "" }) - 1)
        else file.content = one._tag === "write" ? file.content + one.text : one.text
        return
      case "sync":
        if (DIRECTORIES.includes(one.path)) this.syncDirectory(one.path)
        else if (file !== undefined) file.synced = file.content
        return
      case "unlink":
        this.names.delete(one.path)
        return
      case "rename":
        if (inode === undefined) return
        this.names.delete(one.path)
        this.names.set(one.to, inode)
    }
  }

  private syncDirectory(directory: string): void {
    const inside = (name: string) => FileTree.parentOf(name) === directory
    const arrived = [...this.names].filter(([name]) => inside(name))
    const numbers = new Set(arrived.map(([, inode]) => inode))
    for (const [name, inode] of this.durable) if (inside(name) || numbers.has(inode)) this.durable.delete(name)
    for (const [name, inode] of arrived) this.durable.set(name, inode)
  }

  afterPowerCut(): Readonly<Record<string, string>> {
    return Object.fromEntries([...this.durable].map(([name, inode]) => [name, this.inodes[inode]?.synced ?? ""]).sort())
  }
}

describe("for any sequence of operations", () => {
  const steps = fc.array(step, { maxLength: 40 })
  const run = (taken: ReadonlyArray<Step>): Kernel => taken.reduce(take, boot())

  it("a power cut leaves what was synced with its directory, and nothing else", () => {
    fc.assert(
      fc.property(steps, (taken) => {
        const disk = new Disk(contents(boot()))
        for (const one of taken) disk.take(one)
        expect(contents(SimulatedFiles.powerCut(run(taken)))).toEqual(disk.afterPowerCut())
      }),
      { numRuns: 3000 }
    )
  })

  it("a second power cut changes nothing but the boot", () => {
    fc.assert(
      fc.property(steps, (taken) => {
        const { bootId: first, ...once } = SimulatedFiles.powerCut(run(taken))
        const { bootId: second, ...twice } = SimulatedFiles.powerCut(SimulatedFiles.powerCut(run(taken)))
        expect(twice).toEqual(once)
        expect(second).not.toBe(first)
      })
    )
  })

  it("once everything is synced, a power cut takes nothing", () => {
    fc.assert(
      fc.property(steps, (taken) => {
        const kernel = run(taken)
        const all = [...Object.keys(contents(kernel)), ...DIRECTORIES].reduce(sync, kernel)
        expect(contents(SimulatedFiles.powerCut(all))).toEqual(contents(kernel))
      })
    )
  })

  it("files that are gone on with after a power cut know what of them is on the disk", () => {
    fc.assert(
      fc.property(steps, steps, (before, after) => {
        const cut = SimulatedFiles.powerCut(run(before))
        const disk = new Disk(contents(cut))
        for (const one of after) disk.take(one)
        const started = after.reduce(take, { ...cut, processes: boot().processes })
        expect(contents(SimulatedFiles.powerCut(started))).toEqual(disk.afterPowerCut())
      })
    )
  })

  it("a replacement leaves the old or the new text, whole, wherever the power is cut", () => {
    const temporary = "/tmp/a"
    const replacement: ReadonlyArray<Step> = [
      { _tag: "rewrite", path: temporary, text: "the " },
      { _tag: "write", path: temporary, text: "new text" },
      { _tag: "sync", path: temporary },
      { _tag: "rename", path: temporary, to: "/tmp/old" },
      { _tag: "sync", path: "/tmp" }
    ]
    fc.assert(
      fc.property(steps, (before) => {
        // Whatever was done, some text is there for good when the replacement begins.
        const start = sync(sync(write(run(before), "/tmp/old", "."), "/tmp/old"), "/tmp")
        const old = textAt(start, "/tmp/old")
        let kernel = start
        for (const one of replacement) {
          kernel = take(kernel, one)
          expect([old, "the new text"]).toContain(afterPowerCut(kernel, "/tmp/old"))
        }
        expect(afterPowerCut(kernel, "/tmp/old")).toBe("the new text")
        expect(afterPowerCut(kernel, temporary)).toBeUndefined()
      })
    )
  })
})

/**
 * Processes as /proc shows them: this one and the files around it as a simulated kernel, where a prediction starts from,
 * and any other as the view it would report itself.
 */
import { readdirSync, readFileSync, readlinkSync, statSync } from "node:fs"
import * as FdTable from "@handoff/core/FdTable"
import type { LimitValue, Resource, ResourceLimit } from "@handoff/core/Launch"
import type { ChildView } from "@handoff/core/testing/ChildView"
import * as FileTree from "@handoff/core/testing/FileTree"
import * as SimulatedKernel from "@handoff/core/testing/SimulatedKernel"
import * as SimulatedProcess from "@handoff/core/testing/SimulatedProcess"

const CLOSE_ON_EXEC = 0o2000000

// The names of /proc/PID/limits, in its order.
const RESOURCES: Readonly<Record<string, Resource>> = {
  "Max cpu time": "CPU",
  "Max file size": "FSIZE",
  "Max data size": "DATA",
  "Max stack size": "STACK",
  "Max core file size": "CORE",
  "Max resident set": "RSS",
  "Max processes": "NPROC",
  "Max open files": "NOFILE",
  "Max locked memory": "MEMLOCK",
  "Max address space": "AS",
  "Max file locks": "LOCKS",
  "Max pending signals": "SIGPENDING",
  "Max msgqueue size": "MSGQUEUE",
  "Max nice priority": "NICE",
  "Max realtime priority": "RTPRIO",
  "Max realtime timeout": "RTTIME"
}

/** A pid, or this process. */
type Who = number | "self"

const limits = (who: Who): SimulatedProcess.Limits => {
  const found: Partial<Record<Resource, ResourceLimit>> = {}
  const value = (text: string | undefined): LimitValue => (text === "unlimited" ? text : Number(text))
  for (const line of readFileSync(`/proc/${who}/limits`, "utf8").split("\n")) {
    const resource = RESOURCES[line.slice(0, 26).trim()]
    const [soft, hard] = line.slice(26).trim().split(/\s+/)
    if (resource !== undefined) found[resource] = { soft: value(soft), hard: value(hard) }
  }
  return { ...SimulatedProcess.defaultLimits(), ...found }
}

const signalSet = (mask: string | undefined): ReadonlyArray<number> => {
  const bits = BigInt(`0x${mask?.trim() ?? "0"}`)
  return Array.from({ length: 64 }, (_, index) => index + 1).filter((signal) => (bits >> BigInt(signal - 1)) & 1n)
}

/** Numbers, names and flags of what is open. What closes while it is looked at (the directory itself) is left out. */
const descriptors = (
  who: Who
): ReadonlyArray<{ readonly fd: number; readonly name: string; readonly closeOnExec: boolean }> =>
  readdirSync(`/proc/${who}/fd`).flatMap((text) => {
    try {
      const flags = /^flags:\s*([0-7]+)/m.exec(readFileSync(`/proc/${who}/fdinfo/${text}`, "utf8"))?.[1] ?? "0"
      const closeOnExec = (Number.parseInt(flags, 8) & CLOSE_ON_EXEC) !== 0
      return [{ fd: Number(text), name: readlinkSync(`/proc/${who}/fd/${text}`), closeOnExec }]
    } catch {
      return []
    }
  })

// capabilities(7): bits of CapEff.
const CAPABILITIES: ReadonlyArray<readonly [SimulatedProcess.PosixCapability, bigint]> = [
  ["CAP_SETGID", 6n],
  ["CAP_SETUID", 7n],
  ["CAP_SYS_RESOURCE", 24n]
]

const posixCapabilities = (mask: string | undefined): ReadonlySet<SimulatedProcess.PosixCapability> => {
  const bits = BigInt(`0x${mask?.trim() ?? "0"}`)
  return new Set(CAPABILITIES.flatMap(([name, bit]) => ((bits >> bit) & 1n ? [name] : [])))
}

/** The nodes of these paths and of every directory above them. */
export const tree = (paths: ReadonlyArray<string>): FileTree.FileTree => {
  const nodes: Record<string, FileTree.Node> = {}
  for (const path of paths) {
    for (let at = path; ; at = FileTree.parentOf(at)) {
      const stat = statSync(at, { throwIfNoEntry: false })
      if (stat !== undefined) {
        const { uid, gid } = stat
        const mode = stat.mode & 0o777
        nodes[at] = stat.isDirectory() ? FileTree.directory(mode, uid, gid) : FileTree.file("", mode, uid, gid)
      }
      if (at === "/") break
    }
  }
  return FileTree.add(FileTree.empty, nodes)
}

/** What stat and status say. */
const statusOf = (who: Who) => {
  const status = Object.fromEntries(
    readFileSync(`/proc/${who}/status`, "utf8")
      .split("\n")
      .map((line) => line.split(":\t"))
  ) as Readonly<Record<string, string | undefined>>
  const stat = readFileSync(`/proc/${who}/stat`, "utf8")
  const [state = "?", parent, group, session] = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
  const numbers = (text: string | undefined) => (text ?? "").trim().split(/\s+/).filter(Boolean).map(Number)
  return {
    state,
    parent: Number(parent),
    group: Number(group),
    session: Number(session),
    umask: Number.parseInt(status.Umask ?? "0", 8),
    identity: {
      uid: numbers(status.Uid)[0] ?? -1,
      gid: numbers(status.Gid)[0] ?? -1,
      groups: numbers(status.Groups)
    },
    posixCapabilities: posixCapabilities(status.CapEff),
    signals: {
      blocked: signalSet(status.SigBlk),
      ignored: signalSet(status.SigIgn),
      caught: signalSet(status.SigCgt)
    },
    noNewPrivileges: status.NoNewPrivs === "1"
  }
}

/** A kernel with this process in it; the next child gets `nextPid`. */
export const kernel = (files: FileTree.FileTree, nextPid: number): SimulatedKernel.Kernel => {
  const { state: _, ...status } = statusOf("self")
  const own = limits("self")
  const open = descriptors("self")
  const self = SimulatedProcess.make({
    ...status,
    pid: process.pid,
    table: FdTable.make(
      SimulatedProcess.descriptorLimit(own.NOFILE),
      open.map(({ fd, closeOnExec }) => [fd, { description: fd, closeOnExec }])
    ),
    workingDirectory: process.cwd(),
    limits: own
  })
  const made = SimulatedKernel.make({ processes: [self], files })
  return {
    ...made,
    descriptions: new Map(open.map(({ fd, name }) => [fd, { _tag: "File", name, path: name, access: "read" }])),
    next: { ...made.next, pid: nextPid }
  }
}

const strings = (path: string): ReadonlyArray<string> => readFileSync(path, "utf8").split("\0").slice(0, -1)

/** What /proc does not tell: the parent-death signal. */
export const UNKNOWN_SIGNAL = -1

/** A process seen from outside; undefined while it is not asleep, so that a program that still starts is not judged. */
export const view = (pid: number): ChildView | undefined => {
  const { state, parent, group, session, umask, identity, signals, noNewPrivileges } = statusOf(pid)
  if (state !== "S") return undefined
  const open = [...descriptors(pid)].sort((a, b) => a.fd - b.fd)
  return {
    pid,
    parent,
    group,
    session,
    argv: strings(`/proc/${pid}/cmdline`),
    environment: Object.fromEntries(
      strings(`/proc/${pid}/environ`).map((text) => [
        text.slice(0, text.indexOf("=")),
        text.slice(text.indexOf("=") + 1)
      ])
    ),
    descriptors: Object.fromEntries(open.map(({ fd, name }) => [fd, name])),
    closeOnExec: open.filter(({ closeOnExec }) => closeOnExec).map(({ fd }) => fd),
    workingDirectory: readlinkSync(`/proc/${pid}/cwd`),
    umask,
    identity,
    limits: limits(pid),
    blockedSignals: signals.blocked,
    ignoredSignals: signals.ignored,
    noNewPrivileges,
    parentDeathSignal: UNKNOWN_SIGNAL
  }
}

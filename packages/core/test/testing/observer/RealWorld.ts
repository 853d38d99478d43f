/** This process and the files around it as they are now, as a simulated kernel: where a prediction starts from. */
import { readdirSync, readFileSync, readlinkSync, statSync } from "node:fs"
import * as FdTable from "@handoff/core/FdTable"
import type { LimitValue, Resource, ResourceLimit } from "@handoff/core/Launch"
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

const limits = (): SimulatedProcess.Limits => {
  const found: Partial<Record<Resource, ResourceLimit>> = {}
  const value = (text: string | undefined): LimitValue => (text === "unlimited" ? text : Number(text))
  for (const line of readFileSync("/proc/self/limits", "utf8").split("\n")) {
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
const descriptors = (): ReadonlyArray<{ readonly fd: number; readonly name: string; readonly closeOnExec: boolean }> =>
  readdirSync("/proc/self/fd").flatMap((text) => {
    try {
      const flags = /^flags:\s*([0-7]+)/m.exec(readFileSync(`/proc/self/fdinfo/${text}`, "utf8"))?.[1] ?? "0"
      const closeOnExec = (Number.parseInt(flags, 8) & CLOSE_ON_EXEC) !== 0
      return [{ fd: Number(text), name: readlinkSync(`/proc/self/fd/${text}`), closeOnExec }]
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

/** A kernel with this process in it; the next child gets `nextPid`. */
export const kernel = (files: FileTree.FileTree, nextPid: number): SimulatedKernel.Kernel => {
  const status = Object.fromEntries(
    readFileSync("/proc/self/status", "utf8")
      .split("\n")
      .map((line) => line.split(":\t"))
  ) as Readonly<Record<string, string | undefined>>
  const stat = readFileSync("/proc/self/stat", "utf8")
  const [, , group, session] = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
  const numbers = (text: string | undefined) => (text ?? "").trim().split(/\s+/).filter(Boolean).map(Number)
  const own = limits()
  const open = descriptors()
  const self = SimulatedProcess.make({
    pid: process.pid,
    parent: process.ppid,
    group: Number(group),
    session: Number(session),
    table: FdTable.make(
      SimulatedProcess.descriptorLimit(own.NOFILE),
      open.map(({ fd, closeOnExec }) => [fd, { description: fd, closeOnExec }])
    ),
    workingDirectory: process.cwd(),
    umask: Number.parseInt(status.Umask ?? "0", 8),
    identity: {
      uid: numbers(status.Uid)[0] ?? -1,
      gid: numbers(status.Gid)[0] ?? -1,
      groups: numbers(status.Groups)
    },
    posixCapabilities: posixCapabilities(status.CapEff),
    limits: own,
    signals: {
      blocked: signalSet(status.SigBlk),
      ignored: signalSet(status.SigIgn),
      caught: signalSet(status.SigCgt)
    },
    noNewPrivileges: status.NoNewPrivs === "1"
  })
  const made = SimulatedKernel.make({ processes: [self], files })
  return {
    ...made,
    descriptions: new Map(open.map(({ fd, name }) => [fd, { _tag: "File", name, path: name, access: "read" }])),
    next: { ...made.next, pid: nextPid }
  }
}

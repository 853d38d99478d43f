/**
 * Processes and their relations as /proc shows them (proc_pid_stat(5), proc_tid_children(5)).
 *
 * Descendants are followed through `children` of each task, which costs a few microseconds a task however many processes
 * the machine has. A kernel without that file (CONFIG_PROC_CHILDREN) has every process looked at for its parent.
 *
 * Limits: a child whose parent has ended belongs to another parent by then, and is not found below its grandparent. The
 * kernel's list may leave out a sibling of a child that ends while it is read; the next look finds it.
 */
import { existsSync } from "node:fs"
import * as ProcNet from "./ProcNet.ts"

export interface ProcessStat {
  readonly pid: number
  /** `R`, `S`, `D`, `Z`, ... */
  readonly state: string
  readonly parent: number
  readonly group: number
  /** Clock ticks after boot. */
  readonly startTime: number
}

/** Undefined when there is no such process. The name may hold blanks and parentheses: fields begin after the last `)`. */
export const parseStat = (pid: number, text: string): ProcessStat | undefined => {
  const end = text.lastIndexOf(")")
  if (end < 0) return undefined
  const fields = text.slice(end + 2).split(" ")
  return {
    pid,
    state: fields[0] ?? "",
    parent: Number(fields[1]),
    group: Number(fields[2]),
    startTime: Number(fields[19])
  }
}

export const statOf = (pid: number): ProcessStat | undefined => parseStat(pid, ProcNet.readText(`/proc/${pid}/stat`))

/** Neither gone nor a zombie. */
export const isAlive = (stat: ProcessStat | undefined): stat is ProcessStat =>
  stat !== undefined && stat.state !== "Z" && stat.state !== "X"

/** Every living process this process can see. */
export const livingProcesses = (): ReadonlyArray<ProcessStat> =>
  ProcNet.readNames("/proc")
    .filter((name) => /^[0-9]+$/.test(name))
    .map((name) => statOf(Number(name)))
    .filter(isAlive)

let listsChildren: boolean | undefined

const childrenOf = (pid: number): ReadonlyArray<number> => {
  const children: Array<number> = []
  for (const task of ProcNet.readNames(`/proc/${pid}/task`)) {
    for (const child of ProcNet.readText(`/proc/${pid}/task/${task}/children`).split(" ")) {
      if (child !== "") children.push(Number(child))
    }
  }
  return children
}

const childrenByScan = (): ((pid: number) => ReadonlyArray<number>) => {
  const children = new Map<number, Array<number>>()
  for (const { pid, parent } of livingProcesses()) {
    const siblings = children.get(parent)
    if (siblings === undefined) children.set(parent, [pid])
    else siblings.push(pid)
  }
  return (pid) => children.get(pid) ?? []
}

/** The process and its living descendants, itself first; none when it has ended. */
export const livingTree = (root: number): ReadonlyArray<number> => {
  if (!isAlive(statOf(root))) return []
  listsChildren ??= existsSync(`/proc/${process.pid}/task/${process.pid}/children`)
  const children = listsChildren ? childrenOf : childrenByScan()
  const found = new Set([root])
  for (const pid of found) {
    for (const child of children(pid)) if (!found.has(child) && isAlive(statOf(child))) found.add(child)
  }
  return [...found]
}

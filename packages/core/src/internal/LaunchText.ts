/**
 * Launch plans for people: strace-like lines, and the descriptor table before and after as a picture.
 */
import type { Fd } from "../Fd.ts"
import type { Entry, FdTable } from "../FdTable.ts"
import * as FdTableDraft from "../FdTableDraft.ts"
import type { LaunchPlan, LimitValue, SystemCall } from "../Launch.ts"
import * as PlacementPlan from "../PlacementPlan.ts"

const quote = (text: string): string => JSON.stringify(text)

const formatLimit = (value: LimitValue): string => (value === "unlimited" ? "RLIM_INFINITY" : String(value))

/** Environments are long: only how many variables, as strace does. */
const formatEnvironment = (environment: Readonly<Record<string, string>>): string => {
  const count = Object.keys(environment).length
  return `/* ${count} ${count === 1 ? "variable" : "variables"} */`
}

const ranges = (numbers: ReadonlyArray<number>): string => {
  const parts: Array<string> = []
  let index = 0
  while (index < numbers.length) {
    const start = numbers[index] ?? 0
    let end = start
    while (numbers[index + 1] === end + 1) {
      index++
      end++
    }
    parts.push(start === end ? String(start) : `${start}-${end}`)
    index++
  }
  return parts.join(",")
}

const formatBare = (call: SystemCall): string => {
  switch (call._tag) {
    case "Dup2":
      return `dup3(${PlacementPlan.formatRef(call.from)}, ${call.to}, 0)`
    case "Duplicate": {
      const command = call.closeOnExec ? "F_DUPFD_CLOEXEC" : "F_DUPFD"
      const result = PlacementPlan.formatSlot(call.slot)
      return `${result} = fcntl(${PlacementPlan.formatRef(call.from)}, ${command}, ${call.atLeast})`
    }
    case "ClearCloseOnExec":
      return `fcntl(${PlacementPlan.formatRef(call.fd)}, F_SETFD, 0)`
    case "Close":
      return `close(${PlacementPlan.formatRef(call.fd)})`
    case "CloseRange": {
      const last = call.last === "max" ? "~0" : String(call.last)
      return `close_range(${call.first}, ${last}, ${call.how === "close" ? "0" : "CLOSE_RANGE_CLOEXEC"})`
    }
    case "SetResourceLimit": {
      const limit = `{rlim_cur=${formatLimit(call.soft)}, rlim_max=${formatLimit(call.hard)}}`
      return `prlimit64(0, RLIMIT_${call.resource}, ${limit}, NULL)`
    }
    case "SetProcessGroup":
      return "setpgid(0, 0)"
    case "SetSession":
      return "setsid()"
    case "SetUmask":
      return `umask(0${call.mask.toString(8).padStart(3, "0")})`
    case "SetGroups":
      return `setgroups(${call.groups.length}, [${call.groups.join(", ")}])`
    case "SetGid":
      return `setgid(${call.gid})`
    case "SetUid":
      return `setuid(${call.uid})`
    case "ChangeDirectory":
      return `chdir(${quote(call.path)})`
    case "SetNoNewPrivileges":
      return "prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)"
    case "SetParentDeathSignal":
      return `prctl(PR_SET_PDEATHSIG, ${call.signal})`
    case "StampPid":
      return 'readlink("/proc/self", LISTEN_PID, ...)'
    case "DefaultSignals":
      return `rt_sigaction(${ranges(call.signals)}, {sa_handler=SIG_DFL}, NULL, 8)`
    case "EmptySignalMask":
      return "rt_sigprocmask(SIG_SETMASK, [], NULL, 8)"
    case "Execute":
      return `execve(${quote(call.path)}, [${call.argv.map(quote).join(", ")}], ${formatEnvironment(call.environment)})`
  }
}

/**
 * One call as strace(1) would print it; slots are letters, and all signals reset are one line. A tolerated errno is told
 * behind it.
 */
export const formatCall = (call: SystemCall): string => {
  const tolerate = call.tolerate ?? []
  return tolerate.length === 0 ? formatBare(call) : `${formatBare(call)} /* or ${tolerate.join(", ")} */`
}

/** The whole plan, one line a system call. */
export const explain = (plan: LaunchPlan): string => plan.calls.map(formatCall).join("\n")

interface Outcome {
  readonly after: FdTable
  readonly failure: string | undefined
}

/** What the plan's calls make of a table, exec included; stops at the call that would fail. */
const replay = (plan: LaunchPlan, before: FdTable): Outcome => {
  const draft = FdTableDraft.make(before)
  const slots = new Map<number, Fd>()
  for (const [step, call] of plan.calls.entries()) {
    switch (call._tag) {
      case "Dup2":
      case "Duplicate":
      case "ClearCloseOnExec":
      case "Close":
      case "CloseRange": {
        const errno = PlacementPlan.apply(draft, slots, call)
        if (errno !== undefined && call.tolerate?.includes(errno) !== true) {
          return { after: FdTableDraft.freeze(draft), failure: `step ${step}: ${formatCall(call)} = ${errno}` }
        }
        break
      }
      case "SetResourceLimit":
        if (call.resource === "NOFILE") draft.limit = call.soft === "unlimited" ? Number.POSITIVE_INFINITY : call.soft
        break
      case "Execute":
        FdTableDraft.exec(draft)
        break
    }
  }
  return { after: FdTableDraft.freeze(draft), failure: undefined }
}

const cell = (entry: Entry | undefined): string =>
  entry === undefined ? "-" : `${entry.description}${entry.closeOnExec ? " (cloexec)" : ""}`

/**
 * The descriptor table before the plan and after it, as text: one line a descriptor, and where each came from. If a call
 * would fail on this table, the table as it is then, and the call.
 *
 * ```
 *  fd  before                   after exec
 *   3  log (cloexec)            http         from 7
 *   7  http (cloexec)           -
 * ```
 */
export const picture = (plan: LaunchPlan, before: FdTable): string => {
  const { after, failure } = replay(plan, before)
  const fds = [...new Set([...before.entries.keys(), ...after.entries.keys()])].sort((a, b) => a - b)
  const origins = new Map<Entry["description"], Fd>()
  for (const fd of fds) {
    const entry = before.entries.get(fd)
    if (entry !== undefined && !origins.has(entry.description)) origins.set(entry.description, fd)
  }
  const rows = fds.map((fd) => {
    const was = before.entries.get(fd)
    const is = after.entries.get(fd)
    const moved = is !== undefined && is.description !== was?.description
    return [String(fd), cell(was), cell(is), moved ? `from ${origins.get(is.description)}` : ""] as const
  })
  const head = ["fd", "before", failure === undefined ? "after exec" : "at the failure", ""] as const
  const width = (column: 0 | 1 | 2) => Math.max(...[head, ...rows].map((row) => row[column].length))
  const [numbers, left, right] = [width(0), width(1), width(2)]
  const lines = [head, ...rows].map(([fd, was, is, origin]) =>
    `${fd.padStart(numbers)}  ${was.padEnd(left)}  ${is.padEnd(right)}  ${origin}`.trimEnd()
  )
  return [...lines, ...(failure === undefined ? [] : [failure])].join("\n")
}

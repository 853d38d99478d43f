/** What a signal does to a process that neither catches nor ignores it: the default dispositions of signal(7). */
import type { SignalName } from "../Signal.ts"

/** `"dump"`: it ends with a core dump, if RLIMIT_CORE allows one. */
export type SignalAction = "ignore" | "continue" | "stop" | "dump" | "end"

const ACTIONS: Partial<Readonly<Record<SignalName, SignalAction>>> = {
  SIGCHLD: "ignore",
  SIGURG: "ignore",
  SIGWINCH: "ignore",
  SIGCONT: "continue",
  SIGSTOP: "stop",
  SIGTSTP: "stop",
  SIGTTIN: "stop",
  SIGTTOU: "stop",
  SIGQUIT: "dump",
  SIGILL: "dump",
  SIGTRAP: "dump",
  SIGABRT: "dump",
  SIGBUS: "dump",
  SIGFPE: "dump",
  SIGSEGV: "dump",
  SIGXCPU: "dump",
  SIGXFSZ: "dump",
  SIGSYS: "dump"
}

export const of = (signal: SignalName): SignalAction => ACTIONS[signal] ?? "end"

/** SIGCONT takes back the stop signals that wait, and a stop signal a SIGCONT: also when they are caught or ignored. */
export const cancels = (signal: SignalName, waiting: SignalName): boolean =>
  (of(signal) === "continue" && of(waiting) === "stop") || (of(signal) === "stop" && of(waiting) === "continue")

/**
 * Signal names and numbers of Linux on x86-64 and arm64 (signal(7)); both architectures number them alike.
 */
const numbers = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGQUIT: 3,
  SIGILL: 4,
  SIGTRAP: 5,
  SIGABRT: 6,
  SIGBUS: 7,
  SIGFPE: 8,
  SIGKILL: 9,
  SIGUSR1: 10,
  SIGSEGV: 11,
  SIGUSR2: 12,
  SIGPIPE: 13,
  SIGALRM: 14,
  SIGTERM: 15,
  SIGSTKFLT: 16,
  SIGCHLD: 17,
  SIGCONT: 18,
  SIGSTOP: 19,
  SIGTSTP: 20,
  SIGTTIN: 21,
  SIGTTOU: 22,
  SIGURG: 23,
  SIGXCPU: 24,
  SIGXFSZ: 25,
  SIGVTALRM: 26,
  SIGPROF: 27,
  SIGWINCH: 28,
  SIGIO: 29,
  SIGPWR: 30,
  SIGSYS: 31
} as const

/** A standard signal's name, such as `"SIGTERM"`. */
export type SignalName = keyof typeof numbers

/** The number of a signal: `number("SIGTERM")` is 15. */
export const number = (name: SignalName): number => numbers[name]

/** The name of a signal number, or `"SIG" + number` for a real-time signal. */
export const name = (value: number): string => {
  for (const [key, candidate] of Object.entries(numbers)) if (candidate === value) return key
  return `SIG${value}`
}

/** Reads `TERM`, `SIGTERM` or `15`; undefined for anything else. Lower case is accepted. */
export const parse = (text: string): SignalName | undefined => {
  const upper = text.trim().toUpperCase()
  for (const [key, candidate] of Object.entries(numbers)) {
    if (upper === key || `SIG${upper}` === key || upper === String(candidate)) return key as SignalName
  }
  return undefined
}

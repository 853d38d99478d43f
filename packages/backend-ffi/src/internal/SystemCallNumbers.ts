/** System call numbers (syscalls(2)) of what a child and the parent around it call, for each architecture. */
import type { Architecture } from "../trampoline/Code.ts"

const x64 = {
  chdir: 80,
  close: 3,
  close_range: 436,
  dup3: 292,
  execve: 59,
  fcntl: 72,
  pidfd_getfd: 438,
  pidfd_open: 434,
  pidfd_send_signal: 424,
  prctl: 157,
  prlimit64: 302,
  readlinkat: 267,
  rt_sigaction: 13,
  rt_sigprocmask: 14,
  setgid: 106,
  setgroups: 116,
  setpgid: 109,
  setsid: 112,
  setuid: 105,
  umask: 95
} as const

export type SystemCallName = keyof typeof x64

const arm64: Readonly<Record<SystemCallName, number>> = {
  chdir: 49,
  close: 57,
  close_range: 436,
  dup3: 24,
  execve: 221,
  fcntl: 25,
  pidfd_getfd: 438,
  pidfd_open: 434,
  pidfd_send_signal: 424,
  prctl: 167,
  prlimit64: 261,
  readlinkat: 78,
  rt_sigaction: 134,
  rt_sigprocmask: 135,
  setgid: 144,
  setgroups: 159,
  setpgid: 154,
  setsid: 157,
  setuid: 146,
  umask: 166
}

/** The numbers by architecture and name. */
export const numbers: Readonly<Record<Architecture, Readonly<Record<SystemCallName, number>>>> = { x64, arm64 }

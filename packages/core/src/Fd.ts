/**
 * File descriptor numbers.
 *
 * A descriptor is a small non-negative integer that names a slot of one process's descriptor table. The number says
 * nothing about what is open there: that is the open file description the slot refers to (open(2)).
 */

/** A file descriptor number: an integer from 0 up to, and not including, the process's RLIMIT_NOFILE. */
export type Fd = number

/** The first descriptor after stdio, where socket activation starts (sd_listen_fds(3), SD_LISTEN_FDS_START). */
export const FIRST_INHERITED_FD: Fd = 3

/** The largest number the kernel accepts as a descriptor argument (a C int). */
export const MAX_FD: Fd = 0x7fff_ffff

/** True for an integer from 0 to {@link MAX_FD}. */
export const isFd = (value: number): value is Fd => Number.isInteger(value) && value >= 0 && value <= MAX_FD

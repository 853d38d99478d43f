/**
 * Names of error numbers, as errno(3) lists them. Plans, simulations and errors speak in names; only a backend knows
 * the numbers of its platform.
 */

/** An error name such as `"EBADF"`. Numbers without a name here are written `"E" + number` by a backend. */
export type ErrnoName = `E${string}`

/**
 * The lock of a data directory. Its holder may write there and nobody else: an incumbent lets go of it before SealComplete,
 * a successor takes it after Begin, and a supervisor that follows one that died sees by it who owns the data.
 */

/** The file in the data directory that is locked (flock(2)); never removed, or two processes could lock two of this name. */
export const FILE_NAME = ".handoff.lock"

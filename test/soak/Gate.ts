/** A gate through which the loops of a soak pass between two deeds, so that they can all be halted where nothing is under way. */
export interface Gate {
  /** Waits while the gate is shut. */
  readonly pass: () => Promise<void>
  /** Shuts it; resolves when everybody stands before it. */
  readonly shut: () => Promise<void>
  readonly open: () => void
}

/** For so many loops, each of which passes again and again. */
export const gate = (loops: number): Gate => {
  let opened = Promise.withResolvers<void>()
  opened.resolve()
  let isShut = false
  let standing = 0
  let all = Promise.withResolvers<void>()
  return {
    pass: async () => {
      if (!isShut) return
      standing += 1
      if (standing === loops) all.resolve()
      await opened.promise
      standing -= 1
    },
    shut: () => {
      isShut = true
      opened = Promise.withResolvers()
      all = Promise.withResolvers()
      return all.promise
    },
    open: () => {
      isShut = false
      opened.resolve()
    }
  }
}

/** One simulated kernel after the other: each call is made on what the one before has left. */
import type { ErrnoName } from "@handoff/core/Errno"
import type { Done, Kernel } from "@handoff/core/testing/SimulatedKernel"

export interface SimulatedCalls {
  readonly kernel: () => Kernel
  /** The value of a call, or the name of its errno. */
  readonly call: <A>(f: (kernel: Kernel) => Done<A> | ErrnoName) => A | ErrnoName
}

export const callsOn = (start: Kernel): SimulatedCalls => {
  let kernel = start
  return {
    kernel: () => kernel,
    call: (f) => {
      const done = f(kernel)
      if (typeof done === "string") return done
      kernel = done.kernel
      return done.value
    }
  }
}

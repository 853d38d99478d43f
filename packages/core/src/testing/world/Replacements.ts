/**
 * What the replacement of the document's file comes to, remembered by the files that it is made in. A world in which it is
 * known shares these files with all others that follow it.
 */
import type { Kernel } from "../SimulatedKernel.ts"
import { SUPERVISOR } from "./Layout.ts"

type Disk = Pick<Kernel, "files" | "durable">

interface Entry extends Disk {
  /** The durable files that it was made with. */
  readonly from: Disk["durable"]
}

const tableSize = (kernel: Kernel): number | undefined => kernel.processes.get(SUPERVISOR)?.table.entries.size

export class Replacements {
  readonly #entries = new WeakMap<Disk["files"], Map<string, Entry>>()

  get(kernel: Kernel, text: string): Disk | undefined {
    const found = this.#entries.get(kernel.files)?.get(text)
    if (found === undefined || found.from !== kernel.durable) return undefined
    return { files: found.files, durable: found.durable }
  }

  /** Remembers nothing of a replacement that leaves something open. */
  set(before: Kernel, text: string, after: Kernel): void {
    if (tableSize(before) !== tableSize(after) || before.descriptions.size !== after.descriptions.size) return
    const entries = this.#entries.get(before.files) ?? new Map<string, Entry>()
    this.#entries.set(before.files, entries)
    entries.set(text, { from: before.durable, files: after.files, durable: after.durable })
  }
}

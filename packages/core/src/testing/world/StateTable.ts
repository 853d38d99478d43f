/**
 * The memory of a search: which states were seen, and how they were reached, in typed arrays.
 */
import type { Key } from "../Explorer.ts"
import { kindOf } from "./CheckedDaemon.ts"

/** Two mixes of 32 bits each; together they tell states apart. */
let low = 0
let high = 0

const mix = (value: number): void => {
  low = Math.imul(low ^ value, 0x85ebca6b)
  low = (low << 13) | (low >>> 19)
  high = Math.imul(high + value, 0xc2b2ae35)
  high ^= high >>> 15
}

const finish = (length: number): void => {
  low ^= length
  low = Math.imul(low ^ (low >>> 16), 0x7feb352d)
  low = (low ^ (low >>> 15)) | 0
  high = Math.imul(high ^ (high >>> 16) ^ length, 0x846ca68b)
  high = (high ^ (high >>> 13)) | 0
}

const KEYS = "a key is a text, or an array of whole numbers of 32 bits (from -2147483648 to 2147483647)"

const hash = (key: Key): void => {
  low = 0x9e3779b9 | 0
  high = 0x2545f491 | 0
  if (typeof key === "string") {
    for (let index = 0; index < key.length; index++) mix(key.charCodeAt(index))
  } else {
    if (!Array.isArray(key)) throw new Error(`the model's key gave ${kindOf(key)}; ${KEYS}`)
    for (let index = 0; index < key.length; index++) {
      const value = key[index]
      // Of anything else the mixes see 32 bits at most: different states would be taken for one.
      if ((value | 0) !== value) throw new Error(`the model's key gave ${kindOf(value)} at ${index}: ${KEYS}`)
      mix(value)
    }
  }
  finish(key.length)
}

const grown = <A extends Int32Array | Uint16Array>(array: A, length: number): A => {
  const larger = new (array.constructor as new (length: number) => A)(length)
  larger.set(array)
  return larger
}

export class StateTable {
  #slots = new Int32Array(1 << 16).fill(-1)
  #low = new Int32Array(1 << 15)
  #high = new Int32Array(1 << 15)
  #parents = new Int32Array(1 << 15)
  #ordinals = new Uint16Array(1 << 15)
  #size = 0

  get size(): number {
    return this.#size
  }

  /** The index of a state that was seen, or -1. */
  find(key: Key): number {
    hash(key)
    return this.#slots[this.#slot()] ?? -1
  }

  /** The index of a state that was seen; of a new one -index - 1. */
  add(key: Key, parent: number, ordinal: number): number {
    hash(key)
    const slot = this.#slot()
    const found = this.#slots[slot] as number
    if (found >= 0) return found
    const index = this.#size++
    if (index === this.#low.length) this.#grow()
    this.#low[index] = low
    this.#high[index] = high
    this.#parents[index] = parent
    this.#ordinals[index] = ordinal
    this.#slots[slot] = index
    if (this.#size * 2 > this.#slots.length) this.#rehash()
    return -index - 1
  }

  /** The transitions that lead to a state, by their numbers, and the state that each leads to. */
  path(index: number): ReadonlyArray<{ readonly ordinal: number; readonly to: number }> {
    const steps: Array<{ readonly ordinal: number; readonly to: number }> = []
    for (let at = index; at !== 0; at = this.#parents[at] as number) {
      steps.push({ ordinal: this.#ordinals[at] as number, to: at })
    }
    return steps.reverse()
  }

  #slot(): number {
    const mask = this.#slots.length - 1
    let slot = low & mask
    for (;;) {
      const index = this.#slots[slot] as number
      if (index < 0 || (this.#low[index] === low && this.#high[index] === high)) return slot
      slot = (slot + 1) & mask
    }
  }

  #grow(): void {
    const length = this.#low.length * 2
    this.#low = grown(this.#low, length)
    this.#high = grown(this.#high, length)
    this.#parents = grown(this.#parents, length)
    this.#ordinals = grown(this.#ordinals, length)
  }

  #rehash(): void {
    const slots = new Int32Array(this.#slots.length * 2).fill(-1)
    const mask = slots.length - 1
    for (let index = 0; index < this.#size; index++) {
      let slot = (this.#low[index] as number) & mask
      while ((slots[slot] as number) >= 0) slot = (slot + 1) & mask
      slots[slot] = index
    }
    this.#slots = slots
  }
}

/** The fair transitions of a search, to be followed backwards. */
export class Edges {
  #from = new Int32Array(1 << 16)
  #to = new Int32Array(1 << 16)
  #size = 0

  add(from: number, to: number): void {
    if (this.#size === this.#from.length) {
      this.#from = grown(this.#from, this.#size * 2)
      this.#to = grown(this.#to, this.#size * 2)
    }
    this.#from[this.#size] = from
    this.#to[this.#size++] = to
  }

  /** The first of the states `0 .. states` from which none of the homes can be reached. */
  firstWithoutWay(states: number, homes: ReadonlyArray<number>): number | undefined {
    // Counting sort by target: those that lead to state s are sources[starts[s] .. starts[s + 1]).
    const starts = new Int32Array(states + 2)
    for (let edge = 0; edge < this.#size; edge++) {
      const target = (this.#to[edge] as number) + 2
      starts[target] = (starts[target] as number) + 1
    }
    for (let state = 1; state < starts.length; state++) {
      starts[state] = (starts[state] as number) + (starts[state - 1] as number)
    }
    const sources = new Int32Array(this.#size)
    for (let edge = 0; edge < this.#size; edge++) {
      const target = (this.#to[edge] as number) + 1
      const at = starts[target] as number
      sources[at] = this.#from[edge] as number
      starts[target] = at + 1
    }
    const reached = new Uint8Array(states)
    const queue = new Int32Array(states)
    let [head, tail] = [0, 0]
    for (const home of homes) {
      reached[home] = 1
      queue[tail++] = home
    }
    while (head < tail) {
      const state = queue[head++] as number
      for (let at = starts[state] as number; at < (starts[state + 1] as number); at++) {
        const source = sources[at] as number
        if (reached[source] === 1) continue
        reached[source] = 1
        queue[tail++] = source
      }
    }
    const lost = reached.indexOf(0)
    return lost === -1 ? undefined : lost
  }
}

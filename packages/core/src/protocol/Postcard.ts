/**
 * The part of the postcard encoding (https://postcard.jamesmunns.com/wire-format) that the handoff protocol uses: unsigned
 * integers as LEB128 varints, one byte for u8 and bool, a varint index for enum variants, length then content for strings
 * and sequences, fixed arrays raw.
 *
 * Reading is as tolerant as the Rust crate of that name, and no more: an overlong varint (`8500` for 5) is accepted while
 * it fits the bytes its type may take (3 for u16, 5 for u32, 10 for u64 and lengths) and its last byte adds no bit that
 * the type lacks. Writing is always the shortest form.
 *
 * Both classes hold their failure and are to be asked once, at the end: after the first failure a read gives a neutral
 * value without moving, a write does nothing. So nothing throws, the first failure is the one reported, and a loop over a
 * declared length ends with the input however large that length is: it must test `failure` in its condition.
 *
 * A Reader borrows the bytes it is given; what it returns never refers to them. A Writer owns its buffer, which never
 * grows past `limit`; beyond it bytes are only counted.
 */
export { Reader } from "./PostcardReader.ts"
export { Writer } from "./PostcardWriter.ts"

/** What is wrong with received bytes. `offset` counts from the start of the payload, `field` is the path of the value. */
export type ReadError =
  /** The payload ends inside a varint. */
  | { readonly _tag: "TruncatedVarint"; readonly field: string; readonly offset: number }
  /** The payload ends before the `needed` bytes of a value; a declared length over 2^53 is rounded. */
  | {
      readonly _tag: "Truncated"
      readonly field: string
      readonly offset: number
      readonly needed: number
      readonly available: number
    }
  /** More bytes or more bits than the type has. */
  | { readonly _tag: "VarintOverflow"; readonly field: string; readonly offset: number; readonly type: VarintType }
  | { readonly _tag: "UnknownVariant"; readonly field: string; readonly offset: number; readonly index: number }
  | { readonly _tag: "InvalidBool"; readonly field: string; readonly offset: number; readonly value: number }
  | { readonly _tag: "InvalidUtf8"; readonly field: string; readonly offset: number }
  /** A handoff id whose length is not 16. */
  | { readonly _tag: "InvalidIdLength"; readonly field: string; readonly offset: number; readonly length: number }

/** What is wrong with a value that was to be written. */
export type WriteError =
  /** Not an integer of the field's range, or a byte array of another length than the field's. */
  | { readonly _tag: "OutOfRange"; readonly field: string; readonly type: string; readonly value: string }
  /** A lone surrogate: no UTF-8 can hold it, and replacing it would change the value silently. */
  | { readonly _tag: "IllFormedString"; readonly field: string; readonly index: number }
  | { readonly _tag: "InvalidHandoffId"; readonly field: string; readonly value: string }

export type VarintType = "u16" | "u32" | "u64" | "length"

/** One sentence for a person. */
export const explain = (error: ReadError | WriteError): string => {
  switch (error._tag) {
    case "TruncatedVarint":
      return `${error.field}: the payload ends inside the varint at byte ${error.offset}`
    case "Truncated":
      return `${error.field}: ${error.needed} bytes announced at byte ${error.offset}, ${error.available} are left`
    case "VarintOverflow":
      return `${error.field}: the varint at byte ${error.offset} does not fit a ${error.type}`
    case "UnknownVariant":
      return `${error.field}: unknown variant ${error.index} at byte ${error.offset}`
    case "InvalidBool":
      return `${error.field}: ${error.value} at byte ${error.offset} is neither 0 nor 1`
    case "InvalidUtf8":
      return `${error.field}: the string at byte ${error.offset} is not UTF-8`
    case "InvalidIdLength":
      return `${error.field}: a handoff id of ${error.length} bytes at byte ${error.offset}, 16 expected`
    case "OutOfRange":
      return `${error.field}: ${error.value} is not a ${error.type}`
    case "IllFormedString":
      return `${error.field}: a lone surrogate at index ${error.index} has no UTF-8 form`
    case "InvalidHandoffId":
      return `${error.field}: ${JSON.stringify(error.value)} is not a UUID in lower case`
  }
}

/**
 * The name of one swap, carried by most messages so that a late message of an abandoned swap is never taken for one of
 * the present.
 *
 * It is a version 4 UUID (RFC 9562) in its text form, lower case, so that two ids are equal exactly when the strings are.
 * On the wire it is a byte string of 16 bytes. Peers may send any 16 bytes (the nil UUID, another version); they are
 * accepted and written back unchanged.
 */
import * as Result from "effect/Result"

/** A UUID as text: 36 characters, lower case, for example `6f0d2c5e-9a1b-4c3d-8e7f-102132435465`. */
export type HandoffId = string

/** How many bytes an id takes on the wire, without its length. */
export const BYTES = 16

export interface InvalidHandoffId {
  readonly _tag: "InvalidHandoffId"
  readonly value: string
}

const pattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

const hex: ReadonlyArray<string> = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"))

/** True for the canonical text form, whatever the UUID's version. */
export const isHandoffId = (value: string): value is HandoffId => pattern.test(value)

/** The id in `bytes[offset .. offset + 16)`. The caller has made sure that they are there. */
export const fromBytes = (bytes: Uint8Array, offset = 0): HandoffId => {
  let text = ""
  for (let index = 0; index < BYTES; index++) {
    if (index === 4 || index === 6 || index === 8 || index === 10) text += "-"
    text += hex[bytes[offset + index] ?? 0]
  }
  return text
}

/**
 * A new id from 16 random bytes, with the version and variant bits set. Core draws no randomness itself.
 *
 * @example
 * HandoffId.fromRandom(crypto.getRandomValues(new Uint8Array(16)))
 */
export const fromRandom = (random: Uint8Array): HandoffId => {
  const bytes = random.slice(0, BYTES)
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80
  return fromBytes(bytes)
}

/** The 16 bytes of an id; a string that is not one (or not in lower case) is refused. */
export const toBytes = (id: HandoffId): Result.Result<Uint8Array, InvalidHandoffId> => {
  if (!isHandoffId(id)) return Result.fail({ _tag: "InvalidHandoffId", value: id })
  const digits = id.replaceAll("-", "")
  const bytes = new Uint8Array(BYTES)
  for (let index = 0; index < BYTES; index++) bytes[index] = Number.parseInt(digits.slice(index * 2, index * 2 + 2), 16)
  return Result.succeed(bytes)
}

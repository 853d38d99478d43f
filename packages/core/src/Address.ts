/**
 * Addresses a listener is bound to, and their text form: `HOST:PORT`, `:PORT`, `[V6]:PORT`, `unix:PATH`.
 */
import * as Data from "effect/Data"
import * as Result from "effect/Result"

/** `host: ""` is the wildcard: dual stack where IPv6 exists, 0.0.0.0 otherwise. `port: 0` lets the kernel choose. */
export type Address =
  | { readonly _tag: "Tcp"; readonly host: string; readonly port: number }
  | { readonly _tag: "Unix"; readonly path: string }

export class AddressError extends Data.TaggedError("AddressError")<{
  readonly text: string
  readonly detail: string
}> {
  override get message(): string {
    return `"${this.text}" is not an address: ${this.detail} (HOST:PORT, :PORT, [V6]:PORT or unix:PATH)`
  }
}

/**
 * Reads an address.
 *
 * @example
 * Address.parse("127.0.0.1:8080")   // { _tag: "Tcp", host: "127.0.0.1", port: 8080 }
 * Address.parse("unix:/run/x.sock") // { _tag: "Unix", path: "/run/x.sock" }
 */
export const parse = (text: string): Result.Result<Address, AddressError> => {
  const fail = (detail: string) => Result.fail(new AddressError({ text, detail }))
  if (text.startsWith("unix:")) {
    const path = text.slice("unix:".length)
    if (path === "") return fail("the path after unix: is empty")
    return path.includes("\0") ? fail("a path has no NUL character") : Result.succeed({ _tag: "Unix", path })
  }
  const bracketed = /^\[([^\]]*)\]:(.*)$/.exec(text)
  const colon = text.lastIndexOf(":")
  if (bracketed === null && colon === -1) return fail("the port is missing")
  const host = bracketed === null ? text.slice(0, colon) : (bracketed[1] ?? "")
  const port = bracketed === null ? text.slice(colon + 1) : (bracketed[2] ?? "")
  if (bracketed === null && host.includes(":")) return fail("an IPv6 address goes in brackets")
  if (bracketed !== null && !host.includes(":")) return fail("what is in brackets is not an IPv6 address")
  if (/[\s/[\]]/.test(host)) return fail(`"${host}" is not a host name`)
  if (!/^\d{1,5}$/.test(port) || Number(port) > 65535) return fail(`"${port}" is not a port from 0 to 65535`)
  return Result.succeed({ _tag: "Tcp", host, port: Number(port) })
}

/** The text form, which `parse` reads back. */
export const format = (address: Address): string => {
  if (address._tag === "Unix") return `unix:${address.path}`
  return address.host.includes(":") ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`
}

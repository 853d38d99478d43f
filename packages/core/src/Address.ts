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

const isIpv4 = (text: string): boolean => {
  const parts = text.split(".")
  return parts.length === 4 && parts.every((part) => /^(0|[1-9]\d{0,2})$/.test(part) && Number(part) <= 255)
}

/** How many of the eight groups `text` (no `::` inside) fills; undefined if it is not a part of an IPv6 address. */
const countGroups = (text: string, mayEndInV4: boolean): number | undefined => {
  if (text === "") return 0
  const groups = text.split(":")
  const last = groups.at(-1) ?? ""
  const endsInV4 = mayEndInV4 && isIpv4(last)
  const plain = endsInV4 ? groups.slice(0, -1) : groups
  return plain.every((group) => /^[0-9a-f]{1,4}$/i.test(group)) ? plain.length + (endsInV4 ? 2 : 0) : undefined
}

/** RFC 4291, section 2.2, with a zone (RFC 4007) after `%`. */
const isIpv6 = (text: string): boolean => {
  const [address = "", zone, ...more] = text.split("%")
  if (more.length > 0 || (zone !== undefined && !/^[\w.:-]+$/.test(zone))) return false
  const halves = address.split("::")
  if (halves.length > 2) return false
  const [left = "", right] = halves
  const before = countGroups(left, right === undefined)
  const after = right === undefined ? 0 : countGroups(right, true)
  if (before === undefined || after === undefined) return false
  return right === undefined ? before === 8 : before + after <= 7
}

const hostProblem = (host: string, bracketed: boolean): string | undefined => {
  if (bracketed) return isIpv6(host) ? undefined : `"${host}" is not an IPv6 address`
  if (host.includes("/")) return `"${host}" is not a host name`
  if (host.includes(":")) return "an IPv6 address goes in brackets"
  if (host === "*") return "for every address leave the host out"
  if (/^[\d.]+$/.test(host)) return isIpv4(host) ? undefined : `"${host}" is not an IPv4 address`
  return host === "" || /^[a-z\d_]([\w.-]*[\w.])?$/i.test(host) ? undefined : `"${host}" is not a host name`
}

/**
 * Reads an address. Host names are taken as they are: looking them up is not done here.
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
    if (path.startsWith("@")) return fail("abstract unix sockets have no path to protect them, name a file")
    return path.includes("\0") ? fail("a path has no NUL character") : Result.succeed({ _tag: "Unix", path })
  }
  const bracketed = /^\[([^\]]*)\](.*)$/.exec(text)
  const rest = bracketed?.[2] ?? text
  const colon = rest.lastIndexOf(":")
  if (/^\d+$/.test(text)) return fail(`a port alone is written ":${text}"`)
  if (colon === -1 || (bracketed !== null && colon !== 0)) return fail("the port is missing")
  const host = bracketed?.[1] ?? rest.slice(0, colon)
  const port = rest.slice(colon + 1)
  const problem = hostProblem(host, bracketed !== null)
  if (problem !== undefined) return fail(problem)
  if (!/^\d{1,5}$/.test(port) || Number(port) > 65535) return fail(`"${port}" is not a port from 0 to 65535`)
  return Result.succeed({ _tag: "Tcp", host, port: Number(port) })
}

/** The text form, which `parse` reads back. */
export const format = (address: Address): string => {
  if (address._tag === "Unix") return `unix:${address.path}`
  return address.host.includes(":") ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`
}

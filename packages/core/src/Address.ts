/**
 * Addresses a listener is bound to, and their text form: `HOST:PORT`, `:PORT`, `[V6]:PORT`, `unix:PATH`.
 */

/** `host: ""` is the wildcard: dual stack where IPv6 exists, 0.0.0.0 otherwise. `port: 0` lets the kernel choose. */
export type Address =
  | { readonly _tag: "Tcp"; readonly host: string; readonly port: number }
  | { readonly _tag: "Unix"; readonly path: string }

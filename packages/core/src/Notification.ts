/**
 * The text of a readiness datagram (sd_notify(3)): newline separated `KEY=VALUE` lines, both ways.
 *
 * Lines without `=` or with an empty key are no assignments and are passed over, as systemd does; a datagram that holds
 * nothing else parses to no fields. Values are taken as they are: trailing blanks belong to them.
 */

/** Fields by key. Every key is an own property, `__proto__` too, and inherited names are not fields: ask `Object.hasOwn`. */
export type Fields = Readonly<Record<string, string>>

/**
 * The fields of a datagram; of several lines with one key the last counts.
 *
 * @example
 * parse("READY=1\nSTATUS=up\n")   // { READY: "1", STATUS: "up" }
 */
export const parse = (text: string): Fields => {
  const entries: Array<[string, string]> = []
  for (const line of text.split("\n")) {
    const equals = line.indexOf("=")
    if (equals > 0) entries.push([line.slice(0, equals), line.slice(equals + 1)])
  }
  // fromEntries defines properties, where an assignment to "__proto__" would be lost.
  return Object.fromEntries(entries)
}

/**
 * The text for fields. A newline in a value would forge another line: it becomes a blank.
 *
 * @example
 * format({ READY: "1", STATUS: "up" })   // "READY=1\nSTATUS=up"
 */
export const format = (fields: Fields): string =>
  Object.entries(fields)
    .map(([key, value]) => `${key}=${value.replaceAll("\n", " ")}`)
    .join("\n")

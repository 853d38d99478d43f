import * as Result from "effect/Result"
import { describe, expect, it } from "vitest"
import * as OptionText from "../../src/cli/OptionText.ts"

const value = <A>(parsed: Result.Result<A, string>) => Result.getOrThrow(parsed)
const failure = <A>(parsed: Result.Result<A, string>) => (Result.isFailure(parsed) ? parsed.failure : undefined)

describe("a duration", () => {
  it.each([
    ["500ms", 500],
    ["30s", 30_000],
    ["1.5s", 1_500],
    ["2m", 120_000],
    ["1h", 3_600_000],
    ["0s", 0]
  ])("%s is %d ms", (text, milliseconds) => expect(value(OptionText.duration(text))).toBe(milliseconds))

  it.each(["", "30", "s", "-1s", "1 s", "1e3s", "1d", "30S", "0x10s", "1..5s", ".5s"])("%j is refused", (text) =>
    expect(failure(OptionText.duration(text))).toContain("30s")
  )

  it("over what a timer can wait is refused, it would fire at once", () =>
    expect(failure(OptionText.duration("600h"))).toContain("at most"))
})

describe("a listener", () => {
  it.each([
    ["http=127.0.0.1:8080", "http", "127.0.0.1:8080"],
    ["http=:80", "http", ":80"],
    ["v6=[::1]:80", "v6", "[::1]:80"],
    ["u=unix:/run/a=b.sock", "u", "unix:/run/a=b.sock"]
  ])("%s has its name and address", (text, name, address) =>
    expect(value(OptionText.listener(text))).toEqual({ name, address })
  )

  it.each([
    ["http", "NAME=ADDR"],
    ["=:80", "NAME=ADDR"],
    ["a:b=:80", "without a colon"],
    ["80=:80", "not a number"],
    ["http=:99999", "65535"],
    ["http=localhost", "port is missing"],
    ["http=::1:80", "brackets"],
    ["http=unix:", "empty"]
  ])("%s is refused", (text, why) => expect(failure(OptionText.listener(text))).toContain(why))
})

describe("a variable", () => {
  it("keeps an empty value and further equals signs", () => {
    expect(value(OptionText.variable("A="))).toEqual(["A", ""])
    expect(value(OptionText.variable("A=b=c"))).toEqual(["A", "b=c"])
  })

  it.each(["A", "=b", "LISTEN_FDS=1", "NOTIFY_SOCKET=/x"])("%s is refused", (text) =>
    expect(failure(OptionText.variable(text))).toBeDefined()
  )
})

describe("readiness, signals, names", () => {
  it("reads each kind of readiness", () => {
    expect(value(OptionText.ready("notify"))).toEqual({ policy: "notify" })
    expect(value(OptionText.ready("settle:2s"))).toEqual({ policy: "settle", settleMs: 2000 })
    for (const text of ["settle", "settle:", "settle:2", "Auto", ""]) {
      expect(failure(OptionText.ready(text))).toContain("settle:DURATION")
    }
  })

  it("reads signals that a program can catch", () => {
    expect(value(OptionText.stopSignal("quit"))).toBe("SIGQUIT")
    expect(value(OptionText.stopSignal("15"))).toBe("SIGTERM")
    for (const text of ["KILL", "SIGSTOP", "SIGFOO", ""]) expect(failure(OptionText.stopSignal(text))).toBeDefined()
  })

  it("takes no name that leaves the state directory", () => {
    expect(value(OptionText.supervisorName("web-1.a"))).toBe("web-1.a")
    for (const text of ["", ".", "..", "a/b", "../a", "-a", "a b", "x".repeat(65)]) {
      expect(failure(OptionText.supervisorName(text))).toBeDefined()
    }
  })
})

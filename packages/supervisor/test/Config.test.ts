import * as Config from "@handoff/supervisor/Config"
import * as Result from "effect/Result"
import { describe, expect, it } from "vitest"

const value = (text: string) => Result.getOrThrow(Config.parse(text))
const failure = (text: string) => Result.getOrThrow(Result.flip(Config.parse(text)))

describe("a file of the reference supervisor", () => {
  it("is read whole", () => {
    const config = value(`
      control_socket = "/run/app/handoff.sock"
      trigger_socket = "/run/app/handoff.trigger"
      binary = "/usr/local/bin/app"
      args = ["--verbose", ""]
      env = [["LOG", "debug"], ["EMPTY", ""]]
      journal = "/run/app/journal"
      drain_grace_secs = 7
      deadline_secs = 30
      allowed_uids = [1000, 0]
      allowed_binaries = ["/usr/local/bin/app-v2"]

      [[listeners]]
      name = "http"
      addr = "0.0.0.0:8080"

      [[listeners]]
      name = "admin"
      addr = "[::1]:0"
    `)
    expect(config).toEqual({
      controlSocket: "/run/app/handoff.sock",
      triggerSocket: "/run/app/handoff.trigger",
      binary: "/usr/local/bin/app",
      args: ["--verbose", ""],
      env: [
        ["LOG", "debug"],
        ["EMPTY", ""]
      ],
      journal: "/run/app/journal",
      drainGraceMs: 7_000,
      deadlineMs: 30_000,
      allowedUids: [1000, 0],
      allowedBinaries: ["/usr/local/bin/app-v2"],
      listeners: [
        { name: "http", address: "0.0.0.0:8080" },
        { name: "admin", address: "[::1]:0" }
      ]
    })
  })

  it("may leave everything out", () => {
    expect(value("")).toEqual({
      controlSocket: undefined,
      triggerSocket: undefined,
      binary: undefined,
      args: [],
      env: [],
      listeners: [],
      journal: undefined,
      drainGraceMs: undefined,
      deadlineMs: undefined,
      allowedUids: [],
      allowedBinaries: []
    })
  })

  it("may give variables as a table", () => {
    expect(value('[env]\nLOG = "debug"\nA = "b=c"').env).toEqual([
      ["LOG", "debug"],
      ["A", "b=c"]
    ])
  })
})

describe("an unknown key", () => {
  it.each([
    ["drain_grace = 3", "drain_grace", "drain_grace_secs"],
    ['trigger_sock = "x"', "trigger_sock", "trigger_socket"],
    ["allowed_uid = []", "allowed_uid", "allowed_uids"],
    ['[[listener]]\nname = "a"', "listener", "listeners"],
    ['[[listeners]]\nname = "a"\naddress = ":1"', "listeners[0].address", "addr"]
  ])("%s is named, with the nearest known one", (text, key, meant) => {
    const error = failure(text)
    expect(error.key).toBe(key)
    expect(error.detail).toBe(`is not a known key; did you mean ${meant}?`)
  })

  it.each([
    ['mode = "sealed"', "mode"],
    ['["__proto__"]\nx = 1', "__proto__"]
  ])("%s is like none: all are named", (text, key) => {
    const error = failure(text)
    expect(error.key).toBe(key)
    expect(error.detail).toMatch(/^is not a known key; known are control_socket, trigger_socket, .*, allowed_binaries$/)
  })
})

describe("a value of the wrong kind", () => {
  it.each([
    ["binary = 3", "binary", "the number 3", "a path"],
    ['binary = ""', "binary", 'the text ""', "a path"],
    ['args = "x"', "args", 'the text "x"', "an array of texts"],
    ['binary = "b"\nargs = ["x", 1]', "args[1]", "the number 1", "a text"],
    ['env = ["A=1"]', "env[0]", 'the text "A=1"', "a pair of texts"],
    ['env = [["A", "1", "2"]]', "env[0]", "an array", "a pair of texts"],
    ["[env]\nA = 1", "env.A", "the number 1", "a text"],
    ['drain_grace_secs = "25"', "drain_grace_secs", 'the text "25"', "a whole number of seconds"],
    ["drain_grace_secs = 1.5", "drain_grace_secs", "the number 1.5", "a whole number of seconds"],
    ["deadline_secs = -1", "deadline_secs", "the number -1", "a whole number of seconds"],
    ["deadline_secs = 99999999", "deadline_secs", "the number 99999999", "from 0 to 2147483"],
    ["deadline_secs = 2026-01-01T00:00:00Z", "deadline_secs", "a date", "a whole number of seconds"],
    ["allowed_uids = true", "allowed_uids", "true", "an array of user ids"],
    ["allowed_uids = [4294967295]", "allowed_uids[0]", "the number 4294967295", "a user id"],
    ['allowed_binaries = ["/a", {}]', "allowed_binaries[1]", "a table", "a path"],
    ['listeners = "http"', "listeners", 'the text "http"', "[[listeners]] tables"],
    ['listeners = ["http=:1"]', "listeners[0]", 'the text "http=:1"', "a table with name and addr"],
    ['[[listeners]]\nname = 1\naddr = ":1"', "listeners[0].name", "the number 1", "a name"],
    ['[[listeners]]\nname = "a:b"\naddr = ":1"', "listeners[0].name", 'the text "a:b"', "without a colon"],
    ['[[listeners]]\nname = "7"\naddr = ":1"', "listeners[0].name", 'the text "7"', "not a number"]
  ])("%s names the key, what was found and what is expected", (text, key, found, expected) => {
    const error = failure(text)
    expect(error.key).toBe(key)
    expect(error.detail).toContain(`found ${found}, expected `)
    expect(error.detail).toContain(expected)
    expect(error.message).toBe(`${key}: ${error.detail}`)
  })

  it.each([
    ['[[listeners]]\nname = "a"', "listeners[0].addr", "is missing"],
    ['[[listeners]]\nname = "a"\naddr = "8080"', "listeners[0].addr", "a port alone is written"],
    [
      '[[listeners]]\nname = "a"\naddr = ":1"\n[[listeners]]\nname = "a"\naddr = ":2"',
      "listeners[1].name",
      '"a" is given twice'
    ],
    ['args = ["x"]', "args", "binary, which is missing"],
    ['env = [["LISTEN_FDS", "1"]]', "env[0]", "handoff sets LISTEN_FDS itself"],
    ['env = [["A=B", "1"]]', "env[0]", "is no variable's name"],
    ['[env]\nA = "a\\u0000b"', "env.A", "NUL"]
  ])("%s is refused", (text, key, detail) => {
    const error = failure(text)
    expect(error.key).toBe(key)
    expect(error.detail).toContain(detail)
  })

  it("is told with its line when the text is no TOML", () => {
    expect(failure('binary = "x"\nargs = [')).toMatchObject({ line: 2 })
    const twice = failure('binary = "x"\n\nbinary = "y"')
    expect(twice.line).toBe(3)
    expect(twice.message).toMatch(/^line 3: [^\n]+$/)
  })
})

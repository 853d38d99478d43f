import * as ListenEnvironment from "@handoff/core/ListenEnvironment"
import * as Result from "effect/Result"
import fc from "fast-check"
import { describe, expect, it } from "vitest"

const read = (env: Record<string, string | undefined>, pid = 42) => Result.getOrThrow(ListenEnvironment.read(env, pid))
const problem = (env: Record<string, string>) => Result.getOrThrow(Result.flip(ListenEnvironment.read(env, 42))).message

const name = fc
  .string({
    minLength: 1,
    maxLength: 255,
    unit: fc.integer({ min: 32, max: 126 }).map((code) => String.fromCharCode(code))
  })
  .map((text) => text.replaceAll(":", "-"))

describe("ListenEnvironment", () => {
  it("reads back what it writes, whatever the names", () => {
    fc.assert(
      fc.property(
        fc.array(name, { minLength: 1, maxLength: 8 }),
        fc.boolean(),
        fc.option(fc.constantFrom("/run/n"), { nil: undefined }),
        (names, successor, notifySocket) => {
          const env = ListenEnvironment.write({
            names,
            successor,
            controlSocket: "/run/c",
            ...(notifySocket === undefined ? {} : { notifySocket })
          })
          const found = read({ ...env, LISTEN_PID: "42", PATH: "/bin" })
          expect(found.listeners).toEqual(names.map((each, index) => ({ name: each, fd: 3 + index })))
          expect(found.handoffFd).toBe(successor ? 3 + names.length : undefined)
          expect(found.notifySocket).toBe(notifySocket)
          expect(found.controlSocket).toBe("/run/c")
          expect([...found.consumed].sort()).toEqual([...Object.keys(env), "LISTEN_PID"].sort())
        }
      )
    )
  })

  it("does not count the handoff descriptor in LISTEN_FDS", () => {
    expect(ListenEnvironment.write({ names: ["a", "b"], successor: true })).toEqual({
      LISTEN_FDS: "2",
      LISTEN_FDNAMES: "a:b",
      HANDOFF_ROLE: "successor",
      HANDOFF_SOCK_FD: "5"
    })
  })

  it("leaves a block of another process alone, which is no error", () => {
    const env = { LISTEN_FDS: "1", LISTEN_PID: "41", HANDOFF_ROLE: "successor", HANDOFF_CONTROL_SOCKET: "/c" }
    expect(read(env)).toEqual({
      listeners: [],
      notifySocket: undefined,
      controlSocket: undefined,
      handoffFd: undefined,
      consumed: []
    })
  })

  it("reads missing names as unknown, and takes systemd's empty name", () => {
    expect(read({ LISTEN_FDS: "2" }).listeners.map((one) => one.name)).toEqual(["unknown", "unknown"])
    expect(read({ LISTEN_FDS: "2", LISTEN_FDNAMES: ":a" }).listeners.map((one) => one.name)).toEqual(["", "a"])
  })

  it("finds nothing and consumes nothing in an environment without a block", () => {
    expect(read({ PATH: "/bin" })).toMatchObject({ listeners: [], handoffFd: undefined, consumed: [] })
  })

  it.each([
    [{ LISTEN_FDS: "2", LISTEN_FDNAMES: "a" }, "names 1 descriptors, LISTEN_FDS says 2"],
    [{ LISTEN_FDS: "0", LISTEN_FDNAMES: "a" }, "names 1 descriptors, LISTEN_FDS says 0"],
    [{ LISTEN_FDS: "x" }, "LISTEN_FDS=x"],
    [{ LISTEN_FDS: "-1" }, "LISTEN_FDS=-1"],
    [{ LISTEN_FDS: "999999999" }, "is not a number of descriptors"],
    [{ LISTEN_FDS: "1", LISTEN_FDNAMES: "é" }, "is not a name"],
    [{ LISTEN_FDS: "1", LISTEN_PID: "0x2a" }, "LISTEN_PID=0x2a"],
    [{ LISTEN_FDS: "1", HANDOFF_ROLE: "king", HANDOFF_SOCK_FD: "4" }, "the only role is successor"],
    [{ LISTEN_FDS: "1", HANDOFF_ROLE: "successor" }, "HANDOFF_SOCK_FD is missing"],
    [{ LISTEN_FDS: "1", HANDOFF_SOCK_FD: "4" }, "without HANDOFF_ROLE"],
    [{ LISTEN_FDS: "2", HANDOFF_ROLE: "successor", HANDOFF_SOCK_FD: "4" }, "one of the listeners"],
    [{ HANDOFF_ROLE: "successor", HANDOFF_SOCK_FD: "four" }, "is not a descriptor"]
  ])("refuses %j", (env, why) => {
    expect(problem(env as Record<string, string>)).toContain(why)
  })

  it.each(["", "a:b", "a\nb", "é", "x".repeat(256)])(
    "does not write the name %j, which would shift the others",
    (bad) => {
      expect(() => ListenEnvironment.write({ names: ["ok", bad] })).toThrow(RangeError)
    }
  )
})

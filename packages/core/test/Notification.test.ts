import * as Notification from "@handoff/core/Notification"
import { describe, expect, it } from "vitest"

describe("Notification", () => {
  it("reads several lines, with and without a newline at the end", () => {
    expect(Notification.parse("READY=1\nSTATUS=up and running\n")).toEqual({ READY: "1", STATUS: "up and running" })
    expect(Notification.parse("STOPPING=1")).toEqual({ STOPPING: "1" })
  })

  it("lets the last line of a key count", () => {
    expect(Notification.parse("STATUS=one\nREADY=1\nSTATUS=two")).toEqual({ READY: "1", STATUS: "two" })
  })

  it("keeps equal signs and blanks of a value", () => {
    expect(Notification.parse("STATUS=a=b =c ")).toEqual({ STATUS: "a=b =c " })
    expect(Notification.parse("STATUS=")).toEqual({ STATUS: "" })
  })

  it("passes over lines that assign nothing", () => {
    expect(Notification.parse("")).toEqual({})
    expect(Notification.parse("READY\n=1\n\n")).toEqual({})
  })

  it("does not let a key reach the prototype", () => {
    const fields = Notification.parse("__proto__=x\nconstructor=y")
    expect(Object.getPrototypeOf(fields)).toBe(Object.prototype)
    expect(Object.entries(fields)).toEqual([
      ["__proto__", "x"],
      ["constructor", "y"]
    ])
  })

  it("does not let a value forge a line", () => {
    expect(Notification.format({ STATUS: "a\nREADY=1" })).toBe("STATUS=a READY=1")
    expect(Notification.parse(Notification.format({ READY: "1", STATUS: "up" }))).toEqual({ READY: "1", STATUS: "up" })
  })
})

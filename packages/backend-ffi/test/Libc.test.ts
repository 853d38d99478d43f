import { getPriority } from "node:os"
import { Worker } from "node:worker_threads"
import * as Result from "effect/Result"
import { describe, expect, it } from "vitest"
import * as Errno from "../src/Errno.ts"
import * as Libc from "../src/Libc.ts"

describe("errno names", () => {
  it("agree with the numbers of this platform's headers", async () => {
    const { constants } = await import("node:os")
    for (const [name, number] of Object.entries(constants.errno)) {
      expect(Errno.number(name as `E${string}`), name).toBe(number)
    }
  })

  it("go both ways, and a number without a name survives", () => {
    for (let number = 1; number < 140; number += 1) expect(Errno.number(Errno.name(number))).toBe(number)
    expect(Errno.name(4000)).toBe("E4000")
    expect(Errno.name(41)).toBe("E41")
    expect(Errno.number("ENONSENSE")).toBeUndefined()
  })
})

describe("libc", () => {
  const libc = Result.getOrThrow(Libc.open())

  it("returns values, and errno only with -1", () => {
    expect(libc.call("getpid", "i32", [], [])).toEqual({ value: process.pid, errno: undefined })
    expect(libc.call("close", "i32", ["i32"], [-1])).toEqual({ value: -1, errno: "EBADF" })
    // The errno left behind by the call before is not reported.
    expect(libc.call("getpid", "i32", [], []).errno).toBeUndefined()
  })

  it("lets a function write into a Buffer, a slice and a typed array", () => {
    const readlink = libc.bind("readlink", "i64", ["text", "bytes", "i64"])
    const whole = Buffer.alloc(64, 0x2e)
    const length = readlink("/proc/self", whole.subarray(8, 40), 32).value
    expect(whole.toString("latin1", 8, 8 + length)).toBe(String(process.pid))
    expect(whole.toString("latin1", 0, 8)).toBe("........")
    const array = new Uint8Array(16)
    expect(Buffer.from(array.subarray(0, readlink("/proc/self", array, 16).value)).toString()).toBe(String(process.pid))
  })

  it("passes text as UTF-8 and refuses NUL instead of cutting there", () => {
    expect(libc.call("strlen", "i64", ["text"], ["é€"]).value).toBe(5)
    expect(() => libc.call("strlen", "i64", ["text"], ["a\0b"])).toThrow(TypeError)
  })

  it("shares memory instead of copying it", () => {
    const { value: address } = libc.call(
      "mmap",
      "address",
      ["address", "i64", "i32", "i32", "i32", "i64"],
      [0, 4096, 3, 0x21, -1, 0]
    )
    const memory = libc.memory(address, 4096)
    libc.call("memset", "address", ["address", "i32", "i64"], [address + 3, 65, 2])
    expect(memory.toString("latin1", 3, 5)).toBe("AA")
    memory.write("shared\0", 0)
    expect(libc.text(address)).toBe("shared")
    expect(libc.call("munmap", "i32", ["address", "i64"], [address, 4096]).value).toBe(0)
  })

  it("keeps negative numbers and 48-bit addresses whole", () => {
    expect(libc.call("labs", "i64", ["i64"], [-0x7fff_ffff_f000]).value).toBe(0x7fff_ffff_f000)
    expect(libc.call("getpriority", "i32", ["i32", "i32"], [0, 0]).value).toBe(getPriority())
  })

  it("names what is wrong with another platform, CPU or thread", () => {
    expect(Libc.obstacles({ platform: "linux", arch: "arm64", mainThread: true })).toEqual([])
    expect(Libc.obstacles({ platform: "darwin", arch: "ia32", mainThread: false })).toHaveLength(3)
  })

  it("refuses a worker thread before ffi-rs could end the process with SIGSEGV", async () => {
    const worker = new Worker(new URL("./fixtures/worker.ts", import.meta.url), {
      execArgv: ["--conditions=@handoff/source"]
    })
    const exited = new Promise<number>((resolve) => worker.once("exit", resolve))
    const message = await new Promise<unknown>((resolve, reject) => {
      worker.once("message", resolve)
      worker.once("error", reject)
    })
    expect(message).toMatch(/main thread only/)
    expect(await exited).toBe(0)
  })
})

import { execFileSync } from "node:child_process"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { describe, expect, it } from "vitest"
import { temporaryDirectory } from "../../../../test/support/TemporaryDirectory.ts"
import { requireTool } from "../../../../test/support/Tools.ts"
import { type Architecture, code } from "../../src/trampoline/Code.ts"

const SOURCES = join(import.meta.dirname, "../../src/trampoline")
const HARNESS = join(import.meta.dirname, "harness.c")
const hasArm = process.arch === "arm64"

/** Tools of an architecture: the machine's own, or the cross tools. */
const prefix = (architecture: Architecture): string =>
  architecture === process.arch ? "" : architecture === "arm64" ? "aarch64-linux-gnu-" : "x86_64-linux-gnu-"

const EXPECTED = `slots: record 4 errno 9 status 127
duplicated 100 placed 150 closed 0 mapped yes
tolerated: record 2 errno 22 status 127
unknown call: record 0 errno 38 status 127
ends: record -1 errno 0 status 42
`

describe.each(["x64", "arm64"] as const)("the %s trampoline", (architecture) => {
  const as = requireTool(`${prefix(architecture)}as`)
  const objcopy = requireTool(`${prefix(architecture)}objcopy`)

  it.skipIf(!(as.available && objcopy.available))(
    `is what its source assembles to: checked-in bytes must not drift${as.reason}`,
    () => {
      using directory = temporaryDirectory()
      const object = directory.file("trampoline.o")
      const binary = directory.file("trampoline.bin")
      execFileSync(as.path ?? "", ["-o", object, join(SOURCES, `${architecture}.S`)])
      execFileSync(objcopy.path ?? "", ["-O", "binary", "-j", ".text", object, binary])
      expect(Buffer.from(code[architecture]).toString("hex")).toBe(readFileSync(binary).toString("hex"))
    }
  )

  const cc = requireTool(architecture === process.arch ? "cc" : `${prefix(architecture)}gcc`)
  const emulator = architecture === process.arch ? undefined : requireTool(hasArm ? "qemu-x86_64" : "qemu-aarch64")
  const reason = cc.reason === "" ? (emulator?.reason ?? "") : cc.reason

  it.skipIf(!cc.available || emulator?.available === false)(
    `runs records: results feed later calls, only the named errnos are tolerated, a failure names its record${reason}`,
    () => {
      using directory = temporaryDirectory()
      const program = directory.file("harness")
      const binary = directory.file("trampoline.bin")
      writeFileSync(binary, code[architecture])
      execFileSync(cc.path ?? "", ["-static", "-O1", "-o", program, HARNESS])
      const command = emulator?.available === true ? [emulator.path, program] : [program]
      expect(execFileSync(command[0] ?? "", [...command.slice(1), binary], { encoding: "utf8" })).toBe(EXPECTED)
    }
  )
})

import { closeSync, openSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Notify from "@handoff/backend-ffi/Notify"
import * as FfiSockets from "@handoff/backend-ffi/Sockets"
import { Sockets } from "@handoff/core/backend/Sockets"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { describe, expect, it } from "vitest"
import { requireTool } from "../../../test/support/Tools.ts"
import { client, fdCount, python, runner, tempDir } from "./support/Harness.ts"

const python3 = requireTool("python3")
const run = runner(FfiSockets.layer)

/** A service manager of few words: takes one datagram, says what came with it, and does `then` with the descriptors. */
const receiver = (path: string, then: string) =>
  python(`import os,socket,sys
path=${JSON.stringify(path)}
s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)
s.bind("\\0"+path[1:] if path.startswith("@") else path)
print("bound",flush=True)
data,fds,flags,_=socket.recv_fds(s,4096,253)
print(data.decode().replace("\\n","|"),len(fds),flags&socket.MSG_CTRUNC,flush=True)
${then}
sys.stdin.read()`)

describe.skipIf(!python3.available)(`sending descriptors${python3.reason}`, () => {
  it("hands over a listener that goes on accepting when ours is closed", () =>
    run(
      Effect.gen(function* () {
        const path = join(tempDir(), "notify")
        const manager = receiver(path, `l=socket.socket(fileno=fds[0])\nc,_=l.accept()\nc.sendall(b"kept")`)
        expect(yield* Effect.promise(() => manager.line())).toBe("bound")
        const port = yield* Effect.scoped(
          Effect.gen(function* () {
            const sockets = yield* Sockets
            const { fd, address } = yield* sockets.listen({ address: { _tag: "Tcp", host: "127.0.0.1", port: 0 } })
            expect(Notify.sendDescriptors(path, "FDSTORE=1\nFDNAME=http", [fd])).toEqual(Result.succeed(undefined))
            return address._tag === "Tcp" ? address.port : 0
          })
        )
        expect(yield* Effect.promise(() => manager.line())).toBe("FDSTORE=1|FDNAME=http 1 0")
        const answer = yield* Effect.promise(async () => {
          const socket = await client({ host: "127.0.0.1", port })
          if (typeof socket === "string") throw new Error(socket)
          return new Promise<string>((resolve) => socket.once("data", (data) => resolve(data.toString())))
        })
        expect(answer).toBe("kept")
      })
    ))

  it("keeps their order, to an abstract name too, as many as a datagram may carry", async () => {
    const directory = tempDir()
    const name = `@handoff-fdstore-${process.pid}`
    const manager = receiver(name, `print(*[os.read(fd,9).decode() for fd in fds[:3]],len(set(fds)))`)
    expect(await manager.line()).toBe("bound")
    const before = fdCount()
    const fds = Array.from({ length: 253 }, (_, index) => {
      writeFileSync(join(directory, String(index)), `file-${index}`)
      return openSync(join(directory, String(index)), "r")
    })
    const sent = Notify.sendDescriptors(name, "FDSTORE=1", fds)
    for (const fd of fds) closeSync(fd)
    expect(sent).toEqual(Result.succeed(undefined))
    expect(fdCount()).toBe(before)
    expect(await manager.line()).toBe("FDSTORE=1 253 0")
    manager.child.stdin?.end()
    expect(await manager.line()).toBe("file-0 file-1 file-2 253")
  })
})

describe("descriptors that can't be sent", () => {
  it("are refused by name, and nothing stays open", () => {
    const path = join(tempDir(), "none")
    const before = fdCount()
    expect(Notify.sendDescriptors(path, "FDSTORE=1", [0])).toMatchObject({ failure: "ENOENT" })
    expect(Notify.sendDescriptors(path, "FDSTORE=1", [0, 999_999])).toMatchObject({ failure: "EBADF" })
    expect(Notify.sendDescriptors(path, "FDSTORE=1", [])).toMatchObject({ failure: "EINVAL" })
    expect(Notify.sendDescriptors(path, "FDSTORE=1", new Array<number>(254).fill(0))).toMatchObject({
      failure: "EINVAL"
    })
    expect(Notify.sendDescriptors("", "FDSTORE=1", [0])).toMatchObject({ failure: "EINVAL" })
    expect(Notify.sendDescriptors(join(path, "x".repeat(108)), "", [0])).toMatchObject({ failure: "ENAMETOOLONG" })
    expect(fdCount()).toBe(before)
  })
})

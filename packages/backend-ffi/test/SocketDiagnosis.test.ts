import * as ProcNet from "@handoff/backend-ffi/ProcNet"
import * as SocketDiagnosis from "@handoff/backend-ffi/SocketDiagnosis"
import * as FfiSockets from "@handoff/backend-ffi/Sockets"
import { Sockets } from "@handoff/core/backend/Sockets"
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { client, fdCount, runner } from "./support/Harness.ts"

const run = runner(FfiSockets.layer)

const byHost = (rows: ReadonlyArray<ProcNet.TcpRow>) => rows.map(({ host, inode }) => `${host} ${inode}`).toSorted()

describe("the kernel's answer about a port", () => {
  it.each([
    ["tcp", "127.0.0.1", ["127.0.0.1"]],
    ["tcp6", "", ["127.0.0.1", "::1"]]
  ] as const)("is what the table %s prints, and nothing of other ports", (table, host, from) =>
    run(
      Effect.gen(function* () {
        const sockets = yield* Sockets
        const ports: Array<number> = []
        for (const count of [3, 1]) {
          const { address } = yield* sockets.listen({ address: { _tag: "Tcp", host, port: 0 } })
          if (address._tag === "Unix") throw new Error("not a TCP address")
          ports.push(address.port)
          for (let index = 0; index < count; index++) {
            for (const target of from) yield* Effect.promise(() => client({ host: target, port: address.port }))
          }
        }
        const [port = 0] = ports
        const before = fdCount()
        const answered = SocketDiagnosis.established(table, port) ?? []
        expect(answered).toHaveLength(3 * from.length)
        const printed = ProcNet.tcpRows(ProcNet.readText(`/proc/net/${table}`), port, [ProcNet.TCP_ESTABLISHED])
        expect(byHost(answered)).toEqual(byHost(printed))
        expect(SocketDiagnosis.established(table, 1)).toEqual([])
        expect(fdCount()).toBe(before)
      })
    )
  )

  it("is whole when it takes several reads", () =>
    run(
      Effect.gen(function* () {
        const sockets = yield* Sockets
        const { address } = yield* sockets.listen({ address: { _tag: "Tcp", host: "127.0.0.1", port: 0 } })
        if (address._tag === "Unix") throw new Error("not a TCP address")
        yield* Effect.promise(() =>
          Promise.all(Array.from({ length: 700 }, () => client({ host: "127.0.0.1", port: address.port })))
        )
        expect(SocketDiagnosis.established("tcp", address.port)).toHaveLength(700)
      })
    ))
})

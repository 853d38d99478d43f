import { SocketAddress as NodeAddress } from "node:net"
import * as SocketAddress from "@handoff/backend-ffi/SocketAddress"
import fc from "fast-check"
import { describe, expect, it } from "vitest"

const decoded = (bytes: Buffer) => SocketAddress.decode(bytes, bytes.length)

describe("socket addresses", () => {
  it("of IPv6 are read and written as inet_ntop does", () => {
    fc.assert(
      fc.property(fc.ipV6(), fc.nat(65_535), (host, port) => {
        const bytes = SocketAddress.ipBytes(host)
        if (bytes === undefined) throw new Error(`${host} is no address`)
        const expected = new NodeAddress({ address: host, family: "ipv6", port }).address
        const address = decoded(SocketAddress.encodeIp(bytes, port))
        // glibc writes ::1.2.3.4 for an obsolete range (RFC 4291, 2.5.5.1) that RFC 5952 leaves to taste.
        if (!/^::[0-9]+\./.test(expected)) expect(address).toEqual({ _tag: "Tcp", host: expected, port })
      })
    )
  })

  it.each(["::", "::1", "1::", "fe80::1", "::ffff:127.0.0.1", "1:0:0:2::3", "1:2:3:4:5:6:7:8"])("keep %s", (host) => {
    expect(decoded(SocketAddress.encodeIp(SocketAddress.ipBytes(host) ?? [], 80))).toMatchObject({ host })
  })

  it.each(["", "/run/app.sock", "@abstract"])("of unix sockets keep the name %j", (path) => {
    const bytes = path === "" ? Buffer.from([1, 0]) : SocketAddress.encodeUnix(path)
    expect(decoded(bytes)).toEqual({ _tag: "Unix", path })
  })

  it("of an unknown family are none", () => {
    expect(decoded(Buffer.from([16, 0, 0, 0]))).toBeUndefined()
    expect(decoded(Buffer.alloc(0))).toBeUndefined()
  })
})

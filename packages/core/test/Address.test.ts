import * as Address from "@handoff/core/Address"
import * as Result from "effect/Result"
import fc from "fast-check"
import { describe, expect, it } from "vitest"

const read = (text: string) => Result.getOrThrow(Address.parse(text))
const problem = (text: string) => Result.getOrThrow(Result.flip(Address.parse(text))).message

describe("Address.parse", () => {
  it("reads every form", () => {
    expect(read("127.0.0.1:8080")).toEqual({ _tag: "Tcp", host: "127.0.0.1", port: 8080 })
    expect(read("localhost:0")).toEqual({ _tag: "Tcp", host: "localhost", port: 0 })
    expect(read(":80")).toEqual({ _tag: "Tcp", host: "", port: 80 })
    expect(read("[::]:443")).toEqual({ _tag: "Tcp", host: "::", port: 443 })
    expect(read("[fe80::1%eth0]:1")).toEqual({ _tag: "Tcp", host: "fe80::1%eth0", port: 1 })
    expect(read("unix:/run/a:b.sock")).toEqual({ _tag: "Unix", path: "/run/a:b.sock" })
  })

  it.each([
    ["", "the port is missing"],
    ["8080", 'a port alone is written ":8080"'],
    ["localhost", "the port is missing"],
    ["localhost:", '"" is not a port'],
    ["localhost:65536", '"65536" is not a port'],
    ["localhost:-1", '"-1" is not a port'],
    ["localhost:80x", '"80x" is not a port'],
    ["::1:80", "an IPv6 address goes in brackets"],
    ["[::1]", "the port is missing"],
    ["[::1]80", "the port is missing"],
    ["[::1]x:80", "the port is missing"],
    ["[127.0.0.1]:80", '"127.0.0.1" is not an IPv6 address'],
    ["[1:2:3]:80", '"1:2:3" is not an IPv6 address'],
    ["[1::2::3]:80", '"1::2::3" is not an IPv6 address'],
    ["[]:80", '"" is not an IPv6 address'],
    ["256.0.0.1:80", '"256.0.0.1" is not an IPv4 address'],
    ["1.2.3:80", '"1.2.3" is not an IPv4 address'],
    ["*:80", "for every address leave the host out"],
    ["a b:80", '"a b" is not a host name'],
    ["http://x:80", '"http://x" is not a host name'],
    ["unix:", "the path after unix: is empty"],
    ["unix:@name", "abstract unix sockets"],
    ["unix:/a\0b", "a path has no NUL"]
  ])("refuses %j and says why", (text, why) => {
    expect(problem(text)).toContain(why)
  })

  it("takes every IPv6 address that arbitrary notation gives, and reads back what it prints", () => {
    fc.assert(
      fc.property(fc.oneof(fc.ipV6(), fc.ipV4(), fc.domain()), fc.integer({ min: 0, max: 65535 }), (host, port) => {
        const address: Address.Address = { _tag: "Tcp", host, port }
        expect(read(Address.format(address))).toEqual(address)
      })
    )
  })
})

import { execFileSync } from "node:child_process"
import { once } from "node:events"
import { Agent } from "node:http"
import { type ClientHttp2Session, connect as connectHttp2 } from "node:http2"
import { Agent as SecureAgent, request as secureRequest } from "node:https"
import { createConnection, createServer, type Socket } from "node:net"
import { setTimeout as sleep } from "node:timers/promises"
import { describe, expect, it } from "vitest"
import { temporaryDirectory } from "../../../../test/support/TemporaryDirectory.ts"
import { requireTool } from "../../../../test/support/Tools.ts"
import { type Generation, harness } from "./Harness.ts"
import { get } from "./Load.ts"

const openssl = requireTool("openssl")

const portOf = async (server: Generation): Promise<number> => Number((await server.said("served .* port=(\\d+)"))[1])

const start = async (it: ReturnType<typeof harness>, env: Record<string, string> = {}) => {
  const server = it.byHand({ ADDRESS: "127.0.0.1:0", ...env })
  const port = await portOf(server)
  return { server, port }
}

/** Everything the peer sent until it closed the connection. */
const wholeAnswer = async (socket: Socket): Promise<string> => {
  const chunks: Array<Buffer> = []
  socket.on("data", (chunk: Buffer) => chunks.push(chunk))
  await once(socket, "close")
  return Buffer.concat(chunks).toString()
}

const open = async (port: number): Promise<Socket> => {
  const socket = createConnection(port, "127.0.0.1")
  await once(socket, "connect")
  return socket
}

const certificate = (directory: { readonly file: (name: string) => string }) => {
  const KEY = directory.file("key.pem")
  const CERT = directory.file("cert.pem")
  const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=localhost"]
  execFileSync(openssl.path ?? "", ["req", "-x509", ...curve, "-keyout", KEY, "-out", CERT], { stdio: "ignore" })
  return { KEY, CERT }
}

describe("a drain over HTTP/1.1", () => {
  it("answers a request of 1.5 s whole that was in flight when it began, then exits 0", async () => {
    await using it = harness()
    const { server, port } = await start(it)
    const answer = get(port, "/slow?ms=1500", new Agent({ keepAlive: true }))
    await sleep(200)
    server.terminate()
    expect((await answer).pid).toBe(server.pid)
    await server.said("drained cut=0")
    expect((await server.process.ended).code).toBe(0)
  })

  it("answers a request that comes on an idle connection after it began, and closes with that answer", async () => {
    await using it = harness()
    const { server, port } = await start(it, { IDLE_MS: "1500" })
    const socket = await open(port)
    socket.write("GET /first HTTP/1.1\r\nHost: a\r\n\r\n")
    await once(socket, "data")
    server.terminate()
    await server.said("draining")
    await sleep(200)
    const answer = wholeAnswer(socket)
    socket.write("GET /second HTTP/1.1\r\nHost: a\r\n\r\n")
    expect(await answer).toMatch(/Connection: close[\s\S]*"path":"\/second"/)
    expect((await server.process.ended).code).toBe(0)
  })

  it("closes idle connections and ones that never asked after the idle time, not before, not at the grace", async () => {
    await using it = harness()
    const { server, port } = await start(it, { IDLE_MS: "600" })
    const [used, silent] = await Promise.all([open(port), open(port)])
    used.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await once(used, "data")
    let closed = 0
    for (const socket of [used, silent]) socket.resume().once("close", () => (closed += 1))
    server.terminate()
    await server.said("draining")
    await sleep(300)
    expect(closed).toBe(0)
    await server.process.ended
    await sleep(20)
    expect(closed).toBe(2)
  })

  it("waits for a request whose head is half sent, past the idle time", async () => {
    await using it = harness()
    const { server, port } = await start(it, { IDLE_MS: "200" })
    const socket = await open(port)
    socket.write("GET /late HTTP/1.1\r\nHo")
    await sleep(100)
    server.terminate()
    await server.said("draining")
    await sleep(700)
    const answer = wholeAnswer(socket)
    socket.write("st: a\r\n\r\n")
    expect(await answer).toMatch(/"path":"\/late"/)
  })

  it("does not reset an upload that is answered before it is read", async () => {
    await using it = harness()
    const { server, port } = await start(it, { IDLE_MS: "1000" })
    // Half open: it goes on sending after an answer, as clients do that read only when they have sent all.
    const socket = createConnection({ port, host: "127.0.0.1", allowHalfOpen: true })
    await once(socket, "connect")
    socket.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await once(socket, "data")
    server.terminate()
    await server.said("draining")
    const failures: Array<string> = []
    socket.on("error", (error) => failures.push(error.message))
    const answer = wholeAnswer(socket)
    const size = 4_000_000
    socket.write(`POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: ${size}\r\n\r\n`)
    for (let sent = 0; sent < size; sent += 100_000) {
      socket.write(Buffer.alloc(100_000))
      await sleep(2)
    }
    socket.end()
    expect(await answer).toMatch(/"path":"\/early"/)
    expect(failures).toEqual([])
  })

  it("is not hurried by a second and a third signal", async () => {
    await using it = harness()
    const { server, port } = await start(it)
    const answer = get(port, "/slow?ms=1000", false)
    await sleep(200)
    for (let times = 0; times < 3; times += 1) {
      server.terminate()
      await sleep(50)
    }
    expect((await answer).pid).toBe(server.pid)
    expect((await server.process.ended).code).toBe(0)
    expect(server.process.output().stdout.match(/draining/g)).toHaveLength(1)
  })

  it("leaves an upgraded connection to the application, until the grace is over", async () => {
    await using it = harness()
    const { server, port } = await start(it, { UPGRADE: "1", IDLE_MS: "100", GRACE_MS: "900" })
    await server.said("serving")
    const socket = await open(port)
    socket.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
    await once(socket, "data")
    let closed = false
    socket.once("close", () => {
      closed = true
    })
    server.terminate()
    await server.said("draining")
    await sleep(500)
    expect(closed).toBe(false)
    await server.said("drained cut=1")
  })

  it("ends at once when nothing is served yet", async () => {
    await using it = harness()
    const held = await it.held()
    const server = await held.start({ READINESS: "manual" })
    await server.said("serving")
    server.terminate()
    await server.said("drained cut=0")
    await server.said("exited 0")
  })

  it("cuts what is left after the grace, says so, and exits", async () => {
    await using it = harness()
    const { server, port } = await start(it, { GRACE_MS: "500" })
    const answer = get(port, "/slow?ms=60000", false)
    answer.catch(() => undefined)
    await sleep(200)
    server.terminate()
    await server.said("drained cut=1")
    await expect(answer).rejects.toThrow("socket hang up")
    expect((await server.process.ended).stderr).toMatch(/1 requests or connections were cut after 500 ms/)
  })
})

describe("a drain over TLS", () => {
  it.skipIf(!openssl.available)(`answers what is in flight and closes what is idle${openssl.reason}`, async () => {
    using directory = temporaryDirectory()
    await using it = harness()
    const { server, port } = await start(it, { PROTOCOL: "https", IDLE_MS: "500", ...certificate(directory) })
    const agent = new SecureAgent({ keepAlive: true, rejectUnauthorized: false })
    const ask = (path: string) =>
      new Promise<number | undefined>((resolve, reject) => {
        const sent = secureRequest({ port, path, agent, host: "127.0.0.1" }, (response) => {
          response.resume().once("end", () => resolve(response.statusCode))
        })
        sent.once("error", reject).end()
      })
    expect(await ask("/")).toBe(200)
    const silent = await open(port)
    const slow = ask("/slow?ms=1200")
    const idle = ask("/")
    expect(await idle).toBe(200)
    server.terminate()
    await once(silent.resume(), "close")
    expect(await slow).toBe(200)
    expect((await server.process.ended).code).toBe(0)
    agent.destroy()
  })
})

/** A link that delays every byte in both directions, so that the peers' words cross. */
const slowLink = async (to: number, delayMs: number) => {
  const relay = (from: Socket, into: Socket) => {
    from.on("data", (chunk) => setTimeout(() => into.writable && into.write(chunk), delayMs))
    from.on("end", () => setTimeout(() => into.end(), delayMs))
    from.on("error", () => into.destroy())
  }
  const server = createServer((near) => {
    const far = createConnection(to, "127.0.0.1")
    relay(near, far)
    relay(far, near)
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  const address = server.address()
  return {
    port: typeof address === "object" && address !== null ? address.port : 0,
    [Symbol.dispose]: () => server.close()
  }
}

const stream = (session: ClientHttp2Session, path: string): Promise<string> =>
  new Promise((resolve, reject) => {
    const sent = session.request({ ":path": path })
    const chunks: Array<Buffer> = []
    sent.on("data", (chunk: Buffer) => chunks.push(chunk))
    sent.once("error", reject)
    sent.once("close", () =>
      chunks.length > 0
        ? resolve(Buffer.concat(chunks).toString())
        : reject(new Error(`no answer, code ${sent.rstCode}`))
    )
  })

describe.each([
  { protocol: "h2c", scheme: "http" },
  { protocol: "h2", scheme: "https" }
])("a drain over HTTP/2 ($protocol)", ({ protocol, scheme }) => {
  const skipped = protocol === "h2" && !openssl.available
  const why = protocol === "h2" ? openssl.reason : ""

  /** The TLS sessions of Node's client; what else fails than a stream is collected. */
  const connect = async (port: number) => {
    const session = connectHttp2(`${scheme}://127.0.0.1:${port}`, { rejectUnauthorized: false })
    const failures: Array<string> = []
    session.on("error", (error) => failures.push(error.message))
    await once(session, "connect")
    return { session, failures }
  }

  // Over TLS such streams are refused (ShutdownNotice.ts), so there is no such case.
  const plainOnly = protocol === "h2c" ? it : () => undefined
  plainOnly("answers streams that cross its GOAWAY, over a slow link", async () => {
    await using it = harness()
    const { server, port } = await start(it, { PROTOCOL: protocol, IDLE_MS: "500" })
    using link = await slowLink(port, 40)
    const { session, failures } = await connect(link.port)
    const answers: Array<Promise<unknown>> = []
    let afterSignal = 0
    while (!session.closed) {
      const answer = stream(session, "/?ms=20")
      answer.catch(() => undefined)
      answers.push(answer)
      if (answers.length > 20) afterSignal += 1
      if (answers.length === 20) server.terminate()
      await sleep(5)
    }
    // The last one may have met the GOAWAY inside the client, which then never sent it.
    const settled = await Promise.allSettled(answers.slice(0, -1))
    expect(settled.filter(({ status }) => status === "rejected")).toEqual([])
    expect(afterSignal).toBeGreaterThan(5)
    expect(failures).toEqual([])
    expect((await server.process.ended).code).toBe(0)
    await server.said("drained cut=0")
  })

  it.skipIf(skipped)(
    `answers a stream in flight past the idle time, and the next one of an idle session${why}`,
    async () => {
      using directory = temporaryDirectory()
      await using it = harness()
      const credentials = protocol === "h2" ? certificate(directory) : {}
      const { server, port } = await start(it, { PROTOCOL: protocol, IDLE_MS: "500", ...credentials })
      const [busy, idle] = await Promise.all([connect(port), connect(port)])
      expect(await stream(idle.session, "/")).toMatch(/"path":"\/"/)
      const slow = stream(busy.session, "/slow?ms=1500")
      await sleep(100)
      server.terminate()
      await server.said("draining")
      await sleep(200)
      const told = once(idle.session, "goaway")
      expect(await stream(idle.session, "/next")).toMatch(/"path":"\/next"/)
      await told
      expect(await slow).toMatch(/"path":"\/slow"/)
      expect([...busy.failures, ...idle.failures]).toEqual([])
      expect((await server.process.ended).code).toBe(0)
      await server.said("drained cut=0")
    }
  )

  it.skipIf(skipped)(`lets go of a session without streams after the idle time${why}`, async () => {
    using directory = temporaryDirectory()
    await using it = harness()
    const credentials = protocol === "h2" ? certificate(directory) : {}
    const { server, port } = await start(it, { PROTOCOL: protocol, ...credentials })
    const session = connectHttp2(`${scheme}://127.0.0.1:${port}`, { rejectUnauthorized: false })
    await once(session, "connect")
    server.terminate()
    await once(session, "close")
    expect((await server.process.ended).code).toBe(0)
  })
})

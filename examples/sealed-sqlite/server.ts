// A key-value service on one SQLite file, replaced without a lost write. By hand: node server.ts
import { createServer } from "node:http"
import { daemon } from "@handoff/supervisor/daemon"
import { api } from "./api.ts"
import { Store } from "./Store.ts"

const store = new Store(process.env.DATA_DIR ?? "data")

const handoff = await daemon({
  dataDir: store.directory,
  open: () => store.open(),
  seal: async () => ({ revisions: [store.seal()] }),
  snapshot: () => ({ revisions: [store.revision()] })
})
await handoff.serve(createServer(api(store)), "http", process.env.ADDRESS ?? "127.0.0.1:8080")
console.log(`process ${process.pid} serves revision ${store.revision()}`)

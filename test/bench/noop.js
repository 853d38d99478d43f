// The daemon of the sealed bench: owns a directory, does nothing with it.
import { createServer } from "node:http"
import { daemon } from "@handoff/supervisor/daemon"

const { env } = process
const handoff = await daemon({
  dataDir: env.HANDOFF_DATA_DIR,
  open: () => undefined,
  seal: async () => undefined
})
await handoff.serve(createServer(), "http", "127.0.0.1:0")

// The command as one bundled file, `run` and `plan` in chunks of their own: what most commands need loads at once, what
// only a supervisor needs loads with it. The libraries stay unbundled (tsc).
import { builtinModules } from "node:module"

const builtins = new Set(builtinModules.flatMap((name) => [name, `node:${name}`]))

export default {
  input: { cli: "src/cli/main.ts" },
  platform: "node",
  external: (id) => id === "ffi-rs" || builtins.has(id),
  resolve: { conditionNames: ["@handoff/source", "import", "node", "default"] },
  output: {
    dir: "dist",
    format: "esm",
    entryFileNames: "[name].js",
    chunkFileNames: "cli-chunks/[name].js",
    minify: "dce-only"
  }
}

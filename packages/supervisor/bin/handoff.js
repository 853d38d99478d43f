#!/usr/bin/env node
// Starts the command: turns Node's compile cache on, then loads the one bundled file. Works in a checkout that was not
// built, too, where Node runs the TypeScript sources as they are (slowly).
import { existsSync } from "node:fs"
import module from "node:module"
import { fileURLToPath } from "node:url"
import v8 from "node:v8"

const [major = 0, minor = 0] = process.versions.node.split(".").map(Number)
if (major < 22 || (major === 22 && minor < 15)) {
  process.stderr.write(`handoff: needs Node 22.15 or newer, this is ${process.versions.node} (${process.execPath})\n`)
  process.exit(1)
}

const at = (path) => fileURLToPath(new URL(path, import.meta.url))
const bundle = at("../dist/cli.js")
const source = at("../src/cli/main.ts")
const condition = "--conditions=@handoff/source"

// A supervisor lives for months and does little. With these V8 keeps it under 90 MB after a thousand swaps, where its
// optimising compilers and its patience with garbage made 190; a swap takes 1.5 ms longer than in a hot process.
if (process.argv.includes("run")) v8.setFlagsFromString("--optimize-for-size --no-opt --no-maglev")

if (existsSync(bundle)) {
  module.enableCompileCache()
  await import(bundle)
} else if (!existsSync(source)) {
  process.stderr.write("handoff: this package is incomplete: dist/cli.js is missing\n")
  process.exit(1)
} else if (process.execArgv.includes(condition) || process.env.NODE_OPTIONS?.includes(condition)) {
  await import(source)
} else {
  // The condition must be there when Node starts. execve keeps the process, so signals and its pid stay right.
  process.stderr.write("handoff: not built, running from source; build with `npm run build`\n")
  process.removeAllListeners("warning")
  process.on("warning", () => {})
  process.execve(
    process.execPath,
    [process.execPath, ...process.execArgv, condition, source, ...process.argv.slice(2)],
    process.env
  )
}

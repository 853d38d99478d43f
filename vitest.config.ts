import { defineConfig } from "vitest/config"

export default defineConfig({
  ssr: { resolve: { conditions: ["@handoff/source", "module", "node", "development|production"] } },
  test: {
    // ffi-rs ends a worker thread's process with SIGSEGV, so tests run in forked processes.
    pool: "forks",
    reporters: ["default", "./test/support/Reporter.ts"],
    include: [
      "packages/*/test/**/*.test.ts",
      "examples/*/test/**/*.test.ts",
      "examples/*/*.test.ts",
      "test/**/*.test.ts"
    ],
    setupFiles: ["./test/support/Setup.ts"],
    testTimeout: 20_000,
    hookTimeout: 20_000
  }
})

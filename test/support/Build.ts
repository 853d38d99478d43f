/**
 * The built packages, for tests that run what is shipped: the `handoff` command, the tarballs, the bench.
 *
 * A test asks for them with `ensureBuilt` in its `beforeAll`; a fresh clone needs no separate build step. Test modules run
 * in processes of their own, so the build is serialised by a lock file that names its holder; a holder that died
 * leaves a lock that the next one takes over. turbo finds out what is outdated: unchanged packages cost 0.4 s.
 */
import { execFile } from "node:child_process"
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, writeSync } from "node:fs"
import { dirname, join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { promisify } from "node:util"
import { isAlive } from "./ProcessTable.ts"

export const ROOT = join(import.meta.dirname, "..", "..")

const LOCK = join(ROOT, "node_modules", ".cache", "handoff-build.lock")
/** Milliseconds to wait for another module's build. */
const PATIENCE = 180_000

const tryLock = (): boolean => {
  try {
    const fd = openSync(LOCK, "wx")
    writeSync(fd, String(process.pid))
    closeSync(fd)
    return true
  } catch {
    return false
  }
}

const removeLockOfTheDead = (): void => {
  try {
    const holder = Number(readFileSync(LOCK, "utf8"))
    if (holder > 0 && !isAlive(holder)) rmSync(LOCK, { force: true })
  } catch {
    // It went away by itself.
  }
}

const build = async (): Promise<void> => {
  const environment = { ...process.env, TURBO_TELEMETRY_DISABLED: "1", FORCE_COLOR: "0" }
  try {
    await promisify(execFile)("npx", ["--no-install", "turbo", "run", "build", "--output-logs=errors-only"], {
      cwd: ROOT,
      env: environment,
      maxBuffer: 16 * 1024 * 1024
    })
  } catch (error) {
    const { stdout = "", stderr = "" } = error as { stdout?: string; stderr?: string }
    throw new Error(`the packages do not build:\n${stdout}${stderr}`)
  }
}

let built: Promise<void> | undefined

const buildLocked = async (): Promise<void> => {
  mkdirSync(dirname(LOCK), { recursive: true })
  const deadline = Date.now() + PATIENCE
  while (!tryLock()) {
    if (Date.now() > deadline) throw new Error(`another build held ${LOCK} for ${PATIENCE / 1000} s`)
    removeLockOfTheDead()
    await sleep(100)
  }
  try {
    await build()
  } finally {
    rmSync(LOCK, { force: true })
  }
}

/** Builds the packages unless they are up to date. Give the hook that calls it `BUILD_TIMEOUT`. */
export const ensureBuilt = (): Promise<void> => {
  built ??= buildLocked()
  return built
}

/** Milliseconds. */
export const BUILD_TIMEOUT = PATIENCE + 20_000

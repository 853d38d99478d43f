/** A directory of a test's own, removed with everything in it when the block that holds it ends. */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

export interface TemporaryDirectory extends Disposable {
  readonly path: string
  /** A path inside it. */
  readonly file: (...names: ReadonlyArray<string>) => string
}

/**
 * @example
 * using directory = temporaryDirectory()
 * writeFileSync(directory.file("server.js"), source)
 */
export const temporaryDirectory = (prefix = "handoff-test-"): TemporaryDirectory => {
  const path = mkdtempSync(join(tmpdir(), prefix))
  return {
    path,
    file: (...names) => join(path, ...names),
    [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true })
  }
}

/** `SlowDisk.ts DIRECTORY MILLISECONDS`: keeps the disk of a directory busy with syncs for that long. */
import { open, rm } from "node:fs/promises"
import { join } from "node:path"

const [directory = ".", milliseconds = "0"] = process.argv.slice(2)
const end = Date.now() + Number(milliseconds)
const block = new Uint8Array(256 * 1024)

const write = async (path: string): Promise<void> => {
  const file = await open(path, "w")
  try {
    while (Date.now() < end) {
      await file.write(block, 0, block.length, 0)
      await file.sync()
    }
  } finally {
    await file.close()
    await rm(path, { force: true })
  }
}

await Promise.all(Array.from({ length: 4 }, (_, index) => write(join(directory, `slow-${process.pid}-${index}`))))

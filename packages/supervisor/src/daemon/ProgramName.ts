/** What a program is called when nobody named it: the file it was started with. */
import { basename } from "node:path"

export const programName = (): string => basename(process.argv[1] ?? process.execPath)

/** Of every test file: what a test that ran out of time has left is ended with its file. */
import { afterAll } from "vitest"
import { endAll } from "./ManagedProcesses.ts"

afterAll(endAll)

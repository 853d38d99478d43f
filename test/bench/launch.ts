/**
 * How long one launch with 3 descriptors blocks the event loop, at several sizes of the launching process, against
 * `child_process.spawn` in the same process and `posix_spawn` from a small C program (where a C compiler is found)
 * that asks for the same: three descriptors, own group, default dispositions, empty mask; and a launch with 1,000 listeners.
 *
 * Each size is a process of its own, filled to its RSS, in which both ways take turns, so that a busy machine slows both.
 * Medians; every comparison is a ratio within one run.
 *
 * Alone: `node --conditions=@handoff/source test/bench/launch.ts`
 */
import { execFile, spawn } from "node:child_process"
import { once } from "node:events"
import { closeSync, openSync, writeFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import * as FfiLauncher from "@handoff/backend-ffi/Launcher"
import * as Platform from "@handoff/backend-ffi/Platform"
import * as Launch from "@handoff/core/Launch"
import * as Placement from "@handoff/core/Placement"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { type TemporaryDirectory, temporaryDirectory } from "../support/TemporaryDirectory.ts"
import { findTool } from "../support/Tools.ts"

export interface Row {
  readonly name: string
  readonly value: number
  readonly unit: string
  /** What was aimed at, in words. */
  readonly goal?: string
  /** The row that `value` is a multiple of. */
  readonly ratioTo?: string
}

const SELF = fileURLToPath(import.meta.url)
const PROGRAM = "/bin/true"
const SIZES = [
  { megabytes: 60, times: 3 },
  { megabytes: 600, times: 30 },
  { megabytes: 2048, times: 100 }
]
const WARM_UP = 50
const ROUNDS = 100
/** spawn at 2 GB takes 90 ms each. */
const SPAWN_ROUNDS = 15

const median = (values: ReadonlyArray<number>): number => {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
}

const C_PROGRAM = `
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
extern char **environ;
static int compare(const void *a, const void *b) { double x = *(double *)a, y = *(double *)b; return (x > y) - (x < y); }
int main(void) {
  enum { ROUNDS = 200 };
  double taken[ROUNDS];
  int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int i = 0; i < ROUNDS; i++) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t signals;
    char *argv[] = { "true", 0 };
    struct timespec from, to;
    pid_t pid;
    clock_gettime(CLOCK_MONOTONIC, &from);
    posix_spawn_file_actions_init(&actions);
    for (int target = 3; target < 6; target++) posix_spawn_file_actions_adddup2(&actions, fd, target);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
    sigfillset(&signals);
    posix_spawnattr_setsigdefault(&attributes, &signals);
    sigemptyset(&signals);
    posix_spawnattr_setsigmask(&attributes, &signals);
    if (posix_spawn(&pid, "${PROGRAM}", &actions, &attributes, argv, environ) != 0) return 1;
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    clock_gettime(CLOCK_MONOTONIC, &to);
    waitpid(pid, 0, 0);
    taken[i] = (to.tv_sec - from.tv_sec) * 1e3 + (to.tv_nsec - from.tv_nsec) / 1e6;
  }
  qsort(taken, ROUNDS, sizeof(double), compare);
  printf("%f\\n", taken[ROUNDS / 2]);
  return 0;
}
`

const execute = promisify(execFile)

/** Compiles the C program; undefined without a compiler. */
const compile = async (directory: TemporaryDirectory): Promise<string | undefined> => {
  const compiler = findTool("cc")
  if (compiler === undefined) return undefined
  const program = directory.file("spawn")
  writeFileSync(directory.file("spawn.c"), C_PROGRAM)
  await execute(compiler, ["-O2", "-D_GNU_SOURCE", "-o", program, directory.file("spawn.c")])
  return program
}

/** Milliseconds of a posix_spawn with 3 descriptors from C. */
const posixSpawn = async (program: string): Promise<number> => Number((await execute(program)).stdout)

interface Measured {
  readonly launch: number
  readonly spawn: number
  readonly listeners: number
}

const launchTimes = async (descriptors: number, rounds: number): Promise<number> => {
  const launcher = FfiLauncher.make(Result.getOrThrow(Platform.machine()))
  const facts = await Effect.runPromise(launcher.facts)
  const fd = openSync("/dev/null", "r+")
  const placements = Array.from({ length: descriptors }, (_, index) => Placement.move(fd, 3 + index))
  const environment = { ...process.env, LISTEN_FDS: String(descriptors) } as Record<string, string>
  const spec = { program: PROGRAM, argv: ["true"], environment, placements, stampListenPid: true }
  const times: Array<number> = []
  for (let round = 0; round < WARM_UP + rounds; round += 1) {
    const from = performance.now()
    const child = Effect.runSync(launcher.launch(Result.getOrThrow(Launch.plan(spec, facts))))
    times.push(performance.now() - from)
    await Effect.runPromise(child.exit)
  }
  closeSync(fd)
  return median(times.slice(WARM_UP))
}

const spawnTimes = async (): Promise<number> => {
  const fd = openSync("/dev/null", "r+")
  const times: Array<number> = []
  for (let round = 0; round < SPAWN_ROUNDS; round += 1) {
    const from = performance.now()
    const child = spawn(PROGRAM, [], { stdio: ["ignore", "ignore", "ignore", fd, fd, fd] })
    times.push(performance.now() - from)
    await once(child, "exit")
  }
  closeSync(fd)
  return median(times.slice(3))
}

/** Runs in a process of its own: fills memory up to `megabytes` of RSS and measures. */
const measureAt = async (megabytes: number): Promise<Measured> => {
  const ballast: Array<Buffer> = []
  while (process.memoryUsage.rss() < megabytes * 1e6) ballast.push(Buffer.alloc(4_000_000, 1))
  const measured = {
    launch: await launchTimes(3, ROUNDS),
    spawn: await spawnTimes(),
    listeners: await launchTimes(1000, 30)
  }
  if (ballast.some((buffer) => buffer[0] !== 1)) throw new Error("the ballast went away")
  return measured
}

const measureInProcess = async (megabytes: number): Promise<Measured> => {
  const args = ["--conditions=@handoff/source", SELF, "--measure", String(megabytes)]
  return JSON.parse((await execute(process.execPath, args)).stdout)
}

const rowsAt = async (size: (typeof SIZES)[number], program: string | undefined): Promise<ReadonlyArray<Row>> => {
  const at = `at ${size.megabytes} MB`
  // Before and after: a machine that is shared slows down and speeds up.
  const before = program === undefined ? undefined : await posixSpawn(program)
  const { launch, spawn, listeners } = await measureInProcess(size.megabytes)
  const after = program === undefined ? undefined : await posixSpawn(program)
  const spawnName = `child_process.spawn ${at}`
  const rows: Array<Row> = [
    { name: spawnName, value: spawn, unit: "ms blocked" },
    { name: `launch ${at}`, value: launch, unit: "ms blocked", goal: "0.4 to 0.7, flat" },
    {
      name: `spawn / launch ${at}`,
      value: spawn / launch,
      unit: "times",
      goal: `at least ${size.times}`,
      ratioTo: spawnName
    }
  ]
  if (before !== undefined && after !== undefined) {
    const c = (before + after) / 2
    const name = `posix_spawn from C, measured around ${at}`
    rows.push({ name, value: c, unit: "ms" })
    rows.push({
      name: `launch ${at} / posix_spawn`,
      value: launch / c,
      unit: "times",
      goal: "at most 3",
      ratioTo: name
    })
  }
  rows.push({ name: `launch with 1,000 listeners ${at}`, value: listeners, unit: "ms blocked", goal: "at most 5" })
  return rows
}

/** Runs the benchmark; about fifteen seconds. */
export const run = async (): Promise<ReadonlyArray<Row>> => {
  using directory = temporaryDirectory("handoff-bench-")
  const program = await compile(directory)
  const rows: Array<Row> = []
  for (const size of SIZES) rows.push(...(await rowsAt(size, program)))
  return rows
}

if (process.argv[1] === SELF) {
  if (process.argv[2] === "--measure") {
    console.log(JSON.stringify(await measureAt(Number(process.argv[3]))))
  } else {
    for (const { name, value, unit, goal } of await run()) {
      console.log(`${name.padEnd(48)} ${value.toFixed(3).padStart(9)} ${unit.padEnd(11)} ${goal ?? ""}`)
    }
  }
}

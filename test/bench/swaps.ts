/**
 * What a swap costs beside the start-up of the new version, and what a thousand of them leave in the supervisor's memory.
 *
 * The daemon is a small C program that sends READY=1 at once and ends on SIGTERM. Its start-up is measured in the same run
 * by another C program that starts it with posix_spawn and waits for the datagram. The supervisor is the real command;
 * swaps are asked for over its admin socket, so that a time is what a client sees from request to verdict.
 */

import { execFile } from "node:child_process"
import { request } from "node:http"
import { promisify } from "node:util"
import { supervise } from "../support/Handoff.ts"
import { managedProcesses } from "../support/ManagedProcesses.ts"
import { residentMegabytes } from "../support/ProcessTable.ts"
import { temporaryDirectory } from "../support/TemporaryDirectory.ts"
import type { Row } from "./launch.ts"
import { compileC, median } from "./Measure.ts"

const SWAPS = 1_000
const WARM_UP = 50

const DAEMON = `
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(void) {
  struct sockaddr_un to = { .sun_family = AF_UNIX };
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  strncpy(to.sun_path, getenv("NOTIFY_SOCKET"), sizeof to.sun_path - 1);
  if (sendto(fd, "READY=1", 7, 0, (struct sockaddr *)&to, sizeof to) != 7) return 1;
  for (;;) pause();
}
`

const STARTER = `
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
extern char **environ;
static int compare(const void *a, const void *b) { double x = *(double *)a, y = *(double *)b; return (x > y) - (x < y); }
int main(int argc, char **argv) {
  enum { ROUNDS = 200 };
  double taken[ROUNDS];
  char buffer[64];
  struct sockaddr_un at = { .sun_family = AF_UNIX };
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  strncpy(at.sun_path, argv[2], sizeof at.sun_path - 1);
  if (bind(fd, (struct sockaddr *)&at, sizeof at) != 0) return 1;
  setenv("NOTIFY_SOCKET", argv[2], 1);
  for (int i = 0; i < ROUNDS; i++) {
    char *arguments[] = { argv[1], 0 };
    struct timespec from, to;
    pid_t pid;
    clock_gettime(CLOCK_MONOTONIC, &from);
    if (posix_spawn(&pid, argv[1], 0, 0, arguments, environ) != 0) return 1;
    if (read(fd, buffer, sizeof buffer) != 7) return 1;
    clock_gettime(CLOCK_MONOTONIC, &to);
    kill(pid, SIGTERM);
    waitpid(pid, 0, 0);
    taken[i] = (to.tv_sec - from.tv_sec) * 1e3 + (to.tv_nsec - from.tv_nsec) / 1e6;
  }
  qsort(taken, ROUNDS, sizeof(double), compare);
  printf("%f\\n", taken[ROUNDS / 2]);
  return 0;
}
`

/** Asks for a swap; gives milliseconds from the request to the whole verdict. */
const swap = (socketPath: string): Promise<number> =>
  new Promise((resolve, reject) => {
    const from = performance.now()
    const asked = request({ socketPath, path: "/swap", method: "POST" }, (response) => {
      let body = ""
      response.setEncoding("utf8").on("data", (chunk: string) => {
        body += chunk
      })
      response.on("error", reject)
      response.on("end", () => {
        const taken = performance.now() - from
        if (body.includes('"outcome":"committed"')) resolve(taken)
        else reject(new Error(`the swap was not committed: ${body}`))
      })
    })
    asked.on("error", reject)
    asked.end()
  })

/** Milliseconds from posix_spawn to the arrival of READY=1. */
const startUp = async (starter: string, daemon: string, socket: string): Promise<number> =>
  Number((await promisify(execFile)(starter, [daemon, socket])).stdout)

/** Memory goes up and down with each collection, so the lowest of the last quarter is compared with that of the first. */
const growth = (resident: ReadonlyArray<number>): number => {
  const quarter = Math.floor(resident.length / 4)
  return Math.min(...resident.slice(-quarter)) - Math.min(...resident.slice(0, quarter))
}

export const run = async (): Promise<ReadonlyArray<Row>> => {
  await using processes = managedProcesses()
  using directory = temporaryDirectory("handoff-bench-")
  const daemon = await compileC(directory.path, "daemon", DAEMON)
  const starter = await compileC(directory.path, "starter", STARTER)
  if (daemon === undefined || starter === undefined) throw new Error("the swap bench needs a C compiler")
  const { pid } = await supervise(processes, directory.path, { program: [daemon] })
  const socket = directory.file("state", "test", "admin.sock")
  const residentAtStart = residentMegabytes(pid)
  const before = await startUp(starter, daemon, directory.file("before.sock"))
  for (let round = 0; round < WARM_UP; round += 1) await swap(socket)
  const times: Array<number> = []
  const resident: Array<number> = []
  for (let round = 0; round < SWAPS; round += 1) {
    times.push(await swap(socket))
    resident.push(residentMegabytes(pid))
  }
  const startsUp = (before + (await startUp(starter, daemon, directory.file("after.sock")))) / 2
  return [
    { name: "start-up of the daemon from C", value: startsUp, unit: "ms" },
    { name: "swap to that daemon, request to verdict", value: median(times), unit: "ms" },
    { name: "swap less start-up", value: median(times) - startsUp, unit: "ms", goal: "at most 5" },
    { name: "supervisor's memory at start", value: residentAtStart, unit: "MB", goal: "at most 90" },
    {
      name: `its memory after ${SWAPS} swaps`,
      value: median(resident.slice(-Math.floor(SWAPS / 4))),
      unit: "MB",
      goal: "at most 90"
    },
    { name: `growth over ${SWAPS} swaps`, value: growth(resident), unit: "MB", goal: "none: at most 3" }
  ]
}

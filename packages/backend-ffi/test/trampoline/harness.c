/* Maps the machine code in argv[1] read and execute, forks it onto a few records, and prints what came of them. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct record { int64_t nr; int64_t *first; int64_t a[6]; int64_t result; uint64_t tolerated[3]; };
struct program { struct record *failed; int64_t error; struct record records[8]; };

static void run(void (*code)(struct program *), struct program *p, const char *title) {
  for (int i = 0; i < 8; i++) if (p->records[i].first == 0) p->records[i].first = &p->records[i].a[0];
  pid_t pid = fork();
  if (pid == 0) code(p);
  int status = 0;
  waitpid(pid, &status, 0);
  printf("%s: record %d errno %d status %d\n", title, p->failed ? (int)(p->failed - p->records) : -1, (int)p->error,
         WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
}

#define CALL(i, n, x0, x1, x2, x3, x4, x5) \
  p->records[i].nr = n; \
  p->records[i].a[0] = x0; p->records[i].a[1] = x1; p->records[i].a[2] = x2; \
  p->records[i].a[3] = x3; p->records[i].a[4] = x4; p->records[i].a[5] = x5

int main(int argc, char **argv) {
  int fd = open(argv[1], O_RDONLY);
  void *code = mmap(0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
  struct program *p = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (argc < 2 || code == MAP_FAILED || p == MAP_FAILED) return 1;

  /* A result as a later argument, twice; all six arguments; then an error. */
  memset(p, 0, sizeof *p);
  CALL(0, __NR_fcntl, 1, F_DUPFD, 100, 0, 0, 0);
  CALL(1, __NR_dup3, 0, 150, 0, 0, 0, 0);
  p->records[1].first = &p->records[0].result;
  CALL(2, __NR_close, 0, 0, 0, 0, 0, 0);
  p->records[2].first = &p->records[0].result;
  CALL(3, __NR_mmap, 0, 8192, PROT_READ, MAP_PRIVATE, fd, 4096);
  CALL(4, __NR_close, 100, 0, 0, 0, 0, 0);
  run((void (*)(struct program *))code, p, "slots");
  printf("duplicated %d placed %d closed %d mapped %s\n", (int)p->records[0].result, (int)p->records[1].result,
         (int)p->records[2].result, p->records[3].result > 4096 ? "yes" : "no");

  /* Tolerated: EBADF (9) in the first word, EPROTONOSUPPORT (93) in the second; EINVAL (22) is not in a set with 21, 23. */
  memset(p, 0, sizeof *p);
  CALL(0, __NR_close, 999, 0, 0, 0, 0, 0);
  p->records[0].tolerated[0] = 1ull << 9;
  CALL(1, __NR_socket, 1, 1, 999, 0, 0, 0);
  p->records[1].tolerated[1] = 1ull << (93 - 64);
  CALL(2, __NR_dup3, 1, 1, 0, 0, 0, 0);
  p->records[2].tolerated[0] = 1ull << 21 | 1ull << 23;
  p->records[2].tolerated[1] = p->records[2].tolerated[2] = ~0ull;
  run((void (*)(struct program *))code, p, "tolerated");

  /* An errno over every bit of the set is never tolerated; an exec that succeeds never comes back. */
  memset(p, 0, sizeof *p);
  CALL(0, -1, 0, 0, 0, 0, 0, 0);
  memset(p->records[0].tolerated, 0xff, 24);
  p->records[0].tolerated[0] &= ~(1ull << 38);
  run((void (*)(struct program *))code, p, "unknown call");
  memset(p, 0, sizeof *p);
  CALL(0, __NR_exit_group, 42, 0, 0, 0, 0, 0);
  run((void (*)(struct program *))code, p, "ends");
  return 0;
}

/*
 * A small program that reports on itself, for tests of launchers: what it was given at exec, as one JSON object.
 *
 *   observer report FILE   writes the report into FILE (which exists), sends READY=1 to NOTIFY_SOCKET if there is one
 *   observer exit N        exits with status N
 *   observer sleep         waits for ever
 *   observer wrap          starts a child that waits for ever, and waits too
 *
 * Descriptors are read before any is opened but the directory's own. The limits are read, and then lifted, so that a
 * low limit can't stop the report.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

extern char **environ;

static char *text;
static size_t length, capacity;

static void put(const char *s, size_t n) {
  if (length + n + 1 > capacity) {
    capacity = (length + n + 1) * 2;
    text = realloc(text, capacity);
    if (text == NULL) _exit(121);
  }
  memcpy(text + length, s, n);
  length += n;
}

static void puts_raw(const char *s) { put(s, strlen(s)); }

static void put_number(const char *key, long long value) {
  char buffer[128];
  put(buffer, (size_t)snprintf(buffer, sizeof buffer, "\"%s\":%lld,", key, value));
}

static void put_string(const char *s) {
  char buffer[8];
  put("\"", 1);
  for (; *s != 0; s++) {
    unsigned char c = (unsigned char)*s;
    if (c == '"' || c == '\\') {
      put("\\", 1);
      put(s, 1);
    } else if (c < 0x20) {
      put(buffer, (size_t)snprintf(buffer, sizeof buffer, "\\u%04x", c));
    } else {
      put(s, 1);
    }
  }
  put("\"", 1);
}

static void put_strings(const char *key, char **list) {
  put_string(key);
  puts_raw(":[");
  for (int i = 0; list[i] != NULL; i++) {
    if (i > 0) put(",", 1);
    put_string(list[i]);
  }
  puts_raw("],");
}

static void put_descriptors(void) {
  DIR *directory = opendir("/proc/self/fd");
  if (directory == NULL) _exit(122);
  int first = 1;
  struct dirent *entry;
  puts_raw("\"fds\":[");
  while ((entry = readdir(directory)) != NULL) {
    if (entry->d_name[0] == '.') continue;
    int fd = atoi(entry->d_name);
    if (fd == dirfd(directory)) continue;
    char target[4096], buffer[128];
    ssize_t n = readlinkat(dirfd(directory), entry->d_name, target, sizeof target - 1);
    target[n < 0 ? 0 : n] = 0;
    int flags = fcntl(fd, F_GETFD);
    put(buffer, (size_t)snprintf(buffer, sizeof buffer, "%s{\"fd\":%d,\"closeOnExec\":%s,\"name\":", first ? "" : ",", fd,
                                 flags & FD_CLOEXEC ? "true" : "false"));
    put_string(target);
    put("}", 1);
    first = 0;
  }
  puts_raw("],");
  closedir(directory);
}

static void put_signals(void) {
  char buffer[32];
  unsigned long long mask = 0;
  syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, 8);
  const char *separator = "";
  puts_raw("\"blockedSignals\":[");
  for (int i = 1; i <= 64; i++) {
    if (!(mask >> (i - 1) & 1)) continue;
    put(buffer, (size_t)snprintf(buffer, sizeof buffer, "%s%d", separator, i));
    separator = ",";
  }
  separator = "";
  puts_raw("],\"ignoredSignals\":[");
  for (int i = 1; i <= 64; i++) {
    /* The kernel's struct, whose first member is the handler: glibc's sigaction refuses its two internal signals. */
    void *action[8] = {0};
    if (syscall(SYS_rt_sigaction, i, NULL, action, 8) != 0 || action[0] != (void *)SIG_IGN) continue;
    put(buffer, (size_t)snprintf(buffer, sizeof buffer, "%s%d", separator, i));
    separator = ",";
  }
  puts_raw("],");
}

static const struct {
  const char *name;
  int number;
} resources[] = {{"CPU", RLIMIT_CPU},         {"FSIZE", RLIMIT_FSIZE},           {"DATA", RLIMIT_DATA},
                 {"STACK", RLIMIT_STACK},     {"CORE", RLIMIT_CORE},             {"RSS", RLIMIT_RSS},
                 {"NPROC", RLIMIT_NPROC},     {"NOFILE", RLIMIT_NOFILE},         {"MEMLOCK", RLIMIT_MEMLOCK},
                 {"AS", RLIMIT_AS},           {"LOCKS", RLIMIT_LOCKS},           {"SIGPENDING", RLIMIT_SIGPENDING},
                 {"MSGQUEUE", RLIMIT_MSGQUEUE}, {"NICE", RLIMIT_NICE},           {"RTPRIO", RLIMIT_RTPRIO},
                 {"RTTIME", RLIMIT_RTTIME}};

static void put_limit(const char *key, rlim_t value) {
  char buffer[64];
  if (value == RLIM_INFINITY) {
    put(buffer, (size_t)snprintf(buffer, sizeof buffer, "\"%s\":\"unlimited\"", key));
  } else {
    put(buffer, (size_t)snprintf(buffer, sizeof buffer, "\"%s\":%llu", key, (unsigned long long)value));
  }
}

static void put_limits(void) {
  puts_raw("\"limits\":{");
  for (size_t i = 0; i < sizeof resources / sizeof *resources; i++) {
    struct rlimit limit;
    getrlimit(resources[i].number, &limit);
    if (i > 0) put(",", 1);
    put_string(resources[i].name);
    puts_raw(":{");
    put_limit("soft", limit.rlim_cur);
    put(",", 1);
    put_limit("hard", limit.rlim_max);
    put("}", 1);
    limit.rlim_cur = limit.rlim_max;
    if (resources[i].number == RLIMIT_NOFILE) setrlimit(RLIMIT_NOFILE, &limit);
  }
  puts_raw("},");
}

static void put_identity(void) {
  uid_t uid[3];
  gid_t gid[3];
  getresuid(&uid[0], &uid[1], &uid[2]);
  getresgid(&gid[0], &gid[1], &gid[2]);
  /* Saved ids that were left behind would be a way back to privilege. */
  put_number("uid", uid[0] == uid[1] && uid[1] == uid[2] ? (long long)uid[0] : -1);
  put_number("gid", gid[0] == gid[1] && gid[1] == gid[2] ? (long long)gid[0] : -1);
  gid_t groups[1024];
  int count = getgroups(1024, groups);
  char buffer[32];
  puts_raw("\"groups\":[");
  for (int i = 0; i < count; i++) {
    put(buffer, (size_t)snprintf(buffer, sizeof buffer, "%s%u", i > 0 ? "," : "", (unsigned)groups[i]));
  }
  puts_raw("],");
}

static void send_ready(void) {
  const char *path = getenv("NOTIFY_SOCKET");
  if (path == NULL) return;
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sendto(fd, "READY=1", 7, 0, (struct sockaddr *)&address, sizeof address);
  close(fd);
}

static int report(const char *path, char **argv) {
  char directory[4096];
  int signal = 0;
  /* The limits come first: a low RLIMIT_NOFILE would forbid opening the directory of descriptors. */
  put("{", 1);
  put_limits();
  put_descriptors();
  put_strings("argv", argv);
  put_strings("environ", environ);
  put_signals();
  put_identity();
  put_number("pid", getpid());
  put_number("parent", getppid());
  put_number("group", getpgid(0));
  put_number("session", getsid(0));
  put_number("noNewPrivileges", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
  prctl(PR_GET_PDEATHSIG, &signal);
  put_number("parentDeathSignal", signal);
  put_number("umask", (long long)umask(0));
  puts_raw("\"workingDirectory\":");
  put_string(getcwd(directory, sizeof directory) == NULL ? "" : directory);
  put("}", 1);
  int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
  if (fd < 0) return 123;
  for (size_t done = 0; done < length;) {
    ssize_t n = write(fd, text + done, length - done);
    if (n <= 0) return 124;
    done += (size_t)n;
  }
  close(fd);
  send_ready();
  return 0;
}

int main(int argc, char **argv) {
  const char *mode = argc > 1 ? argv[1] : "";
  if (strcmp(mode, "exit") == 0 && argc > 2) return atoi(argv[2]);
  if (strcmp(mode, "report") == 0 && argc > 2) return report(argv[2], argv);
  if (strcmp(mode, "wrap") == 0) fork();
  else if (strcmp(mode, "sleep") != 0) return 125;
  for (;;) pause();
}

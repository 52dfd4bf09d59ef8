/* Makes the n-th call that touches a file below one directory fail: preloaded into a process that is
   under attack (tests/attack/faults.py). It is told by functions of its own, at any time. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITES = 1, READS = 2, OPENS = 4, LOCKS = 8 };

static char below[4096];
static size_t length;
static int kinds, code, lasting;
static long counted, nth;

/* From now on: count calls of these kinds and fail the n-th (0: none) with this errno; lasting: and
   all after it. */
void faults_arm(const char *directory, int which, long n, int number, int all_after) {
    strncpy(below, directory, sizeof below - 1);
    length = strlen(below);
    kinds = which;
    counted = 0;
    nth = n;
    code = number;
    lasting = all_after;
}

/* How many calls were counted since. */
long faults_counted(void) { return counted; }

static int is_below(const char *path) { return length && strncmp(path, below, length) == 0; }

static int fails(int kind, int ours) {
    if (!ours || !(kinds & kind)) return 0;
    long number = __atomic_add_fetch(&counted, 1, __ATOMIC_SEQ_CST);
    if (!nth || number < nth || (number > nth && !lasting)) return 0;
    errno = code;
    return 1;
}

static int fd_is_below(int fd) {
    char link[64], path[4096];
    if (!length) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return is_below(path);
}

#define REAL(name) \
    static typeof(&name) real; \
    if (!real) real = (typeof(&name))dlsym(RTLD_NEXT, #name)

#define ON_FD(kind, type, name, parameters, ...) \
    type name parameters { \
        REAL(name); \
        if (kinds & kind && fails(kind, fd_is_below(fd))) return -1; \
        return real(__VA_ARGS__); \
    }

ON_FD(WRITES, ssize_t, write, (int fd, const void *data, size_t size), fd, data, size)
ON_FD(WRITES, ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), fd, data, size, at)
ON_FD(WRITES, ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), fd, data, size, at)
ON_FD(WRITES, int, fsync, (int fd), fd)
ON_FD(WRITES, int, fdatasync, (int fd), fd)
ON_FD(WRITES, int, ftruncate, (int fd, off_t size), fd, size)
ON_FD(WRITES, int, ftruncate64, (int fd, off64_t size), fd, size)
ON_FD(WRITES, int, fallocate, (int fd, int mode, off_t at, off_t size), fd, mode, at, size)
ON_FD(READS, ssize_t, read, (int fd, void *data, size_t size), fd, data, size)
ON_FD(READS, ssize_t, pread, (int fd, void *data, size_t size, off_t at), fd, data, size, at)
ON_FD(READS, ssize_t, pread64, (int fd, void *data, size_t size, off64_t at), fd, data, size, at)

int unlink(const char *path) {
    REAL(unlink);
    if (fails(WRITES, is_below(path))) return -1;
    return real(path);
}

int rename(const char *from, const char *to) {
    REAL(rename);
    if (fails(WRITES, is_below(to))) return -1;
    return real(from, to);
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name); \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        if (fails(OPENS, is_below(path))) return -1; \
        return real(path, flags, mode); \
    }

OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        REAL(name); \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        if (fails(OPENS, is_below(path))) return -1; \
        return real(folder, path, flags, mode); \
    }

OPENAT(openat)
OPENAT(openat64)

/* A lock that another process holds: SQLite asks for each of its own with these. */
#define FCNTL(name) \
    int name(int fd, int act, ...) { \
        REAL(name); \
        va_list rest; \
        va_start(rest, act); \
        void *what = va_arg(rest, void *); \
        va_end(rest); \
        int asks = (kinds & LOCKS) && act == F_SETLK && ((struct flock *)what)->l_type != F_UNLCK; \
        if (asks && fails(LOCKS, fd_is_below(fd))) return -1; \
        return real(fd, act, what); \
    }

FCNTL(fcntl)
FCNTL(fcntl64)

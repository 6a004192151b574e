/* Stands between a program and libc (LD_PRELOAD) and sees every call that changes a file below one folder, whoever makes
 * it: Python itself or SQLite inside it. Counts them, and at a chosen one kills the process, lets the call fail, or
 * writes only half; or writes all of them down, so that the states a power loss may leave can be rebuilt.
 *
 * Nothing happens before hf_arm. Descriptors opened before that are not seen. One lock around every call, syncs
 * included, so that the log is in the order in which things happened.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* Kinds of calls, for the mask. LOGS are writes to SQLite's write-ahead log; its shared memory (-shm) is no disk. */
enum { WRITES = 1, SYNCS = 2, NAMES = 4, SIZES = 8, OPENS = 16, TIMES = 32, LOGS = 64 };
enum { COUNT = 0, KILL_BEFORE = 1, KILL_HALF = 2, KILL_AFTER = 3, FAIL = 4, SHORT = 5 };
enum { FDS = 4096, PATHS = 1024 };

static char root[PATHS];
static size_t root_length;
static int mode, mask, error, paused, log_fd = -1;
static long at, count;
static uint32_t handle_of[FDS], next_handle = 1; /* 0: not below the folder */
static char is_log[FDS];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* One record of the log: kind, process, handle, two numbers, two texts. */
static void note(char kind, uint32_t handle, int64_t a, int64_t b, const void *x, size_t xn, const void *y, size_t yn) {
    if (log_fd < 0) return;
    struct __attribute__((packed)) { char kind; uint32_t pid, handle; int64_t a, b; uint32_t xn, yn; } head =
        { kind, (uint32_t)getpid(), handle, a, b, (uint32_t)xn, (uint32_t)yn };
    struct iovec parts[3] = { { &head, sizeof head }, { (void *)x, xn }, { (void *)y, yn } };
    int saved = errno;
    if (writev(log_fd, parts, 3) < 0) die();
    errno = saved;
}

static int ends_with(const char *path, const char *end) {
    size_t length = strlen(path);
    return length >= strlen(end) && !strcmp(path + length - strlen(end), end);
}

static int below(const char *path) {
    if (path && ends_with(path, "-shm")) return 0;
    return root_length && path && !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

/* Whether this call is the chosen one. Holds the lock. */
static int is_chosen(int kind) {
    if (!(mask & kind) || paused) return 0;
    return ++count == at;
}

/* What the chosen call says, if no error was named: what such a call may say, another one at each. -1: half a write. */
static int says(int kind) {
    static const int of_writes[] = { EIO, ENOSPC, EINTR, -1 }, of_names[] = { ENOSPC, EIO, EMFILE };
    if (error) return error;
    if (kind == WRITES || kind == LOGS) return of_writes[at % 4];
    if (kind == NAMES) return of_names[at % 3];
    return kind == OPENS ? EMFILE : EIO;
}

static uint32_t handle(int fd) { return fd >= 0 && fd < FDS ? handle_of[fd] : 0; }

void hf_arm(const char *folder, int how, int kinds, long nth, int code, int log) {
    snprintf(root, sizeof root, "%s", folder);
    root_length = strlen(root);
    mode = how, mask = kinds, at = nth, error = code, log_fd = log, count = 0;
}

void hf_pause(int yes) { paused = yes; }

long hf_count(void) { return count; }

/* Something to remember between the calls: a promise that was made. */
void hf_note(const char *text) {
    pthread_mutex_lock(&mutex);
    note('!', 0, 0, 0, text, strlen(text), "", 0);
    pthread_mutex_unlock(&mutex);
}

/* Around a call that is not a write: chosen to die before it, to fail, or to die after it. */
#define AROUND(kind, call, failed, noted) \
    do { \
        pthread_mutex_lock(&mutex); \
        int chosen = is_chosen(kind); \
        if (chosen && mode == KILL_BEFORE) die(); \
        if (chosen && mode == FAIL) { \
            if (failed) note('f', failed, 0, 0, "", 0, "", 0); \
            pthread_mutex_unlock(&mutex); \
            errno = says(kind); \
            return -1; \
        } \
        __auto_type result = call; \
        int saved = errno; \
        if (result == 0) noted; \
        if (chosen && mode == KILL_AFTER) die(); \
        pthread_mutex_unlock(&mutex); \
        errno = saved; \
        return result; \
    } while (0)

/* ── opening ──────────────────────────────────────────────────────────────────────────────────────────────────────── */

static int opened(int fd, const char *path, int flags, int existed) {
    if (fd < 0 || fd >= FDS) return fd;
    handle_of[fd] = next_handle++;
    is_log[fd] = (char)ends_with(path, "-wal");
    note('o', handle_of[fd], !existed, flags & O_TRUNC ? 1 : 0, path, strlen(path), "", 0);
    return fd;
}

#define OPEN(name, call) \
    REAL(name); \
    mode_t bits = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); bits = va_arg(more, mode_t); va_end(more); } \
    if (!below(path)) { \
        int fd = call; \
        if (fd >= 0 && fd < FDS) handle_of[fd] = 0; \
        return fd; \
    } \
    pthread_mutex_lock(&mutex); \
    int existed = !access(path, F_OK); \
    int chosen = is_chosen((flags & O_CREAT) && !existed ? NAMES : OPENS); \
    if (chosen && mode == KILL_BEFORE) die(); \
    if (chosen && mode == FAIL) { \
        pthread_mutex_unlock(&mutex); \
        errno = says(flags & O_CREAT && !existed ? NAMES : OPENS); \
        return -1; \
    } \
    int fd = opened(call, path, flags, existed); \
    int saved = errno; \
    if (chosen && mode == KILL_AFTER) die(); \
    pthread_mutex_unlock(&mutex); \
    errno = saved; \
    return fd

int open(const char *path, int flags, ...) { OPEN(open, real(path, flags, bits)); }
int open64(const char *path, int flags, ...) { OPEN(open64, real(path, flags, bits)); }
int openat(int folder, const char *path, int flags, ...) { OPEN(openat, real(folder, path, flags, bits)); }
int openat64(int folder, const char *path, int flags, ...) { OPEN(openat64, real(folder, path, flags, bits)); }

int close(int fd) {
    REAL(close);
    if (fd >= 0 && fd < FDS) handle_of[fd] = 0;
    return real(fd);
}

/* os.dup is fcntl(F_DUPFD_CLOEXEC). */
#define FCNTL(name) \
    REAL(name); \
    va_list more; \
    va_start(more, command); \
    void *argument = va_arg(more, void *); \
    va_end(more); \
    int result = real(fd, command, argument); \
    if ((command == F_DUPFD || command == F_DUPFD_CLOEXEC) && result >= 0 && result < FDS) \
        handle_of[result] = handle(fd); \
    return result

int fcntl(int fd, int command, ...) { FCNTL(fcntl); }
int fcntl64(int fd, int command, ...) { FCNTL(fcntl64); }

int dup2(int from, int to) {
    REAL(dup2);
    int fd = real(from, to);
    if (fd >= 0 && fd < FDS) handle_of[fd] = handle(from);
    return fd;
}

int dup3(int from, int to, int flags) {
    REAL(dup3);
    int fd = real(from, to, flags);
    if (fd >= 0 && fd < FDS) handle_of[fd] = handle(from);
    return fd;
}

/* ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────── */

/* `where` is the offset, -1: at the descriptor's own place, which tells afterwards where the bytes went. */
#define WRITE(call, where) \
    if (!handle(fd)) { size_t length = size; return call; } \
    pthread_mutex_lock(&mutex); \
    int kind = is_log[fd] ? LOGS : WRITES; \
    int chosen = is_chosen(kind); \
    if (chosen && mode == KILL_BEFORE) die(); \
    int is_short = chosen && (mode == KILL_HALF || mode == SHORT || (mode == FAIL && says(kind) < 0)); \
    if (chosen && mode == FAIL && !is_short) { pthread_mutex_unlock(&mutex); errno = says(kind); return -1; } \
    size_t length = is_short && size > 1 ? size / 2 : size; \
    ssize_t done = call; \
    int saved = errno; \
    if (done > 0) note('w', handle(fd), where < 0 ? lseek(fd, 0, SEEK_CUR) - done : where, 0, "", 0, data, (size_t)done); \
    if (chosen && (mode == KILL_HALF || mode == KILL_AFTER)) die(); \
    pthread_mutex_unlock(&mutex); \
    errno = saved; \
    return done

ssize_t write(int fd, const void *data, size_t size) { REAL(write); WRITE(real(fd, data, length), (off64_t)-1); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t where) {
    REAL(pwrite);
    WRITE(real(fd, data, length, where), where);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t where) {
    REAL(pwrite64);
    WRITE(real(fd, data, length, where), where);
}

/* ── syncing: the bytes that count are those written before it begins ─────────────────────────────────────────────── */

static int sync_with(int (*real)(int), int fd) {
    if (!handle(fd)) return real(fd);
    AROUND(SYNCS, real(fd), handle(fd), note('s', handle(fd), 0, 0, "", 0, "", 0));
}

int fsync(int fd) { REAL(fsync); return sync_with(real, fd); }
int fdatasync(int fd) { REAL(fdatasync); return sync_with(real, fd); }

/* ── sizes, names, times ──────────────────────────────────────────────────────────────────────────────────────────── */

int ftruncate64(int fd, off64_t size) {
    REAL(ftruncate64);
    if (!handle(fd)) return real(fd, size);
    AROUND(SIZES, real(fd, size), 0, note('t', handle(fd), size, 0, "", 0, "", 0));
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

int truncate64(const char *path, off64_t size) {
    REAL(truncate64);
    if (!below(path)) return real(path, size);
    AROUND(SIZES, real(path, size), 0, note('T', 0, size, 0, path, strlen(path), "", 0));
}
int truncate(const char *path, off_t size) { return truncate64(path, size); }

#define TWO_NAMES(kind, call, from, to) \
    if (!below(from) && !below(to)) return call; \
    AROUND(NAMES, call, 0, note(kind, 0, 0, 0, from, strlen(from), to, strlen(to)))
#define ONE_NAME(kind, call, path) \
    if (!below(path)) return call; \
    AROUND(NAMES, call, 0, note(kind, 0, 0, 0, path, strlen(path), "", 0))

int rename(const char *from, const char *to) { REAL(rename); TWO_NAMES('r', real(from, to), from, to); }
int link(const char *from, const char *to) { REAL(link); TWO_NAMES('l', real(from, to), from, to); }
int linkat(int a, const char *from, int b, const char *to, int flags) {
    REAL(linkat);
    TWO_NAMES('l', real(a, from, b, to, flags), from, to);
}
int unlink(const char *path) { REAL(unlink); ONE_NAME('u', real(path), path); }
int mkdir(const char *path, mode_t bits) { REAL(mkdir); ONE_NAME('m', real(path, bits), path); }
int rmdir(const char *path) { REAL(rmdir); ONE_NAME('d', real(path), path); }

int utimensat(int folder, const char *path, const struct timespec times[2], int flags) {
    REAL(utimensat);
    if (!below(path)) return real(folder, path, times, flags);
    AROUND(TIMES, real(folder, path, times, flags), 0, (void)0);
}
int futimens(int fd, const struct timespec times[2]) {
    REAL(futimens);
    if (!handle(fd)) return real(fd, times);
    AROUND(TIMES, real(fd, times), 0, (void)0);
}

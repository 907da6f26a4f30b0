/* Preloaded: counts the file operations below one folder, and kills the process or fails at the n-th.

   Nothing happens until `faults_arm`, which a forked child calls. Each counted operation that succeeded is a
   line of the record, number and kind first; with data, what was written follows: it can be played again.
   Linux with glibc: Python, torch and safetensors all pass through these symbols. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, KILL, KILL_AFTER, FAIL_ONCE, FAIL_GROWTH };
#define FDS 4096

static int armed, action, code, record = -1, with_data, real_sync, reads;
static long at, seen;
static char root[PATH_MAX];
static size_t root_length;
static unsigned char ours[FDS];
static char *name_of[FDS];

/* action: of the enum.  number: which operation, from 1.  error: of errno.  record: a file, or "".
   data: record what is written, and sync in earnest.  reading: count the opening of files to be read, too. */
int faults_arm(const char *folder, int act, long number, int error, const char *record_path, int data, int reading) {
    strncpy(root, folder, sizeof root - 1);
    root_length = strlen(root);
    action = act, at = number, code = error, seen = 0, with_data = real_sync = data, reads = reading;
    memset(ours, 0, sizeof ours);
    record = *record_path ? (int)syscall(SYS_openat, AT_FDCWD, record_path, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
    armed = 1;
    return record;
}

/* The absolute path of a name, symbolic links kept; 1 when it is below the folder. */
static int below(int dir, const char *path, char *full) {
    char start[PATH_MAX] = "";
    if (path == NULL) return 0;
    if (path[0] != '/') {
        if (dir == AT_FDCWD) {
            if (!getcwd(start, sizeof start)) return 0;
        } else {
            char link[64];
            snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
            ssize_t length = readlink(link, start, sizeof start - 1);
            if (length < 0) return 0;
            start[length] = 0;
        }
    }
    if (snprintf(full, PATH_MAX, "%s%s%s", start, start[0] ? "/" : "", path) >= PATH_MAX) return 0;
    return strncmp(full, root, root_length) == 0 && (full[root_length] == '/' || full[root_length] == 0);
}

static void put(const void *data, size_t size) {
    const char *next = data;
    while (size > 0) {
        ssize_t done = syscall(SYS_write, record, next, size);
        if (done <= 0) return;
        next += done, size -= done;
    }
}

static void end_here(void) {
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;) pause();
}

/* After an operation that succeeded. */
static void note(const char *kind, const char *path, const char *second, long long number, const void *data, size_t size) {
    if (action == KILL_AFTER && seen == at) end_here();
    if (record < 0) return;
    char line[3 * PATH_MAX];
    size_t kept = with_data ? size : 0;
    int length = snprintf(line, sizeof line, "%ld\t%s\t%s\t%s\t%lld\t%zu\n", seen, kind, path, second, number, kept);
    put(line, length);
    if (with_data && size) put(data, size);
}

/* Count one operation; 1 when it is to fail, with errno set. */
static int strike(int grows) {
    long number = __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST);
    if (action == COUNT || action == KILL_AFTER || number < at) return 0;
    if (action == KILL) end_here();
    if (action == FAIL_ONCE ? number > at : !grows) return 0;
    errno = code;
    return 1;
}

static void adopt(int fd, const char *full) {
    if (fd < 0 || fd >= FDS) return;
    free(name_of[fd]);
    name_of[fd] = strdup(full);
    ours[fd] = 1;
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static int writing(int flags) { return (flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT); }

static int open_below(int dir, const char *path, int flags, mode_t mode) {
    static int (*real)(int, const char *, int, ...);
    if (!real) real = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, "openat64");
    char full[PATH_MAX];
    if (!armed || !below(dir, path, full)) return real(dir, path, flags, mode);
    struct stat about;  // a folder is opened to be synced, and nothing is read from it
    int reading = reads && !writing(flags) && !(flags & O_PATH);
    int read_from = reading && fstatat(dir, path, &about, 0) == 0 && S_ISREG(about.st_mode);
    if ((writing(flags) || read_from) && strike(writing(flags))) return -1;
    int fd = real(dir, path, flags, mode);
    if (fd >= 0) {
        adopt(fd, full);
        if (writing(flags)) note("open", full, "", flags & (O_TRUNC | O_APPEND | O_CREAT), NULL, 0);
        else if (read_from) note("read", full, "", 0, NULL, 0);
    }
    return fd;
}

#define MODE mode_t mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }
int open(const char *path, int flags, ...) { MODE return open_below(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE return open_below(AT_FDCWD, path, flags | O_LARGEFILE, mode); }
int openat(int dir, const char *path, int flags, ...) { MODE return open_below(dir, path, flags, mode); }
int openat64(int dir, const char *path, int flags, ...) { MODE return open_below(dir, path, flags, mode); }
int creat(const char *path, mode_t mode) { return open_below(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

int close(int fd) {
    REAL(int, "close", int);
    if (fd >= 0 && fd < FDS) ours[fd] = 0;
    return real(fd);
}

static int is_ours(int fd) { return armed && fd >= 0 && fd < FDS && ours[fd]; }

ssize_t write(int fd, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    if (!is_ours(fd)) return real(fd, data, size);
    if (strike(1)) return -1;
    off_t where = lseek(fd, 0, fcntl(fd, F_GETFL) & O_APPEND ? SEEK_END : SEEK_CUR);
    ssize_t done = real(fd, data, size);
    if (done > 0) note("write", name_of[fd], "", where, data, done);
    return done;
}

ssize_t writev(int fd, const struct iovec *parts, int num) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    if (!is_ours(fd)) return real(fd, parts, num);
    if (strike(1)) return -1;
    off_t where = lseek(fd, 0, SEEK_CUR);
    ssize_t done = real(fd, parts, num), left = done;
    for (int i = 0; i < num && left > 0; i++) {
        size_t size = (size_t)left < parts[i].iov_len ? (size_t)left : parts[i].iov_len;
        note("write", name_of[fd], "", where, parts[i].iov_base, size);
        where += size, left -= size;
    }
    return done;
}

static ssize_t pwrite_at(int fd, const void *data, size_t size, off_t where) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off_t);
    if (!is_ours(fd)) return real(fd, data, size, where);
    if (strike(1)) return -1;
    ssize_t done = real(fd, data, size, where);
    if (done > 0) note("write", name_of[fd], "", where, data, done);
    return done;
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t where) { return pwrite_at(fd, data, size, where); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t where) { return pwrite_at(fd, data, size, where); }

static int truncate_at(int fd, off_t size) {
    REAL(int, "ftruncate64", int, off_t);
    if (!is_ours(fd)) return real(fd, size);
    if (strike(1)) return -1;
    int done = real(fd, size);
    if (done == 0) note("truncate", name_of[fd], "", size, NULL, 0);
    return done;
}
int ftruncate(int fd, off_t size) { return truncate_at(fd, size); }
int ftruncate64(int fd, off64_t size) { return truncate_at(fd, size); }

static int sync_fd(int fd) {
    REAL(int, "fsync", int);
    if (!is_ours(fd)) return real(fd);
    if (strike(0)) return -1;
    note("sync", name_of[fd], "", 0, NULL, 0);
    return real_sync ? real(fd) : 0;
}
int fsync(int fd) { return sync_fd(fd); }
int fdatasync(int fd) { return sync_fd(fd); }

static int rename_at(int from, const char *old, int to, const char *new) {
    REAL(int, "renameat", int, const char *, int, const char *);
    char source[PATH_MAX], target[PATH_MAX];
    int known = armed && below(to, new, target) && below(from, old, source);
    if (known && strike(1)) return -1;
    int done = real(from, old, to, new);
    if (known && done == 0) {
        note("rename", source, target, 0, NULL, 0);
        for (int fd = 0; fd < FDS; fd++)
            if (ours[fd] && strcmp(name_of[fd], source) == 0) adopt(fd, target);
    }
    return done;
}
int rename(const char *old, const char *new) { return rename_at(AT_FDCWD, old, AT_FDCWD, new); }
int renameat(int from, const char *old, int to, const char *new) { return rename_at(from, old, to, new); }
int renameat2(int from, const char *old, int to, const char *new, unsigned flags) {
    if (flags == 0) return rename_at(from, old, to, new);
    REAL(int, "renameat2", int, const char *, int, const char *, unsigned);
    return real(from, old, to, new, flags);
}

int linkat(int from, const char *old, int to, const char *new, int flags) {
    REAL(int, "linkat", int, const char *, int, const char *, int);
    char source[PATH_MAX], target[PATH_MAX];
    int known = armed && below(to, new, target);
    if (known && strike(1)) return -1;
    int done = real(from, old, to, new, flags);
    if (known && done == 0) note("link", below(from, old, source) ? source : old, target, 0, NULL, 0);
    return done;
}
int link(const char *old, const char *new) { return linkat(AT_FDCWD, old, AT_FDCWD, new, 0); }

#define ONE(kind, grows, dir, path, call) \
    char full[PATH_MAX]; \
    int known = armed && below(dir, path, full); \
    if (known && strike(grows)) return -1; \
    int done = call; \
    if (known && done == 0) note(kind, full, "", 0, NULL, 0); \
    return done;

int unlinkat(int dir, const char *path, int flags) {
    REAL(int, "unlinkat", int, const char *, int);
    ONE(flags & AT_REMOVEDIR ? "rmdir" : "unlink", 0, dir, path, real(dir, path, flags))
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int mkdirat(int dir, const char *path, mode_t mode) {
    REAL(int, "mkdirat", int, const char *, mode_t);
    ONE("mkdir", 1, dir, path, real(dir, path, mode))
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }
int chmod(const char *path, mode_t mode) {
    REAL(int, "chmod", const char *, mode_t);
    ONE("chmod", 0, AT_FDCWD, path, real(path, mode))
}
int fchmod(int fd, mode_t mode) {
    REAL(int, "fchmod", int, mode_t);
    if (!is_ours(fd)) return real(fd, mode);
    if (strike(0)) return -1;
    int done = real(fd, mode);
    if (done == 0) note("chmod", name_of[fd], "", 0, NULL, 0);
    return done;
}

#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#ifdef EDGEKIT_FAULT_INJECTION

#define DIED 99

/* EDGEKIT_FAULT_AT=N: the N-th call (from 1) does not happen. The process ends there, as if it had been killed, or,
 * with EDGEKIT_FAULT_ERRNO=E, the call fails with that error. A line on stderr tells that N was reached. */
static bool reached(const char *call) {
    static long calls;
    const char *at = getenv("EDGEKIT_FAULT_AT");
    calls++;
    if (at == NULL || calls != strtol(at, NULL, 10)) {
        return false;
    }
    (void)dprintf(STDERR_FILENO, "fault injected at call %ld: %s\n", calls, call);
    return true;
}

static bool failed(void) {
    const char *error = getenv("EDGEKIT_FAULT_ERRNO");
    if (error == NULL) {
        _exit(DIED);
    }
    errno = (int)strtol(error, NULL, 10);
    return true;
}

static bool fails(const char *call) {
    return reached(call) && failed();
}

/* A write that is cut off has mostly written something. */
static bool write_fails(int file, const void *data, size_t size) {
    return reached("write") && write(file, data, size / 2u) >= 0 && failed();
}

const char *sys_root(void) {
    const char *root = getenv("EDGEKIT_HEALTH_ROOT");
    return root != NULL ? root : "/";
}

#else

#define fails(call) false
#define write_fails(file, data, size) false

const char *sys_root(void) {
    return "/";
}

#endif

int sys_write(int file, const void *data, size_t size) {
    const unsigned char *bytes = data;
    if (write_fails(file, data, size)) {
        return -1;
    }
    while (size != 0u) {
        ssize_t done = write(file, bytes, size);
        if (done > 0) {
            bytes += done;
            size -= (size_t)done;
        } else if (done < 0 && errno == EAGAIN) {
            struct pollfd line = {.fd = file, .events = POLLOUT, .revents = 0};
            (void)poll(&line, 1, -1);
        } else if (done == 0 || errno != EINTR) {
            return -1;
        }
    }
    return 0;
}

int sys_fsync(int file) {
    return fails("fsync") ? -1 : fsync(file);
}

int sys_truncate(int file, size_t size) {
    return fails("ftruncate") ? -1 : ftruncate(file, (off_t)size);
}

int sys_allow_owner(int file) {
    return fails("fchmod") ? -1 : fchmod(file, S_IRWXU);
}

int sys_create(int folder, const char *name, bool new_file) {
    int flags = O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | (new_file ? O_EXCL : 0);
    return fails("create") ? -1 : openat(folder, name, flags, S_IRUSR | S_IWUSR);
}

int sys_mkdir(int folder, const char *name) {
    return fails("mkdir") ? -1 : mkdirat(folder, name, S_IRWXU);
}

int sys_rename(int from_folder, const char *from, int to_folder, const char *to) {
    return fails("rename") ? -1 : renameat(from_folder, from, to_folder, to);
}

int sys_symlink(const char *target, int folder, const char *name) {
    return fails("symlink") ? -1 : symlinkat(target, folder, name);
}

int sys_unlink(int folder, const char *name) {
    return fails("unlink") ? -1 : unlinkat(folder, name, 0);
}

int sys_rmdir(int folder, const char *name) {
    return fails("rmdir") ? -1 : unlinkat(folder, name, AT_REMOVEDIR);
}

#include "sys.h"

#include "say.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runner.h"

void printable(char *out, size_t size, const char *text) {
    size_t used = 0;
    while (used + 1u < size && text[used] != '\0') {
        out[used] = text[used] >= ' ' && text[used] <= '~' ? text[used] : '?';
        used++;
    }
    out[used] = '\0';
}

int say(const char *format, ...) {
    char line[SAY_BYTES];
    va_list values;
    va_start(values, format);
    int size = vsnprintf(line, sizeof line, format, values);
    va_end(values);
    if (size < 0 || (size_t)size >= sizeof line) {
        return RUNNER_IO;
    }
    return sys_write(STDOUT_FILENO, line, (size_t)size) == 0 ? RUNNER_DONE : RUNNER_IO;
}

int complain(int code, const char *format, ...) {
    va_list values;
    va_start(values, format);
    (void)vdprintf(STDERR_FILENO, format, values);
    va_end(values);
    (void)dprintf(STDERR_FILENO, "\n");
    return code;
}

int complain_errno(int code, const char *what) {
    int error = errno;
    int full = error == ENOSPC || error == EDQUOT || error == EIO || error == EFBIG;
    return complain(full ? RUNNER_IO : code, "%s: %s", what, strerror(error));
}

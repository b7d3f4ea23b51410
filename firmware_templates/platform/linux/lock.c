/* One deployment at a time on a board: a lock that the kernel takes back when its holder ends, however it ends. */
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "runner.h"
#include "say.h"
#include "store.h"

#define WHO_CHARS 100u
#define LINE_BYTES 192u
#define READ_TRIES 25
#define READ_WAIT_NS 20000000L

/* Who has the lock, as the file says; it may be about to be written. */
static void read_holder(int file, char line[LINE_BYTES]) {
    const struct timespec pause = {.tv_sec = 0, .tv_nsec = READ_WAIT_NS};
    char text[LINE_BYTES];
    char *end = NULL;
    for (int i = 0; i < READ_TRIES && end == NULL; i++) {
        ssize_t size = pread(file, text, sizeof text - 1u, 0);
        text[size > 0 ? size : 0] = '\0';
        end = strchr(text, '\n');
        if (end == NULL) {
            (void)nanosleep(&pause, NULL);
        }
    }
    if (end != NULL) {
        *end = '\0';
    }
    printable(line, LINE_BYTES, end != NULL ? text : "someone who left no name");
}

/* Over the line that is there, before the file is cut: on a full disk this needs no new block. */
static int write_holder(int file, const char *who) {
    char name[WHO_CHARS + 1u], since[32], line[LINE_BYTES];
    struct tm broken;
    time_t now = time(NULL);
    printable(name, sizeof name, who);
    if (gmtime_r(&now, &broken) == NULL || strftime(since, sizeof since, "%Y-%m-%dT%H:%M:%SZ", &broken) == 0u) {
        memcpy(since, "?", 2);
    }
    int size = snprintf(line, sizeof line, "%s, pid %ld, since %s\n", name, (long)getpid(), since);
    return size > 0 && sys_write(file, line, (size_t)size) == 0 && sys_truncate(file, (size_t)size) == 0 ? 0 : -1;
}

static void wait_for_end_of_stdin(void) {
    char ignored[256];
    ssize_t size;
    do {
        size = read(STDIN_FILENO, ignored, sizeof ignored);
    } while (size > 0 || (size < 0 && errno == EINTR));
}

int runner_hold(int count, char **arguments) {
    char holder[LINE_BYTES];
    struct stat about;
    int folder;
    (void)count;
    int code = store_open(&folder, true);
    if (code != RUNNER_DONE) {
        return code;
    }
    int file = sys_create(folder, "lock", false);
    if (file < 0) {
        return complain_errno(RUNNER_CREATE, "~/.edgekit/lock");
    }
    if (fstat(file, &about) != 0 || !S_ISREG(about.st_mode)) {
        return complain(RUNNER_CREATE, "~/.edgekit/lock: not a file");
    }
    if (flock(file, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK) {
            return complain_errno(RUNNER_IO, "~/.edgekit/lock");
        }
        read_holder(file, holder);
        (void)say("busy %s\n", holder);
        return RUNNER_BUSY;
    }
    if (write_holder(file, arguments[0]) != 0) {
        return complain_errno(RUNNER_IO, "~/.edgekit/lock");
    }
    code = say("held\n");
    if (code == RUNNER_DONE) {
        wait_for_end_of_stdin();
    }
    return code;
}

/* The counter of the agent: nanoseconds of a clock that nobody adjusts, or what a file says.
 *
 * An emulator's plugin adds one to the first eight bytes of EDGEKIT_TICK_FILE for each instruction of this program,
 * while it runs; mapped here, that is a clock like any other. */
#include "sys.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "port.h"
#include "runner.h"
#include "say.h"

static const volatile uint64_t *tick_page;

static const char *tick_file(void) {
    const char *path = getenv("EDGEKIT_TICK_FILE");
    return path != NULL && path[0] != '\0' ? path : NULL;
}

int runner_open_ticks(void) {
    const char *path = tick_file();
    struct stat about;
    if (path == NULL) {
        return RUNNER_DONE;
    }
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0 || fstat(file, &about) != 0) {
        return complain_errno(RUNNER_NOTHING, "EDGEKIT_TICK_FILE");
    }
    /* Beyond the end of the file a page cannot be read. */
    if (!S_ISREG(about.st_mode) || about.st_size < (off_t)sizeof *tick_page) {
        return complain(RUNNER_NOTHING, "EDGEKIT_TICK_FILE: not a file of at least 8 bytes");
    }
    void *page = mmap(NULL, sizeof *tick_page, PROT_READ, MAP_SHARED, file, 0);
    if (page == MAP_FAILED) {
        return complain_errno(RUNNER_NOTHING, "EDGEKIT_TICK_FILE");
    }
    tick_page = page;
    return RUNNER_DONE;
}

const char *runner_tick_source(void) {
    return tick_file() != NULL ? "plugin" : "clock_monotonic_raw";
}

uint64_t edgekit_port_ticks(void) {
    if (tick_page != NULL) {
        /* A 32-bit core may read the halves apart, with a carry between them. */
        uint64_t before, now;
        do {
            before = *tick_page;
            now = *tick_page;
        } while (before >> 32 != now >> 32);
        return now;
    }
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC_RAW, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint8_t edgekit_port_tick_bits(void) {
    return 64;
}

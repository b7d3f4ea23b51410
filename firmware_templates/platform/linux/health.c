/* The state of the board that a measurement depends on. What a board does not tell is left out. */
#include "sys.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "runner.h"
#include "say.h"
#include "store.h"

#define TEXT_BYTES 4096u
#define CPUS "sys/devices/system/cpu/"

/* The file's first line, or all of it with `whole`; "" when it cannot be read. */
static const char *read_text(int root, const char *path, bool whole) {
    static char text[TEXT_BYTES];
    int file = openat(root, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t size = file < 0 ? -1 : read(file, text, sizeof text - 1u);
    text[size > 0 ? size : 0] = '\0';
    if (file >= 0) {
        (void)close(file);
    }
    if (!whole) {
        text[strcspn(text, "\n")] = '\0';
    }
    return text;
}

static int tell(const char *key, const char *text) {
    char shown[200];
    printable(shown, sizeof shown, text);
    return shown[0] == '\0' ? RUNNER_DONE : say("%s %s\n", key, shown);
}

static int tell_number(const char *key, uint64_t value) {
    return say("%s %" PRIu64 "\n", key, value);
}

/* Only if it is a whole number, which may be negative: a temperature in winter. */
static int tell_file_number(const char *key, int root, const char *path) {
    const char *text = read_text(root, path, false);
    const char *digits = text + (text[0] == '-' ? 1 : 0);
    bool number = digits[0] != '\0' && strlen(digits) < 20u && digits[strspn(digits, "0123456789")] == '\0';
    return number ? tell(key, text) : RUNNER_DONE;
}

/* "0-3,5" has five; 0 when it is no such list. */
static uint64_t count_cores(const char *list) {
    uint64_t count = 0;
    while (*list != '\0') {
        char *end;
        unsigned long first = strtoul(list, &end, 10);
        unsigned long last = first;
        if (end == list) {
            return 0;
        }
        if (*end == '-') {
            list = end + 1;
            last = strtoul(list, &end, 10);
        }
        if (end == list || last < first || last >= 65536u || (*end != ',' && *end != '\0')) {
            return 0;
        }
        count += last - first + 1u;
        list = *end == ',' ? end + 1 : end;
    }
    return count;
}

static int tell_cores(int root) {
    uint64_t count = count_cores(read_text(root, CPUS "online", false));
    return count != 0u ? tell_number("cores", count) : RUNNER_DONE;
}

/* What a new program can have without swapping, as the kernel estimates it; older ones than 3.14 do not. */
static int tell_memory(int root) {
    static const char key[] = "\nMemAvailable:";
    const char *found = strstr(read_text(root, "proc/meminfo", true), key);
    uint64_t kib = found == NULL ? 0u : strtoull(found + sizeof key - 1u, NULL, 10);
    return kib != 0u && kib < UINT64_MAX / 1024u ? tell_number("memory_free_bytes", 1024u * kib) : RUNNER_DONE;
}

static int tell_disk(void) {
    const char *home = getenv("HOME");
    struct statvfs about;
    if (home == NULL || home[0] != '/' || statvfs(home, &about) != 0) {
        return RUNNER_DONE;
    }
    return tell_number("disk_free_bytes", (uint64_t)about.f_bavail * (uint64_t)about.f_frsize);
}

/* Bits of the Raspberry Pi's firmware, in hexadecimal: 0x1 under-voltage now, 0x2 frequency capped, 0x4 throttled, 0x8
 * soft temperature limit; shifted by 16, since it was started. */
static int tell_throttled(int root) {
    const char *text = read_text(root, "sys/devices/platform/soc/soc:firmware/get_throttled", false);
    size_t size = strspn(text, "0123456789abcdefABCDEF");
    return size != 0u && size <= 8u && text[size] == '\0' ? say("throttled 0x%s\n", text) : RUNNER_DONE;
}

static int tell_system(void) {
    struct utsname system;
    if (uname(&system) != 0) {
        return RUNNER_DONE;
    }
    int code = tell("machine", system.machine);
    if (code == RUNNER_DONE) {
        code = tell_number("word_bits", sizeof(void *) * CHAR_BIT);
    }
    return code == RUNNER_DONE ? tell("kernel", system.release) : code;
}

int runner_health(int count, char **arguments) {
    (void)count;
    (void)arguments;
    int root = open(sys_root(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0) {
        return complain_errno(RUNNER_NOTHING, sys_root());
    }
    /* An answer that nobody takes stays untaken: one bad code is enough. */
    int code = tell_system();
    code |= tell_cores(root);
    code |= tell_memory(root);
    code |= tell_disk();
    code |= tell("governor", read_text(root, CPUS "cpu0/cpufreq/scaling_governor", false));
    code |= tell_file_number("frequency_khz", root, CPUS "cpu0/cpufreq/scaling_cur_freq");
    code |= tell_file_number("temperature_millicelsius", root, "sys/class/thermal/thermal_zone0/temp");
    code |= tell_throttled(root);
    code |= tell("clock", runner_tick_source());
    return code;
}

/* What the tests run on an emulated board: `count` measures a loop of known length with the board's ticks, `self` and
 * `machine` tell what a program sees of itself, `spin` never ends, `fail N` and `fall` end in a status and of a signal. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

/* Instructions from the first reading to the second: two to set up, three a turn, the second reading itself. */
static uint64_t loop_of_a_million(const volatile uint64_t *ticks) {
    uint64_t before, after;
#if defined(__aarch64__)
    uint64_t turns;
    __asm__ volatile(
        "ldr %0, [%3]\n movz %2, #0x4240\n movk %2, #0xf, lsl #16\n"
        "1: nop\n subs %2, %2, #1\n b.ne 1b\n ldr %1, [%3]"
        : "=&r"(before), "=&r"(after), "=&r"(turns) : "r"(ticks) : "cc", "memory");
#elif defined(__arm__)
    uint32_t turns, first, second;
    __asm__ volatile(
        "ldr %0, [%3]\n movw %2, #0x4240\n movt %2, #0xf\n"
        "1: nop\n subs %2, %2, #1\n bne 1b\n ldr %1, [%3]"
        : "=&r"(first), "=&r"(second), "=&r"(turns) : "r"(ticks) : "cc", "memory");
    before = first;
    after = second;
#else
#error "no loop for this machine"
#endif
    return after - before;
}

static int count(void) {
    const char *path = getenv("EDGEKIT_TICK_FILE");
    int file = path == NULL ? -1 : open(path, O_RDONLY);
    void *page = file < 0 ? MAP_FAILED : mmap(NULL, 8, PROT_READ, MAP_SHARED, file, 0);
    if (page == MAP_FAILED) {
        puts("no ticks");
        return 1;
    }
    for (int i = 0; i < 3; i++) {
        printf("%" PRIu64 "\n", loop_of_a_million(page));
    }
    return 0;
}

/* Its own length, read through /proc/self/exe. */
static int self(void) {
    int file = open("/proc/self/exe", O_RDONLY);
    off_t size = file < 0 ? -1 : lseek(file, 0, SEEK_END);
    printf("%lld\n", (long long)size);
    return 0;
}

static int machine(void) {
    struct utsname name;
    (void)uname(&name);
    printf("%s %d\n", name.machine, (int)sizeof(void *) * 8);
    return 0;
}

static int show(const char *path) {
    char text[256];
    FILE *file = fopen(path, "r");
    puts(file != NULL && fgets(text, sizeof text, file) != NULL ? text : "nothing");
    return 0;
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "hello";
    if (strcmp(what, "count") == 0) {
        return count();
    }
    if (strcmp(what, "self") == 0) {
        return self();
    }
    if (strcmp(what, "machine") == 0) {
        return machine();
    }
    if (strcmp(what, "show") == 0) {
        return show(argv[2]);
    }
    if (strcmp(what, "fail") == 0) {
        return atoi(argv[2]);
    }
    if (strcmp(what, "fall") == 0) {
        return raise(SIGABRT);
    }
    if (strcmp(what, "spin") == 0) {
        puts("spinning");
        (void)fflush(stdout);
        for (;;) {
            (void)pause();
        }
    }
    for (int i = 1; i < argc; i++) {
        printf("[%s]", argv[i]);
    }
    puts("hello");
    return 0;
}

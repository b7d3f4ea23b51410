/* Runs edgekit_parallel_for once for each extent that stdin has a line for, and prints a line with the sum over the
 * extent and the parts, in no order: `sum begin:end:core:caller ...`. Core is -1 for a thread that may use several;
 * caller is 1 in the thread that called. At last: how many threads there are, while the pool is there and after it.
 *
 * Arguments: threads; first core or -1; then `nested` to divide each part's work again, `uncounted` to print 0 for the
 * threads, of which an emulator or a sanitizer has some of its own. */
#include "sys.h"

#include <dirent.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "edgekit_program.h"
#include "pool.h"

#define EXTENT_MAX 100000

typedef struct {
    int32_t begin, end;
    int core, caller;
} part;

typedef struct {
    pthread_t caller;
    int nested;
    int count;
    part parts[EDGEKIT_POOL_MAX];
    int64_t squares[EXTENT_MAX];
    int32_t visits[EXTENT_MAX];
} job;

static int own_core(void) {
    cpu_set_t cores;
    if (sched_getaffinity(0, sizeof cores, &cores) != 0 || CPU_COUNT(&cores) != 1) {
        return -1;
    }
    return sched_getcpu();
}

static void square(void *context, int32_t begin, int32_t end) {
    job *todo = context;
    for (int32_t i = begin; i < end; i++) {
        todo->squares[i] = (int64_t)i * i;
        todo->visits[i]++;
    }
}

typedef struct {
    job *todo;
    int32_t begin;
} offset;

static void square_from(void *context, int32_t begin, int32_t end) {
    const offset *from = context;
    square(from->todo, from->begin + begin, from->begin + end);
}

static void work_on(void *context, int32_t begin, int32_t end) {
    job *todo = context;
    int at = __atomic_fetch_add(&todo->count, 1, __ATOMIC_RELAXED);
    todo->parts[at] = (part){begin, end, own_core(), pthread_equal(pthread_self(), todo->caller) != 0};
    if (todo->nested) {
        offset from = {todo, begin};
        edgekit_parallel_for(square_from, &from, end - begin);
    } else {
        square(todo, begin, end);
    }
}

static int count_listed(void) {
    int count = 0;
    const struct dirent *entry;
    DIR *tasks = opendir("/proc/self/task");
    while (tasks != NULL && (entry = readdir(tasks)) != NULL) {
        count += entry->d_name[0] != '.';
    }
    if (tasks != NULL) {
        (void)closedir(tasks);
    }
    return count;
}

/* A thread that has been joined may be listed for a moment more, so it is counted again until there are `expected`. */
static int count_threads(int expected) {
    for (int i = 0; i < 200 && count_listed() != expected; i++) {
        (void)usleep(10000);
    }
    return count_listed();
}

int main(int count, char **arguments) {
    static job todo;
    char line[32];
    int threads = count > 1 ? atoi(arguments[1]) : 1;
    int core = count > 2 ? atoi(arguments[2]) : -1;
    if (core >= 0 && !edgekit_pin(core)) {
        return 1;
    }
    edgekit_pool_configure(threads, core);
    int uncounted = 0;
    for (int i = 3; i < count; i++) {
        todo.nested |= strcmp(arguments[i], "nested") == 0;
        uncounted |= strcmp(arguments[i], "uncounted") == 0;
    }
    todo.caller = pthread_self();
    while (fgets(line, sizeof line, stdin) != NULL) {
        int32_t extent = (int32_t)strtol(line, NULL, 10);
        int64_t sum = 0;
        todo.count = 0;
        memset(todo.squares, 0, sizeof todo.squares);
        memset(todo.visits, 0, sizeof todo.visits);
        edgekit_parallel_for(work_on, &todo, extent);
        for (int32_t i = 0; i < EXTENT_MAX; i++) {
            sum += todo.squares[i];
            if (todo.visits[i] != (i < extent ? 1 : 0)) {
                return 2;
            }
        }
        printf("%" PRId64, sum);
        for (int i = 0; i < todo.count; i++) {
            const part *at = &todo.parts[i];
            printf(" %" PRId32 ":%" PRId32 ":%d:%d", at->begin, at->end, at->core, at->caller);
        }
        printf("\n");
    }
    printf("%d\n", uncounted ? 0 : count_threads(threads));
    edgekit_pool_stop();
    printf("%d\n", uncounted ? 0 : count_threads(1));
    edgekit_parallel_for(work_on, &todo, 0);
    return 0;
}

#include "sys.h"

#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <unistd.h>

#include "edgekit_program.h"
#include "runner.h"
#include "say.h"

#define STACK_BYTES ((size_t)1 << 20)  /* an operator has as much in the agent's own thread */
#define SIGNAL_STACK_BYTES ((size_t)1 << 16)

typedef struct {
    void (*run)(void *context, int32_t begin, int32_t end);
    void *context;
    int32_t extent;
    int32_t parts;
} work;

/* Under `mutex`, but for what is written only while no thread is there: `wanted`, `first_core`, `started`. */
static struct {
    pthread_mutex_t mutex;
    pthread_cond_t posted;
    pthread_cond_t finished;
    work current;
    uint32_t posts;    /* how often there was work */
    int32_t busy;      /* threads that have not yet finished it */
    bool stopping;
    int wanted;
    int first_core;
    int started;       /* besides the calling thread */
    pthread_t threads[EDGEKIT_POOL_MAX - 1];
} pool = {
    .mutex = PTHREAD_MUTEX_INITIALIZER,
    .posted = PTHREAD_COND_INITIALIZER,
    .finished = PTHREAD_COND_INITIALIZER,
    .wanted = 1,
    .first_core = -1,
};

static __thread bool inside_task;

void edgekit_pool_configure(int threads, int first_core) {
    pool.wanted = threads;
    pool.first_core = first_core;
}

bool edgekit_pin(int core) {
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET((size_t)core, &cores);
    return sched_setaffinity(0, sizeof cores, &cores) == 0;
}

bool edgekit_may_use_cores(int first, int count) {
    cpu_set_t cores;
    bool all = first >= 0 && first + count <= CPU_SETSIZE && sched_getaffinity(0, sizeof cores, &cores) == 0;
    for (int i = 0; all && i < count; i++) {
        all = CPU_ISSET((size_t)(first + i), &cores);
    }
    return all;
}

static void run_part(const work *job, int32_t part) {
    int32_t begin = (int32_t)((int64_t)job->extent * part / job->parts);
    int32_t end = (int32_t)((int64_t)job->extent * (part + 1) / job->parts);
    inside_task = true;
    job->run(job->context, begin, end);
    inside_task = false;
}

static void *work_for_pool(void *number) {
    int32_t part = (int32_t)(intptr_t)number;
    uint32_t seen = 0;
    /* At the far end of this stack, so that an overflow can be told. */
    uint8_t signal_stack[SIGNAL_STACK_BYTES];
    stack_t stack = {.ss_sp = signal_stack, .ss_flags = 0, .ss_size = sizeof signal_stack};
    stack_t before;
    (void)sigaltstack(&stack, &before);
    if (pool.first_core >= 0 && !edgekit_pin(pool.first_core + part)) {
        _exit(complain_errno(RUNNER_NOTHING, "a thread cannot be kept to its core"));
    }
    (void)pthread_mutex_lock(&pool.mutex);
    for (;;) {
        while (pool.posts == seen && !pool.stopping) {
            (void)pthread_cond_wait(&pool.posted, &pool.mutex);
        }
        if (pool.stopping) {
            break;
        }
        seen = pool.posts;
        work job = pool.current;
        (void)pthread_mutex_unlock(&pool.mutex);
        if (part < job.parts) {
            run_part(&job, part);
        }
        (void)pthread_mutex_lock(&pool.mutex);
        if (--pool.busy == 0) {
            (void)pthread_cond_signal(&pool.finished);
        }
    }
    (void)pthread_mutex_unlock(&pool.mutex);
    (void)sigaltstack(&before, NULL);
    return NULL;
}

/* A profile with another number of threads than it says would be wrong, so there is no fewer. */
static void start_threads(void) {
    pthread_attr_t attributes;
    pool.posts = 0;
    pool.stopping = false;
    if (pthread_attr_init(&attributes) != 0 ||
        pthread_attr_setstacksize(&attributes, STACK_BYTES + SIGNAL_STACK_BYTES) != 0) {
        _exit(complain(RUNNER_NOTHING, "threads of this stack size cannot be had"));
    }
    while (pool.started < pool.wanted - 1) {
        void *number = (void *)(intptr_t)(pool.started + 1);
        if (pthread_create(&pool.threads[pool.started], &attributes, work_for_pool, number) != 0) {
            _exit(complain(RUNNER_NOTHING, "%d threads cannot be had, only %d", pool.wanted, pool.started + 1));
        }
        pool.started++;
    }
    (void)pthread_attr_destroy(&attributes);
}

void edgekit_parallel_for(void (*task)(void *context, int32_t begin, int32_t end), void *context, int32_t extent) {
    if (extent <= 0) {
        return;
    }
    if (inside_task || pool.wanted == 1 || extent == 1) {
        task(context, 0, extent);
        return;
    }
    if (pool.started == 0) {
        start_threads();
    }
    work job = {
        .run = task, .context = context, .extent = extent, .parts = extent < pool.wanted ? extent : pool.wanted};
    (void)pthread_mutex_lock(&pool.mutex);
    pool.current = job;
    pool.busy = pool.started;
    pool.posts++;
    (void)pthread_cond_broadcast(&pool.posted);
    (void)pthread_mutex_unlock(&pool.mutex);
    run_part(&job, 0);
    (void)pthread_mutex_lock(&pool.mutex);
    while (pool.busy != 0) {
        (void)pthread_cond_wait(&pool.finished, &pool.mutex);
    }
    (void)pthread_mutex_unlock(&pool.mutex);
}

void edgekit_pool_stop(void) {
    (void)pthread_mutex_lock(&pool.mutex);
    pool.stopping = true;
    (void)pthread_cond_broadcast(&pool.posted);
    (void)pthread_mutex_unlock(&pool.mutex);
    while (pool.started != 0) {
        (void)pthread_join(pool.threads[--pool.started], NULL);
    }
}

/* Threads that share an operator's work.
 *
 * Work is divided before it starts and not while it runs: which thread does which part depends on the extent and the
 * number of threads alone. Threads are made at first use, and wait in the kernel between operators. */
#ifndef EDGEKIT_POOL_H
#define EDGEKIT_POOL_H

#include <stdbool.h>
#include <stdint.h>

#define EDGEKIT_POOL_MAX 64

/* Before the first use. `threads` in 1…EDGEKIT_POOL_MAX counts the calling one. With `first_core` >= 0 thread i keeps to
 * core first_core + i; the caller itself is pinned by edgekit_pin. */
void edgekit_pool_configure(int threads, int first_core);

/* Keeps the calling thread to one core. */
bool edgekit_pin(int core);

/* May this process run on cores first…first + count - 1? */
bool edgekit_may_use_cores(int first, int count);

/* Calls `task` for parts of [0, extent) that together are all of it, and returns when all are done. The first part runs
 * in the calling thread. Called from within a task it does all of it there. One thread at a time may call it. */
void edgekit_parallel_for(void (*task)(void *context, int32_t begin, int32_t end), void *context, int32_t extent);

/* Ends the threads; the next use makes them again. */
void edgekit_pool_stop(void);

#endif

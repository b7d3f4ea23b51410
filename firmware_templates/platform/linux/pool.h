/* Threads that share an operator's work: edgekit_parallel_for of edgekit_program.h.
 *
 * Work is divided before it starts and not while it runs: which thread does which part depends on the extent and the
 * number of threads alone. The first part runs in the calling thread. Threads are made at first use, and wait in the
 * kernel between operators. A task that divides its own work does all of it where it runs. One thread at a time may
 * call. */
#ifndef EDGEKIT_POOL_H
#define EDGEKIT_POOL_H

#include <stdbool.h>

#define EDGEKIT_POOL_MAX 256

/* Before the first use. `threads` in 1…EDGEKIT_POOL_MAX counts the calling one. With `first_core` >= 0 thread i keeps
 * to core first_core + i; the caller itself is pinned by edgekit_pin. */
void edgekit_pool_configure(int threads, int first_core);

/* Keeps the calling thread to one core. */
bool edgekit_pin(int core);

/* May this process run on cores first…first + count - 1? */
bool edgekit_may_use_cores(int first, int count);

/* Ends the threads; the next use makes them again. */
void edgekit_pool_stop(void);

#endif

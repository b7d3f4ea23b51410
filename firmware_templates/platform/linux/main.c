/* The agent as a process: stdin and stdout are the line, nothing else is ever written to stdout.
 *
 * It runs in a thread whose stack is its own mapping, so that the stack can be painted and read back, and so that a
 * stack overflow hits a guard page. It ends when stdin closes. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "agent.h"
#include "port.h"

#define STACK_BYTES ((size_t)1 << 20)
#define GUARD_BYTES ((size_t)1 << 16)  /* a multiple of every page size that Linux uses */
#define SIGNAL_STACK_BYTES ((size_t)1 << 16)

static uint8_t *stack_limit;
static uint8_t *stack_top;

void edgekit_port_init(void) {}

int32_t edgekit_port_read(uint8_t *data, uint32_t capacity, bool wait) {
    struct pollfd line = {.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
    for (;;) {
        int ready = poll(&line, 1, wait ? -1 : 0);
        if (ready == 0) {
            return 0;
        }
        ssize_t got = ready < 0 ? -1 : read(STDIN_FILENO, data, capacity);
        if (got > 0) {
            return (int32_t)got;
        }
        if (got == 0 || (errno != EINTR && errno != EAGAIN)) {
            return -1;
        }
    }
}

void edgekit_port_write(const uint8_t *data, uint32_t size) {
    while (size != 0u) {
        ssize_t done = write(STDOUT_FILENO, data, size);
        if (done > 0) {
            data += done;
            size -= (uint32_t)done;
        } else if (done < 0 && errno == EAGAIN) {
            struct pollfd line = {.fd = STDOUT_FILENO, .events = POLLOUT, .revents = 0};
            (void)poll(&line, 1, -1);
        } else if (done == 0 || errno != EINTR) {
            _exit(EXIT_SUCCESS);  /* whoever read this has gone */
        }
    }
}

uint64_t edgekit_port_ticks(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC_RAW, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint8_t edgekit_port_tick_bits(void) {
    return 64;
}

bool edgekit_platform_stack(uint8_t **limit, uint8_t **top) {
    *limit = stack_limit;
    *top = stack_top;
    return stack_top != NULL;
}

static uint64_t program_counter(const ucontext_t *context) {
#if defined(__x86_64__)
    return (uint64_t)context->uc_mcontext.gregs[REG_RIP];
#elif defined(__i386__)
    return (uint64_t)(uint32_t)context->uc_mcontext.gregs[REG_EIP];
#elif defined(__aarch64__)
    return (uint64_t)context->uc_mcontext.pc;
#elif defined(__arm__)
    return (uint64_t)context->uc_mcontext.arm_pc;
#elif defined(__riscv)
    return (uint64_t)context->uc_mcontext.__gregs[REG_PC];
#else
    (void)context;
    return 0;
#endif
}

static void on_fault(int number, siginfo_t *info, void *context) {
    edgekit_fault fault = {
        .pc = program_counter(context),
        .address = (uint64_t)(uintptr_t)info->si_addr,
        .cfsr = 0,
        .hfsr = 0,
        .kind = EDGEKIT_FAULT_SIGNAL,
        .number = (uint8_t)number,
    };
    edgekit_agent_fault(&fault);
    _exit(128 + number);
}

static void catch_faults(void) {
    static uint8_t memory[SIGNAL_STACK_BYTES];
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
    stack_t stack = {.ss_sp = memory, .ss_flags = 0, .ss_size = sizeof memory};
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    (void)sigemptyset(&action.sa_mask);
    (void)sigaltstack(&stack, NULL);  /* of this thread: a stack overflow must still be told */
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        (void)sigaction(signals[i], &action, NULL);
    }
}

static void *serve(void *unused) {
    uint8_t here = 0;
    (void)unused;
    /* Above this frame lie the thread library's own data, which are not the program's stack. */
    if (stack_limit != NULL && &here > stack_limit && &here < stack_limit + STACK_BYTES) {
        stack_top = &here;
    }
    catch_faults();
    edgekit_agent_serve();
    return NULL;
}

static int serve_on_own_stack(void) {
    uint8_t *memory =
        mmap(NULL, GUARD_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        return -1;
    }
    pthread_t thread;
    pthread_attr_t attributes;
    uint8_t *limit = memory + GUARD_BYTES;
    if (mprotect(memory, GUARD_BYTES, PROT_NONE) != 0 || pthread_attr_init(&attributes) != 0 ||
        pthread_attr_setstack(&attributes, limit, STACK_BYTES) != 0) {
        return -1;
    }
    stack_limit = limit;
    if (pthread_create(&thread, &attributes, serve, NULL) != 0) {
        stack_limit = NULL;
        return -1;
    }
    return pthread_join(thread, NULL);
}

int main(void) {
    (void)signal(SIGPIPE, SIG_IGN);
    if (serve_on_own_stack() != 0) {
        (void)serve(NULL);  /* without a high-water mark of the stack */
    }
    return EXIT_SUCCESS;
}

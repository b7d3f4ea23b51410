/* The agent as a process: stdin and stdout are the line, nothing else is ever written to stdout.
 *
 * It runs in a thread whose stack is its own mapping, so that the stack can be painted and read back, and so that a
 * stack overflow hits a guard page. It ends when stdin closes. */
#include "sys.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "agent.h"
#include "pool.h"
#include "port.h"
#include "runner.h"
#include "say.h"

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

static void catch_faults(stack_t *before) {
    static uint8_t memory[SIGNAL_STACK_BYTES];
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
    stack_t stack = {.ss_sp = memory, .ss_flags = 0, .ss_size = sizeof memory};
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    (void)sigemptyset(&action.sa_mask);
    (void)sigaltstack(&stack, before);  /* of this thread: a stack overflow must still be told */
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        (void)sigaction(signals[i], &action, NULL);
    }
}

static void *serve(void *unused) {
    uint8_t here = 0;
    stack_t before;
    (void)unused;
    /* Above this frame lie the thread library's own data, which are not the program's stack. */
    if (stack_limit != NULL && &here > stack_limit && &here < stack_limit + STACK_BYTES) {
        stack_top = &here;
    }
    catch_faults(&before);
    edgekit_agent_serve();
    (void)sigaltstack(&before, NULL);
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

/* A whole number of at most four digits, or -1. */
static int parse_number(const char *text) {
    size_t size = strnlen(text, 5);
    return size >= 1u && size <= 4u && strspn(text, "0123456789") == size ? (int)strtol(text, NULL, 10) : -1;
}

static int parse_options(int count, char **arguments, int *threads, int *core) {
    *threads = 1;
    *core = -1;
    for (int i = 0; i < count; i += 2) {
        int value = i + 1 < count ? parse_number(arguments[i + 1]) : -1;
        if (strcmp(arguments[i], "--threads") == 0 && value >= 1 && value <= EDGEKIT_POOL_MAX) {
            *threads = value;
        } else if (strcmp(arguments[i], "--core") == 0 && value >= 0) {
            *core = value;
        } else {
            return complain(RUNNER_USAGE, "serve takes --threads with 1 to %d, and --core", EDGEKIT_POOL_MAX);
        }
    }
    return RUNNER_DONE;
}

int runner_serve(int count, char **arguments) {
    int threads, core;
    int code = parse_options(count, arguments, &threads, &core);
    if (code == RUNNER_DONE) {
        code = runner_open_ticks();
    }
    if (code != RUNNER_DONE) {
        return code;
    }
    if (core >= 0 && (!edgekit_may_use_cores(core, threads) || !edgekit_pin(core))) {
        return complain(RUNNER_NOTHING, "%d of the cores from %d on cannot be used here", threads, core);
    }
    edgekit_pool_configure(threads, core);
    if (serve_on_own_stack() != 0) {
        (void)serve(NULL);  /* without a high-water mark of the stack */
    }
    edgekit_pool_stop();
    return RUNNER_DONE;
}

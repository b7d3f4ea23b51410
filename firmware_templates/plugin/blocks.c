/* A QEMU TCG plugin: how often each block of instructions is executed, operator by operator.
 *
 * The file named by EDGEKIT_BLOCKS_FILE is `struct counts`, little-endian, mapped and shared; who starts QEMU writes
 * `stop` and `marks` into it before, and reads the rest afterwards. A block that starts at marks[i] begins operator i;
 * one that starts at `stop` ends it. Blocks in between are counted for that operator: how often, and how often what
 * came after was not the next address. QEMU's single-threaded round robin is assumed (-icount has no other).
 *
 * Declarations as in tick.c, after QEMU's documentation, "QEMU TCG Plugins" (docs/devel/tcg-plugins.rst). */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef EDGEKIT_PLUGIN_API
#error "EDGEKIT_PLUGIN_API must be 1 or 2"
#endif

#define EXPORT __attribute__((visibility("default")))
#define OPERATORS 128u
#define BLOCKS 16384u

typedef uint64_t qemu_plugin_id_t;
typedef struct qemu_info_t qemu_info_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };
typedef void (*translated_callback)(qemu_plugin_id_t id, struct qemu_plugin_tb *block);
typedef void (*executed_callback)(unsigned int core, void *context);

extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, translated_callback callback);
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *block, executed_callback callback,
                                                 enum qemu_plugin_cb_flags flags, void *context);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
extern uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *block);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block, size_t index);
extern uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *instruction);
extern size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *instruction);

EXPORT extern int qemu_plugin_version;
EXPORT int qemu_plugin_version = EDGEKIT_PLUGIN_API;
EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int count, char **arguments);

/* `instructions` is 0 where there is no block. */
struct block {
    uint64_t start;
    uint64_t end;
    uint64_t instructions;
    struct {
        uint64_t times;
        uint64_t left;
    } in[OPERATORS];
};

struct counts {
    uint64_t stop;
    uint64_t overflowed; /* 1 when there were more blocks than fit */
    uint64_t marks[OPERATORS];
    uint64_t visits[OPERATORS];
    struct block blocks[BLOCKS];
};

static struct counts *counts;
static size_t used;
static struct block *previous;
static unsigned int previous_operator;
static unsigned int current = OPERATORS;

static void executed(unsigned int core, void *context) {
    struct block *block = context;
    (void)core;
    if (previous != NULL && previous->end != block->start) {
        previous->in[previous_operator].left++;
    }
    if (current < OPERATORS) {
        block->in[current].times++;
        previous = block;
        previous_operator = current;
    } else {
        previous = NULL;
    }
}

static void stopped(unsigned int core, void *context) {
    (void)core;
    (void)context;
    current = OPERATORS;
}

static void began(unsigned int core, void *context) {
    (void)core;
    current = (unsigned int)(uintptr_t)context;
    counts->visits[current]++;
}

/* QEMU translates a block again when it needs room, and in pieces: the same piece is counted in one place. */
static struct block *find(uint64_t start, uint64_t end, uint64_t instructions) {
    for (size_t i = used; i > 0; i--) {
        struct block *block = &counts->blocks[i - 1];
        if (block->start == start && block->instructions == instructions) {
            return block;
        }
    }
    if (used == BLOCKS) {
        counts->overflowed = 1;
        return NULL;
    }
    struct block *block = &counts->blocks[used++];
    block->start = start;
    block->end = end;
    block->instructions = instructions;
    return block;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *translation) {
    size_t count = qemu_plugin_tb_n_insns(translation);
    uint64_t start = qemu_plugin_tb_vaddr(translation);
    struct qemu_plugin_insn *last = qemu_plugin_tb_get_insn(translation, count - 1);
    struct block *block = find(start, qemu_plugin_insn_vaddr(last) + qemu_plugin_insn_size(last), count);
    (void)id;
    if (start == counts->stop) {
        qemu_plugin_register_vcpu_tb_exec_cb(translation, stopped, QEMU_PLUGIN_CB_NO_REGS, NULL);
    }
    for (uintptr_t i = 0; i < OPERATORS; i++) {
        if (counts->marks[i] != 0 && counts->marks[i] == start) {
            qemu_plugin_register_vcpu_tb_exec_cb(translation, began, QEMU_PLUGIN_CB_NO_REGS, (void *)i);
        }
    }
    if (block != NULL) {
        qemu_plugin_register_vcpu_tb_exec_cb(translation, executed, QEMU_PLUGIN_CB_NO_REGS, block);
    }
}

/* The whole file, or NULL. */
static struct counts *map(const char *path) {
    struct stat status;
    void *page = MAP_FAILED;
    int file = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (file < 0) {
        return NULL;
    }
    if (fstat(file, &status) == 0 && S_ISREG(status.st_mode) && status.st_size >= (off_t)sizeof *counts) {
        page = mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    }
    (void)close(file);
    return page == MAP_FAILED ? NULL : page;
}

int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int count, char **arguments) {
    const char *path = getenv("EDGEKIT_BLOCKS_FILE");
    (void)info;
    (void)count;
    (void)arguments;
    counts = path == NULL ? NULL : map(path);
    if (counts == NULL) {
        return -1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    return 0;
}

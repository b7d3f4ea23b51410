/* A QEMU TCG plugin: the first eight bytes of a file count the instructions that the emulated program executes.
 *
 * The file is named by EDGEKIT_TICK_FILE in QEMU's environment and must exist. QEMU and the program both map it
 * (MAP_SHARED), so that to the program it is an ordinary clock: one tick is one instruction. The addition is not
 * atomic: the count is exact while one thread of the program runs.
 *
 * QEMU's qemu-plugin.h is not packaged everywhere, so the few declarations needed stand here. They follow QEMU's
 * documentation, "QEMU TCG Plugins" (docs/devel/tcg-plugins.rst):
 *   EDGEKIT_PLUGIN_API 1  QEMU 4.2 to 8.x: one inline addition for every instruction.
 *   EDGEKIT_PLUGIN_API 2  QEMU 9 and later, where inline additions reach only memory that QEMU allocates: a call
 *                         for every block of instructions, which adds their number.
 * EDGEKIT_PLUGIN_VERSION is what the plugin says it was made for; it is the same number unless a test says otherwise. */
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
#ifndef EDGEKIT_PLUGIN_VERSION
#define EDGEKIT_PLUGIN_VERSION EDGEKIT_PLUGIN_API
#endif

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
typedef struct qemu_info_t qemu_info_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void (*translated_callback)(qemu_plugin_id_t id, struct qemu_plugin_tb *block);

extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, translated_callback callback);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);

EXPORT extern int qemu_plugin_version;
EXPORT int qemu_plugin_version = EDGEKIT_PLUGIN_VERSION;
EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int count, char **arguments);

static uint64_t *ticks;

#if EDGEKIT_PLUGIN_API == 1

enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block, size_t index);
extern void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *instruction, enum qemu_plugin_op op,
                                                       void *address, uint64_t addend);

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
    size_t count = qemu_plugin_tb_n_insns(block);
    (void)id;
    for (size_t i = 0; i < count; i++) {
        qemu_plugin_register_vcpu_insn_exec_inline(qemu_plugin_tb_get_insn(block, i), QEMU_PLUGIN_INLINE_ADD_U64,
                                                   ticks, 1);
    }
}

#else

enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };
typedef void (*executed_callback)(unsigned int core, void *context);
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *block, executed_callback callback,
                                                 enum qemu_plugin_cb_flags flags, void *context);

static void executed(unsigned int core, void *context) {
    (void)core;
    *ticks += (uintptr_t)context;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_cb(block, executed, QEMU_PLUGIN_CB_NO_REGS,
                                         (void *)(uintptr_t)qemu_plugin_tb_n_insns(block));
}

#endif

/* The file's first page, or NULL. */
static uint64_t *map(const char *path) {
    struct stat status;
    void *page = MAP_FAILED;
    int file = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (file < 0) {
        return NULL;
    }
    if (fstat(file, &status) == 0 && S_ISREG(status.st_mode) && status.st_size >= (off_t)sizeof *ticks) {
        page = mmap(NULL, sizeof *ticks, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    }
    (void)close(file);
    return page == MAP_FAILED ? NULL : page;
}

int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int count, char **arguments) {
    const char *path = getenv("EDGEKIT_TICK_FILE");
    (void)info;
    (void)count;
    (void)arguments;
    ticks = path == NULL ? NULL : map(path);
    if (ticks == NULL) {
        return -1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    return 0;
}

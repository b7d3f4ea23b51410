/* A QEMU TCG plugin (API version 1) that counts the instructions executed between two addresses.
 *
 * Arguments: start=ADDRESS stop=ADDRESS out=FILE. Each time `stop` is reached, one line with the number of
 * instructions since `start` is written to FILE. Debian ships no qemu-plugin.h, so what is used of it is declared here. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void (*translation_callback)(plugin_id, struct qemu_plugin_tb *);
typedef void (*execution_callback)(unsigned int cpu, void *data);

enum { NO_REGISTERS = 0, ADD_U64 = 0 };

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, translation_callback callback);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, execution_callback, int flags, void *data);
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *, int operation, void *counter, uint64_t add);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block, size_t index);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *instruction);

EXPORT int qemu_plugin_version = 1;

static uint64_t executed, at_start, start_address, stop_address;
static FILE *out;

static void on_start(unsigned int cpu, void *data)
{
    (void)cpu;
    (void)data;
    at_start = executed;
}

static void on_stop(unsigned int cpu, void *data)
{
    (void)cpu;
    (void)data;
    fprintf(out, "%llu\n", (unsigned long long)(executed - at_start));
    fflush(out);
}

static void on_translation(plugin_id id, struct qemu_plugin_tb *block)
{
    (void)id;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); i++) {
        struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(block, i);
        uint64_t address = qemu_plugin_insn_vaddr(instruction);
        qemu_plugin_register_vcpu_insn_exec_inline(instruction, ADD_U64, &executed, 1);
        if (address == start_address)
            qemu_plugin_register_vcpu_insn_exec_cb(instruction, on_start, NO_REGISTERS, NULL);
        if (address == stop_address)
            qemu_plugin_register_vcpu_insn_exec_cb(instruction, on_stop, NO_REGISTERS, NULL);
    }
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int count, char **arguments)
{
    (void)info;
    for (int i = 0; i < count; i++) {
        if (strncmp(arguments[i], "start=", 6) == 0)
            start_address = strtoull(arguments[i] + 6, NULL, 0);
        else if (strncmp(arguments[i], "stop=", 5) == 0)
            stop_address = strtoull(arguments[i] + 5, NULL, 0);
        else if (strncmp(arguments[i], "out=", 4) == 0)
            out = fopen(arguments[i] + 4, "w");
    }
    if (out == NULL)
        return 1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    return 0;
}

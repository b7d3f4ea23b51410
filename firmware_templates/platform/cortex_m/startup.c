/* From reset to the agent, on Cortex-M0+ to M55: vector table, FPU, stack guard, .data and .bss.
 * Symbols: linker.ld.j2.
 * Registers: Armv6-M, Armv7-M and Armv8-M Architecture Reference Manuals, System Control Block. */
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "agent.h"
#include "cortex_m.h"
#include "port.h"

extern uint8_t _edgekit_stack_limit[];
extern uint8_t _edgekit_stack_top[];
extern uint8_t _edgekit_data_start[];
extern uint8_t _edgekit_data_end[];
extern const uint8_t _edgekit_data_load[];
extern uint8_t _edgekit_bss_start[];
extern uint8_t _edgekit_bss_end[];

void edgekit_reset(void);
void edgekit_start(void);

typedef union {
    void *stack;
    void (*handler)(void);
} vector;

/* Only system exceptions: the agent enables no interrupt. */
__attribute__((section(".vectors"), used)) static const vector vectors[16] = {
    {.stack = _edgekit_stack_top},
    {.handler = edgekit_reset},
    {.handler = edgekit_exception}, /* NMI */
    {.handler = edgekit_exception}, /* HardFault */
    {.handler = edgekit_exception}, /* MemManage */
    {.handler = edgekit_exception}, /* BusFault */
    {.handler = edgekit_exception}, /* UsageFault */
    {.handler = edgekit_exception}, /* SecureFault */
    {.handler = edgekit_exception}, {.handler = edgekit_exception}, {.handler = edgekit_exception},
    {.handler = edgekit_exception}, /* SVCall */
    {.handler = edgekit_exception}, /* DebugMonitor */
    {.handler = edgekit_exception},
    {.handler = edgekit_exception}, /* PendSV */
    {.handler = edgekit_exception}, /* SysTick */
};

/* A debugger or boot loader may jump here without having loaded the stack pointer from the table. */
__attribute__((naked, noreturn, used)) void edgekit_reset(void) {
    __asm__ volatile(
        "ldr r0, =_edgekit_stack_top\n"
        "mov sp, r0\n"
        "bl edgekit_start\n"
        ".pool\n");
}

#if __ARM_ARCH < 8
#define GUARD_BYTES 256u /* the least that Armv6-M has */

static uint8_t *guard(void) {
    return (uint8_t *)(((uintptr_t)_edgekit_stack_limit + GUARD_BYTES - 1u) & ~(uintptr_t)(GUARD_BYTES - 1u));
}

static bool guarded(void) {
    return (MPU_TYPE & 0xFF00u) != 0u; /* DREGION: how many regions the core has, 0 without an MPU */
}

/* What lies below the RAM does not fault everywhere (in QEMU's MPS2 it takes writes), so the MPU forbids the stack's
 * lowest 256 bytes: a stack overflow becomes a fault that is told, not wrong data. Armv7-M ARM B3.5. */
static void guard_stack(void) {
    if (guarded()) {
        MPU_RNR = 0;
        MPU_RBAR = (uint32_t)(uintptr_t)guard();
        MPU_RASR = 1u << 28 /* XN */ | 0u << 24 /* no access */ | 7u << 1 /* 2^(7+1) bytes */ | 1u;
        MPU_CTRL = 1u << 2 /* elsewhere as without MPU */ | 1u;
    }
}

uint8_t *edgekit_stack_end(void) {
    return guarded() ? guard() + GUARD_BYTES : _edgekit_stack_limit;
}
#else
static void guard_stack(void) {
#if defined(__ARM_ARCH_8M_MAIN__) || defined(__ARM_ARCH_8_1M_MAIN__)
    __asm__ volatile("msr msplim, %0" : : "r"(_edgekit_stack_limit));
#endif
}

uint8_t *edgekit_stack_end(void) {
    return _edgekit_stack_limit;
}
#endif

__attribute__((noinline)) static void initialise_memory(void) {
    memcpy(_edgekit_data_start, _edgekit_data_load, (size_t)(_edgekit_data_end - _edgekit_data_start));
    memset(_edgekit_bss_start, 0, (size_t)(_edgekit_bss_end - _edgekit_bss_start));
}

__attribute__((noinline)) static void serve_for_ever(void) {
    edgekit_agent_serve();
    for (;;) {
    }
}

/* Each step is a function of its own that isn't inlined, so that no FPU instruction can move in front of the first. */
__attribute__((noreturn, used)) void edgekit_start(void) {
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    SCB_CPACR |= 0xFu << 20; /* full access to CP10 and CP11 */
#endif
    SCB_VTOR = (uint32_t)(uintptr_t)vectors;
#if __ARM_ARCH >= 7 && !defined(__ARM_ARCH_8M_BASE__)
    SCB_SHCSR |= 7u << 16; /* MemManage, BusFault and UsageFault of their own, not as HardFault */
#endif
    guard_stack();
    __asm__ volatile("dsb\n isb" : : : "memory");
    initialise_memory();
    serve_for_ever();
    __builtin_unreachable();
}

bool edgekit_platform_stack(uint8_t **limit, uint8_t **top) {
    *limit = edgekit_stack_end();
    *top = _edgekit_stack_top;
    return true;
}

/* Tells the client what stopped the program, answers it until it wants to go on, and restarts. */
#include <stdbool.h>
#include <stdint.h>

#include "agent.h"
#include "cortex_m.h"

extern uint8_t _edgekit_stack_top[];

void edgekit_on_exception(const uint32_t *frame);

/* The handler needs stack. Where the program has left less than 1 KiB of it, what it used is given up: the stack pointer goes
 * back to the top. r0 is the exception frame (Armv7-M ARM B1.5.6): r0-r3, r12, lr, pc, xPSR. Armv6-M instructions only. */
__attribute__((naked, used)) void edgekit_exception(void) {
    __asm__ volatile(
        "mov r0, sp\n"
        "ldr r1, =_edgekit_stack_limit + 1024\n"
        "cmp r0, r1\n"
        "bhs 1f\n"
        "ldr r1, =_edgekit_stack_top\n"
        "mov sp, r1\n"
        "1: bl edgekit_on_exception\n"
        ".pool\n");
}

static void restart(void) {
    __asm__ volatile("dsb" : : : "memory");
    SCB_AIRCR = 0x05FA0004u; /* VECTKEY, SYSRESETREQ */
    __asm__ volatile("dsb" : : : "memory");
    for (;;) {
    }
}

static uint32_t exception_number(void) {
    uint32_t number;
    __asm__ volatile("mrs %0, ipsr" : "=r"(number));
    return number & 0x1FFu;
}

__attribute__((used)) void edgekit_on_exception(const uint32_t *frame) {
    static const uint8_t kinds[] = {[3] = EDGEKIT_FAULT_HARD,
                                    [4] = EDGEKIT_FAULT_MEMORY,
                                    [5] = EDGEKIT_FAULT_BUS,
                                    [6] = EDGEKIT_FAULT_USAGE};
    uintptr_t at = (uintptr_t)frame;
    bool stacked = at >= (uintptr_t)edgekit_stack_end() && at <= (uintptr_t)_edgekit_stack_top - 32u;
    edgekit_fault fault = {0};
    uint32_t number = exception_number();
    fault.kind = number >= 3u && number < sizeof kinds ? kinds[number] : (uint8_t)EDGEKIT_FAULT_UNEXPECTED;
    fault.number = (uint8_t)number;
#if __ARM_ARCH >= 7 && !defined(__ARM_ARCH_8M_BASE__)
    fault.cfsr = SCB_CFSR;
    fault.hfsr = SCB_HFSR;
    if ((fault.cfsr & (1u << 7)) != 0u) { /* MMARVALID */
        fault.address = SCB_MMFAR;
    } else if ((fault.cfsr & (1u << 15)) != 0u) { /* BFARVALID */
        fault.address = SCB_BFAR;
    }
    /* MSTKERR, STKERR, STKOF: the frame could not be written. */
    stacked = stacked && (fault.cfsr & ((1u << 4) | (1u << 12) | (1u << 20))) == 0u;
#endif
    fault.pc = stacked ? frame[6] : 0u;
    edgekit_agent_fault(&fault);
    edgekit_agent_serve_fault();
    restart();
}

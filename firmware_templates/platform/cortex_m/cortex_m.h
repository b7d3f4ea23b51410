/* The system registers that startup and fault handlers use (System Control Block, 0xE000ED00). */
#ifndef EDGEKIT_CORTEX_M_H
#define EDGEKIT_CORTEX_M_H

#include <stdint.h>

#define EDGEKIT_REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))
#define SCB_VTOR EDGEKIT_REGISTER(0xE000ED08u)
#define SCB_AIRCR EDGEKIT_REGISTER(0xE000ED0Cu)
#define SCB_SHCSR EDGEKIT_REGISTER(0xE000ED24u)
#define SCB_CFSR EDGEKIT_REGISTER(0xE000ED28u)
#define SCB_HFSR EDGEKIT_REGISTER(0xE000ED2Cu)
#define SCB_MMFAR EDGEKIT_REGISTER(0xE000ED34u)
#define SCB_BFAR EDGEKIT_REGISTER(0xE000ED38u)
#define SCB_CPACR EDGEKIT_REGISTER(0xE000ED88u)
#define MPU_TYPE EDGEKIT_REGISTER(0xE000ED90u)
#define MPU_CTRL EDGEKIT_REGISTER(0xE000ED94u)
#define MPU_RNR EDGEKIT_REGISTER(0xE000ED98u)
#define MPU_RBAR EDGEKIT_REGISTER(0xE000ED9Cu)
#define MPU_RASR EDGEKIT_REGISTER(0xE000EDA0u)

/* Where the stack that may be used ends: above the guard, on cores that have one. */
uint8_t *edgekit_stack_end(void);

/* In the vector table for everything but reset. */
void edgekit_exception(void);

#endif

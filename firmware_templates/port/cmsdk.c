/* Arm MPS2 and MPS3 boards as QEMU emulates them: CMSDK APB UART and the FPGAIO counter.
 * Sources: Arm DDI 0479 (Cortex-M System Design Kit) 4.3, APB UART; Arm DAI 0385/0386, FPGAIO (offsets 0x18, 0x1C).
 *
 * Options: uart_base, fpgaio_base, cpu_hz. */
#include <stdbool.h>
#include <stdint.h>

#include "edgekit_port.h"
#include "port.h"

typedef struct {
    volatile uint32_t data;
    volatile uint32_t state;
    volatile uint32_t control;
    volatile uint32_t interrupt;
    volatile uint32_t divisor;
} cmsdk_uart;

enum { STATE_TX_FULL = 1, STATE_RX_FULL = 2, CONTROL_TX = 1, CONTROL_RX = 2 };

#define UART ((cmsdk_uart *)(uintptr_t)EDGEKIT_PORT_UART_BASE)
#define FPGAIO_COUNTER (*(volatile uint32_t *)(uintptr_t)(EDGEKIT_PORT_FPGAIO_BASE + 0x18u))
#define FPGAIO_PRESCALE (*(volatile uint32_t *)(uintptr_t)(EDGEKIT_PORT_FPGAIO_BASE + 0x1Cu))

#define DIVISOR ((uint32_t)EDGEKIT_PORT_CPU_HZ / (uint32_t)EDGEKIT_PORT_BAUD)

void edgekit_port_init(void) {
    FPGAIO_PRESCALE = 0;
    UART->divisor = DIVISOR < 16u ? 16u : DIVISOR; /* DDI 0479 4.3.2: 16 is the least */
    UART->control = CONTROL_TX | CONTROL_RX;
    /* Drops what the receiver may hold. QEMU (hw/char/cmsdk-apb-uart.c) needs it too: it looks for input again when the
     * register is read, but not when the receiver is switched on, and would sleep through a request sent before. */
    (void)UART->data;
}

int32_t edgekit_port_read(uint8_t *data, uint32_t capacity, bool wait) {
    (void)capacity; /* the receiver holds one byte */
    while ((UART->state & STATE_RX_FULL) == 0u) {
        if (!wait) {
            return 0;
        }
    }
    *data = (uint8_t)UART->data;
    return 1;
}

void edgekit_port_write(const uint8_t *data, uint32_t size) {
    for (uint32_t i = 0; i < size; i++) {
        while ((UART->state & STATE_TX_FULL) != 0u) {
        }
        UART->data = data[i];
    }
}

uint64_t edgekit_port_ticks(void) {
    return FPGAIO_COUNTER;
}

uint8_t edgekit_port_tick_bits(void) {
    return 32;
}

/* What the agent needs of a board: a byte stream, a counter, its stack. port/<name>.c has the chip's part
 * (edgekit_port_*), platform/<platform>/ the processor's or operating system's (edgekit_platform_*). */
#ifndef EDGEKIT_AGENT_PORT_H
#define EDGEKIT_AGENT_PORT_H

#include <stdbool.h>
#include <stdint.h>

/* Clocks, pins, UART and counter. Called once, before everything below. */
void edgekit_port_init(void);

/* Read up to `capacity` bytes into `data` and return how many. With `wait` it returns only with at least one byte;
 * without, 0 means that none is there now. A negative value means that the line is closed for good. */
int32_t edgekit_port_read(uint8_t *data, uint32_t capacity, bool wait);

/* Write all `size` bytes; blocks as long as the line does. */
void edgekit_port_write(const uint8_t *data, uint32_t size);

/* A free-running up-counter, right-aligned in `edgekit_port_tick_bits()` bits (1…64). It must wrap at that width. */
uint64_t edgekit_port_ticks(void);
uint8_t edgekit_port_tick_bits(void);

/* The stack the agent runs on: [limit, top). It grows down from top. False where it can't be painted. */
bool edgekit_platform_stack(uint8_t **limit, uint8_t **top);

#endif

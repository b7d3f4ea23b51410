/* The device agent: serves the programs of this image over the port, as docs/protocol.md describes. */
#ifndef EDGEKIT_AGENT_H
#define EDGEKIT_AGENT_H

#include <stdint.h>

typedef enum {
    EDGEKIT_FAULT_HARD = 1,
    EDGEKIT_FAULT_MEMORY = 2,
    EDGEKIT_FAULT_BUS = 3,
    EDGEKIT_FAULT_USAGE = 4,
    EDGEKIT_FAULT_SIGNAL = 5,
    EDGEKIT_FAULT_UNEXPECTED = 6
} edgekit_fault_kind;

typedef struct {
    uint64_t pc;       /* 0 when unknown */
    uint64_t address;  /* that was touched, 0 when unknown */
    uint32_t cfsr;
    uint32_t hfsr;
    uint8_t kind;      /* edgekit_fault_kind */
    uint8_t number;    /* POSIX signal or exception number */
} edgekit_fault;

/* Answers requests until the line is closed; never returns on a board. */
void edgekit_agent_serve(void);

/* For fault handlers: sends the fault frame. The program that faulted must not go on afterwards. */
void edgekit_agent_fault(const edgekit_fault *fault);

/* For fault handlers of boards: answers every request with the fault, and returns when a HELLO asks for a restart. */
void edgekit_agent_serve_fault(void);

#endif

/* The contract between a compiled model (generated model.c) and the device agent that serves it.
 *
 * A program is a constant table: the agent loads inputs by copying bytes to `inputs[i].data`, calls `run`
 * (or each operator in order), and reads `outputs[i].data`. Everything lives in the program's own static
 * arena; nothing allocates. */
#ifndef EDGEKIT_PROGRAM_H
#define EDGEKIT_PROGRAM_H

#include <stdint.h>

#define EDGEKIT_HASH_BYTES 32u

typedef enum {
    EDGEKIT_INT8 = 1,
    EDGEKIT_UINT8 = 2,
    EDGEKIT_INT16 = 3,
    EDGEKIT_INT32 = 4,
    EDGEKIT_FLOAT32 = 5,
    EDGEKIT_BOOL = 6,
    EDGEKIT_INT64 = 7,
    EDGEKIT_UINT16 = 8,
    EDGEKIT_UINT32 = 9,
    EDGEKIT_UINT64 = 10
} edgekit_dtype;

/* One input or output of a program. real = scale * (stored - zero_point); scale is 0 where it does not apply. */
typedef struct {
    void *data;             /* in the arena, aligned to 16 bytes */
    uint32_t size;          /* bytes */
    const uint32_t *shape;  /* `rank` dimensions, outermost first */
    uint8_t rank;
    uint8_t dtype;          /* edgekit_dtype */
    float scale;
    int32_t zero_point;
} edgekit_tensor;

/* One operator, in execution order. `output` stays valid only until the next operator runs. */
typedef struct {
    void (*run)(void);
    const void *output;
    uint32_t output_size;   /* bytes */
    uint32_t run_size;      /* the output lies in runs of so many bytes: all of it where it is one piece, */
    uint32_t run_pitch;     /* which begin so many bytes apart */
} edgekit_operator;

typedef struct {
    uint8_t hash[EDGEKIT_HASH_BYTES];  /* SHA-256 of the compiled model; the host matches it with its manifest */
    const edgekit_tensor *inputs;
    const edgekit_tensor *outputs;
    const edgekit_operator *operators;
    void (*run)(void);                 /* all operators in order, between edgekit_mark_start and edgekit_mark_stop */
    uint8_t *arena;
    uint32_t arena_size;               /* bytes */
    uint16_t input_count;
    uint16_t output_count;
    uint16_t operator_count;
} edgekit_program;

/* Programs of this image, defined by the generated registry. Index 0…edgekit_program_count-1. */
extern const edgekit_program *const edgekit_programs[];
extern const uint16_t edgekit_program_count;

/* Empty, never inlined: an outside tool can count what lies between them. Defined by the generated driver. */
void edgekit_mark_start(void);
void edgekit_mark_stop(void);

/* Run task(context, begin, end) over parts of [0, extent) that cover it once, perhaps on several threads, and return
 * when all are done. Operators whose elements are independent are split by it; the answers are the same for any
 * split. The driver has a weak one that makes one call; a platform with threads has its own. */
void edgekit_parallel_for(void (*task)(void *context, int32_t begin, int32_t end), void *context, int32_t extent);

#endif

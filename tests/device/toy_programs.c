/* Three small programs for the agent's tests, with answers that Python can work out (tests/device/toy.py).
 *
 * Program 0 "affine": input int8[490] at arena+0, output int8[12]; 3 operators; operator 0 overwrites the input.
 * Program 1 "wide":   inputs int8[3000] and int32[4], outputs int8[3000] and int32[4]: more than one frame each.
 * Program 2 "faulty": input uint8[4]; operator 1 reads from the address that the input holds (as uint32); 0 is harmless,
 *     1 overflows the stack. */
#include <stddef.h>
#include <string.h>

#include "edgekit_program.h"

__attribute__((noinline, used)) void edgekit_mark_start(void) { __asm__ volatile(""); }
__attribute__((noinline, used)) void edgekit_mark_stop(void) { __asm__ volatile(""); }

#define ARENA(name, size) static uint8_t name[size] __attribute__((aligned(16), section(".bss.edgekit_arena")))

/* --- affine --- */
ARENA(affine_arena, 2048);

static uint32_t affine_runs;

static void affine_scale(void) { /* in place: x = 3x + 1 */
    for (uint32_t i = 0; i < 490; i++) {
        affine_arena[i] = (uint8_t)(3u * affine_arena[i] + 1u);
    }
}

static void affine_sum(void) { /* 12 column sums, modulo 256, at 512 */
    uint8_t *out = affine_arena + 512;
    memset(out, 0, 12);
    for (uint32_t i = 0; i < 490; i++) {
        out[i % 12] = (uint8_t)(out[i % 12] + affine_arena[i]);
    }
}

static void affine_flip(void) { /* output at 1024: reversed, and the number of runs in the last byte */
    affine_runs++;
    for (uint32_t i = 0; i < 11; i++) {
        affine_arena[1024 + i] = affine_arena[512 + 11 - i];
    }
    affine_arena[1035] = (uint8_t)affine_runs;
}

static void affine_run(void) {
    edgekit_mark_start();
    affine_scale();
    affine_sum();
    affine_flip();
    edgekit_mark_stop();
}

static const uint32_t affine_input_shape[] = {1, 49, 10, 1};
static const uint32_t affine_output_shape[] = {1, 12};
static const edgekit_tensor affine_inputs[] = {
    {affine_arena, 490, affine_input_shape, 4, EDGEKIT_INT8, 0.5f, -3}};
static const edgekit_tensor affine_outputs[] = {
    {affine_arena + 1024, 12, affine_output_shape, 2, EDGEKIT_INT8, 0.00390625f, -128}};
static const edgekit_operator affine_operators[] = {
    {affine_scale, affine_arena, 490, 490, 490},
    {affine_sum, affine_arena + 512, 12, 12, 12},
    {affine_flip, affine_arena + 1024, 12, 12, 12}};
static const edgekit_program affine = {
    .hash = {0xAA, 1, 2, 3}, .inputs = affine_inputs, .outputs = affine_outputs, .operators = affine_operators,
    .run = affine_run, .arena = affine_arena, .arena_size = sizeof affine_arena,
    .input_count = 1, .output_count = 1, .operator_count = 3};

/* --- wide --- */
ARENA(wide_arena, 8192);

static void wide_negate(void) {
    for (uint32_t i = 0; i < 3000; i++) {
        wide_arena[4096 + i] = (uint8_t)(0u - wide_arena[i]);
    }
}

static void wide_square(void) {
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t value;
        memcpy(&value, wide_arena + 3008 + 4 * i, 4);
        value *= value;
        memcpy(wide_arena + 7104 + 4 * i, &value, 4);
    }
}

static void wide_run(void) {
    edgekit_mark_start();
    wide_negate();
    wide_square();
    edgekit_mark_stop();
}

static const uint32_t wide_shape_a[] = {3000};
static const uint32_t wide_shape_b[] = {2, 2};
static const edgekit_tensor wide_inputs[] = {{wide_arena, 3000, wide_shape_a, 1, EDGEKIT_INT8, 1.0f, 0},
                                             {wide_arena + 3008, 16, wide_shape_b, 2, EDGEKIT_INT32, 0.0f, 0}};
static const edgekit_tensor wide_outputs[] = {{wide_arena + 4096, 3000, wide_shape_a, 1, EDGEKIT_INT8, 1.0f, 0},
                                              {wide_arena + 7104, 16, wide_shape_b, 2, EDGEKIT_INT32, 0.0f, 0}};
static const edgekit_operator wide_operators[] = {{wide_negate, wide_arena + 4096, 3000, 3000, 3000},
                                                  {wide_square, wide_arena + 7104, 16, 16, 16}};
static const edgekit_program wide = {
    .hash = {0xBB}, .inputs = wide_inputs, .outputs = wide_outputs, .operators = wide_operators,
    .run = wide_run, .arena = wide_arena, .arena_size = sizeof wide_arena,
    .input_count = 2, .output_count = 2, .operator_count = 2};

/* --- faulty --- */
#ifndef TOY_WITHOUT_FAULTY
ARENA(faulty_arena, 64);

static void faulty_copy(void) { memcpy(faulty_arena + 16, faulty_arena, 4); }

static volatile uint32_t deepest = 0xFFFFFFFFu; /* so that the compiler does not see that it never ends */

static uint32_t use_stack(uint32_t depth) {
    volatile uint8_t frame[64];
    frame[depth % 64u] = (uint8_t)depth;
    return depth == deepest ? 0u : use_stack(depth + 1u) + frame[depth % 64u];
}

static void faulty_read(void) {
    uint32_t address;
    memcpy(&address, faulty_arena + 16, 4);
    if (address == 1u) {
        address = use_stack(0);
    }
    faulty_arena[32] = address == 0u ? 7u : *(const volatile uint8_t *)(uintptr_t)address;
}

static void faulty_run(void) {
    edgekit_mark_start();
    faulty_copy();
    faulty_read();
    edgekit_mark_stop();
}

static const uint32_t faulty_input_shape[] = {4};
static const uint32_t faulty_output_shape[] = {1};
static const edgekit_tensor faulty_inputs[] = {{faulty_arena, 4, faulty_input_shape, 1, EDGEKIT_UINT8, 0.0f, 0}};
static const edgekit_tensor faulty_outputs[] = {
    {faulty_arena + 32, 1, faulty_output_shape, 1, EDGEKIT_UINT8, 0.0f, 0}};
static const edgekit_operator faulty_operators[] = {{faulty_copy, faulty_arena + 16, 4, 4, 4},
                                                    {faulty_read, faulty_arena + 32, 1, 1, 1}};
static const edgekit_program faulty = {
    .hash = {0xCC}, .inputs = faulty_inputs, .outputs = faulty_outputs, .operators = faulty_operators,
    .run = faulty_run, .arena = faulty_arena, .arena_size = sizeof faulty_arena,
    .input_count = 1, .output_count = 1, .operator_count = 2};
#endif

/* For the fuzz test, which must not find the crash that is there on purpose. */
#ifdef TOY_WITHOUT_FAULTY
const edgekit_program *const edgekit_programs[] = {&affine, &wide};
const uint16_t edgekit_program_count = 2;
#else
const edgekit_program *const edgekit_programs[] = {&affine, &wide, &faulty};
const uint16_t edgekit_program_count = 3;
#endif

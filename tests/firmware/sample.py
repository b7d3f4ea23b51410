"""A compiled model made by hand: two small kernels in C in the place of TVM's object code."""

from __future__ import annotations

import copy
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from edgekit.artifacts import Allocation, CompiledModel, CompiledOperator, Quantization, TensorSpec
from edgekit.target import Target, load_target

__all__ = ["DRIVER", "KERNELS", "compile_object", "compiled_model", "document"]

KERNELS = r"""
#include <stdint.h>
#include <string.h>
void sample_double(const int8_t *in, int8_t *out) {
    for (int i = 0; i < 16; i++) out[i] = (int8_t)(2 * in[i]);
}
void sample_add(const int8_t *in, const int8_t *w, int8_t *out) {
    memcpy(out, in, 16);
    for (int i = 0; i < 16; i++) out[i] = (int8_t)(out[i] + w[i]);
}
float sample_scale(float a) { return a * 0.5f; }
"""

_HEADER = r"""#ifndef EDGEKIT_MODEL_H
#define EDGEKIT_MODEL_H
#include <stdint.h>
#define EDGEKIT_MODEL_ARENA_BYTES 48u
#define EDGEKIT_MODEL_INPUT_0_BYTES 16u
#define EDGEKIT_MODEL_OUTPUT_0_BYTES 16u
void *edgekit_model_input(uint32_t index);
const void *edgekit_model_output(uint32_t index);
int edgekit_model_run(void);
#endif
"""

DRIVER = r"""#include "edgekit_model.h"
#include "edgekit_program.h"

extern const int8_t edgekit_weights[];
void sample_double(const int8_t *in, int8_t *out);
void sample_add(const int8_t *in, const int8_t *w, int8_t *out);

__attribute__((section(".bss.edgekit_arena"), aligned(16))) static int8_t arena[48];

__attribute__((weak, noinline, noclone, used)) void edgekit_mark_start(void) { __asm__ volatile(""); }
__attribute__((weak, noinline, noclone, used)) void edgekit_mark_stop(void) { __asm__ volatile(""); }

static void step0(void) { sample_double(arena, arena + 16); }
static void step1(void) {
    sample_add(arena + 16, edgekit_weights, arena + 32);
}
static void run(void) {
    edgekit_mark_start();
    step0();
    step1();
    edgekit_mark_stop();
}

static const uint32_t shape[] = {1u, 16u};
static const edgekit_tensor inputs[] = {{arena, 16u, shape, 2u, EDGEKIT_INT8, 0.5f, 0}};
static const edgekit_tensor outputs[] = {{arena + 32, 16u, shape, 2u, EDGEKIT_INT8, 0.5f, 0}};
static const edgekit_operator operators[] = {
    {step0, arena + 16, 16u, 16u, 16u}, {step1, arena + 32, 16u, 16u, 16u}};

const edgekit_program edgekit_model_program = {
    .hash = {1u, 2u, 3u},
    .inputs = inputs,
    .outputs = outputs,
    .operators = operators,
    .run = run,
    .arena = (uint8_t *)arena,
    .arena_size = sizeof arena,
    .input_count = 1u,
    .output_count = 1u,
    .operator_count = 2u,
};

void *edgekit_model_input(uint32_t index) { return index == 0u ? arena : 0; }
const void *edgekit_model_output(uint32_t index) { return index == 0u ? arena + 32 : 0; }
int edgekit_model_run(void) {
    run();
    return 0;
}
"""

_WEIGHTS = """    .section .rodata.edgekit_weights, "a"
    .balign 16
    .globl edgekit_weights
edgekit_weights:
    .incbin "weights.bin"
"""


def document(name: str) -> dict[str, Any]:
    """The document of a shipped target, free to change."""
    return copy.deepcopy(load_target(name).document())


@cache
def compile_object(source: str, compiler: str, flags: tuple[str, ...]) -> bytes:
    """`source` as an object file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.c"
        path.write_text(source)
        subprocess.run(
            [
                compiler,
                *flags,
                "-O2",
                "-fPIC" if compiler == "gcc" else "-fno-pic",
                "-c",
                "kernels.c",
                "-o",
                "k.o",
            ],
            cwd=folder,
            check=True,
            timeout=60,
        )
        return (Path(folder) / "k.o").read_bytes()


def compiled_model(
    target: Target | str = "host",
    *,
    name: str = "sample",
    tensor: str = "add:0",
    kernels: str = KERNELS,
    driver: str = DRIVER,
    weights: bytes = bytes(range(16)),
    arena_bytes: int = 48,
) -> CompiledModel:
    """Input of 16 int8, doubled, plus 16 weights."""
    target = load_target(target) if isinstance(target, str) else target
    spec = TensorSpec("input", (1, 16), "int8", Quantization(0.5, 0))
    return CompiledModel(
        name=name,
        target=target.name,
        version="0.1.0",
        model_hash="010203" + 58 * "0",
        files={
            "kernels.o": compile_object(kernels, f"{target.toolchain.prefix}gcc", target.toolchain.flags),
            "weights.bin": weights,
            "weights.S": _WEIGHTS.encode(),
            "model.c": driver.encode(),
            "edgekit_model.h": _HEADER.encode(),
        },
        inputs=(spec,),
        outputs=(TensorSpec(tensor, (1, 16), "int8", Quantization(0.5, 0)),),
        operators=(
            CompiledOperator(0, "double:0", "mul", "portable.mul", 0, 16, 16, 0, 0, (1, 16)),
            CompiledOperator(1, tensor, "add", "portable.add", 0, 32, 16, 0, len(weights), (1, 16)),
        ),
        allocations=(
            Allocation("input", 0, 16, 0, 0, "input"),
            Allocation("double:0", 16, 16, 0, 1, "activation"),
            Allocation(tensor, 32, 16, 1, 1, "output"),
        ),
        arena_bytes=arena_bytes,
        weights_bytes=len(weights),
        macs=0,
        parameters=len(weights),
    )

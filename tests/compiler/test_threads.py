"""Operators split for threads answer the same however the parts are cut and ordered."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tvm import relax

from edgekit.artifacts import CompiledModel, Model
from edgekit.compiler import compile_model
from edgekit.target import load_target
from tests.compiler.qdq import Graph, qdq_model

AGENT = Path(__file__).resolve().parents[2] / "firmware_templates" / "agent"

# Parts of `chunk` elements, last part first: any order and cut must do.
CHUNKED = """
#include <stdint.h>
int32_t chunk;
int calls;
void edgekit_parallel_for(void (*task)(void *, int32_t, int32_t), void *context, int32_t extent)
{
    for (int32_t begin = (extent - 1) / chunk * chunk; begin >= 0; begin -= chunk) {
        int32_t end = begin + chunk < extent ? begin + chunk : extent;
        task(context, begin, end);
        calls++;
    }
}
"""


def network() -> Model:
    """A padded convolution, a depthwise one and a dense layer, each with enough work to be split."""
    rng = np.random.default_rng(3)

    def weights(graph: Graph, *shape: int) -> Any:
        return graph.weights(rng.integers(-127, 128, shape).astype(np.int8), 0.003)

    def body(graph: Graph, x: Any) -> Any:
        value = graph.requantized(x, 0.05, 4)
        value = graph.emit(relax.op.nn.conv2d(value, weights(graph, 24, 3, 3, 3), padding=1))
        value = graph.requantized(value, 0.05, -7)
        value = graph.emit(relax.op.nn.conv2d(value, weights(graph, 24, 1, 3, 3), padding=1, groups=24))
        value = graph.requantized(value, 0.05, 9)
        flat = graph.emit(relax.op.reshape(value, (1, 24 * 20 * 20)))
        return graph.requantized(graph.emit(relax.op.matmul(flat, weights(graph, 24 * 400, 8))), 1.0, 0)

    return qdq_model([(1, 3, 20, 20)], body)


def library(compiled: CompiledModel, directory: Path, extra: str | None) -> ctypes.CDLL:
    directory.mkdir()
    for name, data in compiled.files.items():
        (directory / name).write_bytes(data)
    sources = ["model.c", "weights.S", "kernels.o"]
    if extra is not None:
        (directory / "parallel.c").write_text(extra)
        sources.append("parallel.c")
    command = ["gcc", "-O1", "-shared", "-fPIC", f"-I{AGENT}", "-o", "model.so", *sources, "-lm"]
    subprocess.run(command, cwd=directory, check=True, timeout=120)
    loaded = ctypes.CDLL(str(directory / "model.so"))
    loaded.edgekit_model_input.restype = loaded.edgekit_model_output.restype = ctypes.c_void_p
    return loaded


def infer(loaded: ctypes.CDLL, compiled: CompiledModel, values: np.ndarray[Any, Any]) -> bytes:
    ctypes.memmove(loaded.edgekit_model_input(0), values.tobytes(), values.nbytes)
    loaded.edgekit_model_run()
    return ctypes.string_at(loaded.edgekit_model_output(0), compiled.outputs[0].size_bytes)


@pytest.fixture(scope="module")
def compiled() -> CompiledModel:
    return compile_model(network(), load_target("host"))


def test_any_cut_gives_the_same_answers(compiled: CompiledModel, tmp_path: Path) -> None:
    serial = library(compiled, tmp_path / "serial", None)
    parts = library(compiled, tmp_path / "parts", CHUNKED)
    rng = np.random.default_rng(4)
    for chunk in (1, 3, 7, 1000):
        values = rng.integers(-128, 128, compiled.inputs[0].shape).astype(np.int8)
        ctypes.c_int32.in_dll(parts, "chunk").value = chunk
        assert infer(parts, compiled, values) == infer(serial, compiled, values)
    # Copy and output of two padded convolutions, and the dense layer: 5 loop nests, each cut in at least one.
    assert ctypes.c_int.in_dll(parts, "calls").value > 5 * 4


def test_microcontrollers_call_their_kernels_directly() -> None:
    source = compile_model(network(), load_target("mps2-an386")).files["model.c"].decode()
    assert "edgekit_parallel_for" not in source

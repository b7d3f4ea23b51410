"""Compile a model for the host, load it into this process and run it: the whole path but the device agent."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.artifacts import (
    DEFAULT_IMPORT,
    CompiledModel,
    CompiledOperator,
    ImportOptions,
    TensorSpec,
)

__all__ = ["HostLibrary", "build_host_library", "compile_tflite"]

_AGENT = Path(__file__).resolve().parents[2] / "firmware_templates" / "agent"
_BUILD_TIMEOUT_SECONDS = 120

_PARTS = """
#include "edgekit_program.h"

/* Unequal parts, the last first: what runs on several threads may depend on no order. */
void edgekit_parallel_for(
    void (*task)(void *context, int32_t begin, int32_t end), void *context, int32_t extent)
{
    int32_t end = extent;
    while (end > 0) {
        int32_t begin = end - 1 - end / 3;
        task(context, begin, end);
        end = begin;
    }
}
"""


class _Program(ctypes.Structure):
    """`edgekit_program` of edgekit_program.h."""

    _fields_ = (
        ("hash", ctypes.c_uint8 * 32),
        ("inputs", ctypes.c_void_p),
        ("outputs", ctypes.c_void_p),
        ("operators", ctypes.c_void_p),
        ("run", ctypes.c_void_p),
        ("arena", ctypes.c_void_p),
        ("arena_size", ctypes.c_uint32),
        ("input_count", ctypes.c_uint16),
        ("output_count", ctypes.c_uint16),
        ("operator_count", ctypes.c_uint16),
    )


class _Operator(ctypes.Structure):
    """`edgekit_operator` of edgekit_program.h."""

    _fields_ = (
        ("run", ctypes.CFUNCTYPE(None)),
        ("output", ctypes.c_void_p),
        ("output_size", ctypes.c_uint32),
        ("run_size", ctypes.c_uint32),
        ("run_pitch", ctypes.c_uint32),
    )


class HostLibrary:
    """A compiled model as a shared library. The library stays loaded; each has a path of its own."""

    def __init__(self, path: Path, compiled: CompiledModel) -> None:
        self.compiled = compiled
        self._library = ctypes.CDLL(str(path), mode=ctypes.RTLD_LOCAL)
        self._input = self._library.edgekit_model_input
        self._output = self._library.edgekit_model_output
        for function in (self._input, self._output):
            function.argtypes, function.restype = (ctypes.c_uint32,), ctypes.c_void_p
        self._program = _Program.in_dll(self._library, "edgekit_model_program")

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Outputs of one inference."""
        self._load(inputs)
        assert self._library.edgekit_model_run() == 0
        return [self._read(index, spec) for index, spec in enumerate(self.compiled.outputs)]

    def run_operators(self, inputs: Sequence[NDArray[Any]]) -> list[tuple[CompiledOperator, bytes]]:
        """Each operator in order with the bytes of its output, read before the next one runs."""
        self._load(inputs)
        table = ctypes.cast(self._program.operators, ctypes.POINTER(_Operator))
        assert self._program.operator_count == len(self.compiled.operators)
        outputs = []
        for index, operator in enumerate(self.compiled.operators):
            table[index].run()
            entry = table[index]
            runs = range(0, entry.output_size // entry.run_size * entry.run_pitch, entry.run_pitch)
            held = b"".join(ctypes.string_at(entry.output + start, entry.run_size) for start in runs)
            outputs.append((operator, held))
        return outputs

    def _load(self, inputs: Sequence[NDArray[Any]]) -> None:
        """Fill the arena with rubbish, as nothing may be assumed of it, and write the inputs."""
        assert (self._program.input_count, self._program.output_count) == (
            len(self.compiled.inputs),
            len(self.compiled.outputs),
        )
        ctypes.memset(self._program.arena, 0xA5, self._program.arena_size)
        for index, (spec, values) in enumerate(zip(self.compiled.inputs, inputs, strict=True)):
            assert values.dtype == spec.dtype, f"input {index} is {values.dtype}, not {spec.dtype}"
            assert values.size == spec.elements
            ctypes.memmove(self._input(index), np.ascontiguousarray(values).tobytes(), spec.size_bytes)

    def _read(self, index: int, spec: TensorSpec) -> NDArray[Any]:
        content = ctypes.string_at(self._output(index), spec.size_bytes)
        return np.frombuffer(content, np.dtype(spec.dtype)).reshape(spec.shape)


def build_host_library(compiled: CompiledModel, directory: Path) -> HostLibrary:
    """Link a model compiled for the host into a shared library in `directory` (one a directory)."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    assert compiler is not None, "no C compiler"
    for name, content in compiled.files.items():
        (directory / name).write_bytes(content)
    (directory / "parts.c").write_text(_PARTS)
    sources = ["parts.c", *sorted(name for name in compiled.files if Path(name).suffix in (".c", ".S", ".o"))]
    library = directory / "libmodel.so"
    command = [
        compiler,
        "-std=gnu99",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fPIC",
        "-shared",
        "-Wl,-Bsymbolic",
    ]
    command += ["-I", str(_AGENT), "-I", ".", *sources, "-o", str(library), "-lm"]
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=_BUILD_TIMEOUT_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    return HostLibrary(library, compiled)


def compile_tflite(content: bytes, directory: Path, options: ImportOptions = DEFAULT_IMPORT) -> HostLibrary:
    """TFLite file → frontend → compiler → shared library."""
    from edgekit.compiler import compile_model
    from edgekit.frontend import load_model
    from edgekit.target import load_target

    path = directory / "model.tflite"
    path.write_bytes(content)
    return build_host_library(compile_model(load_model(path, options), load_target("host")), directory)

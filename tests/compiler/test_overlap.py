"""How far outputs may lie over inputs: tried out, kernel by kernel, in memory that both share.

Each kernel runs once apart and once with its output exactly as far below its input as it declares, and
answers the same. One byte nearer and it must not: the distance is exact.
"""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.artifacts import Quantization, TensorSpec
from edgekit.compiler import operators as op
from edgekit.compiler.codegen.objects import compile_object, lower_function, tvm_target
from edgekit.compiler.memory import plan_memory
from edgekit.compiler.program import Program, Step, Tensor
from edgekit.compiler.schedules import Kernel, Overlap, Request, portable

ROOM = 1 << 16
"""Bytes on each side of what is being tried; the largest tensor here has fewer."""

HALF = op.Rescale(1 << 30, 0)


@dataclass(frozen=True, slots=True)
class Case:
    """A step with its kernel; `symbol` is the function's."""

    name: str
    symbol: str
    program: Program
    kernel: Kernel
    temporaries: tuple[int, ...]


def window(
    kernel: tuple[int, int], stride: tuple[int, int] = (1, 1), padding: int | tuple[int, int, int, int] = 0
) -> op.Window:
    border = (padding,) * 4 if isinstance(padding, int) else padding
    return op.Window(kernel, stride, border)


def conv(rng: np.random.Generator, place: op.Window, inputs: int, outputs: int) -> op.Conv2D:
    weights = rng.integers(-127, 128, (outputs, *place.kernel, inputs)).astype(np.int8)
    return op.Conv2D(place, weights, *requantization(rng, outputs))


def depthwise(rng: np.random.Generator, place: op.Window, channels: int) -> op.DepthwiseConv2D:
    weights = rng.integers(-127, 128, (*place.kernel, channels)).astype(np.int8)
    return op.DepthwiseConv2D(place, weights, *requantization(rng, channels))


def requantization(
    rng: np.random.Generator, channels: int
) -> tuple[NDArray[np.int32], int, int, NDArray[np.int32], NDArray[np.int32], op.Clamp]:
    return (
        rng.integers(-500, 500, channels).astype(np.int32),
        -3,
        5,
        np.full(channels, 1 << 30, np.int32),
        np.full(channels, -7, np.int32),
        op.FullRange,
    )


def steps(rng: np.random.Generator) -> Iterator[tuple[op.Operator, list[tuple[int, ...]], tuple[int, ...]]]:
    """Operators with the shapes of their inputs and output."""
    yield conv(rng, window((1, 1)), 8, 8), [(1, 6, 5, 8)], (1, 6, 5, 8)
    yield conv(rng, window((1, 1)), 4, 12), [(1, 5, 5, 4)], (1, 5, 5, 12)
    yield conv(rng, window((1, 1), (2, 2)), 8, 8), [(1, 7, 7, 8)], (1, 4, 4, 8)
    yield conv(rng, window((3, 3), padding=1), 6, 6), [(1, 9, 7, 6)], (1, 9, 7, 6)
    yield conv(rng, window((3, 3), padding=1), 2, 7), [(2, 6, 5, 2)], (2, 6, 5, 7)
    yield conv(rng, window((3, 3), (2, 2), (0, 0, 1, 1)), 3, 8), [(1, 12, 12, 3)], (1, 6, 6, 8)
    yield conv(rng, window((5, 3), (2, 1), (2, 1, 2, 1)), 4, 4), [(1, 11, 6, 4)], (1, 6, 6, 4)
    yield conv(rng, window((3, 3)), 4, 4), [(1, 8, 8, 4)], (1, 6, 6, 4)
    yield conv(rng, window((1, 5), padding=(0, 2, 0, 2)), 3, 3), [(1, 1, 20, 3)], (1, 1, 20, 3)
    yield conv(rng, window((2, 2), (3, 3), (1, 1, 1, 1)), 4, 9), [(1, 7, 7, 4)], (1, 3, 3, 9)
    yield depthwise(rng, window((3, 3), padding=1), 8), [(1, 9, 6, 8)], (1, 9, 6, 8)
    yield depthwise(rng, window((3, 3), (2, 2), 1), 8), [(1, 9, 9, 8)], (1, 5, 5, 8)
    yield depthwise(rng, window((3, 3), padding=1), 12), [(1, 6, 6, 6)], (1, 6, 6, 12)
    yield depthwise(rng, window((3, 3)), 8), [(1, 7, 7, 8)], (1, 5, 5, 8)
    yield op.AveragePool(window((2, 2), (2, 2)), 0, False, op.FullRange), [(1, 8, 8, 5)], (1, 4, 4, 5)
    yield op.AveragePool(window((3, 3), padding=1), 0, False, op.FullRange), [(1, 6, 6, 5)], (1, 6, 6, 5)
    yield op.MaxPool(window((3, 3), (2, 2), (0, 0, 1, 1)), op.FullRange), [(1, 8, 8, 5)], (1, 4, 4, 5)
    yield op.MaxPool(window((2, 2)), op.FullRange), [(2, 6, 6, 3)], (2, 5, 5, 3)
    yield op.Mean((1, 2), 3, -3, op.Rescale(1 << 30, -3), op.FullRange), [(2, 5, 4, 6)], (2, 1, 1, 6)
    yield op.Pad((0, 1, 2, 0), (0, 2, 1, 0), 7), [(1, 5, 6, 3)], (1, 8, 9, 3)
    yield op.Slice((0, 1, 0, 2), (1, 2, 1, 1)), [(1, 7, 5, 6)], (1, 3, 5, 4)
    yield op.Slice((0, 6, 0, 0), (1, -1, 1, 1)), [(1, 7, 5, 3)], (1, 7, 5, 3)
    yield op.Transpose((2, 0, 1, 3)), [(5, 1, 4, 5)], (4, 5, 1, 5)
    yield op.Transpose((0, 3, 1, 2)), [(1, 4, 5, 6)], (1, 6, 4, 5)
    yield op.Requantize(1, -2, HALF, op.FullRange), [(1, 77)], (1, 77)
    yield add(), [(1, 5, 5, 4)] * 2, (1, 5, 5, 4)
    yield add(), [(1, 5, 5, 4), (1, 1, 1, 4)], (1, 5, 5, 4)
    yield concat(1, 2), [(1, 2, 5, 4), (1, 3, 5, 4)], (1, 5, 5, 4)
    yield concat(3, 3), [(1, 3, 3, 2), (1, 3, 3, 5), (1, 3, 3, 1)], (1, 3, 3, 8)


def add() -> op.Add:
    return op.Add((1, -1), (HALF, HALF), 0, op.Rescale(1 << 30, -19), op.FullRange)


def concat(axis: int, count: int) -> op.Concat:
    return op.Concat(axis, (0,) * count, (None,) * count, 0, op.FullRange)


def case_of(
    number: int, operator: op.Operator, inputs: list[tuple[int, ...]], output: tuple[int, ...]
) -> Case:
    shapes = [*inputs, output]
    tensors = tuple(Tensor(i, f"t{i}", shape, "int8", None, i) for i, shape in enumerate(shapes))
    step = Step(operator, tuple(range(len(inputs))), len(inputs), None)
    read = tuple(
        (TensorSpec(each.name, each.shape, "int8", Quantization(0.1, 0)), each.id) for each in tensors
    )
    program = Program(tensors, (step,), read[:-1], read[-1:])
    kernel = portable.schedule(program, step, Request())
    sizes = lower_function(kernel.function).temporaries
    return Case(f"{number}-{operator.NAME}", f"k{number}", program, kernel, sizes)


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    rng = np.random.default_rng(5)
    return [case_of(number, *each) for number, each in enumerate(steps(rng))]


@pytest.fixture(scope="module")
def library(cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder: Path = tmp_path_factory.mktemp("overlap")
    functions = {
        case.symbol: lower_function(case.kernel.function).function.with_attr("tirx.noalias", False)
        for case in cases
    }
    (folder / "kernels.o").write_bytes(compile_object(functions, tvm_target(None, None, ())))
    command = ["gcc", "-shared", "-o", "lib.so", "kernels.o", "-lm"]
    subprocess.run(command, cwd=folder, check=True, timeout=60)
    return ctypes.CDLL(str(folder / "lib.so"))


def run(library: ctypes.CDLL, case: Case, inputs: list[NDArray[np.int8]], shared: Overlap | None) -> bytes:
    """The output, when it lies apart from the inputs or `shared.distance` below one of them."""
    memory = np.full(8 * ROOM, 0x5A, np.int8)
    output = case.program.tensors[case.program.steps[0].output]
    output_at = ROOM
    places = [(2 + number) * ROOM for number in range(len(inputs))]
    if shared is not None:
        places[shared.operand] = output_at + shared.distance
    for place, values in zip(places, inputs, strict=True):
        memory[place : place + values.size] = values
    base = memory.ctypes.data
    constants = [np.ascontiguousarray(each) for each in case.kernel.constants]
    workspaces = [np.full(size, 0x5A, np.int8) for size in case.temporaries]
    library[case.symbol](
        *(ctypes.c_void_p(base + place) for place in places),
        *(ctypes.c_void_p(each.ctypes.data) for each in constants),
        ctypes.c_void_p(base + output_at),
        *(ctypes.c_void_p(each.ctypes.data) for each in workspaces),
    )
    return memory[output_at : output_at + output.size_bytes].tobytes()


def test_outputs_may_lie_over_inputs_as_declared_and_no_nearer(
    cases: list[Case], library: ctypes.CDLL
) -> None:
    rng = np.random.default_rng(6)
    for case in cases:
        sources = [case.program.tensors[tensor] for tensor in case.program.steps[0].inputs]
        assert len(case.kernel.overlaps) == len(sources), case.name
        trials = [
            [rng.integers(-128, 128, each.size_bytes).astype(np.int8) for each in sources] for _ in range(4)
        ]
        expected = [run(library, case, inputs, None) for inputs in trials]
        for overlap in case.kernel.overlaps:
            size = sources[overlap.operand].size_bytes
            for farther in (0, 1, 13):
                shared = Overlap(overlap.operand, overlap.distance + farther)
                answers = [run(library, case, inputs, shared) for inputs in trials]
                assert answers == expected, (case.name, shared)
            if overlap.distance > -size:
                nearer = Overlap(overlap.operand, overlap.distance - 1)
                answers = [run(library, case, inputs, nearer) for inputs in trials]
                assert answers != expected, (case.name, nearer)


def test_convolutions_work_in_place_with_a_few_rows(cases: list[Case]) -> None:
    """What a padded convolution of stride 1 needs beside its input, as many channels in as out."""
    for case in cases:
        operator = case.program.steps[0].operator
        source, output = case.program.tensors[0], case.program.tensors[-1]
        if not isinstance(operator, op.Conv2D | op.DepthwiseConv2D) or source.shape != output.shape:
            continue
        if not any(operator.window.padding):
            continue
        assert case.kernel.overlaps[0].distance <= 0
        rows = operator.window.kernel[0] * (source.shape[2] + 2) * source.shape[3]
        assert sum(case.temporaries) <= max(rows, 0)
        plan = plan_memory(case.program, [case.temporaries], [case.kernel.overlaps])
        assert plan.arena_bytes <= source.size_bytes + rows + 32

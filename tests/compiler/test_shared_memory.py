"""Concatenations and slices that share memory answer as copies do, and take less of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edgekit.artifacts import Quantization, TensorSpec
from edgekit.compiler import operators as op
from edgekit.compiler.compile import assemble, compile_program
from edgekit.compiler.memory import share_memory
from edgekit.compiler.program import Program, Step, Tensor
from edgekit.target import load_target
from tests.reference.host_library import build_host_library, compile_tflite
from tests.reference.litert import run_reference
from tests.reference.tflite_builder import Tensor as TfliteTensor, TfliteBuilder

SCALE = Quantization(0.1, 0)


def program_of(shapes: Sequence[tuple[int, ...]], steps: Sequence[Step], outputs: Sequence[int]) -> Program:
    """Tensor 0 is the input."""
    tensors = tuple(Tensor(i, f"t{i}", shape, "int8", SCALE, i) for i, shape in enumerate(shapes))
    return Program(
        tensors,
        tuple(steps),
        ((TensorSpec("x", shapes[0], "int8", SCALE), 0),),
        tuple((TensorSpec(f"y{i}", shapes[i], "int8", SCALE), i) for i in outputs),
    )


def clamped(low: int, source: int, output: int) -> Step:
    return Step(op.Requantize(0, 0, None, op.Clamp(low, 127)), (source,), output, None)


def joined(axis: int, sources: tuple[int, ...], output: int) -> Step:
    count = len(sources)
    return Step(op.Concat(axis, (0,) * count, (None,) * count, 0, op.FullRange), sources, output, None)


def sliced(begin: tuple[int, ...], source: int, output: int) -> Step:
    return Step(op.Slice(begin, (1,) * len(begin)), (source,), output, None)


def test_a_network_of_branches_answers_as_the_reference_does(tmp_path: Path) -> None:
    """Concatenations along H: of branches, of one of them again and twice, of concatenations."""
    rng = np.random.default_rng(8)
    builder = TfliteBuilder()
    x = builder.input((1, 8, 4, 8), 0.05, -3)

    def branch() -> TfliteTensor:
        weights = rng.integers(-127, 128, (8, 3, 3, 8)).astype(np.int8)
        bias = rng.integers(-500, 500, 8).astype(np.int32)
        return builder.conv2d(x, weights, bias, [0.004] * 8, 0.05, -3)

    one, two = branch(), branch()
    first = builder.concatenation([one, two], 1, 0.05, -3)
    twice = builder.concatenation([first, one, one], 1, 0.05, -3)
    scaled = builder.relu(twice, 0.07, 9)
    both = builder.concatenation([scaled, builder.relu(first, 0.07, 9)], 1, 0.07, 9)
    pooled = builder.max_pool(both, (2, 2), stride=(2, 2))
    builder.output(pooled, first)
    content = builder.build()
    library = compile_tflite(content, tmp_path)
    assert not any(operator.op == "concat" for operator in library.compiled.operators)
    for _ in range(3):
        values = rng.integers(-128, 128, (1, 8, 4, 8)).astype(np.int8)
        for mine, reference in zip(library.run([values]), run_reference(content, [values]), strict=True):
            np.testing.assert_array_equal(mine, reference)


def test_slices_along_the_outermost_axis_are_views(tmp_path: Path) -> None:
    shapes = [(1, 6, 16), (1, 2, 16), (1, 4, 16), (1, 2, 16), (1, 4, 16), (1, 6, 16), (1, 6, 3)]
    steps = [
        sliced((0, 0, 0), 0, 1),
        sliced((0, 2, 0), 0, 2),
        clamped(-5, 1, 3),
        clamped(-100, 2, 4),
        joined(1, (4, 3), 5),
        sliced((0, 0, 1), 5, 6),
    ]
    program = program_of(shapes, steps, [5, 6])
    shared = share_memory(program)
    assert [step.operator.NAME for step in shared.steps] == ["requantize", "requantize", "slice"]
    compiled = compile_program(program, load_target("host"), name="views")
    x = np.random.default_rng(2).integers(-128, 128, shapes[0]).astype(np.int8)
    y5, y6 = build_host_library(compiled, tmp_path).run([x])
    expected = np.concatenate([np.maximum(x[:, 2:], -100), np.maximum(x[:, :2], -5)], axis=1)
    np.testing.assert_array_equal(y5, expected)
    np.testing.assert_array_equal(y6, expected[:, :, 1:4])


@pytest.mark.parametrize("axis", [1, 2])
def test_branches_are_written_where_they_are_joined(axis: int) -> None:
    """Along the outermost axis each has its place only when it is written, along another all have at once."""
    half, whole = (1, 16, 16), (1, 32, 16) if axis == 1 else (1, 16, 32)
    steps = [clamped(0, 0, 1), clamped(1, 0, 2), joined(axis, (1, 2), 3), clamped(2, 3, 4)]
    program = program_of([half, half, half, whole, whole], steps, [4])
    plan = assemble(program, ("portable",), threads=False, name="join").plan
    assert plan.arena_bytes == (512 if axis == 1 else 768)


def padded(before: tuple[int, ...], after: tuple[int, ...], source: int, output: int) -> Step:
    return Step(op.Pad(before, after, 9), (source,), output, None)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (0, 3), (1, 0)])
def test_what_is_padded_outermost_is_computed_inside(tmp_path: Path, before: int, after: int) -> None:
    """Only the borders are filled, and nothing has a second place; the inside is read as before."""
    inner, outer = (1, 4, 2, 16), (1, 4 + before + after, 2, 16)
    steps = [
        clamped(-20, 0, 1),
        padded((0, before, 0, 0), (0, after, 0, 0), 1, 2),
        clamped(-100, 2, 3),
        clamped(5, 1, 4),
    ]
    program = program_of([inner, inner, outer, outer, inner], steps, [2, 3, 4])
    compiled = compile_program(program, load_target("host"), name="pads")
    names = [operator.op for operator in compiled.operators]
    assert sorted(names) == sorted(["requantize"] * 3 + ["tile"] * ((before > 0) + (after > 0)))
    x = np.random.default_rng(2).integers(-128, 128, inner).astype(np.int8)
    whole, above, inside = build_host_library(compiled, tmp_path).run([x])
    expected = np.pad(np.maximum(x, -20), [(0, 0), (before, after), (0, 0), (0, 0)], constant_values=9)
    np.testing.assert_array_equal(whole, expected)
    np.testing.assert_array_equal(above, np.maximum(expected, -100))
    np.testing.assert_array_equal(inside, np.maximum(x, 5))
    chain = program_of([inner, inner, outer, outer], steps[:3], [3])
    assert assemble(chain, ("portable",), threads=False, name="pad").plan.arena_bytes == math.prod(outer)


@pytest.mark.parametrize("schedule", ["armv7em", "portable"])
def test_what_moves_within_rows_moves_inside_one_place(schedule: str) -> None:
    """Padding, slices and joins along inner axes lie over what they read, as far as rows allow."""

    def arena(step: Step, *shapes: tuple[int, ...]) -> int:
        before = [clamped(number, 0, number + 1) for number in range(len(step.inputs))]
        last = len(shapes) - 1
        program = program_of([*shapes, shapes[-1]], [*before, step, clamped(9, last, last + 1)], [last + 1])
        return assemble(program, (schedule, "portable"), threads=False, name="rows").plan.arena_bytes

    rows, wide, narrow = (1, 16, 16), (1, 16, 18), (1, 16, 14)
    assert arena(padded((0, 0, 1), (0, 0, 1), 1, 2), rows, rows, wide) == math.prod(wide)
    assert arena(sliced((0, 0, 1), 1, 2), rows, rows, narrow) == math.prod(rows)
    assert arena(joined(2, (1, 2), 3), rows, rows, rows, (1, 16, 32)) <= 3 * math.prod(rows)


def test_what_is_padded_within_rows_or_not_aligned_stays_a_pad() -> None:
    shapes = [(1, 4, 5), (1, 4, 5), (1, 5, 5), (1, 4, 6)]
    steps = [
        clamped(0, 0, 1),
        padded((0, 1, 0), (0, 0, 0), 1, 2),
        padded((0, 0, 0), (0, 0, 1), 1, 3),
    ]
    program = share_memory(program_of(shapes, steps, [2, 3]))
    assert [step.operator.NAME for step in program.steps] == ["requantize", "pad", "pad"]


def test_what_is_not_aligned_stays_a_copy() -> None:
    shapes = [(1, 6, 5), (1, 2, 5), (1, 4, 5), (1, 6, 5)]
    steps = [clamped(0, 0, 3), sliced((0, 1, 0), 3, 1), sliced((0, 2, 0), 3, 2)]
    program = program_of(shapes, steps, [1, 2])
    assert [step.operator.NAME for step in share_memory(program).steps] == ["requantize", "slice", "slice"]

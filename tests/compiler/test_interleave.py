"""Concatenations and slices of channels without copies: the same answers, and never more memory at a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings, strategies as st
from numpy.typing import NDArray

from edgekit.artifacts import Quantization, TensorSpec
from edgekit.compiler import operators as op
from edgekit.compiler.compile import assemble, compile_program
from edgekit.compiler.memory import check_plan, interleave, order_steps, plan_memory
from edgekit.compiler.memory.footprint import step_footprints
from edgekit.compiler.memory.lifetimes import storages_of
from edgekit.compiler.program import Program, Runs, Step, Tensor
from edgekit.compiler.schedules import nominal_overlaps
from edgekit.target import load_target
from tests.campaign import campaign_count
from tests.reference.host_library import build_host_library, compile_tflite
from tests.reference.litert import run_reference
from tests.reference.networks import branching_tflite

Int8 = NDArray[np.int8]
SCALE = Quantization(0.1, 0)
ADD = op.Add((0, 0), (op.Rescale(1 << 30, 0),) * 2, 0, op.Rescale(1 << 30, -20), op.FullRange)


def program_of(shapes: Sequence[tuple[int, ...]], steps: Sequence[Step], outputs: Sequence[int]) -> Program:
    """Tensor 0 is the input."""
    return Program(
        tuple(Tensor(i, f"t{i}", shape, "int8", SCALE, i) for i, shape in enumerate(shapes)),
        tuple(steps),
        ((TensorSpec("x", shapes[0], "int8", SCALE), 0),),
        tuple((TensorSpec(f"y{i}", shapes[i], "int8", SCALE), i) for i in outputs),
    )


def at_least(low: int, source: int, output: int) -> Step:
    return Step(op.Requantize(0, 0, None, op.Clamp(low, 127)), (source,), output, None)


def joined(sources: tuple[int, ...], output: int) -> Step:
    count = len(sources)
    return Step(op.Concat(2, (0,) * count, (None,) * count, 0, op.FullRange), sources, output, None)


def sliced(begin: int, source: int, output: int) -> Step:
    return Step(op.Slice((0, 0, begin), (1, 1, 1)), (source,), output, None)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Clamps, sums, joins and slices of a few pixels' channels, in any order."""
    rows = draw(st.integers(2, 4))
    shapes = [(1, rows, draw(st.integers(1, 6)))]
    steps: list[Step] = []
    for _ in range(draw(st.integers(3, 12))):
        output = len(shapes)
        kind = draw(st.sampled_from(["clamp", "clamp", "join", "join", "slice", "add"]))
        source = draw(st.integers(max(0, output - 5), output - 1))
        width = shapes[source][2]
        if kind == "join":
            others = draw(st.lists(st.integers(0, output - 1), min_size=1, max_size=2))
            steps.append(joined((source, *others), output))
            width += sum(shapes[other][2] for other in others)
        elif kind == "slice":
            begin = draw(st.integers(0, width - 1))
            steps.append(sliced(begin, source, output))
            width = draw(st.integers(1, width - begin))
        elif kind == "add":
            same = [index for index, shape in enumerate(shapes) if shape[2] == width]
            steps.append(Step(ADD, (source, draw(st.sampled_from(same))), output, None))
        else:
            steps.append(at_least(draw(st.integers(-128, 127)), source, output))
        shapes.append((1, rows, width))
    read = {index for step in steps for index in step.inputs}
    ends = [index for index in range(1, len(shapes)) if index not in read]
    return program_of(shapes, steps, [*ends, *draw(st.lists(st.integers(1, len(shapes) - 1), max_size=1))])


def computed(step: Step, inputs: Sequence[Int8], shape: tuple[int, ...]) -> Int8:
    """What a step of these tests means."""
    operator = step.operator
    if isinstance(operator, op.Requantize):
        return np.clip(inputs[0], operator.clamp.low, operator.clamp.high)
    if isinstance(operator, op.Concat):
        return np.concatenate(inputs, axis=operator.axis)
    if isinstance(operator, op.Slice):
        return inputs[0][tuple(slice(b, b + size) for b, size in zip(operator.begin, shape, strict=True))]
    assert operator is ADD
    return inputs[0] ^ inputs[1]  # Anything of two.


def answers(program: Program, x: Int8) -> list[Int8]:
    values = {program.inputs[0][1]: x}
    for step in program.steps:
        inputs = [values[index] for index in step.inputs]
        values[step.output] = computed(step, inputs, program.tensors[step.output].shape)
    return [values[index] for _, index in program.outputs]


def answers_in_arena(program: Program, x: Int8) -> list[Int8]:
    """The same from one array of bytes, each tensor where the plan and its runs say."""
    overlaps = [nominal_overlaps(program, step) for step in program.steps]
    plan = plan_memory(program, [()] * len(program.steps), overlaps)
    check_plan(program, plan, [()] * len(program.steps), overlaps)
    arena = np.zeros(plan.arena_bytes, np.int8)

    def places(index: int) -> NDArray[np.intp]:
        tensor = program.tensors[index]
        size = tensor.size_bytes
        runs = tensor.runs or Runs(size, size)
        start = plan.offset(program, index)
        lies = [
            start + run * runs.pitch + byte for run in range(size // runs.size) for byte in range(runs.size)
        ]
        return np.array(lies).reshape(tensor.shape)

    arena[places(program.inputs[0][1])] = x
    for step in program.steps:
        inputs = [arena[places(index)] for index in step.inputs]
        arena[places(step.output)] = computed(step, inputs, program.tensors[step.output].shape)
    return [arena[places(index)] for _, index in program.outputs]


def peak(program: Program) -> int:
    overlaps = [nominal_overlaps(program, step) for step in program.steps]
    storages = storages_of(program, [()] * len(program.steps))
    return max(step_footprints(program, storages, overlaps, over_one=True))


@settings(
    deadline=None,
    max_examples=campaign_count(1500, 150),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
@given(program=programs(), seed=st.integers(0, 2**32 - 1))
def test_shared_programs_answer_as_copies_do(program: Program, seed: int) -> None:
    program = order_steps(program, [nominal_overlaps(program, step) for step in program.steps])
    shared = interleave(program, nominal_overlaps)
    x = np.random.default_rng(seed).integers(-128, 128, program.inputs[0][0].shape).astype(np.int8)
    for copied, mine in zip(answers(program, x), answers_in_arena(shared, x), strict=True):
        np.testing.assert_array_equal(mine, copied)
    assert peak(shared) <= peak(program)


def test_a_join_and_its_slices_need_no_copy() -> None:
    wide, half = (1, 8, 16), (1, 8, 8)
    steps = [at_least(0, 0, 1), at_least(5, 0, 2), joined((1, 2), 3), sliced(8, 3, 4), at_least(9, 4, 5)]
    program = program_of([half, half, half, wide, half, half], steps, [5])
    shared = interleave(program, nominal_overlaps)
    assert [step.operator.NAME for step in shared.steps] == ["requantize"] * 3
    assert [shared.tensors[index].runs for index in (1, 2, 3, 4)] == [
        Runs(8, 16),
        Runs(8, 16),
        None,
        Runs(8, 16),
    ]
    assert [shared.tensors[index].offset for index in (1, 2, 4)] == [0, 8, 8]


def test_what_is_kept_long_is_copied_rather_than_holding_the_whole() -> None:
    """A skip connection: its place in the join would be taken, and the other's with it, all the while."""
    small, large = (1, 16, 16), (1, 16, 64)
    steps = [
        at_least(0, 0, 1),  # the skip
        at_least(1, 0, 2),
        Step(ADD, (2, 2), 3, None),
        at_least(2, 3, 4),
        joined((1, 4), 5),
    ]
    shapes = [small, small, small, small, large, (1, 16, 80)]
    steps[3] = Step(op.Concat(2, (0,) * 4, (None,) * 4, 0, op.FullRange), (3, 3, 3, 3), 4, None)
    program = program_of(shapes, steps, [5])
    shared = interleave(program, nominal_overlaps)
    assert peak(shared) <= peak(program)


def test_the_checker_sees_a_part_that_is_read_before_it_is_written() -> None:
    wide, half = (1, 8, 16), (1, 8, 8)
    steps = [at_least(0, 0, 1), at_least(5, 0, 2), joined((1, 2), 3), at_least(9, 3, 4)]
    program = program_of([half, half, half, wide, wide], steps, [4])
    shared = interleave(program, nominal_overlaps)
    first, second, last = shared.steps
    late = replace(shared, steps=(first, last, second))
    nothing: list[tuple[int, ...]] = [()] * 3
    plan = plan_memory(late, nothing, nothing)
    with pytest.raises(ValueError, match="finds tensor 3 written over"):
        check_plan(late, plan, nothing, nothing)
    over = replace(shared, tensors=tuple(replace(t, offset=0) if t.id == 2 else t for t in shared.tensors))
    with pytest.raises(ValueError, match="written over"):
        check_plan(over, plan_memory(over, nothing, nothing), nothing, nothing)


def test_a_network_of_branches_answers_as_the_reference_does(tmp_path: Path) -> None:
    content = branching_tflite()
    library = compile_tflite(content, tmp_path)
    # The second join holds the first one's bytes apart, which takes more than copying them.
    assert sum(operator.op == "concat" for operator in library.compiled.operators) == 1
    values = np.random.default_rng(4).integers(-128, 128, (1, 7, 5, 6)).astype(np.int8)
    for mine, reference in zip(library.run([values]), run_reference(content, [values]), strict=True):
        np.testing.assert_array_equal(mine, reference)


def test_checksums_cover_the_runs_alone(tmp_path: Path) -> None:
    """What lies between an operator's runs is not of its output."""
    wide, half = (1, 8, 16), (1, 8, 8)
    steps = [at_least(0, 0, 1), at_least(5, 0, 2), joined((1, 2), 3), at_least(9, 3, 4)]
    program = program_of([half, half, half, wide, wide], steps, [4])
    assert len(assemble(program, ("portable",), threads=False, name="runs").program.steps) == 3
    library = build_host_library(compile_program(program, load_target("host"), name="runs"), tmp_path)
    x = np.random.default_rng(2).integers(-128, 128, half).astype(np.int8)
    (_, one), (_, two), (_, last) = library.run_operators([x])
    assert one == np.maximum(x, 0).tobytes()
    assert two == np.maximum(x, 5).tobytes()
    assert last == np.maximum(np.concatenate([np.maximum(x, 0), np.maximum(x, 5)], axis=2), 9).tobytes()

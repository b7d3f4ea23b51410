"""The arena plan: what lives at the same time never overlaps, and the arena is as small as it can be."""

from __future__ import annotations

from hypothesis import given, settings, strategies as st

from edgekit.artifacts import Quantization, TensorSpec
from edgekit.compiler import operators as op
from edgekit.compiler.plan import in_place_steps, plan_memory
from edgekit.compiler.program import Program, Step, Tensor
from tests.campaign import campaign_count

SCALE = Quantization(0.1, 0)
RELU = op.Requantize(0, 0, None, op.Clamp(0, 127))
ADD = op.Add((0, 0), (op.Rescale(1 << 30, 0),) * 2, 0, op.Rescale(1 << 30, -20), op.FullRange)


@st.composite
def programs(draw: st.DrawFn) -> tuple[Program, list[list[int]]]:
    """A random graph of one- and two-input steps over tensors of random sizes, and random workspaces."""
    tensors: list[Tensor] = []

    def tensor(size: int) -> int:
        index = len(tensors)
        tensors.append(Tensor(index, f"t{index}", (size,), "int8", SCALE, index))
        return index

    inputs = [tensor(draw(st.integers(1, 500))) for _ in range(draw(st.integers(1, 3)))]
    steps: list[Step] = []
    workspaces: list[list[int]] = []
    for _ in range(draw(st.integers(1, 12))):
        sources = draw(st.lists(st.sampled_from(range(len(tensors))), min_size=1, max_size=2))
        same_size = draw(st.booleans())
        size = tensors[sources[0]].shape[0] if same_size else draw(st.integers(1, 500))
        operator = RELU if len(sources) == 1 else ADD
        steps.append(Step(operator, tuple(sources), tensor(size), None))
        workspaces.append(draw(st.lists(st.integers(1, 300), max_size=2)))
    outputs = draw(
        st.lists(st.sampled_from([step.output for step in steps]), min_size=1, max_size=2, unique=True)
    )
    program = Program(
        tuple(tensors),
        tuple(steps),
        tuple((TensorSpec(f"x{i}", tensors[i].shape, "int8", SCALE), i) for i in inputs),
        tuple((TensorSpec(f"y{i}", tensors[i].shape, "int8", SCALE), i) for i in outputs),
    )
    return program, workspaces


@given(programs())
@settings(max_examples=campaign_count(2000, 200))
def test_a_run_on_the_plan_reads_what_was_written(case: tuple[Program, list[list[int]]]) -> None:
    """Play the program on a byte arena: each step marks its output's bytes; later readers must find them."""
    program, workspaces = case
    plan = plan_memory(program, workspaces)
    arena = [-1] * plan.arena_bytes

    def region(tensor: int) -> range:
        offset = plan.storage_offsets[program.tensors[tensor].storage]
        assert offset % 16 == 0
        return range(offset, offset + program.tensors[tensor].size_bytes)

    for _, tensor in program.inputs:
        for byte in region(tensor):
            arena[byte] = tensor
    for position, step in enumerate(program.steps):
        for source in step.inputs:
            assert all(arena[byte] == source for byte in region(source))
        taken: set[int] = set()
        for index, size in enumerate(workspaces[position]):
            offset = plan.workspace_offsets[position, index]
            place = set(range(offset, offset + size))
            assert not place & taken
            assert not any(place & set(region(source)) for source in (*step.inputs, step.output))
            taken |= place
            for byte in place:
                arena[byte] = -2
        for byte in region(step.output):
            arena[byte] = step.output
    for _, tensor in program.outputs:
        assert all(arena[byte] == tensor for byte in region(tensor))


def chain(sizes: list[int], operator: op.Operator) -> Program:
    tensors = tuple(Tensor(i, f"t{i}", (size,), "int8", SCALE, i) for i, size in enumerate(sizes))
    steps = tuple(Step(operator, (i,), i + 1, None) for i in range(len(sizes) - 1))
    return Program(
        tensors,
        steps,
        ((TensorSpec("x", tensors[0].shape, "int8", SCALE), 0),),
        ((TensorSpec("y", tensors[-1].shape, "int8", SCALE), len(sizes) - 1),),
    )


def test_a_chain_needs_no_more_than_its_largest_pair() -> None:
    program = chain([160, 320, 480, 160, 320], op.MaxPool(op.Window((1, 1)), op.FullRange))
    assert plan_memory(program, [[]] * 4).arena_bytes == 320 + 480


def test_elementwise_operators_work_in_place_but_never_over_an_input_of_the_program() -> None:
    program = chain([160, 160, 160], RELU)
    assert in_place_steps(program) == {1}
    assert plan_memory(program, [[]] * 2).arena_bytes == 320

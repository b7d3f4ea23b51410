"""The arena plan: what lives at the same time never overlaps, and the arena is as small as it can be."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given, settings, strategies as st

from edgekit.artifacts import Quantization, TensorSpec
from edgekit.compiler import operators as op
from edgekit.compiler.memory import check_plan, order_steps, plan_memory
from edgekit.compiler.memory.footprint import step_footprints
from edgekit.compiler.memory.lifetimes import forbidden, storages_of
from edgekit.compiler.memory.place import aligned, place
from edgekit.compiler.program import Program, Step, Tensor
from edgekit.compiler.schedules import Overlap
from tests.campaign import campaign_count

SCALE = Quantization(0.1, 0)
RELU = op.Requantize(0, 0, None, op.Clamp(0, 127))
ADD = op.Add((0, 0), (op.Rescale(1 << 30, 0),) * 2, 0, op.Rescale(1 << 30, -20), op.FullRange)

Overlaps = list[tuple[Overlap, ...]]


def program_of(
    tensors: list[Tensor], steps: list[tuple[tuple[int, ...], int]], inputs: list[int], outputs: list[int]
) -> Program:
    return Program(
        tuple(tensors),
        tuple(Step(RELU if len(sources) == 1 else ADD, sources, output, None) for sources, output in steps),
        tuple((TensorSpec(f"x{i}", tensors[i].shape, "int8", SCALE), i) for i in inputs),
        tuple((TensorSpec(f"y{i}", tensors[i].shape, "int8", SCALE), i) for i in outputs),
    )


@st.composite
def programs(draw: st.DrawFn) -> tuple[Program, list[list[int]], Overlaps]:
    """A random graph over tensors of random sizes, with views of parts, workspaces and overlaps."""
    tensors: list[Tensor] = []

    def tensor(size: int, storage: int | None = None, offset: int = 0) -> int:
        index = len(tensors)
        where = index if storage is None else storage
        tensors.append(Tensor(index, f"t{index}", (size,), "int8", SCALE, where, offset=offset))
        return index

    inputs = [tensor(draw(st.integers(1, 500))) for _ in range(draw(st.integers(1, 3)))]
    steps: list[tuple[tuple[int, ...], int]] = []
    workspaces: list[list[int]] = []
    overlaps: Overlaps = []
    readable = list(inputs)

    def step(output: int) -> None:
        sources = tuple(draw(st.lists(st.sampled_from(readable), min_size=1, max_size=2)))
        steps.append((sources, output))
        workspaces.append(draw(st.lists(st.integers(1, 300), max_size=2)))
        declared = []
        for operand in range(len(sources)):
            if draw(st.booleans()):
                size = tensors[sources[operand]].size_bytes
                distance = draw(st.integers(-size, tensors[output].size_bytes))
                exact = draw(st.booleans())
                declared.append(Overlap(operand, distance // 16 * 16 if exact else distance, exact))
        overlaps.append(tuple(declared))

    for _ in range(draw(st.integers(1, 9))):
        kind = draw(st.sampled_from(("plain", "plain", "joined", "cut")))
        if kind == "joined":  # pieces that are written one by one, then read as one tensor
            sizes = [16 * draw(st.integers(1, 12)) for _ in range(draw(st.integers(2, 3)))]
            whole = tensor(sum(sizes))
            start = 0
            for size in sizes:
                piece = tensor(size, whole, start)
                step(piece)
                start += size
            readable.append(whole)
        else:
            size = draw(st.integers(2, 500))
            output = tensor(size)
            step(output)
            readable.append(output)
            if kind == "cut":
                middle = draw(st.integers(1, size - 1))
                readable += [tensor(middle, output), tensor(size - middle, output, middle)]
    written = [output for _, output in steps]
    outputs = draw(st.lists(st.sampled_from(written), min_size=1, max_size=2, unique=True))
    return program_of(tensors, steps, inputs, outputs), workspaces, overlaps


@given(programs())
@settings(max_examples=campaign_count(3000, 60))
def test_a_run_on_the_plan_reads_what_was_written(case: tuple[Program, list[list[int]], Overlaps]) -> None:
    """The checker plays the program on an arena whose bytes know whose they are."""
    program, workspaces, overlaps = case
    plan = plan_memory(program, workspaces, overlaps)
    check_plan(program, plan, workspaces, overlaps)
    assert all(offset % 16 == 0 for offset in plan.storage_offsets.values())
    assert plan.lower_bound <= plan.arena_bytes
    assert plan == plan_memory(program, workspaces, overlaps)


@pytest.mark.parametrize(
    ("moved", "onto", "complaint"),
    [
        (1, 0, "written over|before it is read"),  # an output over the input of its step
        (2, 0, "written over"),  # over what a later step reads
        (3, 2, "written over|before it is read"),
        (0, 9, "outside"),
    ],
)
def test_the_checker_finds_what_lies_over_another(moved: int, onto: int, complaint: str) -> None:
    tensors = [Tensor(i, f"t{i}", (160,), "int8", SCALE, i) for i in range(4)]
    program = program_of(tensors, [((0,), 1), ((1,), 2), ((0, 2), 3)], [0], [2, 3])
    nothing: Overlaps = [()] * 3
    plan = plan_memory(program, [[], [], []], nothing)
    check_plan(program, plan, [[], [], []], nothing)
    offsets = {**plan.storage_offsets, moved: plan.storage_offsets.get(onto, plan.arena_bytes)}
    with pytest.raises(ValueError, match=complaint):
        check_plan(program, replace(plan, storage_offsets=offsets), [[], [], []], nothing)


def test_the_checker_finds_a_workspace_over_what_its_step_needs() -> None:
    program = chain([160, 160])
    plan = plan_memory(program, [[64, 32]], [()])
    for key in plan.workspace_offsets:
        for place_ in (plan.storage_offsets[0], plan.storage_offsets[1] + 128):
            broken = replace(plan, workspace_offsets={**plan.workspace_offsets, key: place_})
            with pytest.raises(ValueError, match="workspace"):
                check_plan(program, broken, [[64, 32]], [()])


@given(programs())
@settings(max_examples=campaign_count(1000, 40))
def test_no_order_of_placing_is_lower(case: tuple[Program, list[list[int]], Overlaps]) -> None:
    """Against every order in which few storages can be placed, each as low as those before it allow."""
    program, workspaces, overlaps = case
    storages = storages_of(program, workspaces)
    if len(storages) > 6:
        return
    distances = {
        (i, j): intervals
        for i, one in enumerate(storages)
        for j, other in enumerate(storages)
        if i != j and (intervals := forbidden(program, overlaps, one, other))
    }
    least = min(
        max(offset + each.size for offset, each in zip(offsets, storages, strict=True))
        for offsets in (lowest(order, distances) for order in permutations(range(len(storages))))
    )
    assert place(storages, distances, 0).size <= least


def lowest(
    order: tuple[int, ...], distances: dict[tuple[int, int], tuple[tuple[int, int], ...]]
) -> list[int]:
    offsets: dict[int, int] = {}
    for index in order:
        offset = 0
        while any(
            low < offset - offsets[other] < high
            for other in offsets
            for low, high in distances.get((other, index), ())
        ):
            offset += 16
        offsets[index] = offset
    return [offsets[index] for index in range(len(order))]


@given(programs())
@settings(max_examples=campaign_count(500, 40))
def test_no_order_of_the_steps_has_a_lower_peak(case: tuple[Program, list[list[int]], Overlaps]) -> None:
    program, _, _ = case
    count = len(program.steps)
    read = {tensor for step in program.steps for tensor in step.inputs}
    if count > 6 or not {tensor for _, tensor in program.inputs} <= read:
        return
    overlaps: Overlaps = [()] * count
    nothing: list[list[int]] = [[]] * count

    def peak(candidate: Program) -> int:
        return max(step_footprints(candidate, storages_of(candidate, nothing), overlaps))

    found = order_steps(program, overlaps)
    assert sorted(map(id, found.steps)) == sorted(map(id, program.steps))
    assert found.steps == order_steps(program, overlaps).steps
    least = min(peak(each) for each in orders(program))
    assert peak(found) == least
    if peak(program) == least:
        assert found is program


def orders(program: Program) -> list[Program]:
    """Every order of the steps in which each comes after those whose output it reads."""

    def meets(one: Tensor, other: Tensor) -> bool:
        return (
            one.storage == other.storage
            and one.offset < other.offset + other.size_bytes
            and other.offset < one.offset + one.size_bytes
        )

    tensors = program.tensors
    needs = [
        {
            before
            for before, maker in enumerate(program.steps)
            if any(meets(tensors[index], tensors[maker.output]) for index in step.inputs)
        }
        for step in program.steps
    ]
    return [
        replace(program, steps=tuple(program.steps[i] for i in order))
        for order in permutations(range(len(program.steps)))
        if all(needs[step] <= set(order[:place]) for place, step in enumerate(order))
    ]


def chain(sizes: list[int]) -> Program:
    tensors = [Tensor(i, f"t{i}", (size,), "int8", SCALE, i) for i, size in enumerate(sizes)]
    return program_of(tensors, [((i,), i + 1) for i in range(len(sizes) - 1)], [0], [len(sizes) - 1])


def test_a_chain_needs_no_more_than_its_largest_pair() -> None:
    program = chain([160, 320, 480, 160, 320])
    assert plan_memory(program, [[]] * 4, [()] * 4).arena_bytes == 320 + 480


def test_outputs_lie_over_inputs_as_far_as_declared() -> None:
    program = chain([160, 320, 320, 160])
    in_place = [(Overlap(0, 160),), (Overlap(0, 0),), (Overlap(0, -160),)]
    plan = plan_memory(program, [[]] * 3, in_place)
    assert plan.arena_bytes == plan.lower_bound == 320
    assert plan.shared_steps == {0, 1, 2}
    apart = [(Overlap(0, 320),), (), (Overlap(0, 64),)]
    assert plan_memory(program, [[]] * 3, apart).arena_bytes == 640


def test_exact_overlaps_are_met_exactly_or_not_at_all() -> None:
    program = chain([160, 160])
    plan = plan_memory(program, [[]], [(Overlap(0, 0, exact=True),)])
    assert plan.arena_bytes == plan.lower_bound == 160
    plan = plan_memory(program, [[]], [(Overlap(0, 32, exact=True),)])
    assert plan.storage_offsets[0] - plan.storage_offsets[1] == 32
    broken = replace(plan, storage_offsets={0: 48, 1: 0}, arena_bytes=320)
    with pytest.raises(ValueError, match="before it is read"):
        check_plan(program, broken, [[]], [(Overlap(0, 32, exact=True),)])


def test_an_output_of_the_program_is_never_written_over() -> None:
    tensors = [Tensor(i, f"t{i}", (160,), "int8", SCALE, i) for i in range(3)]
    program = program_of(tensors, [((0,), 1), ((1,), 2)], [0], [1, 2])
    plan = plan_memory(program, [[]] * 2, [(Overlap(0, 0),)] * 2)
    assert plan.shared_steps == {0}
    assert plan.arena_bytes == 320


def test_the_widest_branch_runs_first() -> None:
    """Of two branches the one that needs much and leaves little must not wait for the other."""
    sizes = [100, 1000, 10, 400, 300, 5]
    tensors = [Tensor(i, f"t{i}", (size,), "int8", SCALE, i) for i, size in enumerate(sizes)]
    steps = [((0,), 3), ((3,), 4), ((0,), 1), ((1,), 2), ((2, 4), 5)]
    program = program_of(tensors, steps, [0], [5])
    ordered = order_steps(program, [()] * 5)
    assert [step.output for step in ordered.steps][:2] == [1, 2]
    assert plan_memory(ordered, [[]] * 5, [()] * 5).arena_bytes == sum(map(aligned, (100, 1000, 10)))


def test_many_branches_are_ordered_within_bounds() -> None:
    """Far more sets of steps than can be looked at: the beam still finds that branches end one by one."""
    count = 24
    sizes = [16, *([800, 16] * count), 16]
    tensors = [Tensor(i, f"t{i}", (size,), "int8", SCALE, i) for i, size in enumerate(sizes)]
    wide = [((0,), 1 + 2 * i) for i in range(count)]
    narrow = [((1 + 2 * i,), 2 + 2 * i) for i in range(count)]
    last = (tuple(2 + 2 * i for i in range(count)), len(sizes) - 1)
    program = program_of(tensors, [*wide, *narrow, last], [0], [len(sizes) - 1])
    ordered = order_steps(program, [()] * len(program.steps))
    plan = plan_memory(ordered, [[]] * len(program.steps), [()] * len(program.steps))
    assert plan.arena_bytes <= 16 + 800 + 16 * (count + 1)

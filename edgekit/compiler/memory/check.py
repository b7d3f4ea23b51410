"""A second opinion on a memory plan: the program is played on an arena whose bytes know whose they are.

Written apart from the planner, and sharing nothing with it but the program and what the kernels declare.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler.memory.plan import Plan
from edgekit.compiler.program import Program
from edgekit.compiler.schedules.kernel import Overlap

__all__ = ["check_plan"]

Places = NDArray[np.int64]

_NOBODY = -1
_WORKSPACE = -2


def check_plan(
    program: Program,
    plan: Plan,
    workspaces: Sequence[Sequence[int]],
    overlaps: Sequence[Sequence[Overlap]],
) -> None:
    """Check that every step finds its inputs whole, and everything is inside the arena.

    Raises:
        ValueError: a step would read, or a caller find, what another has written over.
    """
    arena_bytes, workspace_offsets = plan.arena_bytes, plan.workspace_offsets
    arena = np.full(arena_bytes, _NOBODY, np.int64)

    def place(tensor: int) -> Places:
        """Where each byte of a tensor lies."""
        view = program.tensors[tensor]
        places = np.arange(view.size_bytes, dtype=np.int64)
        if view.runs is not None:
            places = places // view.runs.size * view.runs.pitch + places % view.runs.size
        places += plan.storage_offsets[view.storage] + view.offset
        if places[0] < 0 or places[-1] >= arena_bytes:
            raise ValueError(f"tensor {tensor} lies outside the arena")
        return places

    def value(tensor: int) -> Places:
        """What the bytes of a tensor must be: the storage and the place in it."""
        view = program.tensors[tensor]
        return (view.storage << 32) - plan.storage_offsets[view.storage] + place(tensor)

    def expect(tensor: int, who: str) -> None:
        if not np.array_equal(arena[place(tensor)], value(tensor)):
            raise ValueError(f"{who} finds tensor {tensor} written over")

    for _, tensor in program.inputs:
        if not (arena[place(tensor)] == _NOBODY).all():
            raise ValueError(f"input {tensor} lies over another")
        arena[place(tensor)] = value(tensor)
    for position, step in enumerate(program.steps):
        inputs = [tensor for tensor in step.inputs if program.tensors[tensor].data is None]
        for tensor in inputs:
            expect(tensor, f"step {position}")
        output = place(step.output)
        declared = {overlap.operand: overlap for overlap in overlaps[position]}
        for operand, tensor in enumerate(step.inputs):
            if program.tensors[tensor].data is not None:
                continue
            source = place(tensor)
            below = int(source[0] - output[0])
            one_piece = _is_one_piece(source) and _is_one_piece(output)
            if _meet(source, output) and not (one_piece and _declared(declared.get(operand), below)):
                raise ValueError(f"step {position} writes over its input {tensor} before it is read")
        taken = [(int(each[0]), int(each[-1]) + 1) for each in map(place, (*inputs, step.output))]
        for index, size in enumerate(workspaces[position]):
            start = workspace_offsets[position, index]
            if start < 0 or start + size > arena_bytes:
                raise ValueError(f"workspace {index} of step {position} lies outside the arena")
            if any(start < high and low < start + size for low, high in taken):
                raise ValueError(f"workspace {index} of step {position} lies over what the step needs")
            taken.append((start, start + size))
            arena[start : start + size] = _WORKSPACE
        arena[output] = value(step.output)
    for _, tensor in program.outputs:
        expect(tensor, "the caller")


def _is_one_piece(places: Places) -> bool:
    return int(places[-1]) - int(places[0]) + 1 == places.size


def _meet(one: Places, other: Places) -> bool:
    """Whether two tensors have a byte in common."""
    if one[0] > other[-1] or other[0] > one[-1]:
        return False
    return bool(_is_one_piece(one) and _is_one_piece(other)) or bool(np.isin(one, other).any())


def _declared(overlap: Overlap | None, below: int) -> bool:
    """Whether a kernel allows its output to start `below` bytes below an input."""
    if overlap is None:
        return False
    return below == overlap.distance if overlap.exact else below >= overlap.distance

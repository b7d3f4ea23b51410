"""A second opinion on a memory plan: the program is played on an arena whose bytes know whose they are.

Written apart from the planner, and sharing nothing with it but the program and what the kernels declare.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekit.compiler.memory.plan import Plan
from edgekit.compiler.program import Program
from edgekit.compiler.schedules.kernel import Overlap

__all__ = ["check_plan"]

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

    def place(tensor: int) -> slice:
        view = program.tensors[tensor]
        start = plan.storage_offsets[view.storage] + view.offset
        if start < 0 or start + view.size_bytes > arena_bytes:
            raise ValueError(f"tensor {tensor} lies outside the arena")
        return slice(start, start + view.size_bytes)

    def value(tensor: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """What the bytes of a tensor must be: the storage and the place in it."""
        view = program.tensors[tensor]
        return (view.storage << 32) + view.offset + np.arange(view.size_bytes, dtype=np.int64)

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
            apart = output.stop <= source.start or source.stop <= output.start
            if not apart and not _declared(declared.get(operand), source.start - output.start):
                raise ValueError(f"step {position} writes over its input {tensor} before it is read")
        taken = [(place(tensor).start, place(tensor).stop) for tensor in (*inputs, step.output)]
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


def _declared(overlap: Overlap | None, below: int) -> bool:
    """Whether a kernel allows its output to start `below` bytes below an input."""
    if overlap is None:
        return False
    return below == overlap.distance if overlap.exact else below >= overlap.distance

"""The memory plan: one static arena, an offset for every activation and workspace.

A storage lives from the step that writes it to the last step that reads it; workspaces live for their own
step. Two that live at the same time never overlap, except that an output may lie over an input that dies
there as far as the kernel says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgekit.artifacts import Allocation
from edgekit.compiler.memory.footprint import step_footprints
from edgekit.compiler.memory.lifetimes import Storage, forbidden, storages_of
from edgekit.compiler.memory.place import aligned, place
from edgekit.compiler.program import Program
from edgekit.compiler.schedules.kernel import Overlap

__all__ = ["Plan", "plan_memory"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Offsets in bytes: of each storage (by number) and of each step's workspaces (by step, in order)."""

    arena_bytes: int
    lower_bound: int
    """No plan for this order of the steps and these kernels is smaller."""
    storage_offsets: Mapping[int, int]
    workspace_offsets: Mapping[tuple[int, int], int]
    shared_steps: frozenset[int]
    """Steps whose output lies over one of their inputs."""
    allocations: tuple[Allocation, ...]

    def offset(self, program: Program, tensor: int) -> int:
        """Where a tensor starts in the arena."""
        view = program.tensors[tensor]
        return self.storage_offsets[view.storage] + view.offset


def plan_memory(
    program: Program, workspaces: Sequence[Sequence[int]], overlaps: Sequence[Sequence[Overlap]]
) -> Plan:
    """Plan the arena.

    Args:
        program: what runs, in order.
        workspaces: sizes in bytes of each step's workspaces.
        overlaps: how each step's output may lie over its inputs.
    """
    storages = storages_of(program, workspaces)
    lower_bound = aligned(max(step_footprints(program, storages, overlaps), default=0))
    distances = {}
    for one, first in enumerate(storages):
        for other, second in enumerate(storages):
            if one != other and (intervals := forbidden(program, overlaps, first, second)):
                distances[one, other] = intervals
    placement = place(storages, distances, lower_bound)
    offsets = {storage.key: offset for storage, offset in zip(storages, placement.offsets, strict=True)}
    storage_offsets = {key: offset for key, offset in offsets.items() if isinstance(key, int)}
    return Plan(
        arena_bytes=aligned(placement.size),
        lower_bound=lower_bound,
        storage_offsets=storage_offsets,
        workspace_offsets={key: offset for key, offset in offsets.items() if not isinstance(key, int)},
        shared_steps=_shared_steps(program, storage_offsets),
        allocations=_allocations(program, storages, placement.offsets),
    )


def _shared_steps(program: Program, offsets: Mapping[int, int]) -> frozenset[int]:
    result = set()
    for position, step in enumerate(program.steps):
        output = program.tensors[step.output]
        start = offsets[output.storage] + output.offset
        for source in (program.tensors[tensor] for tensor in step.inputs):
            if source.data is None and output.meets(source, offsets[source.storage] + source.offset - start):
                result.add(position)
    return frozenset(result)


def _allocations(
    program: Program, storages: Sequence[Storage], offsets: Sequence[int]
) -> tuple[Allocation, ...]:
    end = max(len(program.steps) - 1, 0)
    allocations = [
        Allocation(part.name, offset + part.start, part.size, part.first, min(part.last, end), part.kind)
        for storage, offset in zip(storages, offsets, strict=True)
        for part in storage.parts
    ]
    return tuple(sorted(allocations, key=lambda each: (each.first, each.offset)))

"""How many bytes each step needs at least, however they are placed.

The most demanding step gives a lower bound of the arena.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgekit.compiler.memory.lifetimes import Part, Storage
from edgekit.compiler.program import Program
from edgekit.compiler.schedules.kernel import Overlap

__all__ = ["shared_bytes", "step_footprints"]


def shared_bytes(size: int, output: int, distance: int) -> int:
    """The most bytes that an output of `output` bytes shares with an input of `size`, `distance` bytes lower.

    Together they span at least max(output, distance + size), or the larger one where the output may start
    above.
    """
    together = max(output, size, distance + size)
    return max(0, size + output - together)


def step_footprints(
    program: Program,
    storages: Sequence[Storage],
    overlaps: Sequence[Sequence[Overlap]],
    *,
    over_one: bool = False,
) -> tuple[int, ...]:
    """For each step: bytes of all that lives then, less what its output may share with its inputs.

    That is a lower bound. With `over_one` outputs lie over a single input, as they mostly can.
    """
    live = [0] * len(program.steps)
    parts: dict[int, tuple[Part, ...]] = {}
    for storage in storages:
        for part in storage.parts:
            for position in range(part.first, min(part.last + 1, len(program.steps))):
                live[position] += part.size
        if isinstance(storage.key, int):
            parts[storage.key] = storage.parts
    return tuple(
        live[position] - _shared(program, position, overlaps[position], parts, over_one=over_one)
        for position in range(len(program.steps))
    )


def _shared(
    program: Program,
    position: int,
    overlaps: Sequence[Overlap],
    parts: Mapping[int, Sequence[Part]],
    *,
    over_one: bool,
) -> int:
    """No less than what the output of a step can share with inputs that die there."""
    step = program.steps[position]
    output = program.tensors[step.output]
    most: dict[int, int] = {}
    for overlap in overlaps:
        tensor = program.tensors[step.inputs[overlap.operand]]
        if tensor.data is not None or tensor.storage == output.storage:
            continue
        end = tensor.offset + tensor.size_bytes
        dying = sum(
            part.size
            for part in parts[tensor.storage]
            if part.last == position and tensor.offset <= part.start and part.end <= end
        )
        shared = min(dying, shared_bytes(tensor.size_bytes, output.size_bytes, overlap.distance))
        most[tensor.storage] = max(most.get(tensor.storage, 0), shared)
    together = max(most.values(), default=0) if over_one else sum(most.values())
    return min(output.size_bytes, together)

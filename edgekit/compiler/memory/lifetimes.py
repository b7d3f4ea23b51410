"""Who needs which bytes when: storages cut into parts, each with the steps during which it is taken.

A storage is a piece of memory that one or more tensors are views of. Its parts are cut where views begin and
end, so that the pieces of a concatenation come to life one by one and those of a split die one by one. Of
tensors that lie in runs between each other the bytes between count as taken from the first to the last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from edgekit.compiler.program import Program, Tensor
from edgekit.compiler.schedules.kernel import Overlap

__all__ = ["Kind", "Part", "Storage", "forbidden", "last_reads", "storages_of"]

Kind = Literal["input", "output", "activation", "workspace"]


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes [start, start + size) of a storage, taken from step `first` to step `last`, both inclusive.

    What the program returns is taken until after the last step.
    """

    name: str
    kind: Kind
    start: int
    size: int
    first: int
    last: int

    @property
    def end(self) -> int:
        return self.start + self.size


@dataclass(frozen=True, slots=True)
class Storage:
    """Parts at fixed distances from each other.

    `key` is the storage's number, or (step, index) of a workspace.
    """

    key: int | tuple[int, int]
    size: int
    parts: tuple[Part, ...]


def last_reads(program: Program) -> dict[int, int]:
    """The last step that reads each tensor; outputs of the program are read after the last step."""
    last: dict[int, int] = {}
    for position, step in enumerate(program.steps):
        for tensor in step.inputs:
            last[tensor] = position
    for _, tensor in program.outputs:
        last[tensor] = len(program.steps)
    return last


def storages_of(program: Program, workspaces: Sequence[Sequence[int]]) -> tuple[Storage, ...]:
    """Every storage that the arena holds, and each step's workspaces (sizes in bytes)."""
    tensors: dict[int, list[Tensor]] = {}
    for tensor in _used(program):
        tensors.setdefault(tensor.storage, []).append(tensor)
    reads = last_reads(program)
    outputs = {tensor for _, tensor in program.outputs}
    written: dict[int, tuple[int, str, Kind]] = {
        tensor: (0, spec.name, "input") for spec, tensor in program.inputs
    }
    for position, step in enumerate(program.steps):
        written[step.output] = (position, program.tensors[step.output].name, "activation")
    result = []
    for storage, views in tensors.items():
        parts = tuple(_parts(views, written, reads, outputs))
        result.append(Storage(storage, max(part.end for part in parts), parts))
    for position, sizes in enumerate(workspaces):
        name = program.tensors[program.steps[position].output].name
        for index, size in enumerate(sizes):
            part = Part(name, "workspace", 0, size, position, position)
            result.append(Storage((position, index), size, (part,)))
    return tuple(result)


def _used(program: Program) -> list[Tensor]:
    """Tensors that live in the arena, in the order of their first use."""
    ids = [tensor for _, tensor in program.inputs]
    for step in program.steps:
        ids += [*step.inputs, step.output]
    ids += [tensor for _, tensor in program.outputs]
    tensors = (program.tensors[index] for index in dict.fromkeys(ids))
    return [tensor for tensor in tensors if tensor.data is None]


def _parts(
    views: Sequence[Tensor],
    written: Mapping[int, tuple[int, str, Kind]],
    reads: Mapping[int, int],
    outputs: set[int],
) -> Iterator[Part]:
    """The storage cut at every view's borders: each piece lives from its writer to its last reader."""
    cuts = sorted({cut for view in views for cut in (view.offset, view.offset + view.span_bytes)})
    for start, stop in pairwise(cuts):
        over = [view for view in views if view.offset <= start and stop <= view.offset + view.span_bytes]
        writers = [written[view.id] for view in over if view.id in written]
        if not writers:
            continue
        first, name, kind = min(writers)
        last = max((reads.get(view.id, first) for view in over), default=first)
        if any(view.id in outputs for view in over):
            kind = "output"
        yield Part(name, kind, start, stop - start, first, last)


def forbidden(
    program: Program,
    overlaps: Sequence[Sequence[Overlap]],
    one: Storage,
    other: Storage,
) -> tuple[tuple[int, int], ...]:
    """Open intervals (low, high) that `other`'s offset minus `one`'s must not be in."""
    intervals: list[tuple[int, int]] = []
    for part in one.parts:
        for against in other.parts:
            if part.first > against.last or against.first > part.last:
                continue
            shift = part.start - against.start
            if not isinstance(one.key, int) or not isinstance(other.key, int):
                differences = [(-against.size, part.size)]
            elif against.first == part.last:
                differences = _kept_from(program, overlaps, one.key, part, other.key, against)
            elif part.first == against.last:
                turned = _kept_from(program, overlaps, other.key, against, one.key, part)
                differences = [(-high, -low) for low, high in turned]
            else:
                differences = [(-against.size, part.size)]
            intervals += [(shift + low, shift + high) for low, high in differences if low < high]
    return _merged(intervals)


def _kept_from(
    program: Program,
    overlaps: Sequence[Sequence[Overlap]],
    storage: int,
    part: Part,
    output_storage: int,
    output_part: Part,
) -> list[tuple[int, int]]:
    """Where the part that a step writes must not start, from `part`, which it reads for the last time."""
    apart = (-output_part.size, part.size)
    step = program.steps[output_part.first]
    output = program.tensors[step.output]
    if output.storage != output_storage or not _covers(output, output_part):
        return [apart]
    allowed = {overlap.operand: overlap for overlap in overlaps[output_part.first]}
    nearest, exactly = -part.size, set()
    meets = False
    for operand, tensor in enumerate(program.tensors[index] for index in step.inputs):
        if tensor.data is not None or tensor.storage != storage or not _meets(tensor, part):
            continue
        if operand not in allowed:
            return [apart]
        meets = True
        # output ≤ tensor − distance, in terms of the two parts' starts
        ahead = (part.start - tensor.offset) - (output_part.start - output.offset)
        distance = allowed[operand].distance + ahead
        if allowed[operand].exact:
            exactly.add(-distance)
        nearest = max(nearest, distance)
    if not meets or len(exactly) > 1:
        return [apart]
    if not exactly:
        return [(max(apart[0], -nearest), apart[1])]
    (point,) = exactly
    if point > -nearest:
        return [apart]
    return [(apart[0], point), (point, apart[1])]


def _covers(tensor: Tensor, part: Part) -> bool:
    return tensor.offset <= part.start and part.end <= tensor.offset + tensor.span_bytes


def _meets(tensor: Tensor, part: Part) -> bool:
    return tensor.offset < part.end and part.start < tensor.offset + tensor.span_bytes


def _merged(intervals: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    merged: list[tuple[int, int]] = []
    for low, high in sorted(intervals):
        # Open intervals: (0, 4) and (4, 8) leave 4 free.
        if merged and low < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return tuple(merged)

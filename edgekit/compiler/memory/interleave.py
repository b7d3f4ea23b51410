"""Concatenations and splits along the last axis without copies: tensors in runs between each other's bytes.

The inputs of a concatenation of channels are computed where they belong in each of its pixels, and the parts
of a split are read where they lie. The whole is then taken from the first part's writer to the last one's
reader, where copies would let each part live and die by itself. So memory is shared where the most that a
step needs does not grow by it, workspaces left aside: as with the order of the steps, that depends on the
program alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from edgekit.compiler import operators as op
from edgekit.compiler.memory.footprint import step_footprints
from edgekit.compiler.memory.lifetimes import storages_of
from edgekit.compiler.memory.order import order_steps
from edgekit.compiler.program import Program, Runs, Step, Tensor
from edgekit.compiler.schedules.kernel import Overlap
from edgekit.compiler.schedules.runs import reads_runs, whole_overlaps, writes_runs

__all__ = ["interleave"]

OverlapsOf = Callable[[Program, Step], Sequence[Overlap]]


def interleave(program: Program, overlaps_of: OverlapsOf) -> Program:
    """The program without the copies that tensors in runs make needless.

    Args:
        overlaps_of: how a step's output may lie over its inputs, whatever the target.
    """
    overlaps = _Overlaps(overlaps_of)
    shared, least = program, 0
    for step in program.steps:
        if isinstance(step.operator, op.Slice):
            attempts = [_as_view(shared, step, step.operator)]
        elif isinstance(step.operator, op.Concat):
            own = _own_places(shared, step, step.operator)
            # What is written first is what holds the whole for longest.
            attempts = [_joined(shared, step, step.operator, own[first:]) for first in range(len(own))]
        else:
            continue
        for attempt in attempts:
            if attempt is None:
                continue
            least = least or _peak(shared, overlaps.of(shared))
            if (peak := _peak(attempt, overlaps.of(attempt))) <= least:
                shared, least = attempt, peak
                break
    if shared is program:
        return program
    ordered = order_steps(shared, overlaps.of(shared))
    return ordered if _peak(ordered, overlaps.of(ordered)) <= least else shared


class _Overlaps:
    """How the outputs of a program's steps may lie over their inputs; looked up once a step."""

    def __init__(self, overlaps_of: OverlapsOf) -> None:
        self._overlaps_of = overlaps_of
        self._known: dict[int, Sequence[Overlap]] = {}

    def of(self, program: Program) -> list[tuple[Overlap, ...]]:
        return [whole_overlaps(program, step, self._in_one_piece(program, step)) for step in program.steps]

    def _in_one_piece(self, program: Program, step: Step) -> Sequence[Overlap]:
        if step.output not in self._known:
            whole = replace(program, tensors=tuple(replace(each, runs=None) for each in program.tensors))
            self._known[step.output] = self._overlaps_of(whole, step)
        return self._known[step.output]


def _peak(program: Program, overlaps: Sequence[Sequence[Overlap]]) -> int:
    """The most bytes that a step of a program needs, workspaces aside, where outputs lie over one input."""
    storages = storages_of(program, [()] * len(program.steps))
    return max(step_footprints(program, storages, overlaps, over_one=True))


def _as_view(program: Program, step: Step, operator: op.Slice) -> Program | None:
    """The program with a slice's output as a part of each run of its input; None where it can't be."""
    source, output = program.tensors[step.inputs[0]], program.tensors[step.output]
    cut = [axis for axis, size in enumerate(source.shape) if output.shape[axis] != size]
    last = len(source.shape) - 1
    if source.data is not None or cut != [last] or any(stride != 1 for stride in operator.strides):
        return None
    if not _fits(program, output, but=(step,)):
        return None
    tensors = _moved(program, output, to=source, start=operator.begin[last])
    return replace(program, tensors=tensors, steps=tuple(each for each in program.steps if each is not step))


def _own_places(program: Program, step: Step, operator: op.Concat) -> list[int]:
    """The inputs of a concatenation that can be computed in their places of it, those written first first."""
    output = program.tensors[step.output]
    if operator.axis != len(output.shape) - 1 or output.dtype != "int8" or output.runs is not None:
        return []
    written = {each.output: position for position, each in enumerate(program.steps)}
    own: list[int] = []
    for position, source in enumerate(program.tensors[index] for index in step.inputs):
        if (
            not operator.changes(position)
            and source.runs is None
            and source.storage not in {program.tensors[step.inputs[other]].storage for other in own}
            and source.storage != output.storage
            and _fits(program, source, but=(step,))
        ):
            own.append(position)
    return sorted(own, key=lambda position: written.get(step.inputs[position], -1))


def _joined(program: Program, step: Step, operator: op.Concat, own: Collection[int]) -> Program:
    """The program with some inputs of a concatenation in their places; the others are copied there."""
    output = program.tensors[step.output]
    sources = [program.tensors[index] for index in step.inputs]
    starts = [0]
    for source in sources[:-1]:
        starts.append(starts[-1] + source.shape[-1])
    for position in own:
        tensors = _moved(program, sources[position], to=output, start=starts[position])
        program = replace(program, tensors=tensors)
    pieces: list[Tensor] = []
    copies: list[Step] = []
    for position, source in enumerate(sources):
        if position in own:
            continue
        piece = replace(
            output,
            id=len(program.tensors) + len(pieces),
            shape=source.shape,
            offset=output.offset + starts[position],
            runs=Runs(source.shape[-1], output.pitch),
        )
        pieces.append(piece)
        copy = operator.copy_of(position)
        copies.append(replace(step, operator=copy, inputs=(source.id,), output=piece.id))
    steps: list[Step] = []
    for each in program.steps:
        steps += copies if each is step else [each]
    return replace(program, tensors=(*program.tensors, *pieces), steps=tuple(steps))


def _fits(program: Program, tensor: Tensor, *, but: Collection[Step]) -> bool:
    """Whether a tensor's memory can be taken apart into runs of its last axis, a step or two left aside.

    That is all of one storage, of which all views have rows of the same length, and whose writers and readers
    can write and read runs.
    """
    width = tensor.shape[-1]
    if tensor.data is not None or tensor.dtype != "int8":
        return False
    views = {
        each.id: each for each in program.tensors if each.storage == tensor.storage and each.data is None
    }
    for view in views.values():
        if view.offset + view.span_bytes > tensor.offset + tensor.size_bytes or view.offset < tensor.offset:
            return False
        whole_rows = view.runs is None and view.shape[-1:] == (width,)
        if not whole_rows and (view.runs is None or view.runs.pitch != width):
            return False
    if any(index in views for _, index in (*program.inputs, *program.outputs)):
        return False
    return all(
        (each.output not in views or writes_runs(program, each))
        and (views.keys().isdisjoint(each.inputs) or reads_runs(program, each))
        for each in program.steps
        if each not in but
    )


def _moved(program: Program, tensor: Tensor, *, to: Tensor, start: int) -> tuple[Tensor, ...]:
    """The tensors, those in one's storage taken apart into the rows of another, from byte `start` of each."""
    width = tensor.shape[-1]
    tensors = list(program.tensors)
    for index, view in enumerate(tensors):
        if view.storage != tensor.storage or view.data is not None:
            continue
        row, place = divmod(view.offset - tensor.offset, width)
        tensors[index] = replace(
            view,
            storage=to.storage,
            offset=to.offset + row * to.pitch + start + place,
            runs=Runs(width if view.runs is None else view.runs.size, to.pitch),
        )
    return tuple(tensors)

"""Movement that moves nothing: slices that are views, and outputs that are written piece by piece.

A slice along the outermost axis is a part of its input's memory. The inputs of a concatenation along the
outermost axis lie one behind another in its output, so that whoever computes them can write them there, as
can whoever computes what is padded along that axis: only the borders are left to be filled. Which memory is
shared depends on the program alone, as the order of the steps does.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from edgekit.artifacts import ITEM_SIZE
from edgekit.compiler import operators as op
from edgekit.compiler.memory.place import ALIGNMENT
from edgekit.compiler.program import Program, Step, Tensor

__all__ = ["share_memory"]


def share_memory(program: Program) -> Program:
    """The program without the slices and concatenations that sharing memory makes needless.

    Views start at multiples of the alignment, as kernels may count on; others stay copies.
    """
    tensors = list(program.tensors)
    steps: list[Step] = []
    for step in program.steps:
        if isinstance(step.operator, op.Slice) and _is_view(step, step.operator, tensors):
            continue
        if isinstance(step.operator, op.Concat):
            steps += _joined(step, step.operator, tensors)
        elif isinstance(step.operator, op.Pad):
            steps += _bordered(step, step.operator, tensors)
        else:
            steps.append(step)
    if not steps:
        return program
    return replace(program, tensors=tuple(tensors), steps=tuple(steps))


def _is_outermost(axis: int, shape: tuple[int, ...]) -> bool:
    return all(size == 1 for size in shape[:axis])


def _is_view(step: Step, operator: op.Slice, tensors: list[Tensor]) -> bool:
    """Makes the output a part of the input's memory, if it is one."""
    source, output = tensors[step.inputs[0]], tensors[step.output]
    cut = [axis for axis, size in enumerate(source.shape) if output.shape[axis] != size]
    if source.data is not None or len(cut) > 1 or any(stride != 1 for stride in operator.strides):
        return False
    axis = cut[0] if cut else 0
    if not _is_outermost(axis, source.shape):
        return False
    inner = math.prod(source.shape[axis + 1 :]) * ITEM_SIZE[source.dtype]
    offset = source.offset + (operator.begin[axis] if cut else 0) * inner
    if offset % ALIGNMENT:
        return False
    _move(tensors, output.storage, source.storage, offset)
    return True


def _joined(step: Step, operator: op.Concat, tensors: list[Tensor]) -> list[Step]:
    """The concatenation as copies of those inputs that can't be computed in their place."""
    output = tensors[step.output]
    sources = [tensors[index] for index in step.inputs]
    starts = [0]
    for source in sources[:-1]:
        starts.append(starts[-1] + source.size_bytes)
    if (
        not _is_outermost(operator.axis, output.shape)
        or any(start % ALIGNMENT for start in starts)
        or any(source.dtype != output.dtype for source in sources)
        or output.dtype != "int8"
    ):
        return [step]
    own = [
        position
        for position, source in enumerate(sources)
        if not operator.changes(position)
        and _is_whole(source, tensors)
        and source.storage != output.storage
        and source.storage not in [each.storage for each in sources[:position] if _is_whole(each, tensors)]
    ]
    if not own:
        return [step]
    steps: list[Step] = []
    for position, source in enumerate(sources):
        if position in own:
            _move(tensors, source.storage, output.storage, output.offset + starts[position])
            continue
        piece = replace(
            output,
            id=len(tensors),
            shape=source.shape,
            offset=output.offset + starts[position],
        )
        tensors.append(piece)
        copy = operator.copy_of(position)
        steps.append(replace(step, operator=copy, inputs=(source.id,), output=piece.id))
    return steps


def _bordered(step: Step, operator: op.Pad, tensors: list[Tensor]) -> list[Step]:
    """The padding as fills of the borders, where what is padded can be computed inside the output."""
    source, output = tensors[step.inputs[0]], tensors[step.output]
    padded = [axis for axis in range(len(source.shape)) if operator.before[axis] or operator.after[axis]]
    if len(padded) != 1 or not _is_outermost(padded[0], output.shape):
        return [step]
    axis = padded[0]
    place = math.prod(source.shape[axis + 1 :])
    start = operator.before[axis] * place
    borders = [(0, operator.before[axis]), (start + source.size_bytes, operator.after[axis])]
    if (
        output.dtype != "int8"
        or any(begin % ALIGNMENT for begin in (start, *(begin for begin, places in borders if places)))
        or not _is_whole(source, tensors)
        or source.storage == output.storage
    ):
        return [step]
    _move(tensors, source.storage, output.storage, output.offset + start)
    shape = (1,) * len(source.shape)
    value = Tensor(
        len(tensors),
        f"{output.name} border",
        shape,
        "int8",
        None,
        len(tensors),
        np.full(shape, operator.value, np.int8),
    )
    tensors.append(value)
    steps: list[Step] = []
    for begin, places in borders:
        if places:
            border = replace(
                output,
                id=len(tensors),
                shape=(*source.shape[:axis], places, *source.shape[axis + 1 :]),
                offset=output.offset + begin,
            )
            tensors.append(border)
            steps.append(replace(step, operator=op.Tile(), inputs=(value.id,), output=border.id))
    return steps


def _is_whole(tensor: Tensor, tensors: list[Tensor]) -> bool:
    """Whether a tensor is all of its memory, and not a part of some other's."""
    return (
        tensor.data is None
        and tensor.offset == 0
        and all(
            each.offset + each.size_bytes <= tensor.size_bytes
            for each in tensors
            if each.storage == tensor.storage
        )
    )


def _move(tensors: list[Tensor], storage: int, to: int, offset: int) -> None:
    """Make a storage a part of another one, from `offset` on."""
    for index, tensor in enumerate(tensors):
        if tensor.storage == storage and tensor.data is None:
            tensors[index] = replace(tensor, storage=to, offset=tensor.offset + offset)

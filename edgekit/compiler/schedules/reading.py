"""How the portable kernels' outputs may lie over their inputs, from the order in which they read and write.

The portable kernels write their output element by element in the order of its memory, and read what an
element needs just before it is written. So it is enough to know, for each output element, the lowest byte of
the input that it reads: writing an element must not reach what a later one reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.artifacts import ITEM_SIZE
from edgekit.compiler import operators as op
from edgekit.compiler.program import Tensor
from edgekit.compiler.schedules.kernel import Overlap

__all__ = ["element_overlaps", "first_overlap", "row_overlap"]

Reads = NDArray[np.int64]
"""For each output element, in order: the lowest element of the input that is read for it."""

NEVER = np.int64(1) << 48

Windowed = op.Conv2D | op.DepthwiseConv2D | op.AveragePool | op.MaxPool


def element_overlaps(operator: op.Operator, inputs: Sequence[Tensor], output: Tensor) -> tuple[Overlap, ...]:
    """Where each input may be read element by element; inputs that are constants have no place."""
    rule = _READS.get(type(operator))
    if rule is None:
        rule = _same_place if operator.IN_PLACE else None
    if rule is None:
        return ()
    shapes = [tensor.shape for tensor in inputs]
    return tuple(
        _overlap(operand, reads, inputs[operand], output)
        for operand, reads in rule(operator, shapes, output.shape).items()
        if inputs[operand].data is None and _may_alias(inputs[operand].dtype, output.dtype)
    )


def _may_alias(one: str, other: str) -> bool:
    """C compilers keep the order of accesses to types that are equal or where one is a character's."""
    return one == other or not {"int8", "uint8", "bool"}.isdisjoint((one, other))


def row_overlap(window: op.Window, source: Tensor, output: Tensor, axis: int) -> Overlap:
    """A kernel that copies what it needs of its input before it writes a row (`axis` 1) or a pixel (2).

    Rows that it has copied before are not read again.
    """
    batch, height, width, channels = source.shape
    size = (height, width)[axis - 1]
    span = (window.kernel[axis - 1] - 1) * window.dilation[axis - 1] + 1
    stride, before = window.stride[axis - 1], window.padding[axis - 1]
    positions = np.arange(output.shape[axis], dtype=np.int64)
    copied = np.clip((positions - 1) * stride + span - before, 0, size)  # by those before
    copied[0] = 0
    start = np.clip(positions * stride - before, copied, size)
    step = width * channels if axis == 1 else channels
    reads = np.full(output.shape, NEVER, np.int64)
    for index in range(batch):
        fresh = np.where(start < size, index * height * width * channels + start * step, NEVER)
        if axis == 1:
            reads[index, :, 0, 0] = fresh
        else:
            reads[index, 0, :, 0] = fresh
    return _overlap(0, reads.reshape(-1), source, output)


def first_overlap(source: Tensor) -> Overlap:
    """A kernel that has read the whole of its first input before it writes."""
    return Overlap(0, -source.size_bytes)


def _overlap(operand: int, reads: Reads, source: Tensor, output: Tensor) -> Overlap:
    """The distance from what is read for each output element."""
    later = np.minimum.accumulate(reads[::-1])[::-1][1:] * ITEM_SIZE[source.dtype]
    written = np.arange(1, reads.size, dtype=np.int64) * ITEM_SIZE[output.dtype]
    distance = int((written - later).max(initial=-source.size_bytes))
    return Overlap(operand, max(distance, -source.size_bytes))


Shape = tuple[int, ...]
Rule = Callable[[Any, Sequence[Shape], Shape], Mapping[int, Reads]]


def _same_place(operator: op.Operator, inputs: Sequence[Shape], output: Shape) -> Mapping[int, Reads]:
    if inputs[0] != output:
        return {}
    return {0: np.arange(np.prod(output), dtype=np.int64)}


def _broadcast(operator: op.Operator, inputs: Sequence[Shape], output: Shape) -> Mapping[int, Reads]:
    return {
        operand: np.broadcast_to(_places(shape), output).reshape(-1) for operand, shape in enumerate(inputs)
    }


def _places(shape: Shape) -> Reads:
    return np.arange(np.prod(shape), dtype=np.int64).reshape(shape)


def _window(operator: Windowed, inputs: Sequence[Shape], output: Shape) -> Mapping[int, Reads]:
    """The first position of the window that lies inside the input."""
    batch, height, width, channels = inputs[0]
    rows = _first_inside(operator.window, 0, output[1], height)
    columns = _first_inside(operator.window, 1, output[2], width)
    pixels = rows[:, None] * width + columns[None, :]
    outside = (rows[:, None] >= height) | (columns[None, :] >= width)
    channel = np.zeros(output[3], np.int64)
    if not isinstance(operator, op.Conv2D):
        channel = np.arange(output[3], dtype=np.int64) * channels // output[3]
    reads = np.where(outside, NEVER, pixels * channels)[:, :, None] + channel
    image = np.arange(batch, dtype=np.int64)[:, None] * height * width * channels
    return {0: (image + reads.reshape(1, -1)).reshape(-1)}


def _first_inside(window: op.Window, axis: int, count: int, size: int) -> Reads:
    start = np.arange(count, dtype=np.int64) * window.stride[axis] - window.padding[axis]
    taps = -(np.minimum(start, 0) // window.dilation[axis])
    first = start + taps * window.dilation[axis]
    return np.where(taps < window.kernel[axis], first, size)


def _dense(operator: op.Dense, inputs: Sequence[Shape], output: Shape) -> Mapping[int, Reads]:
    rows = np.arange(np.prod(output[:-1]), dtype=np.int64) * inputs[0][-1]
    return {0: np.repeat(rows, output[-1])}


def _mean(operator: op.Mean, inputs: Sequence[Shape], output: Shape) -> Mapping[int, Reads]:
    places = _places(inputs[0]).min(axis=operator.axes, keepdims=True)
    return {0: places.reshape(-1)} if places.size == np.prod(output) else {}


def _concat(operator: op.Concat, inputs: Sequence[Shape], output: Shape) -> Mapping[int, Reads]:
    reads, start = {}, 0
    for operand, shape in enumerate(inputs):
        own = np.full(output, NEVER, np.int64)
        where = [slice(None)] * len(output)
        where[operator.axis] = slice(start, start + shape[operator.axis])
        own[tuple(where)] = _places(shape)
        reads[operand] = own.reshape(-1)
        start += shape[operator.axis]
    return reads


def _pad(operator: op.Pad, inputs: Sequence[Shape], output: Shape) -> Mapping[int, Reads]:
    own = np.full(output, NEVER, np.int64)
    inside = tuple(
        slice(before, before + size) for before, size in zip(operator.before, inputs[0], strict=True)
    )
    own[inside] = _places(inputs[0])
    return {0: own.reshape(-1)}


def _slice(operator: op.Slice, inputs: Sequence[Shape], output: Shape) -> Mapping[int, Reads]:
    taken = [
        begin + stride * np.arange(size)
        for begin, stride, size in zip(operator.begin, operator.strides, output, strict=True)
    ]
    return {0: _places(inputs[0])[np.ix_(*taken)].reshape(-1)}


def _transpose(operator: op.Transpose, inputs: Sequence[Shape], output: Shape) -> Mapping[int, Reads]:
    return {0: _places(inputs[0]).transpose(operator.axes).reshape(-1)}


_READS: Mapping[type[op.Operator], Rule] = {
    op.Add: _broadcast,
    op.AveragePool: _window,
    op.Concat: _concat,
    op.Conv2D: _window,
    op.Dense: _dense,
    op.DepthwiseConv2D: _window,
    op.Dequantize: _same_place,
    op.MaxPool: _window,
    op.Mean: _mean,
    op.Pad: _pad,
    op.Quantize: _same_place,
    op.Slice: _slice,
    # Its row's maximum and sum come before the row's first element, the rest in place.
    op.Softmax: _same_place,
    op.Transpose: _transpose,
}

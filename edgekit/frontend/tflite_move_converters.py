"""Converters of the TFLite operators that move values: from stored integers to stored integers, in Relax."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from tvm import relax

from edgekit.frontend.tflite_moves import (
    Range,
    axis_of,
    block_of,
    block_padding,
    gather_places,
    mirror_places,
    slice_ranges,
    split_edges,
    strided_slice,
    tile_counts,
)
from edgekit.frontend.tflite_operators import Operands, normal_axes

__all__ = ["CONVERTERS", "Move"]

Move = Callable[[Operands, Sequence[relax.Expr], relax.BlockBuilder], relax.Expr | list[relax.Expr]]
"""(operands, the stored integers of those that are not plain, builder) → the output, or all outputs."""


def _ranges(value: relax.Expr, ranges: Sequence[Range]) -> relax.Expr:
    def end(each: Range) -> int:
        last = each.begin + each.stride * each.count
        # What runs down past place 0 must not end at −1, which counts from the end.
        return last if last >= 0 else -(2**30)

    return relax.op.strided_slice(
        value,
        list(range(len(ranges))),
        [each.begin for each in ranges],
        [end(each) for each in ranges],
        [each.stride for each in ranges],
    )


def _slice(operands: Operands, stored: Sequence[relax.Expr], _: relax.BlockBuilder) -> relax.Expr:
    return _ranges(stored[0], slice_ranges(operands))


def _strided_slice(
    operands: Operands, stored: Sequence[relax.Expr], builder: relax.BlockBuilder
) -> relax.Expr:
    chosen = strided_slice(operands)
    value = builder.emit(_ranges(stored[0], chosen.ranges))
    return relax.op.reshape(value, chosen.shape)


def _split(operands: Operands, stored: Sequence[relax.Expr], builder: relax.BlockBuilder) -> list[relax.Expr]:
    axis, edges = split_edges(operands)
    parts = builder.emit(relax.op.split(stored[0], list(edges[1:-1]), axis)) if len(edges) > 2 else None
    values = [stored[0]] if parts is None else [parts[i] for i in range(len(edges) - 1)]
    if operands.operator.op != "UNPACK":
        return values
    return [
        relax.op.reshape(builder.emit(value), output.shape)
        for value, output in zip(values, operands.outputs, strict=True)
    ]


def _pack(operands: Operands, stored: Sequence[relax.Expr], _: relax.BlockBuilder) -> relax.Expr:
    axis = axis_of(operands, None, 1, len(operands.input(0).shape) + 1)
    return relax.op.stack(list(stored), axis)


def _gather(operands: Operands, stored: Sequence[relax.Expr], builder: relax.BlockBuilder) -> relax.Expr:
    axis, places, _ = gather_places(operands)
    value = builder.emit(relax.op.take(stored[0], relax.const(np.array(places, np.int64)), axis))
    return relax.op.reshape(value, operands.output.shape)


def _reverse(operands: Operands, stored: Sequence[relax.Expr], builder: relax.BlockBuilder) -> relax.Expr:
    shape = operands.input(0).shape
    axes = normal_axes(operands, operands.integers(1), len(shape))
    ranges = [
        Range(size - 1, -1, size) if axis in axes else Range(0, 1, size) for axis, size in enumerate(shape)
    ]
    return _ranges(stored[0], ranges)


def _tile(operands: Operands, stored: Sequence[relax.Expr], _: relax.BlockBuilder) -> relax.Expr:
    return relax.op.tile(stored[0], list(tile_counts(operands)))


def _broadcast_to(operands: Operands, stored: Sequence[relax.Expr], _: relax.BlockBuilder) -> relax.Expr:
    return relax.op.broadcast_to(stored[0], operands.output.shape)


def _mirror_pad(operands: Operands, stored: Sequence[relax.Expr], builder: relax.BlockBuilder) -> relax.Expr:
    value = stored[0]
    for axis, (places, size) in enumerate(zip(mirror_places(operands), operands.input(0).shape, strict=True)):
        if len(places) != size:
            value = builder.emit(relax.op.take(value, relax.const(np.array(places, np.int64)), axis))
    return value


def _space_to_depth(
    operands: Operands, stored: Sequence[relax.Expr], builder: relax.BlockBuilder
) -> relax.Expr:
    block, (batch, height, width, channels) = block_of(operands), operands.input(0).shape
    split = (batch, height // block, block, width // block, block, channels)
    value = builder.emit(relax.op.reshape(stored[0], split))
    value = builder.emit(relax.op.permute_dims(value, [0, 1, 3, 2, 4, 5]))
    return relax.op.reshape(value, operands.output.shape)


def _depth_to_space(
    operands: Operands, stored: Sequence[relax.Expr], builder: relax.BlockBuilder
) -> relax.Expr:
    block, (batch, height, width, channels) = block_of(operands), operands.input(0).shape
    value = builder.emit(
        relax.op.reshape(stored[0], (batch, height, width, block, block, channels // block // block))
    )
    value = builder.emit(relax.op.permute_dims(value, [0, 1, 3, 2, 4, 5]))
    return relax.op.reshape(value, operands.output.shape)


def _space_to_batch(
    operands: Operands, stored: Sequence[relax.Expr], builder: relax.BlockBuilder
) -> relax.Expr:
    """Pad, split each axis into (places, block), bring the blocks to the front."""
    blocks, pads = block_padding(operands)
    quantization = operands.input(0).quantization
    fill = 0 if quantization is None else quantization.zero_points[0]
    spatial = len(blocks)
    rest = operands.input(0).shape[1 + spatial :]
    widths = [0, 0, *(width for pair in pads for width in pair), *(0 for _ in rest for _ in range(2))]
    value = stored[0]
    if any(widths):
        value = builder.emit(relax.op.nn.pad(value, widths, pad_value=float(fill)))
    places = operands.output.shape[1 : 1 + spatial]
    batch = operands.input(0).shape[0]
    split = [batch, *(size for pair in zip(places, blocks, strict=True) for size in pair), *rest]
    value = builder.emit(relax.op.reshape(value, split))
    blocks_first = [2 + 2 * i for i in range(spatial)]
    others = [1 + 2 * i for i in range(spatial)]
    tail = range(1 + 2 * spatial, len(split))
    value = builder.emit(relax.op.permute_dims(value, [*blocks_first, 0, *others, *tail]))
    return relax.op.reshape(value, operands.output.shape)


def _batch_to_space(
    operands: Operands, stored: Sequence[relax.Expr], builder: relax.BlockBuilder
) -> relax.Expr:
    blocks, crops = block_padding(operands)
    spatial = len(blocks)
    shape = operands.input(0).shape
    batch = shape[0] // math.prod(blocks)
    value = builder.emit(relax.op.reshape(stored[0], (*blocks, batch, *shape[1:])))
    pairs = [axis for i in range(spatial) for axis in (spatial + 1 + i, i)]
    tail = range(2 * spatial + 1, spatial + len(shape))
    value = builder.emit(relax.op.permute_dims(value, [spatial, *pairs, *tail]))
    whole = [size * block for size, block in zip(shape[1 : 1 + spatial], blocks, strict=True)]
    value = builder.emit(relax.op.reshape(value, (batch, *whole, *shape[1 + spatial :])))
    ranges = [Range(0, 1, batch)]
    ranges += [
        Range(before, 1, size - before - after) for size, (before, after) in zip(whole, crops, strict=True)
    ]
    ranges += [Range(0, 1, size) for size in shape[1 + spatial :]]
    return _ranges(value, ranges)


CONVERTERS: Mapping[str, Move] = {
    "BATCH_TO_SPACE_ND": _batch_to_space,
    "BROADCAST_TO": _broadcast_to,
    "DEPTH_TO_SPACE": _depth_to_space,
    "GATHER": _gather,
    "MIRROR_PAD": _mirror_pad,
    "PACK": _pack,
    "REVERSE_V2": _reverse,
    "SLICE": _slice,
    "SPACE_TO_BATCH_ND": _space_to_batch,
    "SPACE_TO_DEPTH": _space_to_depth,
    "SPLIT": _split,
    "SPLIT_V": _split,
    "STRIDED_SLICE": _strided_slice,
    "TILE": _tile,
    "UNPACK": _split,
}
"""By the schema's name of the operator."""

"""The TFLite operators that move values: their options and operands, and the shapes that they give.

`MOVES` is the list. What an operator's options and operands come to is worked out by a function of its own
here, which the converter uses too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

from edgekit.frontend.shapes import MAX_ELEMENTS, shape_text
from edgekit.frontend.tflite_operators import Operands, Rule, Shape, normal_axes

__all__ = [
    "MOVES",
    "Range",
    "StridedSlice",
    "axis_of",
    "block_of",
    "block_padding",
    "gather_places",
    "mirror_places",
    "slice_ranges",
    "split_edges",
    "strided_slice",
    "tile_counts",
]


@dataclass(frozen=True, slots=True)
class Range:
    """`count` places from `begin` on, `stride` apart; the stride may be negative."""

    begin: int
    stride: int
    count: int


@dataclass(frozen=True, slots=True)
class StridedSlice:
    """A range for every axis of the input, and the shape of the output (axes dropped, axes added)."""

    ranges: tuple[Range, ...]
    shape: Shape


def _option(operands: Operands, field: int, default: int = 0) -> int:
    return operands.options.i32(field, default) if operands.options is not None else default


def axis_of(operands: Operands, position: int | None, field: int, rank: int) -> int:
    """An axis given as an operand (at `position`) or as an option (`field`), from 0."""
    if position is None:
        return normal_axes(operands, (_option(operands, field),), rank)[0]
    values = operands.integers(position)
    if len(values) != 1:
        raise operands.wrong(f"axis {values}")
    return normal_axes(operands, values, rank)[0]


# --- slices ----------------------------------------------------------------------------------------


def slice_ranges(operands: Operands) -> tuple[Range, ...]:
    """SLICE: begin and size of every axis; −1 is the rest."""
    shape = operands.input(0).shape
    begins, sizes = operands.integers(1), operands.integers(2)
    if len(begins) != len(shape) or len(sizes) != len(shape):
        raise operands.wrong(f"begin {begins} and size {sizes} of a tensor of {len(shape)} dimensions")
    ranges = []
    for extent, begin, size in zip(shape, begins, sizes, strict=True):
        count = extent - begin if size == -1 else size
        if not 0 <= begin < extent or not 1 <= count <= extent - begin:
            raise operands.wrong(f"it slices {size} from {begin} of {extent}")
        ranges.append(Range(begin, 1, count))
    return tuple(ranges)


def _slice(operands: Operands) -> Shape:
    return tuple(each.count for each in slice_ranges(operands))


def _spread_ellipsis(operands: Operands, given: int, rank: int, ellipsis: int, new_axis: int) -> list[int]:
    """For every axis of the input, and −1 − i for an axis that entry i adds: the entries in order.

    An axis that no entry names (under the ellipsis, or at the end) is −1000.
    """
    whole = -1000
    added = [i for i in range(given) if new_axis >> i & 1 and not ellipsis >> i & 1]
    dots = [i for i in range(given) if ellipsis >> i & 1]
    if len(dots) > 1:
        raise operands.wrong("it has more than one ellipsis")
    named = given - len(added) - len(dots)
    if named > rank:
        raise operands.wrong(f"it slices {named} axes of {rank}")
    entries: list[int] = []
    for i in range(given):
        if i in dots:
            entries += [whole] * (rank - named)
        else:
            entries.append(-1 - i if i in added else i)
    if not dots:
        entries += [whole] * (rank - named)
    return entries


def strided_slice(operands: Operands) -> StridedSlice:
    """STRIDED_SLICE with all of its masks, as TensorFlow defines them."""
    shape = operands.input(0).shape
    begins, ends, strides = (operands.integers(position) for position in (1, 2, 3))
    if not len(begins) == len(ends) == len(strides) or 0 in strides:
        raise operands.wrong(f"begin {begins}, end {ends}, strides {strides}")
    begin_mask, end_mask, ellipsis, new_axis, shrink = (_option(operands, field) for field in range(5))
    offset = operands.options is not None and operands.options.boolean(5)
    entries = _spread_ellipsis(operands, len(begins), len(shape), ellipsis, new_axis)
    ranges: list[Range] = []
    result: list[int] = []
    for entry in entries:
        if entry < 0 and entry != -1000:
            result.append(1)
            continue
        extent = shape[len(ranges)]
        if entry == -1000:
            ranges.append(Range(0, 1, extent))
            result.append(extent)
            continue
        begin, stride = begins[entry], strides[entry]
        end = begin + ends[entry] if offset else ends[entry]
        if shrink >> entry & 1:
            place = begin + extent if begin < 0 else begin
            if not 0 <= place < extent or stride < 0:
                raise operands.wrong(f"it takes place {begin} of {extent}")
            ranges.append(Range(place, 1, 1))
            continue
        chosen = slice(
            None if begin_mask >> entry & 1 else begin, None if end_mask >> entry & 1 else end, stride
        )
        places = range(*chosen.indices(extent))
        ranges.append(Range(places.start, stride, len(places)))
        result.append(len(places))
    return StridedSlice(tuple(ranges), tuple(result))


def _strided_slice(operands: Operands) -> Shape:
    return strided_slice(operands).shape


# --- parts -----------------------------------------------------------------------------------------


def split_edges(operands: Operands) -> tuple[int, tuple[int, ...]]:
    """SPLIT, SPLIT_V and UNPACK: the axis, and where each part begins; the extent at the end."""
    op = operands.operator.op
    data = operands.input(1 if op == "SPLIT" else 0)
    if not data.shape:
        raise operands.wrong("it splits a scalar")
    position = {"SPLIT": 0, "SPLIT_V": 2, "UNPACK": None}[op]
    axis = axis_of(operands, position, 1, len(data.shape))
    extent, parts = data.shape[axis], len(operands.outputs)
    if op == "SPLIT_V":
        sizes = list(operands.integers(1))
        if sizes.count(-1) == 1:
            sizes[sizes.index(-1)] = extent - sum(size for size in sizes if size != -1)
        if sum(sizes) != extent or len(sizes) != parts or min(sizes, default=0) < 1:
            raise operands.wrong(f"it splits {extent} into {sizes}")
    elif extent % parts or (op == "UNPACK" and extent != parts):
        raise operands.wrong(f"it splits {extent} into {parts}")
    else:
        sizes = [extent // parts] * parts
    edges = [0]
    for size in sizes:
        edges.append(edges[-1] + size)
    return axis, tuple(edges)


def _split(operands: Operands) -> tuple[Shape, ...]:
    axis, edges = split_edges(operands)
    shape = operands.input(1 if operands.operator.op == "SPLIT" else 0).shape
    sizes = [end - begin for begin, end in itertools.pairwise(edges)]
    return tuple((*shape[:axis], size, *shape[axis + 1 :]) for size in sizes)


def _unpack(operands: Operands) -> tuple[Shape, ...]:
    axis, edges = split_edges(operands)
    shape = operands.input(0).shape
    return ((*shape[:axis], *shape[axis + 1 :]),) * (len(edges) - 1)


def _pack(operands: Operands) -> Shape:
    shapes = [operands.input(i).shape for i in range(len(operands.inputs))]
    if any(shape != shapes[0] for shape in shapes) or len(shapes[0]) >= 8:
        raise operands.wrong(f"it packs {' and '.join(map(shape_text, shapes[:4]))}")
    axis = axis_of(operands, None, 1, len(shapes[0]) + 1)
    return (*shapes[0][:axis], len(shapes), *shapes[0][axis:])


# --- gathers and repetitions -----------------------------------------------------------------------


def gather_places(operands: Operands) -> tuple[int, tuple[int, ...], Shape]:
    """GATHER with constant indices: the axis, the places, and the shape of the indices."""
    shape, indices = operands.input(0).shape, operands.input(1)
    if indices.data is None or indices.dtype not in ("int32", "int64"):
        raise operands.wrong("its indices must be constants")
    if _option(operands, 1):
        raise operands.wrong("it gathers in batches")
    axis = axis_of(operands, None, 0, len(shape))
    places = tuple(int(place) for place in indices.values().ravel())
    if not places or any(not 0 <= place < shape[axis] for place in places):
        raise operands.wrong(f"indices outside of {shape[axis]} places")
    return axis, places, indices.shape


def _gather(operands: Operands) -> Shape:
    axis, _, indices = gather_places(operands)
    shape = operands.input(0).shape
    if len(shape) + len(indices) - 1 > 8:
        raise operands.wrong("its output has more than 8 dimensions")
    return (*shape[:axis], *indices, *shape[axis + 1 :])


def _reverse(operands: Operands) -> Shape:
    normal_axes(operands, operands.integers(1), len(operands.input(0).shape))
    return operands.input(0).shape


def tile_counts(operands: Operands) -> tuple[int, ...]:
    counts = operands.integers(1)
    if len(counts) != len(operands.input(0).shape) or any(not 1 <= n <= MAX_ELEMENTS for n in counts):
        raise operands.wrong(f"it repeats {shape_text(operands.input(0).shape)} {counts} times")
    return counts


def _tile(operands: Operands) -> Shape:
    return tuple(size * n for size, n in zip(operands.input(0).shape, tile_counts(operands), strict=True))


def _broadcast_to(operands: Operands) -> Shape:
    shape, target = operands.input(0).shape, operands.integers(1)
    padded = (1,) * (len(target) - len(shape)) + shape
    if len(padded) != len(target) or len(target) > 8:
        raise operands.wrong(f"it spreads {shape_text(shape)} to {target}")
    if any(size not in (1, extent) or extent < 1 for size, extent in zip(padded, target, strict=True)):
        raise operands.wrong(f"it spreads {shape_text(shape)} to {target}")
    return target


def _mirror_widths(operands: Operands) -> tuple[tuple[int, int], ...]:
    """(before, after) of each dimension; no more than there is to mirror."""
    shape, values = operands.input(0).shape, operands.integers(1)
    edge = 0 if _mirrors_edges(operands) else 1
    if operands.input(1).shape != (len(shape), 2):
        raise operands.wrong(f"paddings {values} of a tensor of {len(shape)} dimensions")
    pairs = tuple((values[2 * i], values[2 * i + 1]) for i in range(len(shape)))
    for size, pair in zip(shape, pairs, strict=True):
        if min(pair) < 0 or max(pair) > size - edge:
            raise operands.wrong(f"it mirrors {pair} of {size}")
    return pairs


def _mirrors_edges(operands: Operands) -> bool:
    """SYMMETRIC repeats the outermost values, REFLECT does not."""
    mode = operands.options.i8(0) if operands.options is not None else 0
    if mode not in (0, 1):
        raise operands.wrong(f"mode {mode} is unknown")
    return mode == 1


def mirror_places(operands: Operands) -> tuple[tuple[int, ...], ...]:
    """MIRROR_PAD: for each axis, the input place of every output place."""
    edge = 0 if _mirrors_edges(operands) else 1
    result = []
    for size, (before, after) in zip(operands.input(0).shape, _mirror_widths(operands), strict=True):
        left = range(before - 1 + edge, edge - 1, -1)
        right = range(size - 1 - edge, size - 1 - edge - after, -1)
        result.append((*left, *range(size), *right))
    return tuple(result)


def _mirror_pad(operands: Operands) -> Shape:
    return tuple(map(len, mirror_places(operands)))


# --- blocks ----------------------------------------------------------------------------------------


def block_of(operands: Operands) -> int:
    block = _option(operands, 0)
    if len(operands.input(0).shape) != 4 or not 1 <= block <= 1 << 10:
        raise operands.wrong(f"blocks of {block} in a tensor of {len(operands.input(0).shape)} dimensions")
    return block


def _space_to_depth(operands: Operands) -> Shape:
    block, (batch, height, width, channels) = block_of(operands), operands.input(0).shape
    if height % block or width % block:
        raise operands.wrong(f"blocks of {block} in {height}x{width}")
    return (batch, height // block, width // block, channels * block * block)


def _depth_to_space(operands: Operands) -> Shape:
    block, (batch, height, width, channels) = block_of(operands), operands.input(0).shape
    if channels % (block * block):
        raise operands.wrong(f"blocks of {block} from {channels} channels")
    return (batch, height * block, width * block, channels // (block * block))


def block_padding(operands: Operands) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    """SPACE_TO_BATCH_ND, BATCH_TO_SPACE_ND: the block of each spatial axis, its paddings or crops."""
    shape, blocks, values = operands.input(0).shape, operands.integers(1), operands.integers(2)
    if not 1 <= len(blocks) <= len(shape) - 1 or len(values) != 2 * len(blocks):
        raise operands.wrong(f"blocks {blocks} and paddings {values} on {shape_text(shape)}")
    if any(not 1 <= block <= 1 << 10 for block in blocks) or any(not 0 <= v <= 1 << 16 for v in values):
        raise operands.wrong(f"blocks {blocks} and paddings {values}")
    return blocks, tuple((values[2 * i], values[2 * i + 1]) for i in range(len(blocks)))


def _space_to_batch(operands: Operands) -> Shape:
    blocks, pads = block_padding(operands)
    shape = list(operands.input(0).shape)
    for axis, (block, (before, after)) in enumerate(zip(blocks, pads, strict=True), start=1):
        if (shape[axis] + before + after) % block:
            raise operands.wrong(f"blocks of {block} in {shape[axis] + before + after}")
        shape[axis] = (shape[axis] + before + after) // block
    return (shape[0] * math.prod(blocks), *shape[1:])


def _batch_to_space(operands: Operands) -> Shape:
    blocks, crops = block_padding(operands)
    shape = list(operands.input(0).shape)
    if shape[0] % math.prod(blocks):
        raise operands.wrong(f"blocks {blocks} from a batch of {shape[0]}")
    for axis, (block, (before, after)) in enumerate(zip(blocks, crops, strict=True), start=1):
        shape[axis] = shape[axis] * block - before - after
    return (shape[0] // math.prod(blocks), *shape[1:])


MOVES: Mapping[str, Rule] = {
    "BATCH_TO_SPACE_ND": Rule(_batch_to_space, (3, 3), plain=(1, 2), same_quantization=True, options_type=24),
    "BROADCAST_TO": Rule(_broadcast_to, (2, 2), plain=(1,), same_quantization=True),
    "DEPTH_TO_SPACE": Rule(_depth_to_space, (1, 1), same_quantization=True, options_type=94),
    "GATHER": Rule(_gather, (2, 2), plain=(1,), same_quantization=True, options_type=23),
    "MIRROR_PAD": Rule(_mirror_pad, (2, 2), plain=(1,), same_quantization=True, options_type=77),
    "PACK": Rule(_pack, (1, 1024), same_quantization=True, options_type=59),
    "REVERSE_V2": Rule(_reverse, (2, 2), plain=(1,), same_quantization=True),
    "SLICE": Rule(_slice, (3, 3), plain=(1, 2), same_quantization=True),
    "SPACE_TO_BATCH_ND": Rule(_space_to_batch, (3, 3), plain=(1, 2), same_quantization=True, options_type=25),
    "SPACE_TO_DEPTH": Rule(_space_to_depth, (1, 1), same_quantization=True, options_type=19),
    "SPLIT": Rule(None, (2, 2), plain=(0,), data=1, shapes=_split, same_quantization=True, options_type=35),
    "SPLIT_V": Rule(None, (3, 3), plain=(1, 2), shapes=_split, same_quantization=True, options_type=79),
    "STRIDED_SLICE": Rule(_strided_slice, (4, 4), plain=(1, 2, 3), same_quantization=True, options_type=32),
    "TILE": Rule(_tile, (2, 2), plain=(1,), same_quantization=True),
    "UNPACK": Rule(None, (1, 1), shapes=_unpack, same_quantization=True, options_type=64),
}
"""By the schema's name of the operator."""

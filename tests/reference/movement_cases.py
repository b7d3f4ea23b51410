"""Random operators that move values, as TFLite has them, with what numpy says of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.reference.cases import SEEDS, Case, Input, int8_values, quantized
from tests.reference.tflite_builder import Tensor, TfliteBuilder

__all__ = ["MOVEMENTS"]

Array = NDArray[Any]


def _int32(values: Sequence[int] | Sequence[Sequence[int]]) -> NDArray[np.int32]:
    return np.array(values, np.int32)


def _case(
    name: str,
    operands: Sequence[Input],
    parameters: Mapping[str, Any],
    options: Any,
    results: Sequence[Array],
    *,
    before: Sequence[Array] = (),
    after: Sequence[Array] = (),
) -> Case:
    def add(model: TfliteBuilder, tensors: Sequence[Tensor]) -> list[Tensor]:
        shapes = [result.shape for result in results]
        return model.move(name, tensors, options, shapes, before=before, after=after)

    flat = np.concatenate([result.ravel() for result in results])
    shown = {"shapes": [each.values.shape for each in operands], "after": after, **parameters}
    return Case(name.lower(), tuple(operands), shown, add, lambda: flat)


@st.composite
def _operand(draw: st.DrawFn, shape: Sequence[int]) -> Input:
    return Input(int8_values(np.random.default_rng(draw(SEEDS)), shape), draw(quantized()))


def _shapes(low: int = 1, high: int = 4, extent: int = 6) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(1, extent), min_size=low, max_size=high)


@st.composite
def slice_cases(draw: st.DrawFn) -> Case:
    shape = draw(_shapes())
    x = draw(_operand(shape))
    begins = [draw(st.integers(0, size - 1)) for size in shape]
    sizes = [draw(st.integers(1, size - begin)) for size, begin in zip(shape, begins, strict=True)]
    result = x.values[tuple(slice(b, b + n) for b, n in zip(begins, sizes, strict=True))]
    given = [
        -1 if b + n == size and draw(st.booleans()) else n
        for b, n, size in zip(begins, sizes, shape, strict=True)
    ]
    return _case("SLICE", [x], {}, schema.SliceOptionsT(), [result], after=[_int32(begins), _int32(given)])


@st.composite
def strided_slice_cases(draw: st.DrawFn) -> Case:
    """Every mask but the ellipsis and new axes, which LiteRT's kernel for five dimensions has, too."""
    shape = draw(_shapes(1, 4, 7))
    x = draw(_operand(shape))
    options = schema.StridedSliceOptionsT()
    begins, ends, strides, index = [], [], [], []
    for axis, size in enumerate(shape):
        stride = draw(st.sampled_from([1, 1, 2, 3, -1, -2]))
        first, last = draw(st.integers(0, size - 1)), draw(st.integers(0, size - 1))
        if (first > last) == (stride > 0):
            first, last = last, first
        open_begin, open_end = draw(st.booleans()), draw(st.booleans())
        end = last + (1 if stride > 0 else -1)
        if end < 0:
            open_end = True
        begins.append(first - size if draw(st.booleans()) else first)
        ends.append(end - size if 0 <= end < size and draw(st.booleans()) else end)
        strides.append(stride)
        if draw(st.integers(0, 4)) == 0 and stride > 0:
            options.shrinkAxisMask |= 1 << axis
            ends[-1], strides[-1] = begins[-1] + 1, 1
            index.append(first)
            continue
        options.beginMask |= open_begin << axis
        options.endMask |= open_end << axis
        index.append(slice(None if open_begin else first, None if open_end else end, stride))
    result = np.asarray(x.values[tuple(index)])
    bounds = [_int32(begins), _int32(ends), _int32(strides)]
    masks = {name: getattr(options, name) for name in ("beginMask", "endMask", "shrinkAxisMask")}
    return _case("STRIDED_SLICE", [x], masks, options, [result.copy()], after=bounds)


@st.composite
def split_cases(draw: st.DrawFn) -> Case:
    shape = draw(_shapes())
    axis, parts = draw(st.integers(0, len(shape) - 1)), draw(st.integers(1, 4))
    shape[axis] *= parts
    x = draw(_operand(shape))
    options = schema.SplitOptionsT()
    options.numSplits = parts
    signed = np.array(axis - len(shape) if draw(st.booleans()) else axis, np.int32)
    results = np.split(x.values, parts, axis)
    return _case("SPLIT", [x], {"axis": axis, "parts": parts}, options, results, before=[signed])


@st.composite
def split_v_cases(draw: st.DrawFn) -> Case:
    shape = draw(_shapes())
    axis, sizes = (
        draw(st.integers(0, len(shape) - 1)),
        draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)),
    )
    shape[axis] = sum(sizes)
    x = draw(_operand(shape))
    options = schema.SplitVOptionsT()
    options.numSplits = len(sizes)
    results = np.split(x.values, np.cumsum(sizes)[:-1], axis)
    if draw(st.booleans()):
        sizes[draw(st.integers(0, len(sizes) - 1))] = -1
    after = [_int32(sizes), np.array(axis, np.int32)]
    return _case("SPLIT_V", [x], {"axis": axis}, options, results, after=after)


@st.composite
def unpack_cases(draw: st.DrawFn) -> Case:
    shape = draw(_shapes(2, 4, 4))
    axis = draw(st.integers(0, len(shape) - 1))
    x = draw(_operand(shape))
    options = schema.UnpackOptionsT()
    options.num, options.axis = shape[axis], axis - len(shape) if draw(st.booleans()) else axis
    results = [np.take(x.values, i, axis) for i in range(shape[axis])]
    return _case("UNPACK", [x], {"axis": axis}, options, results)


@st.composite
def pack_cases(draw: st.DrawFn) -> Case:
    shape = draw(_shapes(1, 3))
    axis = draw(st.integers(0, len(shape)))
    first = draw(_operand(shape))
    rest = [Input(draw(_operand(shape)).values, first.quantized) for _ in range(draw(st.integers(0, 3)))]
    options = schema.PackOptionsT()
    options.valuesCount = 1 + len(rest)
    options.axis = axis - len(shape) - 1 if draw(st.booleans()) else axis
    result = np.stack([each.values for each in (first, *rest)], axis)
    return _case("PACK", [first, *rest], {"axis": axis}, options, [result])


@st.composite
def gather_cases(draw: st.DrawFn) -> Case:
    shape = draw(_shapes())
    axis = draw(st.integers(0, len(shape) - 1))
    x = draw(_operand(shape))
    places = draw(_shapes(0, 2, 4))
    indices = np.random.default_rng(draw(SEEDS)).integers(0, shape[axis], places)
    indices = np.asarray(indices, draw(st.sampled_from([np.int32, np.int64])))
    options = schema.GatherOptionsT()
    options.axis = axis - len(shape) if draw(st.booleans()) else axis
    return _case("GATHER", [x], {"axis": axis}, options, [np.take(x.values, indices, axis)], after=[indices])


@st.composite
def reverse_cases(draw: st.DrawFn) -> Case:
    shape = draw(_shapes())
    first = draw(st.integers(0, len(shape) - 1))
    axes = list(range(first, draw(st.integers(first, len(shape) - 1)) + 1))  # LiteRT's must be neighbours
    x = draw(_operand(shape))
    options = schema.ReverseV2OptionsT()
    return _case("REVERSE_V2", [x], {}, options, [np.flip(x.values, axes).copy()], after=[_int32(axes)])


@st.composite
def tile_cases(draw: st.DrawFn) -> Case:
    shape = draw(_shapes(extent=4))
    x = draw(_operand(shape))
    times = [draw(st.integers(1, 3)) for _ in shape]
    return _case("TILE", [x], {}, schema.TileOptionsT(), [np.tile(x.values, times)], after=[_int32(times)])


@st.composite
def broadcast_to_cases(draw: st.DrawFn) -> Case:
    target = draw(_shapes(extent=4))
    shape = [size if draw(st.booleans()) else 1 for size in target][draw(st.integers(0, len(target) - 1)) :]
    x = draw(_operand(shape))
    result = np.broadcast_to(x.values, target).copy()
    return _case("BROADCAST_TO", [x], {}, schema.BroadcastToOptionsT(), [result], after=[_int32(target)])


@st.composite
def mirror_pad_cases(draw: st.DrawFn) -> Case:
    shape = draw(_shapes(extent=4))
    x = draw(_operand(shape))
    symmetric = draw(st.booleans())
    widths = [
        [draw(st.integers(0, min(3, size - (0 if symmetric else 1)))) for _ in range(2)] for size in shape
    ]
    options = schema.MirrorPadOptionsT()
    options.mode = 1 if symmetric else 0
    result = np.pad(x.values, widths, mode="symmetric" if symmetric else "reflect")
    return _case("MIRROR_PAD", [x], {"mode": options.mode}, options, [result], after=[_int32(widths)])


def _blocks(name: str) -> st.SearchStrategy[Case]:
    @st.composite
    def cases(draw: st.DrawFn) -> Case:
        block = draw(st.integers(1, 3))
        batch, height, width, channels = (draw(st.integers(1, 3)) for _ in range(4))
        options = getattr(schema, f"{name}OptionsT")()
        options.blockSize = block
        if name == "SpaceToDepth":
            x = draw(_operand([batch, height * block, width * block, channels]))
            parts = x.values.reshape(batch, height, block, width, block, channels)
            result = parts.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height, width, -1)
            return _case("SPACE_TO_DEPTH", [x], {"block": block}, options, [result])
        x = draw(_operand([batch, height, width, channels * block * block]))
        parts = x.values.reshape(batch, height, width, block, block, channels)
        result = parts.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height * block, width * block, channels)
        return _case("DEPTH_TO_SPACE", [x], {"block": block}, options, [result])

    return cases()


def _batches(name: str, with_batches: Callable[..., Array]) -> st.SearchStrategy[Case]:
    @st.composite
    def cases(draw: st.DrawFn) -> Case:
        blocks = [draw(st.integers(1, 3)) for _ in range(2)]
        pads = [[draw(st.integers(0, 2)) for _ in range(2)] for _ in range(2)]
        batch, height, width, channels = (draw(st.integers(1, 3)) for _ in range(4))
        options = getattr(schema, f"{name}OptionsT")()
        whole = [height * blocks[0] + sum(pads[0]), width * blocks[1] + sum(pads[1])]
        shape = [whole[i] + (-whole[i]) % blocks[i] for i in range(2)]
        if name == "SpaceToBatchND":
            shape = [size - sum(pair) for size, pair in zip(shape, pads, strict=True)]
            x = draw(_operand([batch, *shape, channels]))
        else:
            places = [size // block for size, block in zip(shape, blocks, strict=True)]
            x = draw(_operand([batch * blocks[0] * blocks[1], *places, channels]))
        assert x.quantized is not None
        result = with_batches(x.values, blocks, pads, x.quantized.zero_point)
        title = "SPACE_TO_BATCH_ND" if name == "SpaceToBatchND" else "BATCH_TO_SPACE_ND"
        after = [_int32(blocks), _int32(pads)]
        return _case(title, [x], {"blocks": blocks}, options, [np.ascontiguousarray(result)], after=after)

    return cases()


def _to_batches(x: Array, blocks: list[int], pads: list[list[int]], fill: int) -> Array:
    padded = np.pad(x, [(0, 0), *map(tuple, pads), (0, 0)], constant_values=fill)
    parts = [padded[:, i :: blocks[0], j :: blocks[1]] for i in range(blocks[0]) for j in range(blocks[1])]
    return np.concatenate(parts, 0)


def _from_batches(x: Array, blocks: list[int], crops: list[list[int]], _: int) -> Array:
    count = blocks[0] * blocks[1]
    batch = x.shape[0] // count
    whole = np.zeros((batch, x.shape[1] * blocks[0], x.shape[2] * blocks[1], x.shape[3]), x.dtype)
    for number in range(count):
        i, j = divmod(number, blocks[1])
        whole[:, i :: blocks[0], j :: blocks[1]] = x[number * batch : (number + 1) * batch]
    (top, bottom), (left, right) = crops
    return whole[:, top : whole.shape[1] - bottom, left : whole.shape[2] - right]


MOVEMENTS: Mapping[str, st.SearchStrategy[Case]] = {
    "slice": slice_cases(),
    "strided_slice": strided_slice_cases(),
    "split": split_cases(),
    "split_v": split_v_cases(),
    "unpack": unpack_cases(),
    "pack": pack_cases(),
    "gather": gather_cases(),
    "reverse": reverse_cases(),
    "tile": tile_cases(),
    "broadcast_to": broadcast_to_cases(),
    "mirror_pad": mirror_pad_cases(),
    "space_to_depth": _blocks("SpaceToDepth"),
    "depth_to_space": _blocks("DepthToSpace"),
    "space_to_batch": _batches("SpaceToBatchND", _to_batches),
    "batch_to_space": _batches("BatchToSpaceND", _from_batches),
}

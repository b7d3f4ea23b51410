"""Operators that pick places of one tensor: slices, gathers, repetitions; and stack, which joins several.

They commute with quantize and dequantize, so each works on whatever form its operand has.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler import operators as op
from edgekit.compiler.lowering.builder import Order, identity_order
from edgekit.compiler.lowering.rules import movement
from edgekit.compiler.lowering.rules.movement import joined, moved
from edgekit.compiler.lowering.rules.site import Site, in_order, integers_of, shape_of, with_tensor
from edgekit.compiler.lowering.values import (
    Constant,
    NoIntegerForm,
    Pending,
    QuantizedConstant,
    Real,
    Stored,
    Tuple,
    Value,
)

__all__ = [
    "broadcast_to",
    "flip",
    "gathered",
    "pad",
    "repeat",
    "split",
    "stack",
    "strided_slice",
    "take",
    "tile",
]

_PAD_MODES: Mapping[str, Any] = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
"""Relax's name of a padding that repeats values, and numpy's."""


def _logical_shape(site: Site, value: Value) -> tuple[int, ...]:
    if isinstance(value, (Real, Stored)):
        return shape_of(site, value)
    if isinstance(value, Pending):
        return value.shape
    if isinstance(value, Constant):
        return value.array.shape
    if isinstance(value, QuantizedConstant):
        return value.stored.shape
    raise NoIntegerForm("its input is not quantised to int8")


def _picked(
    site: Site,
    value: Value,
    shape: tuple[int, ...],
    operator: Callable[[Order], op.Operator],
    on_array: Callable[[NDArray[Any]], NDArray[Any]],
) -> Value:
    """The value with `operator` (given the order in which it is stored) applied, of logical `shape`."""
    if isinstance(value, Constant):
        return Constant(on_array(value.array))
    if isinstance(value, QuantizedConstant):
        return value.map(on_array)

    def move(stored: Stored) -> Stored:
        source = site.builder.tensors[stored.tensor]
        tensor = site.builder.step(
            operator(stored.order),
            (stored.tensor,),
            site.place,
            site.name,
            tuple(shape[axis] for axis in stored.order),
            source.quantization,
            source.dtype,
        )
        return Stored(tensor, stored.order, stored.offset)

    return moved(site, value, move)


def _sliced(site: Site, value: Value, slices: Sequence[slice]) -> Value:
    """One slice an axis, as Python's."""
    sizes = _logical_shape(site, value)
    ranges = [range(*each.indices(size)) for each, size in zip(slices, sizes, strict=True)]
    shape = tuple(len(each) for each in ranges)
    if min(shape, default=1) < 1:
        raise NoIntegerForm("an empty slice")
    if all(each == range(size) for each, size in zip(ranges, sizes, strict=True)):
        return value
    begins, strides = [each.start for each in ranges], [each.step for each in ranges]

    def operator(order: Order) -> op.Operator:
        return op.Slice(tuple(begins[axis] for axis in order), tuple(strides[axis] for axis in order))

    return _picked(site, value, shape, operator, lambda a: np.ascontiguousarray(a[tuple(slices)]))


def gathered(site: Site, value: Value, indices: Mapping[int, NDArray[np.integer[Any]]]) -> Value:
    """The places `indices` along each of some logical axes."""
    sizes = list(_logical_shape(site, value))
    for axis, places in indices.items():
        if places.size == 0 or places.min() < 0 or places.max() >= sizes[axis]:
            raise NoIntegerForm("indices outside of the tensor that they index")
        sizes[axis] = places.size

    def operator(order: Order) -> op.Operator:
        tables = (indices.get(axis) for axis in order)
        return op.Gather(tuple(None if table is None else table.astype(np.int32) for table in tables))

    def on_array(array: NDArray[Any]) -> NDArray[Any]:
        for axis, places in indices.items():
            array = np.take(array, places, axis)
        return array

    return _picked(site, value, tuple(sizes), operator, on_array)


def _integers(expression: Any) -> tuple[int, ...]:
    """Numbers given as a tuple of immediates."""
    fields = getattr(expression, "fields", None)
    if fields is None:
        raise NoIntegerForm("bounds that are computed at run time")
    return tuple(int(getattr(field, "value", field)) for field in fields)


def strided_slice(site: Site, args: Sequence[Value]) -> Value:
    axes, begins, ends, *more = (_integers(each) for each in site.call.args[1:5])
    strides = more[0] if more else (1,) * len(axes)
    slices = [slice(None)] * len(_logical_shape(site, args[0]))
    for axis, begin, end, stride in zip(axes, begins, ends, strides, strict=True):
        slices[axis] = slice(begin, end, stride)
    return _sliced(site, args[0], slices)


def split(site: Site, args: Sequence[Value]) -> Value:
    value = args[0]
    if isinstance(value, Pending):
        # Each part would compute the whole operator again.
        raise NoIntegerForm("no quantize between it and the operator that makes its input")
    sizes = _logical_shape(site, value)
    axis = int(site.attrs.axis) % len(sizes)
    given = site.attrs.indices_or_sections
    if hasattr(given, "__len__"):
        edges = [0, *integers_of(given), sizes[axis]]
    else:
        part = -(-sizes[axis] // int(getattr(given, "value", given)))
        edges = [*range(0, sizes[axis], part), sizes[axis]]
    everything = [slice(None)] * len(sizes)
    return Tuple(
        tuple(
            _sliced(site, value, [*everything[:axis], slice(begin, end), *everything[axis + 1 :]])
            for begin, end in itertools.pairwise(edges)
        )
    )


def flip(site: Site, args: Sequence[Value]) -> Value:
    slices = [slice(None)] * len(site.shape)
    slices[int(site.attrs.axis)] = slice(None, None, -1)
    return _sliced(site, args[0], slices)


def take(site: Site, args: Sequence[Value]) -> Value:
    """Indices that are constants; negative ones count from the end, as ONNX and torch have it."""
    value, indices = args[0], args[1]
    if not isinstance(indices, Constant):
        raise NoIntegerForm("indices that are computed at run time")
    sizes = _logical_shape(site, value)
    if site.attrs.axis is None and len(sizes) > 1:
        raise NoIntegerForm("indices into a flattened tensor")
    axis = 0 if site.attrs.axis is None else int(site.attrs.axis) % len(sizes)
    places = indices.array.astype(np.int64).reshape(-1)
    places = np.where(places < 0, places + sizes[axis], places)
    if places.size and (np.diff(places) == 1).all() and places[0] >= 0 and places[-1] < sizes[axis]:
        slices = [slice(None)] * len(sizes)
        slices[axis] = slice(int(places[0]), int(places[-1]) + 1)
        result = _sliced(site, value, slices)
    else:
        result = gathered(site, value, {axis: places})
    return movement.reshape(site, (result,))


def pad(site: Site, args: Sequence[Value]) -> Value:
    """Padding with a constant, or with values of the tensor itself."""
    mode = str(getattr(site.attrs, "pad_mode", "constant"))
    if mode == "constant":
        return movement.pad(site, args)
    if mode not in _PAD_MODES:
        raise NoIntegerForm(f"padding of mode {mode}")
    widths = integers_of(site.attrs.pad_width)
    indices = {}
    for axis, size in enumerate(_logical_shape(site, args[0])):
        before, after = widths[2 * axis], widths[2 * axis + 1]
        if min(before, after) < 0 or (mode == "reflect" and max(before, after) >= size > 0):
            raise NoIntegerForm(f"padding by {before} and {after} of {size} values, {mode}")
        if before or after:
            indices[axis] = np.pad(np.arange(size), (before, after), mode=_PAD_MODES[mode])
    return gathered(site, args[0], indices) if indices else args[0]


def repeat(site: Site, args: Sequence[Value]) -> Value:
    """Each place several times in a row."""
    sizes = _logical_shape(site, args[0])
    if site.attrs.axis is None and len(sizes) > 1:
        raise NoIntegerForm("repetitions of a flattened tensor")
    axis = 0 if site.attrs.axis is None else int(site.attrs.axis) % len(sizes)
    return gathered(site, args[0], {axis: np.repeat(np.arange(sizes[axis]), int(site.attrs.repeats))})


def tile(site: Site, args: Sequence[Value]) -> Value:
    return _tiled(site, args[0])


def broadcast_to(site: Site, args: Sequence[Value]) -> Value:
    return _tiled(site, args[0])


def _tiled(site: Site, value: Value) -> Value:
    """The value again and again until it fills the shape of the result; new axes come first."""
    sizes = _logical_shape(site, value)
    missing = len(site.shape) - len(sizes)
    if isinstance(value, (Constant, QuantizedConstant)):
        padded = (1,) * missing + sizes
        times = [extent // size for extent, size in zip(site.shape, padded, strict=True)]
        return _picked(site, value, site.shape, lambda _: op.Tile(), lambda a: np.tile(a, times))

    def move(stored: Stored) -> Stored:
        order = (*range(missing), *(axis + missing for axis in stored.order))
        physical = site.builder.tensors[stored.tensor].shape
        source = site.builder.view(stored.tensor, (1,) * missing + physical)
        if math.prod(physical) == math.prod(site.shape):
            return Stored(source, order, stored.offset)
        tensor = site.builder.tensors[source]
        result = site.builder.step(
            op.Tile(),
            (source,),
            site.place,
            site.name,
            site.physical(order),
            tensor.quantization,
            tensor.dtype,
        )
        return Stored(result, order, stored.offset)

    return moved(site, value, move)


def stack(site: Site, args: Sequence[Value]) -> Value:
    fields = args[0].fields if isinstance(args[0], Tuple) else tuple(args)
    axis = int(site.attrs.axis) % len(site.shape)
    return joined(site, [_with_axis(site, field, axis) for field in fields], axis)


def _with_axis(site: Site, value: Value, axis: int) -> Value:
    """The value with a new logical axis of size 1."""
    if isinstance(value, Constant):
        return Constant(np.expand_dims(value.array, axis))
    if isinstance(value, QuantizedConstant):
        return value.map(lambda a: np.expand_dims(a, axis))
    if not isinstance(value, (Real, Stored)):
        raise NoIntegerForm("no quantize between it and an operator before it")
    shape = shape_of(site, value)
    logical = in_order(site, value, identity_order(len(shape)))
    view = site.builder.view(logical, (*shape[:axis], 1, *shape[axis:]))
    return with_tensor(value, view, identity_order(len(shape) + 1))

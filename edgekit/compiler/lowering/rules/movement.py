"""Operators that move data and compute nothing, and concat, which may change scales."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from edgekit.artifacts import Quantization
from edgekit.compiler import operators as op
from edgekit.compiler.lowering.builder import Order
from edgekit.compiler.lowering.rules.elementwise import constant_operand
from edgekit.compiler.lowering.rules.site import (
    Site,
    full_range,
    in_order,
    integers_of,
    quantization_of,
    real_operand,
    rescale_of,
    same_quantization,
    shape_of,
    stored_bound,
    with_tensor,
)
from edgekit.compiler.lowering.values import (
    Constant,
    Float,
    NoIntegerForm,
    Pending,
    QuantizedConstant,
    Real,
    Stored,
    Tabulated,
    Tuple,
    Value,
)

__all__ = ["astype", "concat", "joined", "moved", "pad", "permute_dims", "reshape", "reshaped_orders"]


def _movable(site: Site, value: Value) -> Real | Stored:
    if isinstance(value, Stored):
        return value
    return real_operand(value, "its input", dtypes=("int8", "int16"))


def reshape(site: Site, args: Sequence[Value]) -> Value:
    value = args[0]
    if isinstance(value, Constant):
        return Constant(value.array.reshape(site.shape))
    if isinstance(value, QuantizedConstant):
        return value.map(lambda a: a.reshape(site.shape))
    if isinstance(value, Float):
        return Float(site.builder.view(value.tensor, site.shape))

    def move(stored: Stored) -> Stored:
        wanted, order = reshaped_orders(shape_of(site, stored), stored.order, site.shape)
        arranged = site.builder.in_order(stored.tensor, stored.order, wanted, site.place)
        return Stored(site.builder.view(arranged, site.physical(order)), order, stored.offset)

    return moved(site, value, move)


def reshaped_orders(shape: tuple[int, ...], order: Order, target: tuple[int, ...]) -> tuple[Order, Order]:
    """In which order a tensor must lie to be seen in another shape, and in which the result lies then.

    A reshape splits and joins runs of axes. Each run must lie together and in order; the runs among
    themselves may lie as they do, so that splitting the channels of an NHWC image moves nothing.
    """

    def lies_at(run: tuple[list[int], list[int]]) -> int:
        places = [order.index(axis) for axis in run[0] if shape[axis] != 1]
        return min(places or [order.index(axis) for axis in run[0]], default=len(order))

    runs = sorted(_runs(shape, target), key=lies_at)
    return (
        tuple(axis for source, _ in runs for axis in source),
        tuple(axis for _, result in runs for axis in result),
    )


def _runs(shape: tuple[int, ...], target: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """The shortest runs of axes of both shapes that hold as many elements as each other."""
    runs = []
    i = j = 0
    while i < len(shape) or j < len(target):
        source, result = list(range(i, len(shape)))[:1], list(range(j, len(target)))[:1]
        i, j = i + len(source), j + len(result)
        while (here := math.prod(shape[a] for a in source)) != (
            there := math.prod(target[a] for a in result)
        ):
            if here < there:
                source.append(i)
                i += 1
            else:
                result.append(j)
                j += 1
        runs.append((source, result))
    return runs


def moved(site: Site, value: Value, move: Callable[[Stored], Stored]) -> Value:
    """Apply a data movement to whatever form the value has."""
    if isinstance(value, Pending):
        return value.moved(move, site.shape)
    if isinstance(value, Tabulated):
        moved = move(Stored(value.source.tensor, value.source.order))
        source = replace(value.source, tensor=moved.tensor, order=moved.order)
        return replace(value, source=source, shape=site.shape)
    movable = _movable(site, value)
    result = move(Stored(movable.tensor, movable.order, getattr(movable, "offset", 0)))
    return with_tensor(movable, result.tensor, result.order)


def permute_dims(site: Site, args: Sequence[Value]) -> Value:
    value = args[0]
    attr_axes = site.attrs.axes
    rank = len(site.shape)
    axes = (
        tuple(reversed(range(rank)))
        if attr_axes is None
        else tuple(axis % rank for axis in integers_of(attr_axes))
    )
    if isinstance(value, Constant):
        return Constant(np.transpose(value.array, axes))
    if isinstance(value, QuantizedConstant):
        return value.map(lambda a: np.transpose(a, axes))
    if isinstance(value, Float):
        return Float(site.builder.transpose(value.tensor, axes, site.place))

    def move(stored: Stored) -> Stored:
        return Stored(stored.tensor, tuple(axes.index(axis) for axis in stored.order), stored.offset)

    return moved(site, value, move)


def concat(site: Site, args: Sequence[Value]) -> Value:
    fields = args[0].fields if isinstance(args[0], Tuple) else tuple(args)
    return joined(site, fields, int(site.attrs.axis) % len(site.shape))


def joined(site: Site, fields: Sequence[Value], axis: int) -> Value:
    """The fields one after the other along a logical axis."""
    if all(isinstance(field, Constant) for field in fields):
        return Constant(
            np.concatenate([field.array for field in fields if isinstance(field, Constant)], axis)
        )
    if all(isinstance(field, Stored) for field in fields):
        stored = [field for field in fields if isinstance(field, Stored)]
        if len({value.offset for value in stored}) > 1:
            raise NoIntegerForm("int8 joined with uint8")
        dtypes = {site.builder.tensors[value.tensor].dtype for value in stored}
        if len(dtypes) > 1 or not dtypes <= {"int8", "int16"}:
            raise NoIntegerForm(f"{' joined with '.join(sorted(dtypes))}")
        quantization = quantization_of(site, stored[0])
        tensor, order = _emit_concat(site, stored, axis, None, quantization, full_range(dtypes.pop()))
        return Stored(tensor, order, stored[0].offset)
    reals = [
        constant_operand(site, field)
        if isinstance(field, (Constant, QuantizedConstant))
        else real_operand(field, f"input {position}", dtypes=("int8", "int16"))
        for position, field in enumerate(fields)
    ]
    if len({real.dtype for real in reals}) > 1:
        raise NoIntegerForm("int8 joined with int16")

    def emit(quantization: Quantization, clamp: op.Clamp) -> tuple[int, Order]:
        return _emit_concat(site, reals, axis, [real.quantization for real in reals], quantization, clamp)

    return Pending(emit, site.shape, site.place, dtype=reals[0].dtype)


def _emit_concat(
    site: Site,
    values: Sequence[Real] | Sequence[Stored],
    axis: int,
    quantizations: Sequence[Quantization] | None,
    quantization: Quantization | None,
    clamp: op.Clamp,
) -> tuple[int, Order]:
    order = values[0].order
    rescales: list[op.Rescale | None] = [None] * len(values)
    zero_points = [0] * len(values)
    output_zero_point = 0
    if quantizations is not None and quantization is not None:
        output_zero_point = quantization.zero_point
        zero_points = [each.zero_point for each in quantizations]
        rescales = [
            None if same_quantization(each, quantization) else rescale_of(each.scale / quantization.scale)
            for each in quantizations
        ]
    operator = op.Concat(order.index(axis), tuple(zero_points), tuple(rescales), output_zero_point, clamp)
    sources = tuple(in_order(site, value, order) for value in values)
    shape = site.physical(order)
    dtype = site.builder.tensors[sources[0]].dtype
    return site.builder.step(operator, sources, site.place, site.name, shape, quantization, dtype), order


def pad(site: Site, args: Sequence[Value]) -> Value:
    mode = str(getattr(site.attrs, "pad_mode", "constant"))
    if mode != "constant":
        raise NoIntegerForm(f"padding of mode {mode}")
    value = _movable(site, args[0])
    widths = integers_of(site.attrs.pad_width)
    fill = float(site.attrs.pad_value)
    if isinstance(value, Real):
        quantization = value.quantization
        stored_fill = stored_bound(fill, quantization, value.dtype)
    else:
        stored_fill = int(np.clip(fill - value.offset, -128, 127))
    before = tuple(widths[2 * axis] for axis in value.order)
    after = tuple(widths[2 * axis + 1] for axis in value.order)
    if min(before + after) < 0:
        raise NoIntegerForm("negative padding")
    operator = op.Pad(before, after, stored_fill)
    tensor = site.builder.step(
        operator,
        (value.tensor,),
        site.place,
        site.name,
        site.physical(value.order),
        quantization_of(site, value),
        site.builder.tensors[value.tensor].dtype,
    )
    return with_tensor(value, tensor, value.order)


def astype(site: Site, args: Sequence[Value]) -> Value:
    value = args[0]
    dtype = str(site.attrs.dtype)
    if isinstance(value, Constant):
        return Constant(value.array.astype(dtype))
    if isinstance(value, Stored):
        source = site.builder.tensors[value.tensor]
        if dtype == ("uint8" if value.offset else source.dtype):
            return value
        if source.dtype == "int64" and dtype == "int32" and source.quantization is None:
            # Places of an argmax, which 32 bits hold.
            tensor = site.builder.step(
                op.Cast(), (value.tensor,), site.place, site.name, source.shape, None, dtype
            )
            return Stored(tensor, value.order)
    if isinstance(value, Tabulated):
        return replace(value, results=value.results.astype(dtype), fixed=None)
    raise NoIntegerForm(f"a cast to {dtype}")

"""Pooling over windows, and means over axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgekit.artifacts import Quantization
from edgekit.compiler import operators as op
from edgekit.compiler.lowering.builder import Order, identity_order
from edgekit.compiler.lowering.rules.site import (
    Rule,
    Site,
    full_range,
    integers_of,
    quantization_of,
    real_operand,
    rescale_of,
    same_quantization,
    shape_of,
    with_tensor,
)
from edgekit.compiler.lowering.rules.spatial import (
    as_image,
    channels_last,
    image_shape,
    on_image,
    paddings_of,
    pair_of,
)
from edgekit.compiler.lowering.values import Constant, NoIntegerForm, Pending, Real, Stored, Tabulated, Value

__all__ = ["adaptive_avg_pool", "arg_extreme", "averaging", "avg_pool", "extreme", "max_pool"]

ACTIVATIONS = ("int8", "int16")


def _pool_window(site: Site, data: Real | Stored, order: Order) -> op.Window:
    """The window; what ceil_mode adds below and to the right becomes padding."""
    attrs, rank = site.attrs, len(order)
    _, height, width, _ = image_shape(tuple(shape_of(site, data)[axis] for axis in order))
    _, out_h, out_w, _ = image_shape(site.physical(order))
    kernel, stride, dilation = (
        pair_of(values, rank) for values in (attrs.pool_size, attrs.strides, attrs.dilation)
    )
    top, left, bottom, right = paddings_of(attrs.padding, rank)
    bottom = max(bottom, (out_h - 1) * stride[0] + (kernel[0] - 1) * dilation[0] + 1 - height - top)
    right = max(right, (out_w - 1) * stride[1] + (kernel[1] - 1) * dilation[1] + 1 - width - left)
    return op.Window(kernel, stride, (top, left, bottom, right), dilation)


def max_pool(site: Site, args: Sequence[Value]) -> Value:
    """max_pool1d and max_pool2d."""
    data = args[0] if isinstance(args[0], Stored) else real_operand(args[0], "its input", dtypes=ACTIVATIONS)
    order = channels_last(str(site.attrs.layout))
    window = _pool_window(site, data, order)
    source = as_image(site, data, order)
    quantization = quantization_of(site, data)
    dtype = site.builder.tensors[source].dtype
    shape = image_shape(site.physical(order))
    tensor = site.builder.step(
        op.MaxPool(window, full_range(dtype)), (source,), site.place, site.name, shape, quantization, dtype
    )
    return with_tensor(data, on_image(site, tensor, order), order)


def avg_pool(site: Site, args: Sequence[Value]) -> Value:
    """avg_pool1d and avg_pool2d."""
    data = real_operand(args[0], "its input", dtypes=ACTIVATIONS)
    order = channels_last(str(site.attrs.layout))
    window = _pool_window(site, data, order)
    if window.dilation != (1, 1):
        raise NoIntegerForm("an average pool with dilation")
    count_padding = bool(site.attrs.count_include_pad) and any(window.padding)
    if count_padding and bool(site.attrs.ceil_mode):
        raise NoIntegerForm("an average pool that counts its padding in ceil mode")

    def emit(quantization: Quantization, clamp: op.Clamp) -> tuple[int, Order]:
        source = as_image(site, data, order)
        same = same_quantization(data.quantization, quantization)
        shape = image_shape(site.physical(order))
        height, width = site.builder.tensors[source].shape[1:3]
        if not same and window.kernel == (height, width) and not any(window.padding):
            # One window over everything: the mean form keeps the fraction that averaging first would round
            # off.
            tensor = _emit_mean(site, data, source, (1, 2), shape, quantization, clamp)
            return on_image(site, tensor, order), order
        operator = op.AveragePool(
            window, data.quantization.zero_point, count_padding, clamp if same else full_range(data.dtype)
        )
        pooled = site.builder.step(
            operator, (source,), site.place, site.name, shape, data.quantization, data.dtype
        )
        if same:
            return on_image(site, pooled, order), order
        rescale = rescale_of(data.quantization.scale / quantization.scale)
        change = op.Requantize(data.quantization.zero_point, quantization.zero_point, rescale, clamp)
        tensor = site.builder.step(change, (pooled,), site.place, site.name, shape, quantization, data.dtype)
        return on_image(site, tensor, order), order

    return Pending(emit, site.shape, site.place, dtype=data.dtype)


def _emit_mean(
    site: Site,
    data: Real,
    source: int,
    axes: tuple[int, ...],
    shape: tuple[int, ...],
    quantization: Quantization,
    clamp: op.Clamp,
    *,
    total: bool = False,
) -> int:
    count = math.prod(site.builder.tensors[source].shape[axis] for axis in axes)
    if count * 255 >= 2**31:
        raise NoIntegerForm("its accumulator could overflow 32 bits")
    if data.dtype != "int8":
        raise NoIntegerForm(f"a mean of {data.dtype}")
    real = data.quantization.scale / quantization.scale
    rescale = rescale_of(real) if total else _mean_rescale(real, count)
    operator = op.Mean(axes, data.quantization.zero_point, quantization.zero_point, rescale, clamp)
    return site.builder.step(operator, (source,), site.place, site.name, shape, quantization)


def _mean_rescale(real: float, count: int) -> op.Rescale:
    """Fold the division by `count` into the multiplier as TFLite does (`reduce.h:QuantizedMeanOrSum`).

    The multiplier is widened by as many bits as `count` has (at most 32, and no further than a shift of −31
    allows), divided in integers, and the shift lowered by the same number.
    """
    base = rescale_of(real)
    widen = min(count.bit_length() - 1, 32, 31 + base.shift)
    return op.Rescale((base.multiplier << widen) // count, base.shift - widen)


def _reduced_axes(site: Site, rank: int) -> set[int]:
    axes = getattr(site.attrs, "axis", None)
    return set(range(rank)) if axes is None else {axis % rank for axis in integers_of(axes)}


def _without_axes(site: Site, tensor: int, order: Order) -> tuple[int, Order]:
    """A reduced tensor, whose axes are still there, in the shape of the site."""
    if bool(site.attrs.keepdims):
        return tensor, order
    logical_first = site.builder.in_order(tensor, order, identity_order(len(order)), site.place)
    return site.builder.view(logical_first, site.shape), identity_order(len(site.shape))


def _kept_shape(site: Site, tensor: int, axes: Sequence[int]) -> tuple[int, ...]:
    shape = site.builder.tensors[tensor].shape
    return tuple(1 if axis in axes else size for axis, size in enumerate(shape))


def averaging(*, total: bool) -> Rule:
    """The mean, or the `total`, over axes."""

    def rule(site: Site, args: Sequence[Value]) -> Value:
        data = real_operand(args[0], "its input")
        axes = _reduced_axes(site, len(data.order))

        def emit(quantization: Quantization, clamp: op.Clamp) -> tuple[int, Order]:
            places = tuple(position for position, axis in enumerate(data.order) if axis in axes)
            kept = _kept_shape(site, data.tensor, places)
            tensor = _emit_mean(site, data, data.tensor, places, kept, quantization, clamp, total=total)
            return _without_axes(site, tensor, data.order)

        return Pending(emit, site.shape, site.place)

    return rule


def extreme(*, largest: bool) -> Rule:
    """The largest or smallest value over axes."""

    def rule(site: Site, args: Sequence[Value]) -> Value:
        if isinstance(args[0], Tabulated) and (args[0].results == args[0].results[0]).all():
            # "Is it infinite", asked of integers: one answer, which broadcasts.
            return Constant(np.full((1,) * len(site.shape), args[0].results[0]))
        data = (
            args[0] if isinstance(args[0], Stored) else real_operand(args[0], "its input", dtypes=ACTIVATIONS)
        )
        axes = _reduced_axes(site, len(data.order))
        places = tuple(position for position, axis in enumerate(data.order) if axis in axes)
        tensor = site.builder.step(
            op.Extreme(places, largest),
            (data.tensor,),
            site.place,
            site.name,
            _kept_shape(site, data.tensor, places),
            quantization_of(site, data),
            site.builder.tensors[data.tensor].dtype,
        )
        return with_tensor(data, *_without_axes(site, tensor, data.order))

    return rule


def arg_extreme(*, largest: bool) -> Rule:
    """Where the largest or smallest value lies: integers, which nothing dequantises."""

    def rule(site: Site, args: Sequence[Value]) -> Value:
        data = (
            args[0] if isinstance(args[0], Stored) else real_operand(args[0], "its input", dtypes=ACTIVATIONS)
        )
        if site.attrs.axis is None:
            raise NoIntegerForm("a place in a flattened tensor")
        place = data.order.index(int(site.attrs.axis) % len(data.order))
        kept = _kept_shape(site, data.tensor, (place,))
        operator = op.ArgExtreme(place, largest)
        tensor = site.builder.step(operator, (data.tensor,), site.place, site.name, kept, None, "int64")
        return Stored(*_without_axes(site, tensor, data.order))

    return rule


def adaptive_avg_pool(site: Site, args: Sequence[Value]) -> Value:
    """adaptive_avg_pool1d and adaptive_avg_pool2d to one value a channel."""
    data = real_operand(args[0], "its input")
    order = channels_last(str(site.attrs.layout))
    shape = image_shape(site.physical(order))
    if shape[1:3] != (1, 1):
        raise NoIntegerForm("adaptive pooling to more than one value a channel")

    def emit(quantization: Quantization, clamp: op.Clamp) -> tuple[int, Order]:
        source = as_image(site, data, order)
        tensor = _emit_mean(site, data, source, (1, 2), shape, quantization, clamp)
        return on_image(site, tensor, order), order

    return Pending(emit, site.shape, site.place)

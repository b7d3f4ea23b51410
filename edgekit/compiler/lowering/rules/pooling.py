"""Pooling over windows, and means over axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgekit.artifacts import Quantization
from edgekit.compiler import operators as op
from edgekit.compiler.lowering.builder import Order, identity_order
from edgekit.compiler.lowering.rules.site import (
    Site,
    in_order,
    integers_of,
    nhwc,
    quantization_of,
    real_operand,
    rescale_of,
    same_quantization,
    shape_of,
    with_tensor,
)
from edgekit.compiler.lowering.values import NoIntegerForm, Pending, Real, Stored, Value

__all__ = ["adaptive_avg_pool2d", "avg_pool2d", "max_pool2d", "mean"]


def _pool_window(site: Site, data: Real | Stored, order: Order) -> op.Window:
    """The window; what ceil_mode adds below and to the right becomes padding."""
    attrs = site.attrs
    height, width = (shape_of(site, data)[order[axis]] for axis in (1, 2))
    out_h, out_w = (site.shape[order[axis]] for axis in (1, 2))
    kernel, stride, dilation = (
        integers_of(values) for values in (attrs.pool_size, attrs.strides, attrs.dilation)
    )
    top, left, bottom, right = integers_of(attrs.padding)
    bottom = max(bottom, (out_h - 1) * stride[0] + (kernel[0] - 1) * dilation[0] + 1 - height - top)
    right = max(right, (out_w - 1) * stride[1] + (kernel[1] - 1) * dilation[1] + 1 - width - left)
    return op.Window(
        (kernel[0], kernel[1]), (stride[0], stride[1]), (top, left, bottom, right), (dilation[0], dilation[1])
    )


def max_pool2d(site: Site, args: Sequence[Value]) -> Value:
    data = args[0] if isinstance(args[0], Stored) else real_operand(args[0], "its input")
    order = nhwc(str(site.attrs.layout))
    window = _pool_window(site, data, order)
    source = in_order(site, data, order)
    quantization = quantization_of(site, data)
    tensor = site.builder.step(
        op.MaxPool(window, op.FullRange), (source,), site.place, site.name, site.physical(order), quantization
    )
    return with_tensor(data, tensor, order)


def avg_pool2d(site: Site, args: Sequence[Value]) -> Value:
    data = real_operand(args[0], "its input")
    order = nhwc(str(site.attrs.layout))
    window = _pool_window(site, data, order)
    if window.dilation != (1, 1):
        raise NoIntegerForm("an average pool with dilation")
    count_padding = bool(site.attrs.count_include_pad) and any(window.padding)
    if count_padding and bool(site.attrs.ceil_mode):
        raise NoIntegerForm("an average pool that counts its padding in ceil mode")

    def emit(quantization: Quantization, clamp: op.Clamp) -> tuple[int, Order]:
        source = in_order(site, data, order)
        same = same_quantization(data.quantization, quantization)
        shape = site.physical(order)
        height, width = site.builder.tensors[source].shape[1:3]
        if not same and window.kernel == (height, width) and not any(window.padding):
            # One window over everything: the mean form keeps the fraction that averaging first would round
            # off.
            return _emit_mean(site, data, source, (1, 2), shape, quantization, clamp), order
        operator = op.AveragePool(
            window, data.quantization.zero_point, count_padding, clamp if same else op.FullRange
        )
        pooled = site.builder.step(operator, (source,), site.place, site.name, shape, data.quantization)
        if same:
            return pooled, order
        rescale = rescale_of(data.quantization.scale / quantization.scale)
        change = op.Requantize(data.quantization.zero_point, quantization.zero_point, rescale, clamp)
        return site.builder.step(change, (pooled,), site.place, site.name, shape, quantization), order

    return Pending(emit, site.shape, site.place)


def _emit_mean(
    site: Site,
    data: Real,
    source: int,
    axes: tuple[int, ...],
    shape: tuple[int, ...],
    quantization: Quantization,
    clamp: op.Clamp,
) -> int:
    count = math.prod(site.builder.tensors[source].shape[axis] for axis in axes)
    if count * 255 >= 2**31:
        raise NoIntegerForm("its accumulator could overflow 32 bits")
    operator = op.Mean(
        axes,
        data.quantization.zero_point,
        quantization.zero_point,
        _mean_rescale(data.quantization.scale / quantization.scale, count),
        clamp,
    )
    return site.builder.step(operator, (source,), site.place, site.name, shape, quantization)


def _mean_rescale(real: float, count: int) -> op.Rescale:
    """Fold the division by `count` into the multiplier as TFLite does (`reduce.h:QuantizedMeanOrSum`).

    The multiplier is widened by as many bits as `count` has (at most 32, and no further than a shift of −31
    allows), divided in integers, and the shift lowered by the same number.
    """
    base = rescale_of(real)
    widen = min(count.bit_length() - 1, 32, 31 + base.shift)
    return op.Rescale((base.multiplier << widen) // count, base.shift - widen)


def mean(site: Site, args: Sequence[Value]) -> Value:
    data = real_operand(args[0], "its input")
    logical = shape_of(site, data)
    rank = len(logical)
    attr_axes = getattr(site.attrs, "axis", None)
    axes = set(range(rank)) if attr_axes is None else {axis % rank for axis in integers_of(attr_axes)}
    keep = bool(site.attrs.keepdims)

    def emit(quantization: Quantization, clamp: op.Clamp) -> tuple[int, Order]:
        physical_axes = tuple(position for position, axis in enumerate(data.order) if axis in axes)
        source_shape = site.builder.tensors[data.tensor].shape
        kept = tuple(1 if p in physical_axes else size for p, size in enumerate(source_shape))
        tensor = _emit_mean(site, data, data.tensor, physical_axes, kept, quantization, clamp)
        if keep:
            return tensor, data.order
        logical_first = site.builder.in_order(tensor, data.order, identity_order(rank), site.place)
        return site.builder.view(logical_first, site.shape), identity_order(len(site.shape))

    return Pending(emit, site.shape, site.place)


def adaptive_avg_pool2d(site: Site, args: Sequence[Value]) -> Value:
    data = real_operand(args[0], "its input")
    order = nhwc(str(site.attrs.layout))
    if (site.shape[order[1]], site.shape[order[2]]) != (1, 1):
        raise NoIntegerForm("adaptive pooling to more than one value a channel")

    def emit(quantization: Quantization, clamp: op.Clamp) -> tuple[int, Order]:
        source = in_order(site, data, order)
        return _emit_mean(site, data, source, (1, 2), site.physical(order), quantization, clamp), order

    return Pending(emit, site.shape, site.place)

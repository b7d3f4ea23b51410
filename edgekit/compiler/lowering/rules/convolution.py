"""Convolutions: conv2d and depthwise conv2d, from any source layout to NHWC."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from edgekit.artifacts import Quantization
from edgekit.compiler import operators as op
from edgekit.compiler.fixed_point import quantize_multipliers
from edgekit.compiler.lowering.builder import Order
from edgekit.compiler.lowering.rules.site import Site, in_order, integers_of, nhwc, real_operand, shape_of
from edgekit.compiler.lowering.rules.weights import (
    accumulating,
    check_accumulator,
    int8_weights,
    per_channel,
    weights_of,
)
from edgekit.compiler.lowering.values import NoIntegerForm, Value

__all__ = ["conv2d"]


def conv2d(site: Site, args: Sequence[Value]) -> Value:
    attrs = site.attrs
    data = real_operand(args[0], "its input")
    weights = weights_of(args[1])
    order = nhwc(str(attrs.data_layout))
    layout = str(attrs.kernel_layout)
    groups = int(attrs.groups)
    if sorted(layout) != sorted("OIHW"):
        raise NoIntegerForm(f"kernel layout {layout}")
    channels = shape_of(site, data)[order[3]]
    depthwise = groups > 1 and groups == channels
    if groups > 1 and not depthwise:
        raise NoIntegerForm(f"a convolution in {groups} groups")
    if depthwise and layout == "HWOI":  # TVM's own depthwise form: O counts input channels, I the multiplier
        arranged = weights.map(lambda a: a.reshape(a.shape[0], a.shape[1], -1))
        kernel = arranged.stored.shape[:2]
    elif depthwise:
        axes = [layout.index(letter) for letter in "HWOI"]
        arranged = weights.map(
            lambda a: np.transpose(a, axes).reshape(a.shape[axes[0]], a.shape[axes[1]], -1)
        )
        kernel = arranged.stored.shape[:2]
    else:
        axes = [layout.index(letter) for letter in "OHWI"]
        arranged = weights.map(lambda a: np.transpose(a, axes))
        kernel = arranged.stored.shape[1:3]
    window = op.Window(
        (kernel[0], kernel[1]),
        integers_of(attrs.strides)[:2],  # type: ignore[arg-type]
        integers_of(attrs.padding),  # type: ignore[arg-type]
        integers_of(attrs.dilation)[:2],  # type: ignore[arg-type]
    )
    channel_axis = 2 if depthwise else 0
    kind: type[op.Conv2D] | type[op.DepthwiseConv2D] = op.DepthwiseConv2D if depthwise else op.Conv2D
    scales = data.quantization.scale * per_channel(arranged, channel_axis)
    values = int8_weights(arranged)
    physical = site.physical(order)

    def emit_with(bias: NDArray[np.int32]) -> Callable[[Quantization, op.Clamp], tuple[int, Order]]:
        def emit(quantization: Quantization, clamp: op.Clamp) -> tuple[int, Order]:
            check_accumulator(np.moveaxis(values, channel_axis, 0), bias, data.quantization.zero_point)
            multipliers, shifts = _multipliers(scales / quantization.scale)
            operator = kind(
                window=window,
                weights=np.ascontiguousarray(values),
                bias=bias,
                input_zero_point=data.quantization.zero_point,
                output_zero_point=quantization.zero_point,
                multipliers=multipliers,
                shifts=shifts,
                clamp=clamp,
            )
            source = in_order(site, data, order)
            tensor = site.builder.step(operator, (source,), site.place, site.name, physical, quantization)
            return tensor, order

        return emit

    return accumulating(site, emit_with, scales, order[3])


def _multipliers(reals: NDArray[np.float64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    try:
        return quantize_multipliers(reals)
    except ValueError as error:
        raise NoIntegerForm(str(error)) from None

"""Convolutions: one and two dimensions, in groups, depthwise, transposed; from any source layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.artifacts import Quantization
from edgekit.compiler import operators as op
from edgekit.compiler.fixed_point import quantize_multipliers
from edgekit.compiler.lowering.builder import Order
from edgekit.compiler.lowering.rules.site import Site, real_operand, shape_of
from edgekit.compiler.lowering.rules.spatial import (
    as_image,
    channels_last,
    image_shape,
    on_image,
    paddings_of,
    pair_of,
)
from edgekit.compiler.lowering.rules.weights import (
    accumulating,
    check_accumulator,
    check_wide_accumulator,
    int8_weights,
    per_channel,
    weights_of,
)
from edgekit.compiler.lowering.values import NoIntegerForm, QuantizedConstant, Real, Value

__all__ = ["convolution", "transposed_convolution"]


@dataclass(frozen=True, slots=True, eq=False)
class _Arithmetic:
    """What the integer convolutions share, ready for an operator."""

    bias: NDArray[np.int32]
    input_zero_point: int
    output_zero_point: int
    multipliers: NDArray[np.int32]
    shifts: NDArray[np.int32]
    clamp: op.Clamp
    rounding: op.Rounding


def convolution(site: Site, args: Sequence[Value]) -> Value:
    """conv1d and conv2d with any number of groups."""
    attrs = site.attrs
    data = real_operand(args[0], "its input", dtypes=("int8", "int16"))
    order = channels_last(str(attrs.data_layout))
    rank = len(order)
    groups = int(attrs.groups)
    channels = shape_of(site, data)[order[-1]]
    weights = _arranged(weights_of(args[1]), str(attrs.kernel_layout), groups, transposed=False)
    outputs, *kernel, _ = weights.stored.shape
    window = op.Window(
        (kernel[0], kernel[1]),
        pair_of(attrs.strides, rank),
        paddings_of(attrs.padding, rank),
        pair_of(attrs.dilation, rank),
    )
    depthwise = 1 < groups == channels
    values = int8_weights(weights)

    def operator(with_: _Arithmetic) -> op.Operator:
        shared = (
            with_.bias,
            with_.input_zero_point,
            with_.output_zero_point,
            with_.multipliers,
            with_.shifts,
            with_.clamp,
            with_.rounding,
        )
        if depthwise:
            by_channel = np.ascontiguousarray(values[..., 0].transpose(1, 2, 0))
            return op.DepthwiseConv2D(window, by_channel, *shared)
        if groups > 1:
            return op.GroupedConv2D(window, values, *shared, groups=groups)
        return op.Conv2D(window, values, *shared)

    if outputs % groups:
        raise NoIntegerForm(f"{outputs} output channels in {groups} groups")
    if data.dtype == "int16":
        return _wide_convolution(site, data, order, weights, window, groups)
    return _accumulating(site, data, order, weights, values, operator)


def transposed_convolution(site: Site, args: Sequence[Value]) -> Value:
    """conv1d_transpose and conv2d_transpose with any number of groups."""
    attrs = site.attrs
    data = real_operand(args[0], "its input")
    order = channels_last(str(attrs.data_layout))
    rank = len(order)
    groups = int(attrs.groups)
    weights = _arranged(weights_of(args[1]), str(attrs.kernel_layout), groups, transposed=True)
    values = _dilated(int8_weights(weights), pair_of(attrs.dilation, rank))
    window = op.Window(
        (values.shape[1], values.shape[2]), pair_of(attrs.strides, rank), paddings_of(attrs.padding, rank)
    )

    def operator(with_: _Arithmetic) -> op.Operator:
        return op.TransposedConv2D(
            window,
            values,
            with_.bias,
            with_.input_zero_point,
            with_.output_zero_point,
            with_.multipliers,
            with_.shifts,
            with_.clamp,
            with_.rounding,
            groups=groups,
        )

    return _accumulating(site, data, order, weights, values, operator)


def _arranged(weights: QuantizedConstant, layout: str, groups: int, *, transposed: bool) -> QuantizedConstant:
    """Weights as (outputs, KH, KW, inputs of a group), from any layout of O, I, (H,) W.

    The letters count as the source has them: of a transposed convolution I is all inputs and O the outputs
    of a group; TVM's HWOI of a depthwise convolution counts input channels as O and the multiplier as I.
    """
    if "H" not in layout and "W" in layout:
        position = layout.index("W")
        weights = weights.map(lambda a: np.expand_dims(a, position))
        layout = layout.replace("W", "HW")
    if sorted(layout) != sorted("OIHW"):
        raise NoIntegerForm(f"kernel layout {layout}")
    axes = [layout.index(letter) for letter in "OHWI"]
    if transposed:

        def by_output(a: NDArray[Any]) -> NDArray[Any]:
            per_group, height, width, inputs = (a.shape[axis] for axis in axes)
            parts = np.transpose(a, axes).reshape(per_group, height, width, groups, inputs // groups)
            moved = np.transpose(parts, (3, 0, 1, 2, 4))
            return np.reshape(moved, (groups * per_group, height, width, inputs // groups))

        return weights.map(by_output)
    if groups > 1 and layout == "HWOI":

        def depthwise(a: NDArray[Any]) -> NDArray[Any]:
            return np.transpose(a.reshape(a.shape[0], a.shape[1], -1, 1), (2, 0, 1, 3))

        return weights.map(depthwise)
    return weights.map(lambda a: np.transpose(a, axes))


def _dilated(values: NDArray[np.int8], dilation: tuple[int, int]) -> NDArray[np.int8]:
    """Weights (O, KH, KW, I) with dilation − 1 zeros between kernel places."""
    if dilation == (1, 1):
        return values
    outputs, height, width, inputs = values.shape
    spread = np.zeros(
        (outputs, (height - 1) * dilation[0] + 1, (width - 1) * dilation[1] + 1, inputs), np.int8
    )
    spread[:, :: dilation[0], :: dilation[1]] = values
    return spread


def _accumulating(
    site: Site,
    data: Real,
    order: Order,
    weights: QuantizedConstant,
    values: NDArray[np.int8],
    operator: Callable[[_Arithmetic], op.Operator],
) -> Value:
    """The pending convolution: its scales, its bias still to come, and how it is emitted."""
    scales = data.quantization.scale * per_channel(weights, 0)
    zero_point = data.quantization.zero_point
    shape = image_shape(site.physical(order))

    def emit_with(bias: NDArray[np.int32]) -> Callable[[Quantization, op.Clamp], tuple[int, Order]]:
        def emit(quantization: Quantization, clamp: op.Clamp) -> tuple[int, Order]:
            check_accumulator(values, bias, zero_point)
            multipliers, shifts = _multipliers(scales / quantization.scale)
            step = operator(
                _Arithmetic(
                    bias, zero_point, quantization.zero_point, multipliers, shifts, clamp, site.rounding
                )
            )
            source = as_image(site, data, order)
            tensor = site.builder.step(step, (source,), site.place, site.name, shape, quantization)
            return on_image(site, tensor, order), order

        return emit

    return accumulating(site, emit_with, scales, order[-1])


def _wide_convolution(
    site: Site, data: Real, order: Order, weights: QuantizedConstant, window: op.Window, groups: int
) -> Value:
    """A pending convolution of int16 activations."""
    scales = data.quantization.scale * per_channel(weights, 0)
    values = np.ascontiguousarray(int8_weights(weights))
    shape = image_shape(site.physical(order))

    def emit_with(bias: NDArray[np.int64]) -> Callable[[Quantization, op.Clamp], tuple[int, Order]]:
        def emit(quantization: Quantization, clamp: op.Clamp) -> tuple[int, Order]:
            check_wide_accumulator(values, bias)
            multipliers, shifts = _multipliers(scales / quantization.scale)
            if shifts.max(initial=0) > 7:
                raise NoIntegerForm("a requantisation multiplier of 128 or more")
            # common.cc: MultiplyByQuantizedMultiplier(int64) reduces the multiplier to 15 bits.
            reduced = np.where(
                multipliers < 0x7FFF0000, (multipliers.astype(np.int64) + (1 << 15)) >> 16, 0x7FFF
            )
            step = op.Conv2D16x8(window, groups, values, bias, reduced.astype(np.int32), shifts, clamp)
            source = as_image(site, data, order)
            tensor = site.builder.step(step, (source,), site.place, site.name, shape, quantization, "int16")
            return on_image(site, tensor, order), order

        return emit

    return accumulating(site, emit_with, scales, order[-1], "int16")


def _multipliers(reals: NDArray[np.float64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    try:
        return quantize_multipliers(reals)
    except ValueError as error:
        raise NoIntegerForm(str(error)) from None

"""Convolutions: integer sums, per-channel requantisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import te, tirx

from edgekit.compiler import operators as op
from edgekit.compiler.definitions.stages import (
    OUTPUT,
    PADDED,
    SUM,
    Definition,
    all_of,
    const,
    i32,
    padded_source,
)
from edgekit.compiler.fixed_point import (
    high_multiply_shifted,
    product_for_single_rounding,
    saturate,
    shift_right_double_rounding,
    shift_right_single_rounding,
)
from edgekit.compiler.program import Tensor

__all__ = ["biased_sum", "conv2d", "depthwise_conv2d", "first_channel", "grouped_conv2d", "transposed_conv2d"]

Constants = list[tuple[Any, NDArray[np.generic]]]


def biased_sum(
    operator: op.Int8Convolution | op.Dense,
    total: Any,
    weight_sums: NDArray[np.int64],
    output: Tensor,
) -> tuple[tuple[Any, NDArray[np.generic]], Any]:
    """The bias constant and the stage that adds it.

    The sums run over stored inputs, whose padding is the zero point: bias − z·Σw puts that right.
    """
    folded = operator.bias.astype(np.int64) - operator.input_zero_point * weight_sums
    bias = const("bias", folded.astype(np.int32))
    return bias, te.compute(output.shape, lambda *at: total[at] + bias[0][at[-1]], name="biased")


def _requantized_output(
    operator: op.Int8Convolution, total: Any, weight_sums: NDArray[np.int64], output: Tensor
) -> tuple[Constants, Any]:
    """Bias, per-channel requantisation and clamp of the accumulators: constants and the output stage."""
    bias, biased = biased_sum(operator, total, weight_sums, output)
    constants, result = _requantized(operator, biased, output)
    return [bias, *constants], result


def _requantized(operator: op.Int8Convolution, biased: Any, output: Tensor) -> tuple[Constants, Any]:
    """Requantisation and clamp of the biased sums.

    The biased sum and the product are stages of their own: as one expression TVM rewrites (sum + bias) ·
    multiplier into 64-bit additions and repeats it in the rounding.
    """
    multipliers = const("multipliers", operator.multipliers)
    shifts = const("shifts", operator.shifts)

    single = operator.rounding == "single"

    def scale(*at: Any) -> Any:
        if single:
            return product_for_single_rounding(biased[at], multipliers[0][at[-1]], operator.shifts)
        return high_multiply_shifted(biased[at], multipliers[0][at[-1]], shifts[0][at[-1]], operator.shifts)

    scaled = te.compute(output.shape, scale, name="scaled")

    def finish(*at: Any) -> Any:
        shift_right = shift_right_single_rounding if single else shift_right_double_rounding
        value = shift_right(scaled[at], shifts[0][at[-1]], operator.shifts)
        shifted = value + i32(operator.output_zero_point)
        return saturate(shifted, operator.clamp.low, operator.clamp.high)

    return [multipliers, shifts], te.compute(output.shape, finish, name=OUTPUT)


def conv2d(operator: op.Conv2D, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    return _window_sums(operator, 1, inputs, output)


def grouped_conv2d(operator: op.GroupedConv2D, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    return _window_sums(operator, operator.groups, inputs, output)


def depthwise_conv2d(operator: op.DepthwiseConv2D, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    window = operator.window
    source = padded_source(inputs[0], window, output, operator.input_zero_point)
    channel_multiplier = operator.weights.shape[2] // int(inputs[0].shape[3])
    weights = const("weights", operator.weights)
    ky = te.reduce_axis((0, window.kernel[0]), name="ky")
    kx = te.reduce_axis((0, window.kernel[1]), name="kx")
    total = te.compute(
        output.shape,
        lambda n, y, x, c: te.sum(
            i32(
                source[
                    n,
                    y * window.stride[0] + ky * window.dilation[0],
                    x * window.stride[1] + kx * window.dilation[1],
                    c if channel_multiplier == 1 else tirx.floordiv(c, channel_multiplier),
                ]
            )
            * i32(weights[0][ky, kx, c]),
            axis=[ky, kx],
        ),
        name=SUM,
    )
    sums = operator.weights.astype(np.int64).sum(axis=(0, 1))
    constants, result = _requantized_output(operator, total, sums, output)
    return Definition(inputs, (weights, *constants), result)


def first_channel(channel: Any, weights: NDArray[np.int8], groups: int) -> Any:
    """The first input channel of the group that an output channel belongs to."""
    if groups == 1:
        return 0
    per_group = weights.shape[0] // groups
    group = channel if per_group == 1 else tirx.floordiv(channel, per_group)
    return group * weights.shape[3]


def _window_sums(
    operator: op.Conv2D | op.GroupedConv2D, groups: int, inputs: tuple[Any, ...], output: Tensor
) -> Definition:
    """Sums over a window of the input channels of each output channel's group, requantised."""
    window = operator.window
    source = padded_source(inputs[0], window, output, operator.input_zero_point)
    weights = const("weights", operator.weights)
    ky = te.reduce_axis((0, window.kernel[0]), name="ky")
    kx = te.reduce_axis((0, window.kernel[1]), name="kx")
    ki = te.reduce_axis((0, operator.weights.shape[3]), name="ki")
    total = te.compute(
        output.shape,
        lambda n, y, x, o: te.sum(
            i32(
                source[
                    n,
                    y * window.stride[0] + ky * window.dilation[0],
                    x * window.stride[1] + kx * window.dilation[1],
                    first_channel(o, operator.weights, groups) + ki,
                ]
            )
            * i32(weights[0][o, ky, kx, ki]),
            axis=[ky, kx, ki],
        ),
        name=SUM,
    )
    sums = operator.weights.astype(np.int64).sum(axis=(1, 2, 3))
    constants, result = _requantized_output(operator, total, sums, output)
    return Definition(inputs, (weights, *constants), result)


def transposed_conv2d(operator: op.TransposedConv2D, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    """Each output gathers what the inputs would scatter to it.

    Output row y takes kernel rows `(y + top) % stride + stride·j` from input rows `(y + top) // stride − j`.
    """
    window = operator.window
    geometry = tuple(
        _Phases(size, window.kernel[i], window.stride[i], window.padding[i], output.shape[1 + i])
        for i, size in enumerate(int(size) for size in inputs[0].shape[1:3])
    )
    rows, columns = geometry
    source = _extended(inputs[0], rows, columns, operator.input_zero_point)
    weights = const("weights", operator.weights)
    jy = te.reduce_axis((0, rows.taps), name="ky")
    jx = te.reduce_axis((0, columns.taps), name="kx")
    ki = te.reduce_axis((0, operator.weights.shape[3]), name="ki")

    def term(n: Any, y: Any, x: Any, o: Any) -> Any:
        ky, kx = rows.kernel_place(y, jy), columns.kernel_place(x, jx)
        channel = first_channel(o, operator.weights, operator.groups) + ki
        product = i32(source[n, rows.source_place(y, jy), columns.source_place(x, jx), channel]) * i32(
            weights[0][o, ky, kx, ki]
        )
        inside = [place < each.kernel for place, each in ((ky, rows), (kx, columns)) if each.uneven]
        return tirx.if_then_else(all_of(inside), product, i32(0)) if inside else product

    total = te.compute(output.shape, lambda *at: te.sum(term(*at), axis=[jy, jx, ki]), name=SUM)
    # Each phase of the output sees its own part of the kernel, so z·Σw depends on the phase.
    kernel_sums = operator.weights.astype(np.int64).sum(axis=3).transpose(1, 2, 0)
    sums = np.zeros((rows.stride, columns.stride, operator.weights.shape[0]), np.int64)
    for ky in range(rows.kernel):
        for kx in range(columns.kernel):
            sums[ky % rows.stride, kx % columns.stride] += kernel_sums[ky, kx]
    bias = const("bias", (operator.bias.astype(np.int64) - operator.input_zero_point * sums).astype(np.int32))
    biased = te.compute(
        output.shape,
        lambda n, y, x, o: total[n, y, x, o] + bias[0][rows.phase(y), columns.phase(x), o],
        name="biased",
    )
    constants, result = _requantized(operator, biased, output)
    return Definition(inputs, (weights, bias, *constants), result)


@dataclass(frozen=True, slots=True)
class _Phases:
    """One axis of a transposed convolution."""

    size: int
    kernel: int
    stride: int
    before: int
    output: int

    @property
    def taps(self) -> int:
        """How many inputs at most add to one output."""
        return -(-self.kernel // self.stride)

    @property
    def uneven(self) -> bool:
        """Whether some phases have fewer taps than others."""
        return self.kernel % self.stride != 0

    @property
    def first(self) -> int:
        """The first input place that an output reads; may lie before the input."""
        return self.before // self.stride - (self.taps - 1)

    @property
    def extent(self) -> int:
        """How many input places the outputs read."""
        return (self.output - 1 + self.before) // self.stride - self.first + 1

    def phase(self, place: Any) -> Any:
        return tirx.floormod(place + self.before, self.stride) if self.stride > 1 else 0

    def kernel_place(self, place: Any, tap: Any) -> Any:
        """Taps count upwards through the input, so downwards through the kernel."""
        return self.phase(place) + (self.taps - 1 - tap) * self.stride

    def source_place(self, place: Any, tap: Any) -> Any:
        """In the extended input, which begins at `first`."""
        quotient = tirx.floordiv(place + self.before, self.stride) if self.stride > 1 else place + self.before
        return quotient - self.before // self.stride + tap


def _extended(data: Any, rows: _Phases, columns: _Phases, fill: int) -> Any:
    """The part of the input that the outputs read, with `fill` where there is none."""
    if all(each.first == 0 and each.extent <= each.size for each in (rows, columns)):
        return data
    batch, _, _, channels = (int(size) for size in data.shape)

    def value(n: Any, y: Any, x: Any, c: Any) -> Any:
        row, column = y + rows.first, x + columns.first
        inside = all_of([row >= 0, row < rows.size, column >= 0, column < columns.size])
        return tirx.if_then_else(inside, data[n, row, column, c], tirx.const(fill, data.dtype))

    return te.compute((batch, rows.extent, columns.extent, channels), value, name=PADDED)

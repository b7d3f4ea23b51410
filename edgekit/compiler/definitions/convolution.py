"""Convolutions: integer sums, per-channel requantisation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import te, tirx

from edgekit.compiler import operators as op
from edgekit.compiler.definitions.stages import OUTPUT, SUM, Definition, const, i32, padded_source
from edgekit.compiler.fixed_point import high_multiply_shifted, saturate, shift_right_double_rounding
from edgekit.compiler.program import Tensor

__all__ = ["biased_sum", "conv2d", "depthwise_conv2d"]


def biased_sum(
    operator: op.Conv2D | op.DepthwiseConv2D | op.Dense,
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
    operator: op.Conv2D | op.DepthwiseConv2D,
    total: Any,
    weight_sums: NDArray[np.int64],
    output: Tensor,
) -> tuple[list[tuple[Any, NDArray[np.generic]]], Any]:
    """Bias, per-channel requantisation and clamp of the accumulators: constants and the output stage.

    The biased sum and the product are stages of their own: as one expression TVM rewrites (sum + bias) ·
    multiplier into 64-bit additions and repeats it in the rounding.
    """
    bias, biased = biased_sum(operator, total, weight_sums, output)
    multipliers = const("multipliers", operator.multipliers)
    shifts = const("shifts", operator.shifts)

    def scale(*at: Any) -> Any:
        return high_multiply_shifted(biased[at], multipliers[0][at[-1]], shifts[0][at[-1]], operator.shifts)

    scaled = te.compute(output.shape, scale, name="scaled")

    def finish(*at: Any) -> Any:
        value = shift_right_double_rounding(scaled[at], shifts[0][at[-1]], operator.shifts)
        shifted = value + i32(operator.output_zero_point)
        return saturate(shifted, operator.clamp.low, operator.clamp.high)

    return [bias, multipliers, shifts], te.compute(output.shape, finish, name=OUTPUT)


def conv2d(operator: op.Conv2D, inputs: tuple[Any, ...], output: Tensor) -> Definition:
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
                    ki,
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

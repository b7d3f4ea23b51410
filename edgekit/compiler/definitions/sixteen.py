"""Operators on int16 activations: sums of up to 64 bits, LiteRT's two ways of scaling them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import te, tirx

from edgekit.compiler import operators as op
from edgekit.compiler.definitions.convolution import first_channel
from edgekit.compiler.definitions.stages import OUTPUT, SUM, Definition, at_index, const, i32, padded_source
from edgekit.compiler.fixed_point import saturate
from edgekit.compiler.program import Tensor

__all__ = ["conv2d", "dense"]


def _i64(value: int) -> Any:
    return tirx.const(value, "int64")


def _wide(value: Any) -> Any:
    return tirx.Cast("int64", value)


def _accumulator(weights: NDArray[np.int8]) -> str:
    """The narrowest type that holds every sum of 32768 · |w|."""
    largest = int(np.abs(weights.astype(np.int64)).reshape(weights.shape[0], -1).sum(axis=1).max(initial=0))
    return "int32" if largest * 32768 < 2**31 else "int64"


def conv2d(operator: op.Conv2D16x8, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    """MultiplyByQuantizedMultiplier of int64 (common.cc): the multiplier reduced to 15 bits, one rounding."""
    window = operator.window
    source = padded_source(inputs[0], window, output, 0)
    weights = const("weights", operator.weights)
    bias = const("bias", operator.bias)
    multipliers, shifts = const("multipliers", operator.multipliers), const("shifts", operator.shifts)
    ky = te.reduce_axis((0, window.kernel[0]), name="ky")
    kx = te.reduce_axis((0, window.kernel[1]), name="kx")
    ki = te.reduce_axis((0, operator.weights.shape[3]), name="ki")
    wide = _accumulator(operator.weights)
    total = te.compute(
        output.shape,
        lambda n, y, x, o: te.sum(
            tirx.Cast(
                wide,
                source[
                    n,
                    y * window.stride[0] + ky * window.dilation[0],
                    x * window.stride[1] + kx * window.dilation[1],
                    first_channel(o, operator.weights, operator.groups) + ki,
                ],
            )
            * tirx.Cast(wide, weights[0][o, ky, kx, ki]),
            axis=[ky, kx, ki],
        ),
        name=SUM,
    )
    biased = te.compute(output.shape, lambda *at: _wide(total[at]) + bias[0][at[-1]], name="biased")

    def scale(*at: Any) -> Any:
        distance = _i64(15) - _wide(shifts[0][at[-1]])
        half = tirx.shift_left(_i64(1), distance - _i64(1))
        return i32(tirx.shift_right(biased[at] * _wide(multipliers[0][at[-1]]) + half, distance))

    scaled = te.compute(output.shape, scale, name="scaled")
    low, high = operator.clamp.low, operator.clamp.high
    result = te.compute(output.shape, lambda *at: saturate(scaled[at], low, high, "int16"), name=OUTPUT)
    return Definition(inputs, (weights, bias, multipliers, shifts), result)


def dense(operator: op.Dense16x8, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    """round(float64(sum) · real), halves away from zero, in integers, for sums below 2^41.

    As for int8 (`fixed_point.round_as_float64`), but for the wider sum, whose product with the low 32 bits of
    the multiplier is kept in two halves of 16.
    """
    weights = const("weights", operator.weights)
    bias = const("bias", operator.bias)
    multipliers = operator.multipliers
    high = const("multipliers_high", multipliers.high)
    upper = const("multipliers_upper", (multipliers.low >> 16).astype(np.int32))
    lower = const("multipliers_lower", (multipliers.low & 0xFFFF).astype(np.int32))
    shifts = const("shifts", multipliers.shift)
    k = te.reduce_axis((0, operator.weights.shape[1]), name="k")
    wide = _accumulator(operator.weights)
    total = te.compute(
        output.shape,
        lambda *at: te.sum(
            tirx.Cast(wide, at_index(inputs[0], *at[:-1], k)) * tirx.Cast(wide, weights[0][at[-1], k]), axis=k
        ),
        name=SUM,
    )
    biased = te.compute(output.shape, lambda *at: _wide(total[at]) + bias[0][at[-1]], name="biased")

    def product(name: str, part: Any) -> Any:
        return te.compute(
            output.shape, lambda *at: tirx.abs(biased[at]) * _wide(part[0][at[-1]]), name=f"{name}_product"
        )

    parts = product("high", high), product("upper", upper), product("lower", lower)

    def rounded(at: tuple[Any, ...], extra: Any, limit: int) -> Any:
        first, second, third = (part[at] for part in parts)
        shift = _wide(shifts[0][at[-1]])
        carry = tirx.shift_right(second + tirx.shift_right(third + extra, _i64(16)), _i64(16))
        half = tirx.shift_left(_i64(1), shift - _i64(33))
        return tirx.min(tirx.shift_right(first + carry + half, shift - _i64(32)), _i64(limit))

    plain = te.compute(output.shape, lambda *at: i32(rounded(at, _i64(0), 65535)), name="plain")

    def quarter_ulps(*at: Any) -> Any:
        """Four times the largest power of two up to the rounded product; 1 for a product of 0."""
        smeared = plain[at]
        for distance in (1, 2, 4, 8):
            smeared = tirx.bitwise_or(smeared, tirx.shift_right(smeared, i32(distance)))
        power = smeared - tirx.shift_right(smeared, i32(1))
        return tirx.max(tirx.shift_left(power, i32(2)), i32(1))

    quarters = te.compute(output.shape, quarter_ulps, name="quarters")

    def magnitude(*at: Any) -> Any:
        exponent = _wide(shifts[0][at[-1]]) - _i64(55)
        raised = tirx.shift_left(_wide(quarters[at]), tirx.max(exponent, _i64(0)))
        return i32(rounded(at, tirx.shift_right(raised, tirx.max(-exponent, _i64(0))), 65536))

    magnitudes = te.compute(output.shape, magnitude, name="magnitude")

    def finish(*at: Any) -> Any:
        value = tirx.Select(biased[at] < _i64(0), -magnitudes[at], magnitudes[at])
        return saturate(value, operator.clamp.low, operator.clamp.high, "int16")

    constants = (weights, bias, high, upper, lower, shifts)
    return Definition(inputs, constants, te.compute(output.shape, finish, name=OUTPUT))

"""The exponentials of the integer softmax, computed at compile time with gemmlowp's fixed-point arithmetic.

TFLite's int8 softmax evaluates exp(scale · (x − max)) with gemmlowp's `exp_on_negative_values`. It depends on
max − x alone, which has 256 values, so a table of them makes the operator integer code that is the same
everywhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler.fixed_point import quantize_multiplier

__all__ = ["SOFTMAX_MAX_CLASSES", "exponential_table"]

SOFTMAX_MAX_CLASSES = 4095
"""The sum of exponentials is Q12.19 in 32 bits."""

_INTEGER_BITS = 5
_FRACTION_BITS = 31 - _INTEGER_BITS
_ONE_Q31 = 2**31 - 1

# exp(−2^k) in Q0.31 for k = −2 … 4 (gemmlowp fixedpoint.h, exp_on_negative_values).
_EXP_OF_POWERS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)


def _high_multiply(a: int, b: int) -> int:
    return (a * b + (1 << 30)) >> 31


def _shift_right_rounding(value: int, exponent: int) -> int:
    half = 1 << (exponent - 1)
    return (value + half) >> exponent if value >= 0 else -((-value + half) >> exponent)


def _exp_near_zero(a: int) -> int:
    """exp of a in [−1/4, 0), Q0.31, by a Taylor polynomial of order 4 around −1/8."""
    exp_minus_eighth, third = 1895147668, 715827883
    x = a + (1 << 28)
    x2 = _high_multiply(x, x)
    x3 = _high_multiply(x2, x)
    x4 = _high_multiply(x2, x2)
    tail = _shift_right_rounding(_high_multiply(_shift_right_rounding(x4, 2) + x3, third) + x2, 1)
    return exp_minus_eighth + _high_multiply(exp_minus_eighth, x + tail)


def _exp_on_negative_values(a: int) -> int:
    """exp of a ≤ 0 in Q5.26, as Q0.31."""
    if a == 0:
        return _ONE_Q31
    quarter = 1 << (_FRACTION_BITS - 2)
    part = (a & (quarter - 1)) - quarter
    result = _exp_near_zero(part << _INTEGER_BITS)
    remainder = part - a
    for position, factor in enumerate(_EXP_OF_POWERS):
        if remainder & (1 << (_FRACTION_BITS - 2 + position)):
            result = _high_multiply(result, factor)
    return result


def exponential_table(scale: float) -> NDArray[np.int32]:
    """exp(−d · scale) for d = 0…255, (256,) int32 in Q0.31; 0 beyond the radius that TFLite evaluates.

    Source: TFLite `softmax.cc` (PreprocessSoftmaxScaling, CalculateInputRadius) and `softmax.h`.

    Raises:
        ValueError: the scale is so small that TFLite's own arithmetic does not take it.
    """
    real = scale * 2.0**_FRACTION_BITS
    if real >= 2.0**30:  # The radius is 0: only the maximum itself counts.
        return np.array([_ONE_Q31] + [0] * 255, np.int32)
    multiplier, shift = quantize_multiplier(real)
    if shift < 0:
        raise ValueError(f"softmax of an input with the scale {scale}")
    radius = (31 * 2**_FRACTION_BITS) >> shift
    table = [
        _exp_on_negative_values(_high_multiply(-distance << shift, multiplier)) if distance <= radius else 0
        for distance in range(256)
    ]
    return np.array(table, np.int32)

"""Fixed-point requantisation with TFLite's arithmetic: the multipliers, and the integer expressions in TIR.

A real multiplier is stored as `multiplier / 2^31 * 2^shift` with `multiplier` in [2^30, 2^31) (TFLite,
`quantization_util.cc:QuantizeMultiplier`). The two ways of applying it differ in their rounding and both
occur in TFLite's reference kernels (`common.h:MultiplyByQuantizedMultiplier`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import tirx

__all__ = [
    "WideMultipliers",
    "float64_ulp_bound",
    "high_multiply_shifted",
    "product_for_single_rounding",
    "quantize_multiplier",
    "quantize_multipliers",
    "requantize_double_rounding",
    "round_as_float64",
    "round_half_away",
    "saturate",
    "shift_right_double_rounding",
    "shift_right_single_rounding",
    "wide_multipliers",
    "wide_product",
]

INT32_MAX = 2**31 - 1


def quantize_multiplier(real: float) -> tuple[int, int]:
    """Return `(multiplier, shift)` with real ≈ multiplier / 2^31 · 2^shift.

    A multiplier too small to matter (shift < −31) becomes (0, 0), as in TFLite.

    Raises:
        ValueError: `real` is negative, not finite or 2^30 and more.
    """
    if not math.isfinite(real) or real < 0:
        raise ValueError(f"a requantisation multiplier must be finite and not negative, not {real}")
    mantissa, shift = math.frexp(real)
    multiplier = math.floor(mantissa * 2**31 + 0.5)
    if multiplier == 2**31:
        multiplier //= 2
        shift += 1
    if shift < -31:
        return 0, 0
    if shift > 30:
        raise ValueError(f"the requantisation multiplier {real} is 2^30 or more")
    return multiplier, shift


def quantize_multipliers(
    reals: Sequence[float] | NDArray[np.float64],
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """`quantize_multiplier` of each real: multipliers and shifts, both (N,) int32."""
    pairs = [quantize_multiplier(float(real)) for real in reals]
    return (
        np.array([multiplier for multiplier, _ in pairs], np.int32),
        np.array([shift for _, shift in pairs], np.int32),
    )


def round_half_away(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round to the nearest integer, ties away from zero (C's `round`, TFLite's `TfLiteRound`)."""
    return np.trunc(values + np.copysign(0.5, values))


def _i32(value: int) -> Any:
    return tirx.const(value, "int32")


def _i64(value: int) -> Any:
    return tirx.const(value, "int64")


def _wide(value: Any) -> Any:
    return tirx.Cast("int64", value)


def _rounding_high_multiply(value: Any, multiplier: Any) -> Any:
    """SaturatingRoundingDoublingHighMul for multiplier ≥ 0: (value · multiplier + 2^30) >> 31, as int32.

    gemmlowp adds a nudge of 2^30 or 1 − 2^30 and divides towards zero; both are this floor. Saturation
    happens only for INT32_MIN · INT32_MIN, which a multiplier ≥ 0 excludes.
    """
    return tirx.Cast("int32", tirx.shift_right(_wide(value) * _wide(multiplier) + _i64(1 << 30), _i64(31)))


def _rounding_shift_right(value: Any, exponent: Any) -> Any:
    """RoundingDivideByPOT: value / 2^exponent, ties away from zero, without overflow at INT32_MAX."""
    mask = tirx.shift_left(_i32(1), exponent) - _i32(1)
    remainder = tirx.bitwise_and(value, mask)
    negative = tirx.Cast("int32", value < _i32(0))
    threshold = tirx.shift_right(mask, _i32(1)) + negative
    return tirx.shift_right(value, exponent) + tirx.Cast("int32", remainder > threshold)


def high_multiply_shifted(value: Any, multiplier: Any, shift: Any, shifts: NDArray[np.int32]) -> Any:
    """The first half of double rounding: (value · 2^max(shift, 0)) · multiplier / 2^31, rounded.

    Args:
        value: int32 expression.
        multiplier: int32 expression, the channel's multiplier.
        shift: int32 expression, the channel's shift (positive is to the left).
        shifts: all values that `shift` can take: what cannot happen is not generated.
    """
    if (shifts > 0).any():
        value = tirx.shift_left(value, shift if (shifts >= 0).all() else tirx.max(shift, _i32(0)))
    return _rounding_high_multiply(value, multiplier)


def shift_right_double_rounding(value: Any, shift: Any, shifts: NDArray[np.int32]) -> Any:
    """The second half of double rounding: value / 2^max(−shift, 0), ties away from zero."""
    if not (shifts < 0).any():
        return value
    return _rounding_shift_right(value, -shift if (shifts <= 0).all() else tirx.max(-shift, _i32(0)))


def requantize_double_rounding(value: Any, multiplier: Any, shift: Any, shifts: NDArray[np.int32]) -> Any:
    """TFLite's MultiplyByQuantizedMultiplier with two roundings, on an int32 TIR expression."""
    return shift_right_double_rounding(high_multiply_shifted(value, multiplier, shift, shifts), shift, shifts)


def product_for_single_rounding(value: Any, multiplier: Any, shifts: NDArray[np.int32]) -> Any:
    """The first half of single rounding: value · multiplier, in 64 bits; its high word where that is enough.

    Args:
        value: int32 expression.
        multiplier: int32 expression, the channel's multiplier.
        shifts: all shifts that occur (positive is to the left).
    """
    product = _wide(value) * _wide(multiplier)
    return tirx.Cast("int32", tirx.shift_right(product, _i64(32))) if (shifts <= -2).all() else product


def shift_right_single_rounding(product: Any, shift: Any, shifts: NDArray[np.int32]) -> Any:
    """The second half: value · multiplier / 2^31 · 2^shift with one rounding, halves upwards, as int32.

    Half of the last place is a whole number of high words where every shift is −2 or less, so that what is
    below the high word has no say.
    """
    if (shifts <= -2).all():
        half = tirx.shift_left(_i32(1), -shift - _i32(2))
        return tirx.shift_right(product + half, -shift - _i32(1))
    total = _i64(31) - _wide(shift)
    half = tirx.shift_left(_i64(1), total - _i64(1))
    whole = tirx.shift_right(product + half, total)
    if (shifts > 0).any():
        # A shift to the left may leave 32 bits; the output is 8 bits wide, whatever it is beyond them.
        whole = tirx.max(tirx.min(whole, _i64(INT32_MAX // 2)), _i64(-INT32_MAX // 2))
    return tirx.Cast("int32", whole)


@dataclass(frozen=True, slots=True, eq=False)
class WideMultipliers:
    """Float64 multipliers as integers: real = (high · 2^32 + low) / 2^shift; all (N,).

    `high` (int32) has 21 bits, `low` is uint32, `shift` (int32) is 33…95.
    """

    high: NDArray[np.int32]
    low: NDArray[np.uint32]
    shift: NDArray[np.int32]


def wide_multipliers(reals: NDArray[np.float64]) -> WideMultipliers:
    """The 53 bits of each multiplier. One under 2^-33, which takes every int32 to 0, becomes 0.

    Raises:
        ValueError: a multiplier is negative, not finite or 2^20 and more.
    """
    high, low, shifts = [], [], []
    for real in reals.tolist():
        if not math.isfinite(real) or not 0 <= real < 2.0**20:
            raise ValueError(f"a requantisation multiplier must be in [0, 2^20), not {real}")
        mantissa, exponent = math.frexp(real if real >= 2.0**-33 else 0.0)
        integer = int(mantissa * 2.0**53)
        high.append(integer >> 32)
        low.append(integer & (2**32 - 1))
        shifts.append(53 - exponent)
    return WideMultipliers(np.array(high, np.int32), np.array(low, np.uint32), np.array(shifts, np.int32))


def wide_product(magnitude: Any, part: Any) -> Any:
    """|accumulator| times the high or low part of its multiplier, as int64."""
    return _wide(magnitude) * _wide(part)


def _rounded_wide_product(high: Any, low: Any, shift: Any) -> Any:
    """(high · 2^32 + low) / 2^shift as int64, rounded to nearest, halves upwards."""
    half = tirx.shift_left(_i64(1), _wide(shift) - _i64(33))
    carried = high + tirx.shift_right(low, _i64(32)) + half
    return tirx.shift_right(carried, _wide(shift) - _i64(32))


def float64_ulp_bound(high: Any, low: Any, shift: Any) -> Any:
    """The largest power of two up to the rounded product, times 4; 1 for a product of 0. int32.

    It is the exponent of a float64 just under the half that follows the rounded product. Products of 256 and
    more are beyond every clamp; they are limited to 255.
    """
    rounded = tirx.Cast("int32", tirx.min(_rounded_wide_product(high, low, shift), _i64(255)))
    smeared = rounded
    for distance in (1, 2, 4):
        smeared = tirx.bitwise_or(smeared, tirx.shift_right(smeared, _i32(distance)))
    power = smeared - tirx.shift_right(smeared, _i32(1))
    return tirx.max(tirx.shift_left(power, _i32(2)), _i32(1))


def round_as_float64(high: Any, low: Any, shift: Any, quarters: Any) -> Any:
    """round(float64(a) · real), halves away from zero, of a ≥ 0; int32, limited to 256.

    Float64 rounds the product to 53 bits first: what lies half an ulp or less under a half becomes that half.
    So half an ulp, 2^(shift − 55) times `quarters` (float64_ulp_bound), is added before halves go up.
    """
    exponent = _wide(shift) - _i64(55)
    half_ulp = tirx.shift_right(
        tirx.shift_left(_wide(quarters), tirx.max(exponent, _i64(0))), tirx.max(-exponent, _i64(0))
    )
    return tirx.Cast("int32", tirx.min(_rounded_wide_product(high, low + half_ulp, shift), _i64(256)))


def saturate(value: Any, low: int, high: int, dtype: str = "int8") -> Any:
    """Clamp an int32 expression to [low, high] and narrow it."""
    return tirx.Cast(dtype, tirx.min(tirx.max(value, _i32(low)), _i32(high)))

"""Functions of one int8 tensor as tables of 256 entries, computed at compile time.

An int8 tensor has 256 values, so any elementwise function of it alone is a table, whatever it costs to
compute. The reals are float32, as LiteRT and ONNX Runtime compute them: sums, products and quotients are
rounded to float32 one by one, and elementary functions (exp, tanh, erf, …) are evaluated in float64 and then
rounded, so that the same table comes out on every host whatever its libm.

Entry q + 128 of a table belongs to the stored value q. Where LiteRT computes an operator in fixed point the
entries follow that arithmetic (`fixed_…`); the rules are in docs/arithmetic.md.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgekit.artifacts import Quantization
from edgekit.compiler.fixed_point import quantize_multiplier, round_half_away
from edgekit.compiler.operators import Multiply, Requantize

__all__ = [
    "ENTRIES",
    "Int8Table",
    "Reals",
    "elementary",
    "elu",
    "fixed_absolute",
    "fixed_add",
    "fixed_divide",
    "fixed_hard_swish",
    "fixed_leaky_relu",
    "fixed_multiply",
    "fixed_product",
    "fixed_requantize",
    "fixed_rsqrt",
    "reals_of",
    "reciprocal",
    "rounded",
    "stored_values",
    "truncated_sqrt",
    "wrapped_negative",
]

ENTRIES = 256

Reals = NDArray[np.float32]
"""(256,), the result for each stored value −128 … 127."""
Int8Table = NDArray[np.int8]
"""(256,), the stored result for each stored value −128 … 127."""
Int64Array = NDArray[np.int64]


def stored_values() -> Int64Array:
    """Every value that an int8 tensor stores, in the order of a table's entries."""
    return np.arange(-128, 128, dtype=np.int64)


_STORED = stored_values()


def reals_of(quantization: Quantization) -> Reals:
    """What each stored value stands for: scale · (q − zero_point), one float32 product."""
    centred = (_STORED - quantization.zero_point).astype(np.float32)
    return np.asarray(np.float32(quantization.scale) * centred)


def rounded(values: NDArray[np.generic], quantization: Quantization) -> Int8Table:
    """Real results as stored values: round(v · (1 / scale)) + zero_point, saturated; NaN gives −128.

    The reciprocal, the product and the sum are float32, halves go away from zero. LiteRT leaves NaN and what
    does not fit int32 undefined; here they saturate by sign. Source: `common.h: LUTPopulateInt8`.
    """
    with np.errstate(all="ignore"):
        steps = values.astype(np.float32) * (np.float32(1.0) / np.float32(quantization.scale))
        whole = round_half_away(steps.astype(np.float64)).astype(np.float32)
        shifted = whole + np.float32(quantization.zero_point)
    shifted = np.where(np.isnan(shifted), np.float32(-128), shifted)
    return np.asarray(np.clip(shifted, -128, 127)).astype(np.int8)


def elementary(function: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Callable[[Reals], Reals]:
    """A function of float32 that is evaluated in float64 and rounded once."""

    def evaluate(values: Reals) -> Reals:
        with np.errstate(all="ignore"):
            return np.asarray(function(values.astype(np.float64))).astype(np.float32)

    return evaluate


# --- fixed point -----------------------------------------------------------------------------------


def _clamped(values: Int64Array) -> Int8Table:
    return np.asarray(np.clip(values, -128, 127)).astype(np.int8)


def _high_multiply(values: Int64Array, multiplier: int) -> Int64Array:
    return np.asarray((values * multiplier + (1 << 30)) >> 31)


def _round_shift(values: Int64Array, exponent: int) -> Int64Array:
    """values / 2^exponent, halves away from zero."""
    mask = (1 << exponent) - 1
    return np.asarray((values >> exponent) + ((values & mask) > (mask >> 1) + (values < 0)))


def _double(values: Int64Array, multiplier: int, shift: int) -> Int64Array:
    """LiteRT's MultiplyByQuantizedMultiplier with two roundings; a shift to the left wraps as int32."""
    shifted = (values << max(shift, 0)).astype(np.int32).astype(np.int64)
    return _round_shift(_high_multiply(shifted, multiplier), max(-shift, 0))


def _scaled(values: Int64Array, real: float) -> Int64Array:
    return _double(values, *quantize_multiplier(real))


def fixed_add(
    first: Int64Array, second: Int64Array, scales: tuple[float, float], output: Quantization, *, sign: int = 1
) -> Int8Table:
    """ADD, or SUB with sign −1, of two centred operands (stored − zero point). `add.h: AddElementwise`"""
    twice_max = 2.0 * max(scales)
    left = _scaled(first << 20, scales[0] / twice_max)
    right = _scaled(second << 20, scales[1] / twice_max)
    total = _scaled(left + sign * right, twice_max / (2.0**20 * output.scale))
    return _clamped(total + output.zero_point)


def fixed_requantize(operator: Requantize) -> Int8Table:
    """What the operator stores for each value. `requantize.h: Requantize`"""
    values = _STORED - operator.input_zero_point
    if operator.rescale is not None:
        values = _double(values, operator.rescale.multiplier, operator.rescale.shift)
    shifted = values + operator.output_zero_point
    return np.asarray(np.clip(shifted, operator.clamp.low, operator.clamp.high)).astype(np.int8)


def fixed_product(operator: Multiply, first: NDArray[np.int8], second: NDArray[np.int8]) -> Int8Table:
    """What the operator stores for pairs of stored values. `integer_ops/mul.h`"""
    left, right = (values.astype(np.int64) for values in (first, second))
    product = (left - operator.zero_points[0]) * (right - operator.zero_points[1])
    rescaled = _double(product, operator.rescale.multiplier, operator.rescale.shift)
    shifted = rescaled + operator.output_zero_point
    return np.asarray(np.clip(shifted, operator.clamp.low, operator.clamp.high)).astype(np.int8)


def fixed_multiply(
    first: Int64Array, second: Int64Array, scales: tuple[float, float], output: Quantization
) -> Int8Table:
    """MUL of two centred operands. `mul.cc: Prepare` (float32 scales), `integer_ops/mul.h`"""
    real = np.float32(scales[0]) * np.float32(scales[1]) / np.float32(output.scale)
    return _clamped(_scaled(first * second, float(real)) + output.zero_point)


def fixed_divide(
    first: Int64Array, second: Int64Array, scales: tuple[float, float], output: Quantization
) -> Int8Table:
    """DIV of two centred operands. `div.cc: Prepare` (float32 scales), `div.h: DivElementwise`

    LiteRT stops at a divisor of 0; here the quotient saturates by the sign of the dividend, 0 / 0 gives −128.
    Quotients under a step make it shift by more than 31 bits, which is undefined; here they are rounded.
    """
    real = np.float32(scales[0]) / (np.float32(scales[1]) * np.float32(output.scale))
    multiplier, shift = quantize_multiplier(float(real))
    dividends, divisors = np.broadcast_arrays(first, second)
    table = np.empty(ENTRIES, np.int64)
    for index, (dividend, divisor) in enumerate(zip(dividends.tolist(), divisors.tolist(), strict=True)):
        if divisor == 0:
            table[index] = 127 if dividend > 0 else -128
            continue
        if divisor < 0:
            dividend, divisor = -dividend, -divisor
        bits = divisor.bit_length()
        inverse = reciprocal((divisor << (32 - bits)) - 2**31)
        headroom = 31 - (dividend if dividend >= 0 else ~dividend).bit_length()
        quotient = _double(np.array(dividend, np.int64), inverse, headroom)
        total = shift - (bits - 1) - headroom
        table[index] = _double(quotient, multiplier, total) + output.zero_point
    return _clamped(table)


def reciprocal(fraction: int) -> int:
    """1 / (1 + a) for a in [0, 1), Q0.31 in and out. gemmlowp `one_over_one_plus_x_for_x_in_0_1`"""

    def multiply(a: int, b: int) -> int:
        return (a * b + (1 << 30)) >> 31

    def saturated(value: int) -> int:
        return max(min(value, 2**31 - 1), -(2**31))

    half = (fraction + 2**31) // 2
    estimate = 1515870810 + multiply(half, -1010580540)
    for _ in range(3):
        estimate += saturated(multiply(estimate, (1 << 29) - multiply(half, estimate)) << 2)
    return saturated(estimate << 1)


def elu(source: Quantization, output: Quantization) -> Int8Table:
    """ELU by exp(x) − 1 in one function. `activations.cc: EluPrepare`"""
    values = reals_of(source)
    return rounded(np.where(values < 0, elementary(np.expm1)(values), values), output)


def fixed_absolute(source: Quantization, output: Quantization) -> Int8Table:
    """ABS. `elementwise.cc: AbsEvalQuantized`; the quotient of the scales is float32."""
    magnitude = np.abs(_STORED - source.zero_point)
    before, after = np.float32(source.scale), np.float32(output.scale)
    if before != after:
        magnitude = _scaled(magnitude, float(before / after))
    return _clamped(magnitude + output.zero_point)


def fixed_leaky_relu(source: Quantization, output: Quantization, slope: float) -> Int8Table:
    """LEAKY_RELU. `activations.cc: LeakyReluPrepare`, `leaky_relu.h: QuantizeLeakyRelu`; float32 factors."""
    centred = _STORED - source.zero_point
    scale = np.float32(source.scale)
    steep = float(scale * np.float32(slope) / np.float32(output.scale))
    positive = _scaled(centred, float(scale / np.float32(output.scale)))
    negative = _scaled(centred, abs(steep)) * (-1 if steep < 0 else 1)
    return _clamped(np.where(centred >= 0, positive, negative) + output.zero_point)


def _to_int16(multiplier: int) -> int:
    """`activations.cc: DownScaleInt32ToInt16Multiplier`"""
    return 2**15 - 1 if multiplier >= 2**31 - 1 - 2**15 else (multiplier + 2**15) >> 16


def _high_multiply16(values: Int64Array, multiplier: int) -> Int64Array:
    return np.asarray((values * multiplier + (1 << 14)) >> 15)


def fixed_hard_swish(source: Quantization, output: Quantization) -> Int8Table:
    """HARD_SWISH in 16-bit fixed point. `activations.cc: HardSwishPrepare`, `hard_swish.h`

    Raises:
        ValueError: an output scale under 1/128 of the input's, which LiteRT refuses.
    """
    fine = np.float32(1.0 / 128.0) * np.float32(source.scale)
    multiplier, exponent = quantize_multiplier(float(fine / np.float32(output.scale)))
    if exponent > 0:
        raise ValueError("hard-swish to a scale under 1/128 of its input's")
    ramp, ramp_exponent = quantize_multiplier(float(fine / np.float32(3.0 / 32768.0)))
    values = (_STORED - source.zero_point) << 7
    unshifted = _high_multiply16(values, _to_int16(multiplier))
    gate = values
    if ramp_exponent > 0:
        gate = np.clip(gate << (ramp_exponent - 1), -(2**15), 2**15 - 1)
    gate = _high_multiply16(gate, _to_int16(ramp))
    if ramp_exponent > 0:
        gate = np.clip(gate << 1, -(2**15), 2**15 - 1)
    if ramp_exponent < 0:
        gate = _round_shift(gate, -ramp_exponent)
    gate = (gate + (1 << 15)) >> 1
    # This one product rounds towards zero.
    product = gate * unshifted
    unshifted = np.where(product < 0, -(-product >> 15), product >> 15)
    return _clamped(_round_shift(unshifted, -exponent) + output.zero_point)


def _inverse_sqrt(value: int) -> tuple[int, int]:
    """(multiplier, shift) with 1 / sqrt(value) ≈ multiplier · 2^(shift − 31), for value ≥ 2 below 2^29.

    Five Newton steps in Q3.28. `common.h: GetInvSqrtQuantizedMultiplierExp`
    """

    def multiply(a: int, b: int) -> int:
        return (a * b + (1 << 30)) >> 31

    def rescaled(raw: int, bits: int) -> int:
        return max(min(raw << bits, 2**31 - 1), -(2**31))

    pairs = (32 - value.bit_length() - 1) // 2 - 1
    shift = 11 - pairs
    number = (value << (2 * pairs)) >> 1
    half = int(_round_shift(np.array(number, np.int64), 1))
    estimate = 1 << 28
    for _ in range(5):
        cube = rescaled(multiply(multiply(estimate, estimate), estimate), 6)
        # Both products are Q6.25; their difference back to Q3.28.
        estimate = rescaled(multiply((1 << 28) + (1 << 27), estimate) - multiply(half, cube), 3)
    estimate = multiply(estimate, 1518500250)
    if shift < 0:
        estimate, shift = estimate << -shift, 0
    return estimate, -shift


def fixed_rsqrt(source: Quantization, output: Quantization) -> Int8Table:
    """RSQRT; real 0 gives 127. `elementwise.cc: RsqrtEvalQuantizedInt8`

    LiteRT stops at a negative input; here it gives −128, as every NaN.
    """
    scale = np.sqrt(np.float32(source.scale)) * np.float32(output.scale)
    multiplier, shift = quantize_multiplier(1.0 / float(scale))
    table = np.full(ENTRIES, -128, np.int64)
    one = np.array(1, np.int64)
    for index, centred in enumerate((_STORED - source.zero_point).tolist()):
        if centred == 0:
            table[index] = 127
        elif centred > 0:
            inverse, exponent = (2**31 - 1, 0) if centred == 1 else _inverse_sqrt(centred)
            fraction = _double(one, inverse, exponent + 20)
            table[index] = _double(fraction, multiplier, shift - 20) + output.zero_point
    return _clamped(table)


def truncated_sqrt(source: Quantization, output: Quantization) -> Int8Table:
    """SQRT, towards zero. `elementwise.cc: SqrtEvalQuantized`

    LiteRT stops at a negative input; here it gives −128, as every NaN.
    """
    with np.errstate(invalid="ignore"):
        steps = np.sqrt(reals_of(source)) / np.float32(output.scale)
    whole = np.trunc(np.where(np.isnan(steps), np.float32(-512), steps)).astype(np.int64)
    return _clamped(np.where(np.isnan(steps), -128, whole + output.zero_point))


def wrapped_negative() -> Int8Table:
    """NEG: the stored value negated, −128 staying itself. `neg.h: Negate`"""
    return (-_STORED).astype(np.int8)
